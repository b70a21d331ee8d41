"""
What serves: the front and the graph of a Flow, and those of before until they have ended.

    Front (ports, access, limits) ──> Switch ──> Graph (topology, pool)
                                                 ... and earlier ones, while they have requests

A change makes a new graph, a new front, or both, beside those that serve; when all of it is ready, it takes
their place in one turn of the reactor, and the old ones end when what they have is answered.
"""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import attrs
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredList,
    FirstError,
    TimeoutError,
    fail,
    gatherResults,
    succeed,
)
from twisted.logger import Logger
from twisted.python.failure import Failure

from gatewayd.bridge import Bridge
from gatewayd.clocks import Reactor
from gatewayd.config import FlowConfig
from gatewayd.config.model import GatewayConfig, Listener
from gatewayd.dispatch.dispatcher import Dispatcher
from gatewayd.errors import ConfigError, Draining
from gatewayd.messages.discovery import Endpoints
from gatewayd.pool.replica_set import ReplicaGone
from gatewayd.protocols.port import Port
from gatewayd.service.announcing import announce
from gatewayd.service.changes import Changes, missing, not_connected, not_up
from gatewayd.service.fitness import check_fitness
from gatewayd.service.front import Front
from gatewayd.service.graph import Graph, Switch
from gatewayd.service.leaving import Leaving
from gatewayd.service.reserved import Reserved, reserve
from gatewayd.supervisor.replica_id import ReplicaId
from gatewayd.supervisor.scaling import Load, PartKey
from gatewayd.tls.credentials import TlsCredentials, TlsFiles
from gatewayd.tls.files import load_credentials
from gatewayd.tls.renewal import Renewal, Watched

# Under the name of the part that users know.
log = Logger("gatewayd.service.gateway")

# Answers take milliseconds; an executor that is busy is asked again after a second, and then rarely.
_DISCOVERY_LIMIT_S: Final = 5.0
# What a graph that is to serve waits, after that, for connections as the one before has them.
_CONNECTION_LIMIT_S: Final = 15.0


