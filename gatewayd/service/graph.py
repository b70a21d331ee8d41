"""
The graph that serves: one value, which a reload replaces as a whole, and the switch before it.

    ports ──> Switch ──> the dispatcher of the graph that serves now ──> its pool
                  ╎
                  └╌╌╌> those of earlier graphs, until what is under way there has ended
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from twisted.internet.defer import Deferred, succeed

from gatewayd.access.guard import Engine
from gatewayd.bridge import Bridge
from gatewayd.clocks import Reactor
from gatewayd.config import FlowConfig
from gatewayd.dispatch.dispatcher import Dispatcher
from gatewayd.dispatch.topology import Topology
from gatewayd.messages.caller import ANONYMOUS, Caller
from gatewayd.messages.request import Request, Response
from gatewayd.pool.pool import Pool
from gatewayd.streams import Stream
from gatewayd.supervisor.replica_id import ReplicaId


class _Dispatch(Protocol):
    def __call__(self, request: Request, *, timeout_s: float | None = None) -> Deferred[Response]: ...


class _Stream(Protocol):
    def __call__(self, request: Request, *, timeout_s: float | None = None) -> Stream: ...


class _DryRun(Protocol):
    def __call__(self, documents: bytes = b"", *, caller: Caller = ANONYMOUS) -> Deferred[Response]: ...


class Switch:
    """
    An Engine that can be turned to another one between two requests. Reactor thread only.

    Its methods are the other's own: a request takes one look at an attribute more, and no call.
    """

    __slots__ = ("dispatch", "dry_run", "stream")

    def __init__(self, engine: Engine) -> None:
        self.dispatch: _Dispatch
        self.dry_run: _DryRun
        self.stream: _Stream
        self.turn(engine)

    def turn(self, engine: Engine) -> None:
        """Pass on to ``engine`` from now on. What is under way is not touched."""
        self.dispatch = engine.dispatch
        self.dry_run = engine.dry_run
        self.stream = engine.stream


class Graph:
    """
    A Flow as it serves: its settings, the replicas that it calls, its pool and its dispatcher.

    ``generation`` counts the graphs of a process from 0. ``replicas`` are those that it calls of the
    executors that are started here; None is for all that there are. Reactor thread only.
    """

    def __init__(
        self,
        generation: int,
        flow: FlowConfig,
        replicas: Collection[ReplicaId] | None,
        pool: Pool,
        dispatcher: Dispatcher,
    ) -> None:
        self.generation = generation
        self.flow = flow
        self.pool = pool
        self.dispatcher = dispatcher
        self._replicas = None if replicas is None else set(replicas)

    @classmethod
    def over(
        cls,
        generation: int,
        flow: FlowConfig,
        replicas: Collection[ReplicaId] | None,
        bridge: Bridge,
        reactor: Reactor,
        before: Pool | None = None,
    ) -> Graph:
        """
        A graph with connections of its own, whose pool goes on counting where the one ``before`` did.

        Raises ConfigError for a Flow that cannot be called.
        """
        topology = Topology.from_deployments(flow.deployments)
        pool = Pool.over(bridge, flow.gateway, flow.deployments, reactor, before)
        dispatcher = Dispatcher(
            topology,
            pool,
            reactor,
            bridge.offload,
            forwarded=flow.gateway.forwarded,
            stream_window=flow.gateway.pool.stream_window,
            most_values=flow.gateway.max_parameter_values,
            connect_timeout_s=flow.gateway.pool.connect_timeout_s,
        )
        return cls(generation, flow, replicas, pool, dispatcher)

    def calls(self, replica: ReplicaId) -> bool:
        """Whether ``replica`` is one of those that it calls."""
        return self._replicas is None or replica in self._replicas

    def has_executor_of(self, flow: FlowConfig, name: str) -> bool:
        """Whether its Flow has the executor ``name`` just as ``flow`` has it."""
        were, are = (
            [(each.executor, each.shards) for each in which.deployments if each.name == name]
            for which in (self.flow, flow)
        )
        return bool(are) and were == are

    def replica_up(self, replica: ReplicaId, address: str) -> None:
        """The process of ``replica`` serves at ``address``; nothing happens if it is not for this graph."""
        if self.calls(replica):
            self.pool.replica_up(replica.deployment, address, replica.shard)

    def replica_down(self, replica: ReplicaId, address: str) -> None:
        """It has ended, or is about to."""
        if self.calls(replica):
            self.pool.replica_down(replica.deployment, address, replica.shard)

    def admit(self, replica: ReplicaId) -> None:
        """Call ``replica``, too, from the moment at which it is up."""
        if self._replicas is not None:
            self._replicas.add(replica)

    def retire(self, replica: ReplicaId, address: str | None) -> Deferred[None]:
        """Call ``replica``, which serves at ``address``, no more. Fires when what it has is answered."""
        if not self.calls(replica):
            return succeed(None)
        if self._replicas is not None:
            self._replicas.discard(replica)
        if address is None:
            return succeed(None)
        return self.pool.replica_retired(replica.deployment, address, replica.shard)
