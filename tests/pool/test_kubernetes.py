"""A Service of Kubernetes, followed: with an API server in memory, and with one over HTTPS."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.ssl import DefaultOpenSSLContextFactory
from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher
from twisted.web.server import Site

from gatewayd.config import GatewayConfig, load_flow_text
from gatewayd.errors import ConfigError
from gatewayd.pool.cluster import Cluster, in_cluster
from gatewayd.pool.dns import HostName, NamedReplicas
from gatewayd.pool.endpoint_slices import MOST_BYTES
from gatewayd.pool.kubernetes import ApiError, ApiServer, FollowedService
from gatewayd.pool.pool import Pool
from gatewayd.pool.steps import AT_ONCE
from gatewayd.pool.watching import ByName, Watched, addresses_and_names
from gatewayd.rpc.channel import ChannelSettings
from gatewayd.schemes import ServiceName
from gatewayd.status import status_of, with_followed
from tests.certificates import make
from tests.paths import ROOT
from tests.pool.api_server import FakeApi, RecordedServer, endpoint, event, slice_of, slices
from tests.pool.fakes import ANSWER, CALL, FakeChannel, Sent, external
from tests.processes import environment
from tests.waiting import until_on_reactor

ONE, TWO = slice_of("a", endpoint("10.0.0.1")), slice_of("a", endpoint("10.0.0.1"), endpoint("10.0.0.2"))


class Told:
    """A set of replicas; ``left`` are those that were retired."""

    deployment = "encoder"

    def __init__(self) -> None:
        self.why_empty = "no replica is running"
        self.connected = True
        self.addresses: set[str] = set()
        self.hosts: set[str | None] = set()
        self.left: list[str] = []
        self.why: list[str] = []
        self.on_change: Callable[[], object] = lambda: None

    def add(self, address: str, host: str | None = None) -> None:
        assert address not in self.addresses
        self.addresses.add(address)
        self.hosts.add(host)
        self.on_change()

    def retire(self, address: str) -> Deferred[None]:
        self.addresses.remove(address)
        self.left.append(address)
        self.on_change()
        return succeed(None)

    def not_found(self, why: str) -> None:
        self.why.append(why)


class ByDns:
    """What looks a name up: the test says what is found."""

    how = ""

    def __init__(self, name: HostName, replicas: Watched, known: frozenset[str]) -> None:
        self.name = name
        self.replicas = replicas
        self.known = known
        self.events: list[str] = []

    def start(self) -> None:
        self.events.append("start")

    def refresh_soon(self) -> None:
        self.events.append("refresh")

    def close(self) -> None:
        self.events.append("close")


class Setup:
    def __init__(
        self,
        address: str = "kubernetes://encoder:80",
        *,
        in_cluster: bool = True,
        choose: Callable[[Collection[str]], frozenset[str]] = frozenset,
        clock: Clock | None = None,
    ) -> None:
        self.api = FakeApi()
        self.clock = clock or Clock()
        self.told = Told()
        self.lookups: list[ByDns] = []
        service = ServiceName.of(address)
        assert service is not None
        api: ApiServer | None = self.api if in_cluster else None
        self.followed = FollowedService(
            service, self.told, api, self.clock, lambda: 0.5, self._by_name, choose
        )
        self.followed.start()

    def _by_name(self, name: HostName, replicas: Watched, known: frozenset[str]) -> ByDns:
        self.lookups.append(ByDns(name, replicas, known))
        return self.lookups[-1]

    def watching(self, *items: Any) -> Any:
        """Listed, and the watch that follows, which the API server has begun to answer."""
        self.api.next().ends(body=slices(*items))
        self.clock.advance(0.0)
        watch = self.api.next()
        watch.on_begin()
        self.clock.advance(0.5)
        return watch


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What is logged."""
    seen: list[str] = []

    def observe(found: Any) -> None:
        if found.get("log_namespace") == "gatewayd.pool.kubernetes":
            seen.append(f"{found['log_level'].name}: {formatEvent(found)}")

    globalLogPublisher.addObserver(observe)
    yield seen
    globalLogPublisher.removeObserver(observe)


