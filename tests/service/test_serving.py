"""What serves while it is changed, and requests of earlier graphs, over connections in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from gatewayd.bridge import Bridge
from gatewayd.config import DeploymentConfig, FlowConfig
from gatewayd.config.model import GatewayConfig
from gatewayd.messages.request import Request
from gatewayd.service.changes import Changes
from gatewayd.service.reserved import Reserved
from gatewayd.service.serving import Serving
from gatewayd.supervisor.replica_id import ReplicaId
from tests.memory_gateway import Executor, Reactor

A, B = ReplicaId("a", 0, 0), ReplicaId("b", 0, 0)
NEXT_B = ReplicaId("b", 0, 0, incarnation=1)


class FakeFront:
    """No ports."""

    def __init__(self) -> None:
        self.entries: list[Any] = []
        self.ports: list[Any] = []


class Setup:
    """A Flow of ``a`` and then ``b``. ``silent`` are connections that bring no answers for now."""

    def __init__(self) -> None:
        self.reactor: Any = Reactor()
        self.bridge = Bridge(self.reactor)
        self.silent: list[Executor] = []
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
                busy = (executor not in self.silent and self._turned(executor)) or busy

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