class Serving:
    """
    What serves ``flow``, and then what it is changed to. Reactor thread only.

    ``front_of(flow, credentials)`` makes a front, in a thread as well; ``turned(whether it is another
    graph)`` is called after each change. ``replicas`` are as GatewayServer's.
    """

    def __init__(
        self,
        flow: FlowConfig,
        replicas: Collection[ReplicaId] | None,
        reactor: Reactor,
        bridge: Bridge,
        front_of: Callable[[FlowConfig, TlsCredentials | None], Front],
        turned: Callable[[bool], None],
    ) -> None:
        self.flow = flow
        self.graph = Graph.over(0, flow, replicas, bridge, reactor)
        self.switch = Switch(self.graph.dispatcher)
        self.front: Front | None = None
        self.addresses: dict[ReplicaId, str] = {}
        self.needed: Callable[[], None] = lambda: None
        # Is told of a replica whose connection was lost, or cannot be made.
        self.out_of_reach: Callable[[ReplicaId], None] = lambda replica: None
        self._follow_pool(self.graph)
        self._reactor = reactor
        self._bridge = bridge
        self._front_of = front_of
        self._turned = turned
        self._next: Graph | None = None  # one that is to serve
        self._leaving = Leaving(reactor)
        self._leaving_fronts: list[Front] = []
        self._renewal: Renewal | None = None
        self._stopping = False

    @property
    def ports(self) -> list[Port]:
        """Those of the Flow, in the order of its listeners."""
        return [] if self.front is None else self.front.ports

    @property
    def all_ports(self) -> list[Port]:
        """Those that were replaced, too, while they have connections."""
        return [*self.ports, *self._leaving.ports]

    @property
    def fronts(self) -> list[Front]:
        """The one that serves, and those that were replaced, while they have ports."""
        return [*([] if self.front is None else [self.front]), *self._leaving_fronts]

    @property
    def graphs(self) -> list[Graph]:
        """All that may have requests: the one that serves first."""
        return [self.graph, *self._leaving.graphs]

    @property
    def dispatchers(self) -> list[Dispatcher]:
        """Of all graphs that may have requests."""
        return [graph.dispatcher for graph in self.graphs]

    def endpoints(self) -> Endpoints:
        """What the executors bind, as far as it is known now."""
        return self.graph.pool.endpoints()

    def listen(self, sockets: Sequence[Sequence[socket.socket]]) -> None:
        """Open the ports, at ``sockets`` where there are any. Blocks for a moment. Raises ConfigError."""
        settings = self.flow.gateway
        identity = None if settings.tls is None else _Identity.read(settings.tls)
        front = self.front = self._front_of(self.flow, None if identity is None else identity.credentials)
        self._bridge.start()
        front.start()
        with grpc_is_quiet():
            for index, listener in enumerate(settings.listeners):
                port = front.opened(listener, sockets[index] if sockets else ())
                front.entries.append((listener, port))
        self._follow(identity, settings)

    def discovered(self, known: Deferred[None]) -> Deferred[None]:
        """
        Fires when it is ``known`` what the executors bind, or has not become known within a few seconds.

        Paths and hints depend on it from the first request on.
        """
        limit = self._reactor.callLater(_DISCOVERY_LIMIT_S, known.cancel)

        def late(failure: Failure) -> None:
            failure.trap(CancelledError)
            log.warn("not all executors have told which endpoints they bind; they are called for every one")

        def done(result: Failure | None) -> Failure | None:
            if limit.active():
                limit.cancel()
            return result

        return known.addErrback(late).addBoth(done)

    # -- changes -------------------------------------------------------------------------------------

    def reserve(self, flow: FlowConfig, changes: Changes) -> Deferred[Reserved]:
        """
        Bind what ``flow`` listens at besides what is bound already; nothing is accepted there yet.

        Fails with PortTaken.
        """
        return self._bridge.offload(reserve, flow.gateway, changes.sources)

    async def change(
        self, flow: FlowConfig, changes: Changes, generation: int, reserved: Reserved
    ) -> Deferred[None]:
        """
        Serve ``flow`` from now on; the replicas that it calls serve already.

        What is returned fires when nothing is left of the graphs before. Raises ConfigError, or Draining if
        the gateway is stopped meanwhile; then all is as it was.
        """
        settings, front, graph = flow.gateway, self.front, self.graph
        assert front is not None, "change before start"
        identity = None
        if settings.tls is not None:
            identity = await self._bridge.offload(_Identity.read, settings.tls)
        if changes.front:
            front = await self._bridge.offload(
                self._front_of, flow, None if identity is None else identity.credentials
            )
        try:
            if changes.graph:
                graph = await self._next_graph(flow, changes, generation)
            if self._stopping:
                raise Draining
            entries = self._entries(front, flow, changes, reserved)
        except BaseException:
            if graph is not self.graph:
                graph.pool.close()
            if front is not self.front:
                await self._unused(front)
            raise
        finally:
            self._next = None
        # From here on nothing fails, and nothing else happens in between.
        return self._turn(flow, graph, front, entries, identity)

    async def _next_graph(self, flow: FlowConfig, changes: Changes, generation: int) -> Graph:
        """
        One whose executors are connected, and have told what they bind.

        Raises ConfigError if one that was started for it has ended, or cannot be connected to.
        """
        before = self.graph.pool
        graph = Graph.over(generation, flow, changes.replicas, self._bridge, self._reactor, before=before)
        self._next = graph
        self._follow_pool(graph)
        for replica, address in self.addresses.items():
            graph.replica_up(replica, address)
        try:
            started = [self._known(graph, each) for each in changes.started]
            known = gatherResults([graph.pool.discovered(before.reached()), *started], consumeErrors=True)
            await self.discovered(known.addErrback(_unwrapped).addCallback(lambda _: None))
            self._check_connected(graph, changes.started)
            check_fitness(graph.dispatcher.topology, graph.pool)
            if self._missing(graph):
                await self._reach_as_much(graph)
                check_fitness(graph.dispatcher.topology, graph.pool)
        except ReplicaGone:
            graph.pool.close()
            raise not_up(each for each in changes.started if each not in self.addresses) from None
        except BaseException:
            graph.pool.close()
            raise
        return graph

    def _check_connected(self, graph: Graph, replicas: Collection[ReplicaId]) -> None:
        """Raises ConfigError."""
        if not replicas:
            return
        parts = graph.pool.states().values()
        connected = {each.address for part in parts for each in part if each.state == "ready"}
        missing = [each for each in replicas if self.addresses.get(each) not in connected]
        if missing:
            raise not_up(missing)

    async def _reach_as_much(self, graph: Graph) -> None:
        """
        Wait until ``graph`` is connected to whatever executors of it are connected to now.

        On a machine that is busy this may take longer than what came before. Raises ConfigError.
        """
        reached: Deferred[None] = Deferred()

        def look() -> None:
            if not reached.called and not self._missing(graph):
                reached.callback(None)

        pools = graph.pool, self.graph.pool  # what serves may lose its connection as well
        for pool in pools:
            pool.on_change(look)
        clock: Any = self._reactor
        try:
            await reached.addTimeout(_CONNECTION_LIMIT_S, clock)
        except TimeoutError:
            raise ConfigError(not_connected(self._missing(graph), _CONNECTION_LIMIT_S)) from None
        finally:
            for pool in pools:  # else what serves would keep each graph that came to nothing
                pool.forget(look)

    def _missing(self, graph: Graph) -> tuple[str, ...]:
        return missing(self.flow, self.graph.pool.connected(), graph.flow, graph.pool.connected())

    def _entries(
        self, front: Front, flow: FlowConfig, changes: Changes, reserved: Reserved
    ) -> list[tuple[Listener, Port]]:
        """The ports of ``front`` for each listener: those that stay, and new ones, which accept already."""
        assert self.front is not None
        before, opened, found = self.front.entries, [], []
        with grpc_is_quiet():
            try:
                for index, listener in enumerate(flow.gateway.listeners):
                    source = changes.sources[index]
                    if source is not None and front is self.front and before[source][0] == listener:
                        found.append(before[source])
                        continue
                    sockets = reserved.take(index) if source is None else before[source][1].share()
                    try:
                        opened.append(front.opened(listener, sockets))
                    except BaseException:
                        for each in sockets:  # which nobody owns, unless the port got them
                            each.close()
                        raise
                    found.append((listener, opened[-1]))
            except BaseException:
                self._leaving.add_ports(opened, 0.0, lambda: None)
                raise
        return found

    def _turn(
        self,
        flow: FlowConfig,
        graph: Graph,
        front: Front,
        entries: list[tuple[Listener, Port]],
        identity: _Identity | None,
    ) -> Deferred[None]:
        old_flow, self.flow = self.flow, flow
        old_graph, self.graph = self.graph, graph
        old_front, self.front = self.front, front
        assert old_front is not None
        old_ports = old_front.ports
        front.entries = entries
        if graph is not old_graph:
            self.switch.turn(graph.dispatcher)
        if front is not old_front:
            front.start()
        self._follow(identity, flow.gateway)
        added = [port for port in front.ports if port not in old_ports]
        self._turned(graph is not old_graph)
        announce(port.report() for port in added)
        gone = [port for port in old_ports if port not in front.ports]
        if gone or front is not old_front:
            end: Callable[[], None] = lambda: None  # noqa: E731
            if front is not old_front:
                self._leaving_fronts.append(old_front)
                end = partial(self._front_ended, old_front)
            self._leaving.add_ports(gone, old_flow.gateway.grace_period_s, end)
        return succeed(None) if graph is old_graph else self._leaving.add_graph(old_graph)

    def _unused(self, front: Front) -> Deferred[None]:
        assert self.front is not None
        discarded: Deferred[None] = self._bridge.offload(front.observing.discard, self.front.observing)
        # The gateway may be stopping: then the process ends with what is open.
        return discarded.addErrback(lambda failure: failure.trap(CancelledError) and None)

    def _front_ended(self, front: Front) -> None:
        self._leaving_fronts.remove(front)
        front.stop_looking()
        others = [each.observing for each in self.fronts]
        Deferred.fromCoroutine(front.observing.end(others)).addErrback(
            lambda failure: log.failure("what watched requests could not be ended", failure=failure)
        )

    async def end_observing(self) -> None:
        """End what watches requests, after ``close``; one after the other."""
        fronts = self.fronts
        for at, front in enumerate(fronts):
            await front.observing.end([each.observing for each in fronts[:at]])

    def _follow(self, identity: _Identity | None, settings: GatewayConfig) -> None:
        """Use the certificates that were just read, and look for changes of these files from now on."""
        before, self._renewal = self._renewal, None
        if before is not None:
            before.stop()
        if identity is None:
            return
        if before is not None and before.credentials != identity.credentials:
            self._renewed(identity.credentials)
        self._renewal = Renewal(
            identity.watched,
            identity.credentials,
            self._renewed,
            clock=self._reactor,
            offload=self._bridge.offload,
            interval_s=settings.ssl_reload_interval_s,
            warning_days=settings.ssl_expiry_warning_days,
        )
        self._renewal.start()

    def _renewed(self, credentials: TlsCredentials) -> None:
        if self.front is not None:
            self.front.renew(credentials)

    def admit(self, replica: ReplicaId, old: ReplicaId | None = None) -> None:
        """
        Call ``replica``, too, when it is up: wherever ``old`` is called, by earlier graphs as well.

        None is for all graphs that have the executor as it is now.
        """
        for graph in self.graphs:
            if graph.has_executor_of(self.flow, replica.deployment) if old is None else graph.calls(old):
                graph.admit(replica)
                if replica in self.addresses:
                    graph.replica_up(replica, self.addresses[replica])

    def rest(self, deployment: str, shard: int, rests: bool) -> None:
        """
        Say whether it is right that an executor has no replica, because no request needs one.

        ``needed()`` is called when one does.
        """
        for graph in self.graphs:
            if (deployment, shard) in graph.pool.connected():
                graph.pool.rest(deployment, shard, rests)

    def known(self, replica: ReplicaId) -> Deferred[None]:
        """
        Fires when ``replica`` is connected and has told what it binds.

        Fails with ReplicaGone if it is not up, or is down before that.
        """
        return self._known(self.graph, replica)

    def _known(self, graph: Graph, replica: ReplicaId) -> Deferred[None]:
        address = self.addresses.get(replica)
        if address is None:
            return fail(ReplicaGone())
        return graph.pool.replica_known(replica.deployment, address, replica.shard)

    def all_known(self, *, but: ReplicaId) -> Deferred[None]:
        """Fires when all replicas that are up, ``but`` one, are known, or after a few seconds."""
        waiting = [self.known(each).addErrback(_trap_gone) for each in self.addresses if each != but]
        known: Deferred[None] = gatherResults(waiting).addCallback(lambda _: None)
        clock: Any = self._reactor
        known.addTimeout(_DISCOVERY_LIMIT_S, clock)
        return known.addErrback(_trap_timeout)

    def give_up(self, replica: ReplicaId) -> Deferred[None]:
        """Call ``replica`` no more. Fires when what it has is answered."""
        address = self.addresses.get(replica)
        retiring = [graph.retire(replica, address) for graph in self.graphs]
        return gatherResults(retiring).addCallback(lambda _: None)

    def loads(self, parts: Collection[PartKey]) -> Mapping[PartKey, Load]:
        """What is under way at ``parts``: at the executors as they are now, for earlier graphs as well."""
        found: dict[PartKey, Load] = {}
        for graph in self.graphs:
            for part in graph.pool.parts():
                key = part.deployment, part.shard
                if key in parts and graph.has_executor_of(self.flow, part.deployment):
                    found[key] = found.get(key, Load()) + Load(part.in_flight, part.queued)
        return found

    def in_flight(self) -> Mapping[ReplicaId, int]:
        """What each replica that is up works on."""
        by_place: Counter[tuple[str, int, str]] = Counter()
        for graph in self.graphs:
            for name, states in graph.pool.states().items():
                for state in states:
                    by_place[name, state.shard, state.address] += state.in_flight
        return {
            each: by_place[each.deployment, each.shard, address] for each, address in self.addresses.items()
        }

    def _follow_pool(self, graph: Graph) -> None:
        graph.pool.on_needed(self._is_needed)
        graph.pool.on_out_of_reach(self._is_out_of_reach)

    def _is_needed(self) -> None:
        self.needed()

    def _is_out_of_reach(self, address: str) -> None:
        for replica in [each for each, its in self.addresses.items() if its == address]:
            self.out_of_reach(replica)

    # -- executors -----------------------------------------------------------------------------------

    def replica_up(self, replica: ReplicaId, address: str) -> None:
        """A replica's process serves at ``address``."""
        self.addresses[replica] = address
        for graph in self._graphs:
            graph.replica_up(replica, address)

    def replica_down(self, replica: ReplicaId) -> None:
        """A replica's process has ended, or is about to."""
        address = self.addresses.pop(replica, None)
        if address is not None:
            for graph in self._graphs:
                graph.replica_down(replica, address)

    @property
    def _graphs(self) -> list[Graph]:
        """All that call replicas: the one that serves, earlier ones, and the one that is to serve."""
        return [*self.graphs, *([] if self._next is None else [self._next])]

    # -- the end -------------------------------------------------------------------------------------

    def stop_changes(self) -> None:
        """Nothing is changed any more."""
        self._stopping = True
        if self._renewal is not None:
            self._renewal.stop()

    def drain(self, grace_s: float) -> Deferred[None]:
        """Close all ports, those that were replaced, too. Fires when that is done and no request is left."""
        self._leaving.hurry()
        draining = [port.drain(grace_s) for port in self.all_ports]
        ending = [dispatcher.drain() for dispatcher in self.dispatchers]
        everything = [*draining, *ending, self._leaving.ports_closed()]
        return DeferredList(everything, consumeErrors=True).addCallback(lambda _: None)

    def close(self) -> None:
        """Close the connections to executors, after ``drain``."""
        self.graph.pool.close()
        if self.front is not None:
            self.front.stop_looking()


