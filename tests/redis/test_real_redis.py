"""Rates in a real Redis: `make test-redis`, with redis-server on the path and txredisapi installed."""

from __future__ import annotations

import http.client
import shutil
import subprocess
from collections.abc import Iterator
from importlib import util
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import globalLogPublisher

from gatewayd.access.rates import Rates
from gatewayd.access.redis_store import RedisStore
from gatewayd.access.shared_rates import SharedRates
from gatewayd.config.rates import RateRule
from gatewayd.config.rates_store import RatesStore
from gatewayd.errors import RateLimited
from gatewayd.messages.caller import Caller
from gatewayd.tls.credentials import PairFiles, TlsFiles
from tests.certificates import Files, make, write_files
from tests.paths import ROOT
from tests.processes import Gateway, free_ports
from tests.waiting import until

pytestmark = [
    pytest.mark.redis,
    pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed"),
    pytest.mark.skipif(util.find_spec("txredisapi") is None, reason="txredisapi is not installed"),
]

REC = {"name": "exec_a", "uses": "Rec", "py_modules": str(ROOT / "tests" / "executors.py")}
PASSWORD = "s3cret-word"
ALICE = Caller("alice", "10.0.0.1", "token")


class Redis:
    """A process of redis-server; ``tls`` are its settings for that, without a port in clear then."""

    def __init__(self, folder: Path, *tls: str) -> None:
        (self.port,) = free_ports(1)
        self._folder = folder
        self._tls = tls
        self.start()

    def start(self) -> None:
        port = str(self.port)
        ports = ["--port", "0", "--tls-port", port, *self._tls] if self._tls else ["--port", port]
        self._process = subprocess.Popen(
            ["redis-server", *ports, "--bind", "127.0.0.1", "--save", "", "--dir", str(self._folder),
             "--requirepass", PASSWORD],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if "Ready to accept connections" in line:
                return
        raise AssertionError("redis-server has ended")

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    @property
    def address(self) -> str:
        return f"redis{'s' if self._tls else ''}://:{PASSWORD}@127.0.0.1:{self.port}"


def over_tls(folder: Path, ask_for_certificates: str = "no") -> Iterator[tuple[Redis, Files]]:
    files = write_files(folder)
    names = {"cert": files.chain, "key": files.key, "ca-cert": files.roots}
    tls = [text for name, path in names.items() for text in (f"--tls-{name}-file", str(path))]
    redis = Redis(folder, *tls, "--tls-auth-clients", ask_for_certificates)
    yield redis, files
    redis.stop()


@pytest.fixture
def redis_over_tls(tmp_path: Path) -> Iterator[tuple[Redis, Files]]:
    yield from over_tls(tmp_path)


@pytest.fixture
def redis_that_asks(tmp_path: Path) -> Iterator[tuple[Redis, Files]]:
    """As Redis is by default: its clients have to show certificates."""
    yield from over_tls(tmp_path, "yes")


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    redis = Redis(tmp_path)
    yield redis
    redis.stop()


async def connected(redis: Redis, rule: RateRule, password: str = PASSWORD) -> SharedRates:
    where = RatesStore("127.0.0.1", redis.port, password=password)
    rates = SharedRates([rule], RedisStore(where, reactor, 5.0), Rates([rule]))  # type: ignore[arg-type]
    rates.start()
    for _ in range(500):
        if rates.store.up:
            break
        await deferLater(reactor, 0.01)  # type: ignore[arg-type]
    return rates


async def ask(rates: SharedRates) -> Exception | None:
    asked = rates.take(ALICE, "/x", lambda most: 0, 0.0)
    assert isinstance(asked, Deferred)
    try:
        await asked
    except RateLimited as error:
        return error
    return None


@pytest_twisted.ensureDeferred
async def test_two_gateways_admit_the_rate_together(redis: Redis) -> None:
    rule = RateRule(requests=10, per_s=1000.0, burst=10)
    both = [await connected(redis, rule) for _ in range(2)]
    answers = [await ask(both[number % 2]) for number in range(30)]
    assert answers[:10] == [None] * 10
    assert all(isinstance(each, RateLimited) for each in answers[10:])
    assert 99 < answers[-1].retry_after_s <= 100  # type: ignore[union-attr]
    assert both[0].decided == both[1].decided == {"store": 15}
    for each in both:
        each.stop()


@pytest_twisted.ensureDeferred
async def test_what_was_taken_comes_back(redis: Redis) -> None:
    rates = await connected(redis, RateRule(requests=1, per_s=0.2, burst=1))
    assert await ask(rates) is None
    refused = await ask(rates)
    assert isinstance(refused, RateLimited)
    await deferLater(reactor, refused.retry_after_s)  # type: ignore[arg-type]
    assert await ask(rates) is None
    rates.stop()


def answers(gateways: list[Gateway], count: int) -> list[int]:
    """The statuses of requests, by turns."""
    found = []
    for number in range(count):
        gateway = gateways[number % len(gateways)]
        connection = http.client.HTTPConnection("127.0.0.1", gateway.ports["http"])
        connection.request("POST", "/post", b'{"exec_endpoint": "/x", "data": []}',
                           {"Content-Type": "application/json"})  # fmt: skip
        found.append(connection.getresponse().status)
        connection.close()
    return found


def told(gateway: Gateway) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.ports["http"])
    connection.request("GET", "/status")
    body = connection.getresponse().read().decode()
    connection.close()
    return body