class Turns(Clock):
    """Counts the turns of a reactor in which something is done."""

    turn = 0

    def callLater(self, delay: float, callable: Callable[..., object], *args: object, **kw: object) -> Any:
        def run() -> None:
            self.turn += 1
            callable(*args, **kw)

        return super().callLater(delay, run)


def test_very_many_pods_come_and_go_some_in_each_turn() -> None:
    clock, turns = Turns(), list[int]()
    setup = Setup(clock=clock)
    setup.told.on_change = lambda: turns.append(clock.turn)
    many = [
        slice_of(f"s-{each}", *(endpoint(f"10.1.{each}.{host}") for host in range(AT_ONCE)))
        for each in range(5)
    ]

    watch = setup.watching(*many, ONE)
    assert len(setup.told.addresses) == 5 * AT_ONCE + 1
    for each in many:
        clock.turn += 1
        watch.on_data(event("DELETED", each))
    setup.clock.advance(1.0)

    assert setup.told.addresses == {"10.0.0.1:80"}
    assert len(turns) == 2 * 5 * AT_ONCE + 1
    assert max(Counter(turns).values()) == AT_ONCE


def test_nothing_comes_after_the_end_of_one_that_is_taking_very_many() -> None:
    setup = Setup(clock=Turns())
    many = slice_of("s", *(endpoint(f"10.1.0.{host}") for host in range(2 * AT_ONCE)))

    def close() -> None:
        if len(setup.told.addresses) == 9:
            setup.followed.close()

    setup.told.on_change = close
    setup.api.next().ends(body=slices(many))
    setup.clock.advance(60.0)

    assert len(setup.told.addresses) == AT_ONCE


def test_what_changes_while_very_many_are_taken_is_taken_after_them() -> None:
    setup = Setup()
    many = slice_of("s", *(endpoint(f"10.1.0.{host}") for host in range(2 * AT_ONCE)))
    watch = setup.watching(ONE)

    def end_them() -> None:
        if len(setup.told.addresses) == AT_ONCE:
            setup.clock.rightNow += 1.0
            watch.on_data(event("DELETED", many))

    setup.told.on_change = end_them
    watch.on_data(event("ADDED", many))
    setup.clock.advance(1.0)

    assert setup.told.addresses == {"10.0.0.1:80"}
    assert len(setup.told.left) == 2 * AT_ONCE


def test_slices_are_listed_and_watched_from_their_version_on(lines: list[str]) -> None:
    setup = Setup()
    listing = setup.api.asked[0]
    assert listing.path.startswith("/apis/discovery.k8s.io/v1/namespaces/search/endpointslices?")
    assert listing.query == {"labelSelector": "kubernetes.io/service-name=encoder", "resourceVersion": "0"}
    watch = setup.watching(TWO)
    assert watch.query["resourceVersion"] == "7"
    assert watch.query["allowWatchBookmarks"] == "true"
    watch.on_data(event("MODIFIED", slice_of("a", endpoint("10.0.0.2"), endpoint("10.0.0.3"), version="8")))

    assert setup.told.addresses == {"10.0.0.2:80", "10.0.0.3:80"}
    assert setup.told.left == ["10.0.0.1:80"]
    assert setup.told.hosts == {"encoder.search.svc"}
    assert setup.followed.how == "EndpointSlices"
    assert lines[-1].endswith("has 2 replicas that are ready; new: 10.0.0.3:80; gone: 10.0.0.1:80")
    setup.followed.close()
    assert not setup.clock.getDelayedCalls()


def test_a_watch_that_has_lasted_is_followed_by_another_at_once() -> None:
    setup = Setup("kubernetes://encoder.other:80")
    watch = setup.watching(ONE)
    assert "/namespaces/other/" in watch.path
    watch.on_data(event("BOOKMARK", {"metadata": {"resourceVersion": "40"}}))
    setup.clock.advance(120)
    watch.ends()

    assert setup.api.next().query["resourceVersion"] == "40"
    assert setup.told.addresses == {"10.0.0.1:80"}


def test_watches_that_end_at_once_are_asked_for_less_and_less_often() -> None:
    setup = Setup()
    setup.watching(ONE).ends()
    asked = 0
    for _ in range(600):
        for each in setup.api.asked:
            asked += 1
            each.ends()
        setup.api.asked.clear()
        setup.clock.advance(0.1)

    assert 5 <= asked <= 9


