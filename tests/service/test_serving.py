"""What serves while it is changed, and requests of earlier graphs, over connections in memory."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import attrs
import pytest
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs
from twisted.python.failure import Failure

from gatewayd.bridge import Bridge
from gatewayd.config import DeploymentConfig, FlowConfig
from gatewayd.config.model import GatewayConfig, Listener
from gatewayd.errors import ConfigError, PortTaken
from gatewayd.messages.generations import Generation
from gatewayd.messages.request import Request
from gatewayd.pool.replica_set import ReplicaGone
from gatewayd.service.changes import Changes, Start
from gatewayd.service.observing import Observing
from gatewayd.service.readings import read_under_way
from gatewayd.service.reserved import Reserved
from gatewayd.service.serving import Serving
from gatewayd.supervisor.replica_id import ReplicaId
from gatewayd.telemetry.metrics import table
from gatewayd.telemetry.metrics.reading import Reading
from tests.memory_gateway import Executor, Reactor

A, B = ReplicaId("a", 0, 0), ReplicaId("b", 0, 0)
NEXT_B = ReplicaId("b", 0, 0, incarnation=1)


class FakeFront:
    """No ports."""

    def __init__(self) -> None:
        self.entries: list[Any] = []
        self.ports: list[Any] = []
        self.observing = Observing({}, {})


class Setup:
    """A Flow of ``a`` and then ``b``. ``silent`` are connections that bring no answers for now."""

    def __init__(self) -> None:
        self.reactor: Any = Reactor()
        self.bridge = Bridge(self.reactor)
        self.silent: list[Executor] = []
        self.is_held = False  # then new connections bring no answers either
        gateway = GatewayConfig(listeners=())
        deployments = (DeploymentConfig("a"), DeploymentConfig("b", needs=("a",)))
        self.flow = FlowConfig(gateway=gateway, deployments=deployments)
        front: Any = FakeFront()
        self.serving = Serving(
            self.flow, {A, B}, self.reactor, self.bridge, lambda *_: front, lambda is_other: None
        )
        self.serving.front = front
        for replica in (A, B):
            self.up(replica)
        self.run()

    def up(self, replica: ReplicaId) -> str:
        path = f"/{replica.deployment}{replica.incarnation}"
        self.serving.replica_up(replica, f"unix:{path}")
        return path

    def run(self) -> None:
        """Let everything happen that can."""
        busy = True
        while busy:
            busy = bool(self.reactor.letters)
            while self.reactor.letters:
                function, args = self.reactor.letters.popleft()
                function(*args)
            self.reactor.advance(0)
            for executor in tuple(self.reactor.executors):
                busy = (not self.is_held and executor not in self.silent and self._turned(executor)) or busy

    @staticmethod
    def _turned(executor: Executor) -> bool:
        return not executor.transport.disconnecting and executor.turn()

    def change(self, *replicas: ReplicaId, **further: Any) -> list[Any]:
        """Another graph of the same Flow, over ``replicas``."""
        changes = Changes(graph=True, replicas=frozenset(replicas), **further)

        async def change() -> list[Any]:
            return outcome(await self.serving.change(self.flow, changes, 1, Reserved({})))

        found = outcome(Deferred.fromCoroutine(change()))
        self.run()
        return found

    def asked(self) -> list[Any]:
        """The outcome of a request, which the graph that serves now has sent to ``a``."""
        self.silent = list(self.reactor.executors)
        return outcome(self.serving.switch.dispatch(Request("one", "/")))

    def close(self) -> None:
        for graph in self.serving._graphs:
            graph.pool.close()
        self.run()
        for timer in self.reactor.getDelayedCalls():
            timer.cancel()
        self.bridge._loop.close()


@pytest.fixture
def setup() -> Iterator[Setup]:
    setup = Setup()
    yield setup
    setup.close()


def outcome(work: Deferred[Any]) -> list[Any]:
    """What it has fired with, if it has."""
    found: list[Any] = []
    work.addBoth(found.append)
    return found


def test_a_request_of_an_earlier_graph_finds_the_process_that_has_replaced_another_since(
    setup: Setup,
) -> None:
    answered = setup.asked()
    (gone,) = setup.change(A, B)

    setup.serving.admit(NEXT_B, B)
    setup.up(NEXT_B)
    setup.run()
    left = outcome(setup.serving.give_up(B))
    setup.serving.replica_down(B)
    assert left == [None]
    assert (answered, gone) == ([], [])

    setup.silent.clear()
    setup.run()
    (response,) = answered
    assert not isinstance(response, Failure)
    assert gone == [None]


def test_an_earlier_graph_gets_no_process_of_settings_that_it_does_not_serve(setup: Setup) -> None:
    setup.asked()
    earlier, latest = setup.serving.graph, ReplicaId("b", 0, 0, incarnation=2)
    setup.up(NEXT_B)
    assert setup.change(A, NEXT_B)

    setup.serving.admit(latest, NEXT_B)

    assert setup.serving.graph.calls(latest)
    assert not earlier.calls(latest)


def started(*replicas: ReplicaId) -> dict[str, Any]:
    """What a change says of executors that were started for it."""
    return {"starts": (Start(DeploymentConfig("b"), replicas),)}


def test_a_new_process_that_has_ended_before_it_is_called_changes_nothing(setup: Setup) -> None:
    before = setup.serving.graph
    setup.up(NEXT_B)
    setup.serving.replica_down(NEXT_B)

    (failure,) = setup.change(A, NEXT_B, **started(NEXT_B))

    assert failure.check(ConfigError)
    assert str(failure.value).startswith("executors.b: the new process of replica 0 had started, and cannot")
    assert setup.serving.graph is before


def test_one_that_ends_while_it_is_connected_to_is_not_waited_for(setup: Setup) -> None:
    before = setup.serving.graph
    setup.up(NEXT_B)
    setup.is_held = True
    done = setup.change(A, NEXT_B, **started(NEXT_B))
    assert not done

    setup.serving.replica_down(NEXT_B)

    (failure,) = done
    assert failure.check(ConfigError)
    assert setup.serving.graph is before


def test_one_that_cannot_be_connected_to_changes_nothing_after_a_few_seconds(setup: Setup) -> None:
    setup.up(NEXT_B)
    setup.is_held = True
    done = setup.change(A, NEXT_B, **started(NEXT_B))

    with capturedLogs() as logs:
        setup.reactor.advance(5.0)

    (failure,) = done
    assert failure.check(ConfigError)
    assert any("not all executors have told" in event["log_format"] for event in logs)


@pytest.mark.parametrize("is_lost", [False, True])
def test_a_change_waits_until_what_serves_already_is_connected_anew(setup: Setup, is_lost: bool) -> None:
    before = setup.serving.graph
    setup.is_held = True
    with capturedLogs():
        done = setup.change(A, B)
        setup.reactor.advance(5.0)
    assert not done

    if is_lost:  # then nobody is connected to it
        setup.serving.replica_down(B)
    setup.is_held = False
    setup.run()

    assert done == [[None]] or done == [None]
    assert setup.serving.graph is not before
    assert setup.serving.graph.pool.connected() == {("a", 0): 1, ("b", 0): 0 if is_lost else 1}


def test_without_the_connections_that_serve_a_change_is_given_up(setup: Setup) -> None:
    before = setup.serving.graph
    setup.is_held = True
    with capturedLogs():
        done = setup.change(A, B)
        setup.reactor.pump([5.0, 15.0])

    (failure,) = done
    assert failure.check(ConfigError)
    assert str(failure.value).startswith("no new connection to a, b could be made within 15 s, though there")
    assert setup.serving.graph is before


def test_what_serves_keeps_nothing_of_changes_that_were_given_up(setup: Setup) -> None:
    def callbacks() -> int:
        return sum(len(each.replicas._on_change) for each in before.pool._senders.values())

    before = setup.serving.graph
    at_first = callbacks()
    setup.is_held = True
    with capturedLogs():
        done = setup.change(A, B)
        setup.reactor.pump([5.0, 15.0])

    assert done[0].check(ConfigError)
    assert callbacks() == at_first


def test_a_change_waits_until_all_new_processes_are_connected(setup: Setup) -> None:
    other = ReplicaId("b", 0, 1, incarnation=1)
    setup.up(NEXT_B)
    setup.serving.replica_up(other, "unix:/other")

    (gone,) = setup.change(A, NEXT_B, other, **started(NEXT_B, other))

    assert gone == [None]
    assert all(each.state == "ready" for each in setup.serving.graph.pool.states()["b"])


def test_who_waits_for_a_process_hears_that_it_has_ended(setup: Setup) -> None:
    setup.serving.admit(NEXT_B, B)
    setup.up(NEXT_B)
    known = outcome(setup.serving.known(NEXT_B))
    all_known = outcome(setup.serving.all_known(but=B))
    assert not known

    setup.serving.replica_down(NEXT_B)

    assert known[0].check(ReplicaGone)
    assert all_known == [None]
    assert outcome(setup.serving.known(NEXT_B))[0].check(ReplicaGone)


def test_who_waits_for_a_process_hears_that_its_graph_has_been_replaced(setup: Setup) -> None:
    setup.is_held = True
    setup.serving.admit(NEXT_B, B)
    setup.up(NEXT_B)
    known = outcome(setup.serving.known(NEXT_B))
    setup.serving.replica_down(B)
    setup.is_held = False
    setup.serving.graph.pool.close()

    assert known[0].check(ReplicaGone)


def test_what_all_know_is_waited_for_a_few_seconds(setup: Setup) -> None:
    setup.serving.admit(NEXT_B, B)
    setup.up(NEXT_B)
    known = outcome(setup.serving.all_known(but=B))
    assert not known

    setup.reactor.advance(5.0)

    assert known == [None]


def test_what_an_earlier_graph_works_on_is_told_with_what_the_latest_does(setup: Setup) -> None:
    setup.asked()
    setup.change(A, B)
    setup.asked()
    numbers = {("a", 0, setup.serving.addresses[A]): 0}

    reading = Reading()
    pools = [graph.pool for graph in setup.serving.graphs]
    read_under_way(reading, pools, numbers)

    assert len(pools) == 2
    assert reading.of(table.IN_FLIGHT)["a", "0"] == 2
    assert reading.of(table.REPLICA_IN_FLIGHT)["a", "0", "0"] == 2
    assert reading.number(table.CALLS) == 2  # against one limit, which both share
    assert pools[0].slots is pools[1].slots


class PortThatCannotOpen(FakeFront):
    def opened(self, listener: Listener, sockets: list[socket.socket]) -> Any:
        raise PortTaken("http", "h", 80, "no memory")


def test_a_port_that_cannot_be_opened_leaves_no_sockets(setup: Setup) -> None:
    listener = Listener(("http",))
    flow = attrs.evolve(setup.flow, gateway=GatewayConfig(listeners=(listener,)))
    with socket.create_server(("127.0.0.1", 0)) as made:
        front: Any = PortThatCannotOpen()
        with pytest.raises(PortTaken):
            setup.serving._entries(front, flow, Changes(sources=(None,)), Reserved({0: [made]}))
        assert made.fileno() == -1


def test_executors_that_speak_another_generation_than_the_new_flow_change_nothing(setup: Setup) -> None:
    serves = setup.serving.graph
    gateway = attrs.evolve(setup.flow.gateway, docarray=Generation.SECOND)
    setup.flow = attrs.evolve(setup.flow, gateway=gateway)
    with capturedLogs() as logged:
        (failure,) = setup.change(A, B)

    assert isinstance(failure.value, ConfigError)
    assert "the Flow file says docarray: 2" in str(failure.value)
    assert "a (unix:/a0) speaks docarray 0.21 and earlier" in str(failure.value)
    assert setup.serving.graph is serves
    assert {each["deployment"] for each in logged if each["log_level"].name == "warn"} == {"a", "b"}
