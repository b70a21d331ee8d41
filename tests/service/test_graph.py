"""The graph that serves, the switch before it, and what becomes of those that were replaced."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from gatewayd.config import FlowConfig
from gatewayd.messages.request import Request
from gatewayd.service.graph import Graph, Switch
from gatewayd.service.leaving import MOST_GRAPHS, RETIRING_S, Leaving
from gatewayd.supervisor.replica_id import ReplicaId
from gatewayd.waiters import Waiters
from tests.protocols.harness import FakeDispatcher

ONE, OTHER = ReplicaId("a", 0, 0), ReplicaId("a", 0, 0, incarnation=1)


class FakePool:
    """Notes what it is told of replicas."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.left: Deferred[None] = Deferred()
        self.closed = False

    def replica_up(self, deployment: str, address: str, shard: int) -> None:
        self.told.append(("up", address))

    def replica_down(self, deployment: str, address: str, shard: int) -> None:
        self.told.append(("down", address))

    def replica_retired(self, deployment: str, address: str, shard: int) -> Deferred[None]:
        self.told.append(("retired", address))
        return self.left

    def close(self) -> None:
        self.closed = True


class Draining:
    """A dispatcher that drains when the test says so."""

    def __init__(self) -> None:
        self._waiters: Waiters[None] = Waiters()
        self._is_drained = False
        self.in_flight = 3
        self.refused = self.closed = False

    def drain(self) -> Deferred[None]:
        return succeed(None) if self._is_drained else self._waiters.wait()

    def end(self) -> None:
        self._is_drained = True
        self._waiters.fire(None)

    def refuse_awaited(self) -> int:
        self.refused = True
        return 3

    def abandon(self) -> None:
        self.end()

    def close(self) -> None:
        self.closed = True


def graph(*replicas: ReplicaId) -> tuple[Graph, Any, Any]:
    pool: Any = FakePool()
    dispatcher: Any = Draining()
    return Graph(1, FlowConfig(), replicas, pool, dispatcher), pool, dispatcher


def fired(work: Deferred[Any]) -> bool:
    found: list[Any] = []
    work.addBoth(found.append)
    return bool(found)


def test_a_switch_passes_on_to_the_engine_that_it_was_turned_to_last() -> None:
    first, second = FakeDispatcher(held=True), FakeDispatcher(held=True)
    switch = Switch(first)
    switch.dispatch(Request("one", "/"))

    switch.turn(second)
    switch.dispatch(Request("two", "/"), timeout_s=1.0)

    assert [request.request_id for request in first.requests] == ["one"]
    assert [request.request_id for request in second.requests] == ["two"]


def test_a_graph_hears_of_its_own_replicas_alone() -> None:
    here, pool, _ = graph(ONE)

    here.replica_up(ONE, "unix:/0")
    here.replica_up(OTHER, "unix:/1")
    here.replica_down(OTHER, "unix:/1")
    here.replica_down(ONE, "unix:/0")

    assert pool.told == [("up", "unix:/0"), ("down", "unix:/0")]


def test_a_replica_that_is_given_up_is_retired_and_may_go_unheard() -> None:
    here, pool, _ = graph(ONE)
    here.admit(OTHER)
    here.replica_up(OTHER, "unix:/1")

    left = here.retire(ONE, "unix:/0")
    here.replica_down(ONE, "unix:/0")

    assert pool.told == [("up", "unix:/1"), ("retired", "unix:/0")]
    assert not fired(left)
    pool.left.callback(None)
    assert fired(left)


@pytest.mark.parametrize("replica", [ONE, OTHER])
def test_one_that_is_not_there_is_given_up_at_once(replica: ReplicaId) -> None:
    here, pool, _ = graph(ONE)

    assert fired(here.retire(replica, None if replica == ONE else "unix:/1"))
    assert pool.told == []


def test_a_graph_that_was_replaced_closes_when_its_requests_have_ended() -> None:
    leaving = Leaving(Clock())
    old, pool, dispatcher = graph()

    gone = leaving.add_graph(old)
    assert (leaving.graphs, pool.closed) == ([old], False)
    dispatcher.end()

    assert fired(gone)
    assert (leaving.graphs, pool.closed, dispatcher.closed) == ([], True, True)


def test_one_without_requests_is_gone_when_earlier_ones_are_which_may_call_the_same_executors() -> None:
    leaving = Leaving(Clock())
    (oldest, _, long), (idle, pool, short) = graph(), graph()

    gone: list[str] = []
    leaving.add_graph(oldest).addCallback(lambda _: gone.append("oldest"))
    short.end()
    leaving.add_graph(idle).addCallback(lambda _: gone.append("idle"))

    assert (leaving.graphs, pool.closed, gone) == ([oldest], True, [])
    long.end()
    assert gone == ["oldest", "idle"]


def test_too_many_graphs_with_requests_end_the_oldest() -> None:
    leaving = Leaving(Clock())
    oldest, pool, dispatcher = graph()
    leaving.add_graph(oldest)
    for _ in range(MOST_GRAPHS - 1):
        leaving.add_graph(graph()[0])
    assert not dispatcher.refused

    with capturedLogs() as logs:
        leaving.add_graph(graph()[0])

    assert dispatcher.refused
    assert pool.closed
    assert len(leaving.graphs) == MOST_GRAPHS
    assert [event["count"] for event in logs] == [3]


class FakePort:
    """Notes what becomes of it."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.drained: Deferred[None] = Deferred()
        self.stopped: Deferred[None] = Deferred()

    def retire(self) -> None:
        self.told.append("retire")

    def drain(self, grace_s: float) -> Deferred[None]:
        self.told.append(f"drain {grace_s}")
        return self.drained

    def stop(self) -> Deferred[None]:
        self.told.append("stop")
        return self.stopped


def test_clients_of_a_port_have_a_moment_to_leave_before_it_drains() -> None:
    clock, ended = Clock(), []
    leaving, port = Leaving(clock), FakePort()
    ports: Any = [port]

    leaving.add_ports(ports, 10.0, lambda: ended.append(True))
    closed = leaving.ports_closed()
    assert port.told == ["retire"]
    clock.advance(RETIRING_S)
    assert port.told == ["retire", "drain 10.0"]
    port.drained.callback(None)
    assert port.told[-1] == "stop"
    assert not ended
    port.stopped.callback(None)

    assert ended
    assert fired(closed)
    assert leaving.ports == []


def test_a_stop_waits_for_no_moment() -> None:
    clock = Clock()
    leaving, port = Leaving(clock), FakePort()
    ports: Any = [port]
    leaving.add_ports(ports, 10.0, lambda: None)

    leaving.hurry()

    assert port.told == ["retire", "drain 10.0"]
    assert clock.getDelayedCalls() == []
    assert fired(Leaving(clock).ports_closed())