def test_a_version_that_has_expired_has_all_listed_anew() -> None:
    setup = Setup()
    watch = setup.watching(ONE)
    setup.clock.advance(60)
    watch.on_data(event("ERROR", {"kind": "Status", "code": 410, "message": "too old"}))
    assert setup.told.addresses == {"10.0.0.1:80"}
    setup.clock.advance(1)
    listing = setup.api.next()
    assert "resourceVersion" not in listing.query
    listing.ends(body=slices(TWO, version="99"))
    assert setup.told.addresses == {"10.0.0.1:80", "10.0.0.2:80"}
    # As a status, too.
    setup.api.next().ends(status=410)
    setup.clock.advance(2)

    assert not setup.api.next().watches
    assert setup.told.why == []


def test_while_the_api_server_cannot_be_asked_replicas_stay_and_it_is_told_once(lines: list[str]) -> None:
    setup = Setup()
    setup.watching(ONE).answer.errback(ApiError("ConnectionRefusedError: refused"))
    times = []
    for _ in range(1000):
        for each in setup.api.asked:
            times.append(setup.clock.seconds())
            each.answer.errback(ApiError("ConnectionRefusedError: refused"))
        setup.api.asked.clear()
        setup.clock.advance(0.1)
    pauses = [later - before for before, later in pairwise(times)]

    assert setup.told.addresses == {"10.0.0.1:80"}
    assert setup.told.why[0] == "encoder.search.svc cannot be followed: ConnectionRefusedError: refused"
    assert setup.followed.how == "EndpointSlices (interrupted)"
    assert [line.partition(":")[0] for line in lines] == ["info", "warn"]
    assert pauses[0] < 2
    assert max(pauses) < 31
    assert len(times) < 12
    # The watch goes on where it was.
    setup.clock.advance(40)
    watch = setup.api.next()
    assert watch.query["resourceVersion"] == "7"
    watch.on_begin()
    assert setup.followed.how == "EndpointSlices"
    assert lines[-1] == "info: encoder: encoder.search.svc is followed again"


def test_an_api_server_that_says_nothing_more_is_asked_anew() -> None:
    setup = Setup()
    setup.watching(ONE)
    setup.clock.advance(139)
    assert not setup.api.asked
    setup.clock.advance(2)
    setup.clock.advance(1)

    assert setup.api.next().watches
    assert setup.told.why == ["encoder.search.svc cannot be followed: the API server has fallen silent"]


def test_what_the_api_server_should_not_send_is_bounded_and_told() -> None:
    setup = Setup()
    watch = setup.watching(ONE)
    watch.on_data(b"nonsense\n")
    setup.clock.advance(1)
    listing = setup.api.next()
    assert not listing.watches
    listing.on_data(b"x" * MOST_BYTES)
    listing.on_data(b"x")
    setup.clock.advance(2)
    setup.api.next().ends(status=500)
    setup.clock.advance(3)
    setup.api.next().ends(body=b"<html>")
    setup.clock.advance(5)

    assert not setup.api.next().watches
    assert [why.partition(": ")[2].partition(":")[0] for why in setup.told.why] == [
        "the API server sends no JSON",
        f"the API server sends a list of more than {MOST_BYTES} bytes",
        "the API server answers 500",
        "the API server sends no JSON",
    ]
    assert setup.told.addresses == {"10.0.0.1:80"}


def test_without_the_right_names_are_looked_up_until_it_is_given(lines: list[str]) -> None:
    setup = Setup()
    setup.api.next().ends(status=403)
    (lookup,) = setup.lookups
    assert (lookup.name.label, lookup.events) == ("encoder.search.svc:80", ["start"])
    assert setup.followed.how == "DNS (no right to watch EndpointSlices)"
    lookup.replicas.add("10.0.0.1:80", "encoder.search.svc")
    lookup.replicas.add("10.0.0.9:80", "encoder.search.svc")
    setup.followed.refresh_soon()
    assert lookup.events == ["start", "refresh"]
    # It may list by now, but not watch.
    setup.clock.advance(6)
    setup.api.next().ends(body=slices(TWO))
    setup.api.next().ends(status=403)
    assert setup.told.addresses == {"10.0.0.1:80", "10.0.0.9:80"}
    assert len(lines) == 1
    assert "give its service account list and watch of endpointslices" in lines[0]
    setup.clock.advance(12)
    watch = setup.watching(TWO)
    watch.on_data(b"")

    assert lookup.events == ["start", "refresh", "close"]
    assert setup.told.addresses == {"10.0.0.1:80", "10.0.0.2:80"}
    assert setup.told.left == ["10.0.0.9:80"]
    assert setup.followed.how == "EndpointSlices"