def each_tells(gateways: list[Gateway], words: str, times: int) -> None:
    """Wait until the log of each has them so often, and not more."""
    for gateway in gateways:
        until(lambda: gateway.output.count(words) >= times, 30.0)  # noqa: B023
        assert gateway.output.count(words) == times, gateway.output


def settings(redis: Redis, **more: Any) -> dict[str, Any]:
    rates = [{"requests": 10, "per": 1000, "by": "all", "endpoints": ["/x"]}]
    # A machine of the tests may be busy.
    return {"rates": rates, "rates_store": redis.address, "rates_store_timeout": 5, "gateways": 2, **more}


@pytest.mark.parametrize("workers", [1, 2])
def test_processes_share_a_rate_and_have_their_own_without_the_store(redis: Redis, workers: int) -> None:
    gateways = [Gateway({"gateway": settings(redis, workers=workers), "executors": [REC]}) for _ in range(2)]
    try:
        each_tells(gateways, "rates are counted in redis:", workers)
        assert "counts the rates" in told(gateways[0])
        found = answers(gateways, 16)
        assert found.count(200) == 10
        assert found.count(429) == 6

        redis.stop()
        each_tells(gateways, "(gateway.rates_store), cannot be used: ", workers)
        assert "cannot be used" in told(gateways[0])
        # Each has a share of its own now: half of ten, or a quarter.
        found = answers(gateways, 30)
        assert 2 <= found.count(200) <= 12
        assert 429 in found

        redis.start()
        each_tells(gateways, "rates are counted in redis:", 2 * workers)
        assert answers(gateways, 4).count(200) == 4
        each_tells(gateways, "(gateway.rates_store), cannot be used: ", workers)
        assert not any(PASSWORD in gateway.output for gateway in gateways)
    finally:
        for gateway in gateways:
            gateway.stop()


def test_without_the_store_requests_are_refused_where_that_is_wanted(redis: Redis) -> None:
    gateway = Gateway({"gateway": settings(redis, rates_without_store="refuse"), "executors": [REC]})
    try:
        until(lambda: "counts the rates" in told(gateway), 20.0)
        assert answers([gateway], 1) == [200]
        redis.stop()
        until(lambda: "cannot be used" in told(gateway), 20.0)
        assert answers([gateway], 2) == [503, 503]
    finally:
        gateway.stop()


async def refusal(redis: Redis, files: TlsFiles, host: str = "localhost") -> str:
    """Why a store over TLS cannot be used; empty if it can."""
    why = Deferred[str]()

    def observe(event: Any) -> None:
        if "store" in event and not why.called:
            why.callback(str(event.get("why", "")))

    where = RatesStore(host, redis.port, tls=True, password=PASSWORD)
    store = RedisStore(where, reactor, 5.0, files=files)  # type: ignore[arg-type]
    globalLogPublisher.addObserver(observe)
    store.start()
    try:
        return await why
    finally:
        globalLogPublisher.removeObserver(observe)
        store.stop()


@pytest_twisted.ensureDeferred
async def test_over_tls_the_named_authority_is_trusted(redis_over_tls: tuple[Redis, Files]) -> None:
    redis, files = redis_over_tls
    for host in ("localhost", "127.0.0.1"):
        assert await refusal(redis, TlsFiles((), str(files.roots)), host) == ""


@pytest_twisted.ensureDeferred
async def test_over_tls_the_systems_authorities_are_those_of_the_environment(
    redis_over_tls: tuple[Redis, Files], monkeypatch: pytest.MonkeyPatch
) -> None:
    redis, files = redis_over_tls
    monkeypatch.setenv("SSL_CERT_FILE", str(files.roots))
    assert await refusal(redis, TlsFiles(())) == ""


@pytest_twisted.ensureDeferred
async def test_a_certificate_of_another_authority_is_refused(
    redis_over_tls: tuple[Redis, Files], tmp_path: Path
) -> None:
    redis, _ = redis_over_tls
    other = tmp_path / "other.pem"
    other.write_bytes(make("another root", authority=True).pem)

    for files in (TlsFiles((), str(other)), TlsFiles(())):
        why = await refusal(redis, files)
        assert why.startswith("TLS handshake failed: certificate verify failed: no authority that is trusted")
        assert "gateway.rates_store_ca_certfile" in why


@pytest_twisted.ensureDeferred
async def test_a_redis_that_asks_for_certificates_is_shown_one(
    redis_that_asks: tuple[Redis, Files], tmp_path: Path
) -> None:
    redis, files = redis_that_asks
    pair = PairFiles(str(files.chain), str(files.key))
    assert await refusal(redis, TlsFiles((pair,), str(files.roots))) == ""

    why = await refusal(redis, TlsFiles((), str(files.roots)))
    assert "certificate required" in why


def test_a_gateway_counts_over_tls(redis_over_tls: tuple[Redis, Files]) -> None:
    redis, files = redis_over_tls
    own = settings(redis, rates_store_ca_certfile=str(files.roots))
    gateway = Gateway({"gateway": own, "executors": [REC]})
    try:
        each_tells([gateway], "rates are counted in rediss:", 1)
        assert answers([gateway], 12).count(200) == 10
        assert PASSWORD not in gateway.output
    finally:
        gateway.stop()