def _trap_timeout(failure: Failure) -> None:
    failure.trap(TimeoutError)


def _trap_gone(failure: Failure) -> None:
    """Nobody waits for it any more."""
    failure.trap(ReplicaGone, CancelledError)


def _unwrapped(failure: Failure) -> Failure:
    """The first failure of those that are waited for together."""
    return failure.value.subFailure if isinstance(failure.value, FirstError) else failure


@attrs.frozen
class _Identity:
    """The files of TLS, as they were when they were read, and what was in them."""

    watched: Watched
    credentials: TlsCredentials

    @classmethod
    def read(cls, files: TlsFiles) -> _Identity:
        """Blocks. Raises UnusableTlsFile."""
        watched = Watched.of(files)
        return cls(watched, load_credentials(files))


@contextmanager
def grpc_is_quiet() -> Iterator[None]:
    """
    Have gRPC's library write nothing to stderr if it is loaded meanwhile, unless the environment says more.

    It writes a line for each handshake that names an unknown server, with the client's text in it.
    """
    if "GRPC_VERBOSITY" in os.environ:
        yield
        return
    os.environ["GRPC_VERBOSITY"] = "NONE"
    try:
        yield
    finally:
        # It was read by now, and executors have nothing to do with it.
        del os.environ["GRPC_VERBOSITY"]