def test_what_was_followed_is_looked_up_once_the_right_is_gone_and_pods_that_ended_leave() -> None:
    clock, told, api = Clock(), Told(), FakeApi()
    found: list[str] = ["10.0.0.2"]
    service = ServiceName.of("kubernetes://encoder:80")
    assert service is not None

    def by_name(name: HostName, replicas: Watched, known: frozenset[str]) -> NamedReplicas:
        return NamedReplicas(name, replicas, lambda host: succeed(found), clock, 30.0, known=known)

    followed = FollowedService(service, told, api, clock, lambda: 0.5, by_name)
    followed.start()
    api.next().ends(body=slices(TWO))
    clock.advance(2)
    api.next().ends(status=403)

    assert told.addresses == {"10.0.0.2:80"}
    assert told.left == ["10.0.0.1:80"]
    followed.close()


def test_pods_that_are_still_being_taken_when_the_right_goes_are_taken_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    setup = Setup()
    get = setup.api.get

    def refusing(path: str, on_begin: Any, on_data: Any) -> Any:
        if "watch=1" in path:
            setup.clock.callLater(0, lambda: setup.api.next().ends(status=403))
        return get(path, on_begin, on_data)

    monkeypatch.setattr(setup.api, "get", refusing)
    pods = [endpoint(f"10.0.{number // 250}.{number % 250}") for number in range(350)]
    setup.api.next().ends(body=slices(slice_of("a", *pods)))
    setup.clock.advance(1)

    (lookup,) = setup.lookups
    assert setup.told.addresses == lookup.known
    assert 0 < len(lookup.known) < 350


def test_while_nothing_is_known_yet_an_api_server_that_cannot_be_reached_is_no_outage(
    lines: list[str],
) -> None:
    setup = Setup()
    for _ in range(3):
        setup.api.next().answer.errback(ApiError("TimeoutError: no answer"))
        setup.clock.advance(5)
    (lookup,) = setup.lookups
    lookup.replicas.add("10.0.0.9:80", "encoder.search.svc")
    assert setup.followed.how == "DNS (the API server cannot be asked)"
    assert len(lines) == 1
    setup.watching(ONE)

    assert setup.told.left == ["10.0.0.9:80"]
    assert setup.followed.how == "EndpointSlices"


def test_outside_of_a_cluster_names_are_looked_up(lines: list[str]) -> None:
    setup = Setup("kubernetes://encoder.search:80", in_cluster=False)

    assert [each.name.label for each in setup.lookups] == ["encoder.search.svc:80"]
    assert setup.followed.how == "DNS (not in a cluster)"
    assert len(lines) == 1
    setup.followed.close()
    assert setup.lookups[0].events == ["start", "close"]


def test_a_subset_of_the_pods_is_called() -> None:
    setup = Setup(choose=lambda addresses: frozenset(sorted(addresses)[:1]))
    setup.watching(TWO)

    assert setup.told.addresses == {"10.0.0.1:80"}


def test_changes_in_quick_succession_are_taken_together() -> None:
    looked: list[int] = []

    def choose(addresses: Collection[str]) -> frozenset[str]:
        looked.append(len(addresses))
        return frozenset(addresses)

    setup = Setup(choose=choose)
    watch = setup.watching()
    for number in range(100):
        watch.on_data(event("ADDED", slice_of(f"s-{number}", endpoint(f"10.0.1.{number}"), version="9")))
        setup.clock.advance(0.01)
    setup.clock.advance(0.25)

    assert len(setup.told.addresses) == 100
    # The list, the first change at once, then four times a second.
    assert looked[:2] == [0, 1]
    assert len(looked) == 6
    watch.on_data(event("DELETED", slice_of("s-1")))
    watch.on_data(event("DELETED", slice_of("s-2")))
    setup.followed.close()
    assert not setup.clock.getDelayedCalls()


def test_a_pool_calls_pods_and_lets_those_finish_that_end() -> None:
    clock, api = Clock(), FakeApi()
    channels: dict[str, FakeChannel] = {}

    def follow(service: ServiceName, replicas: Watched, by_name: ByName) -> FollowedService:
        return FollowedService(service, replicas, api, clock, lambda: 0.5, by_name)

    def connect(address: str, settings: ChannelSettings, on_state: Callable[[Any], None]) -> FakeChannel:
        channels[address] = FakeChannel(address, settings, on_state)
        return channels[address]

    pool = Pool(
        GatewayConfig(),
        [external("kubernetes://encoder:80")],
        connect=connect,
        watch=addresses_and_names(lambda host: Deferred(), clock, 30.0, follow=follow),
        clock=clock,
        dice=random.Random(1),
    )
    api.next().ends(body=slices(ONE))
    watch = api.next()
    watch.on_begin()
    clock.advance(0.5)
    channels["10.0.0.1:80"].set_state("ready")
    channels["10.0.0.1:80"].answer_discovery()
    under_way = Sent(pool.send("a", CALL, None))
    ending = endpoint("10.0.0.1", terminating=True)
    watch.on_data(event("MODIFIED", slice_of("a", ending, endpoint("10.0.0.2"), version="8")))
    channels["10.0.0.2:80"].set_state("ready")
    channels["10.0.0.2:80"].answer_discovery()
    later = Sent(pool.send("a", CALL, None))
    channels["10.0.0.2:80"].answer()
    assert not channels["10.0.0.1:80"].closed
    channels["10.0.0.1:80"].answer()

    assert (under_way.result, later.result) == (ANSWER, ANSWER)
    assert channels["10.0.0.1:80"].closed
    assert channels["10.0.0.2:80"].settings.host == "encoder.search.svc"
    assert with_followed(status_of(), pool.followed())["jina"]["gatewayd-kubernetes"] == "1 by EndpointSlices"
    assert "gatewayd-kubernetes" not in with_followed(status_of(), {})["jina"]
    pool.close()
    assert not clock.getDelayedCalls()


def test_without_a_pod_that_is_ready_clients_are_told_so() -> None:
    setup = Setup()
    watch = setup.watching()
    assert setup.told.why_empty == "no pod of encoder.search.svc is ready"
    watch.on_data(event("ADDED", ONE))
    setup.clock.advance(0.5)
    watch.on_data(event("DELETED", ONE))

    assert setup.told.addresses == set()
    assert setup.told.left == ["10.0.0.1:80"]


def test_with_no_replica_connected_a_silent_watch_is_not_trusted() -> None:
    setup = Setup()
    setup.watching(ONE)
    setup.followed.refresh_soon()
    assert not setup.clock.advance(5)
    setup.followed.refresh_soon()
    assert not setup.api.asked
    setup.clock.advance(6)
    setup.followed.refresh_soon()
    setup.clock.advance(1)
    setup.api.next().ends(body=slices(TWO))

    assert setup.told.addresses == {"10.0.0.1:80", "10.0.0.2:80"}
    # And a pause is cut short.
    watch = setup.api.next()
    for _ in range(5):
        watch.answer.errback(ApiError("broken"))
        setup.clock.advance(31)
        watch = setup.api.next()
    watch.answer.errback(ApiError("broken"))
    setup.followed.refresh_soon()
    setup.clock.advance(2)
    assert setup.api.next().watches


# -- the Flow file -----------------------------------------------------------------------------------


def flow_of(host: str, **more: Any) -> Any:
    item = {"name": "a", "external": True, "host": host, **more}
    return load_flow_text(f"jtype: Flow\nexecutors: [{item}]\n").deployments[0]


def test_a_flow_file_names_services_and_their_namespaces() -> None:
    assert flow_of("kubernetes://encoder.search:8080").addresses == ("kubernetes://encoder.search:8080",)
    assert flow_of("kubernetes://encoder", port=8080).addresses == ("kubernetes://encoder:8080",)
    assert flow_of("kubernetes://encoder:8080", tls=True).tls
    assert ServiceName.of("kubernetes://a.b:80") == ServiceName("a", "b", 80)
    assert ServiceName.of("a.b:80") is None


@pytest.mark.parametrize(
    "host", ["kubernetes://a.b.svc:80", "kubernetes://A_b:80", "kubernetes://10.0.0.1:80"]
)
def test_a_service_that_cannot_be_is_refused(host: str) -> None:
    with pytest.raises(ConfigError, match=r"accepted: kubernetes://service:port"):
        flow_of(host)


def test_only_gateways_that_name_a_service_load_what_follows_it() -> None:
    code = "import sys, gatewayd.pool.pool; print('gatewayd.pool.kubernetes' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment(), cwd=ROOT
    )

    assert done.stdout.strip() == "False"


# -- over HTTPS --------------------------------------------------------------------------------------


@pytest_twisted.async_yield_fixture
async def server(tmp_path: Path) -> Any:
    """A recorded API server, and the cluster that a gateway beside it sees."""
    found = RecordedServer()
    authority = make("authority", authority=True)
    party = authority.issue()
    (tmp_path / "server.pem").write_bytes(party.pem + party.key_pem())
    context = DefaultOpenSSLContextFactory(str(tmp_path / "server.pem"), str(tmp_path / "server.pem"))
    port = reactor.listenSSL(0, Site(found), context, interface="127.0.0.1")
    (tmp_path / "ca.crt").write_bytes(authority.pem)
    (tmp_path / "token").write_text("first\n")
    (tmp_path / "namespace").write_text("search")
    variables = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(port.getHost().port)}
    yield found, in_cluster(reactor, variables, tmp_path), tmp_path
    await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_slices_are_followed_over_https_through_all_that_happens(server: Any) -> None:
    recorded, cluster, account = server
    told = Told()
    recorded.put("a", endpoint("10.0.0.1"))
    followed = FollowedService(ServiceName("encoder", None, 80), told, cluster, reactor, lambda: 0.0, ByDns)
    followed.start()
    try:
        await until_on_reactor(reactor, lambda: recorded.watched == 1)
        assert told.addresses == {"10.0.0.1:80"}
        recorded.put("b", endpoint("fd00::2"), endpoint("10.0.0.3", ready=False))
        await until_on_reactor(reactor, lambda: told.addresses == {"10.0.0.1:80", "[fd00::2]:80"})
        # The token is read again, and the watch goes on where it was: what it missed is told.
        (account / "token").write_text("second\n")
        recorded.cut()
        recorded.put("a", endpoint("10.0.0.4"))
        await until_on_reactor(reactor, lambda: told.addresses == {"10.0.0.4:80", "[fd00::2]:80"})
        assert "resourceVersion" in recorded.queries[-1]
        assert (recorded.tokens[0], recorded.tokens[-1]) == ("Bearer first", "Bearer second")
        # What it missed has been forgotten.
        await until_on_reactor(reactor, lambda: recorded.watched == 1)
        recorded.cut()
        recorded.put("b", endpoint("10.0.0.5"))
        recorded.forget()
        await until_on_reactor(reactor, lambda: told.addresses == {"10.0.0.4:80", "10.0.0.5:80"})
        await until_on_reactor(reactor, lambda: recorded.watched == 1)
    finally:
        followed.close()
    await until_on_reactor(reactor, lambda: recorded.watched == 0)


@pytest_twisted.ensureDeferred
async def test_an_api_server_that_is_not_the_clusters_gets_no_token(server: Any) -> None:
    recorded, cluster, account = server
    (account / "ca.crt").write_bytes(make("another", authority=True).pem)
    with pytest.raises(ApiError, match="certificate verify failed"):
        await cluster.get("/", lambda: None, lambda data: None)
    (account / "token").unlink()
    with pytest.raises(ApiError, match="token of the service account cannot be read: No such file"):
        await cluster.get("/", lambda: None, lambda data: None)

    assert recorded.tokens == []


def test_a_pod_without_a_service_account_is_in_no_cluster(tmp_path: Path) -> None:
    assert in_cluster(reactor, {}) is None
    assert in_cluster(reactor, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, tmp_path) is None
    (tmp_path / "namespace").write_text("a")
    assert isinstance(in_cluster(reactor, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, tmp_path), Cluster)
