"""
Builds the parts of a running gateway from its config, starts them in order, changes them while it serves, and
drains them on stop.

Start: bridge, pool, dispatcher, ports; the service starts the processes of the executors. Stop goes outside
in: take nothing new, let what is under way finish within the grace period, then close the client connections,
the executors, the channels to them, and the loop thread.

    Front (ports, access, limits) ──> Switch ──> Graph (topology, pool)
                                                 ... and earlier ones, while they have requests

A change makes a new graph, a new front, or both, beside those that serve; when all of it is ready, it takes
their place in one turn of the reactor, and the old ones end when what they have is answered.

What a port speaks is its own matter (``gatewayd.protocols.port``).
"""

from __future__ import annotations

import os
import random
import socket
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import attrs
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredList,
    TimeoutError,
    gatherResults,
    succeed,
)
from twisted.logger import Logger
from twisted.python.failure import Failure

from gatewayd.access.guard import Engine
from gatewayd.bridge import Bridge
from gatewayd.clocks import Reactor
from gatewayd.config import FlowConfig
from gatewayd.config.log_kinds import AccessLogConfig
from gatewayd.config.model import EVERY_ENDPOINT, GatewayClass, GatewayConfig, Listener
from gatewayd.config.recording import RecordConfig
from gatewayd.crowd import Place
from gatewayd.dispatch.dispatcher import Dispatcher
from gatewayd.errors import ConfigError, Draining
from gatewayd.health import Health, Phase, parts_of, serving_by_name
from gatewayd.messages.discovery import Endpoints
from gatewayd.offload import Offload
from gatewayd.otlp import Collector
from gatewayd.protocols.backend import StatusMaps
from gatewayd.protocols.port import Port, PortReport
from gatewayd.protocols.withholding import for_clients
from gatewayd.service.announcing import announce, announce_ready
from gatewayd.service.changes import Changes
from gatewayd.service.executors import Executors
from gatewayd.service.front import Front
from gatewayd.service.graph import Graph, Switch
from gatewayd.service.leaving import Leaving
from gatewayd.service.readings import read_bridge, read_errors, read_pool, read_ports
from gatewayd.service.reserved import Reserved, reserve
from gatewayd.service.strangers import warning_for
from gatewayd.status import status_of
from gatewayd.supervisor.replica_id import ReplicaId
from gatewayd.telemetry.failures import FailedRequest, Failures
from gatewayd.telemetry.metrics import table
from gatewayd.telemetry.metrics.lag import ReactorLag
from gatewayd.telemetry.metrics.reading import Reading
from gatewayd.telemetry.metrics.requests import RequestMetrics
from gatewayd.telemetry.observed import Observed, Observer
from gatewayd.tls.credentials import TlsCredentials, TlsFiles
from gatewayd.tls.files import load_credentials
from gatewayd.tls.renewal import Renewal, Watched

if TYPE_CHECKING:
    from gatewayd.custom.mount import Mounted
    from gatewayd.telemetry.access_file import AccessFile
    from gatewayd.telemetry.access_log import AccessLog
    from gatewayd.telemetry.exporting import SpanExport
    from gatewayd.telemetry.recorder import Recorder

log = Logger()

# The endpoints of paths that every gateway may have, and the empty one of requests that name none.
_NAMED_BY_PATHS: Final = ("", "/index", "/search", "/update", "/delete")

# Answers take milliseconds; an executor that is busy is asked again after a second, and then rarely.
_DISCOVERY_LIMIT_S: Final = 5.0


class GatewayServer:
    """
    One running gateway. Reactor thread only.

    Pass the supervisor's events to ``replica_up`` and ``replica_down``; ``stop`` also stops the
    ``executors``. ``on_listening(ports, is_open)`` is called when all ports listen; ``is_open`` says whether
    the log had, or would have had, the warning that strangers can use the gateway, and
    ``warns_of_strangers`` whether it may.

    ``sockets`` are those that the process inherits, for each listener; one that has none binds its port. In a
    worker, ``place`` is its own among the workers, and ``announces`` is false: what is said of the ports, the
    master says. ``observers`` are told of every request, ``on_health`` how the gateway is whenever that may
    have changed. ``name`` is that of the process in its figures. ``replicas`` are those that the Flow calls
    of the executors that are started here, None for all of whom it hears.
    """

    def __init__(
        self,
        flow: FlowConfig,
        reactor: Reactor,
        executors: Executors,
        *,
        replicas: Collection[ReplicaId] | None = None,
        warns_of_strangers: bool = True,
        on_listening: Callable[[Sequence[int], bool], None] = lambda ports, is_open: None,
        sockets: Sequence[Sequence[socket.socket]] = (),
        place: Place | None = None,
        announces: bool = True,
        status: Callable[[], StatusMaps] = status_of,
        observers: Sequence[Observer] = (),
        on_health: Callable[[Health], None] = lambda health: None,
        name: str = "gateway",
    ) -> None:
        self._warns_of_strangers = warns_of_strangers
        self._on_listening = on_listening
        self._sockets = sockets
        self._place = place
        self._announces = announces
        self._status = status
        self._traces: SpanExport | None = None
        self._recorder: Recorder | None = None
        self._requests: RequestMetrics | None = None
        self._lag: ReactorLag | None = None
        self._on_health = on_health
        self._name = name
        self._stopping = False
        self._reactor = reactor
        self._bridge = Bridge(reactor)
        self._flow = flow
        self._graph = Graph.over(0, flow, replicas, self._bridge, reactor)
        self._switch = Switch(self._graph.dispatcher)
        self._front: Front | None = None
        self._executors = executors
        self._custom: Mounted | None = None
        self._custom_switch: Switch | None = None
        self._next: Graph | None = None  # one that is to serve
        self._leaving = Leaving(reactor)
        self._addresses: dict[ReplicaId, str] = {}
        self._renewal: Renewal | None = None
        self._access_file: AccessFile | None = None
        self._phase: Phase = "starting"
        self._has_started = False
        self._is_retired = False
        self._told: tuple[bool, dict[str, bool]] | None = None  # what the ports know of health
        self._graph.pool.on_change(self._tell_health)
        if flow.gateway.measures:
            named = (*_NAMED_BY_PATHS, *flow.gateway.expose_endpoints)
            self._requests = RequestMetrics(
                (name for name in named if name != EVERY_ENDPOINT),
                lambda: self._endpoints().bound.keys(),
            )
            self._requests.measure(each.name for each in flow.deployments)
            self._lag = ReactorLag(reactor)
        self._observers = [*observers, *(() if self._requests is None else (self._requests,))]
        self._failures = Failures(time.time)
        if flow.gateway.admin_port is not None:
            self._observers.append(self._failures)

    @property
    def health(self) -> Health:
        """How the gateway is now."""
        optional = [each.name for each in self._flow.deployments if each.floating and not each.collected]
        return Health(self._phase, self._has_started, parts_of(self._graph.pool.connected(), optional))

    @property
    def offload(self) -> Offload:
        """Runs pure functions in a pool thread."""
        return self._bridge.offload

    @property
    def processes(self) -> Mapping[str, int]:
        """Its own, by the name that its figures have."""
        return {self._name: os.getpid()}

    @property
    def failures(self) -> tuple[FailedRequest, ...]:
        """The requests that failed last, where there is an admin site to show them."""
        return self._failures.last

    def read(self) -> Deferred[Reading]:
        """The figures of this process now, if it measures anything; after ``start``."""
        reading = Reading()
        if self._requests is not None:
            self._requests.read(reading)
        if self._lag is not None:
            reading.set(table.LAG, self._lag.seen.value(), self._name)
        numbers = {
            (each.deployment, each.shard, each.replica): address
            for each, address in self._addresses.items()
            if self._graph.calls(each)
        }
        read_pool(reading, self._graph.pool, numbers)
        read_bridge(reading, self._bridge, self._name)
        read_errors(reading)
        if self._front is not None:
            read_ports(reading, self.port_reports, self._front.buffers, self._front.admission)
        return succeed(reading)

    def _tell_health(self) -> None:
        """Have the ports know what has changed, for the health service of gRPC."""
        self._on_health(self.health)
        settings = self.flow.gateway
        # Who asks by name learns which names there are.
        by_name = settings.expose_errors or settings.expose_health
        told = self._phase == "serving", serving_by_name(self.health, self.flow.name) if by_name else {}
        if told != self._told and self._phase != "stopping":
            self._told = told
            for port in [] if self._front is None else self._front.ports:
                port.set_serving(*told)

    @property
    def flow(self) -> FlowConfig:
        """What serves now."""
        return self._flow

    @property
    def graph(self) -> Graph:
        """The graph that new requests take."""
        return self._graph

    @property
    def ports(self) -> list[int]:
        """The port that each of the config's listeners got, in their order; after ``start``."""
        return [report.port for report in self.port_reports]

    @property
    def port_reports(self) -> list[PortReport]:
        """What there is to say of each listener now, in their order; after ``start``."""
        return [] if self._front is None else self._front.port_reports

    def under_way(self) -> int | None:
        """The requests that are under way, floating calls included; None if that is not known here."""
        return sum(dispatcher.in_flight for dispatcher in self._dispatchers)

    def start(self) -> None:
        """
        Listen. Raises ConfigError: the process has to end then.

        Blocks for a moment while certificates are read and gRPC binds its ports.
        """
        for warning in self.flow.warnings:
            log.warn("{warning}", warning=warning)
        with _grpc_is_quiet():
            self._listen()

    def _listen(self) -> None:
        settings = self.flow.gateway
        if settings.traces is not None:
            self._trace(settings.traces)
        if settings.record is not None:
            self._record(settings.record)
        if settings.access_log is not None:
            self._observers.append(self._access_log(settings.access_log))
        if settings.custom is not None:
            self._custom = self._mounted(settings.custom)
        identity = None if settings.tls is None else _Identity.read(settings.tls)
        self._front = front = self._front_of(settings, identity)
        self._bridge.start()
        if self._lag is not None:
            self._lag.start()
        front.start()
        for index, listener in enumerate(settings.listeners):
            port = front.opened(listener, self._sockets[index] if self._sockets else ())
            front.entries.append((listener, port))
        self._tell_health()
        if self._announces:
            announce(self.port_reports)
        if identity is not None:
            self._renew_from(identity, settings)
        open_to_strangers = warning_for(settings, identifies=settings.auth is not None)
        is_open = open_to_strangers is not None
        if is_open and self._warns_of_strangers and self._announces:
            log.warn("{warning}", warning=open_to_strangers)
        self._on_listening(self.ports, is_open)

    def _access_log(self, config: AccessLogConfig) -> AccessLog:
        """Raises ConfigError for a file that cannot be opened."""
        from gatewayd.telemetry.access_file import AccessFile
        from gatewayd.telemetry.access_log import AccessLog, Entries, EntriesOfTheLog, as_json, as_text

        entries: Entries = EntriesOfTheLog()
        if config.path is not None:
            form = as_json if (config.form or self.flow.gateway.log_format) == "json" else as_text
            self._access_file = AccessFile(config.path, form, self._reactor, self._bridge.offload)
            entries = self._access_file
        return AccessLog(entries, sample=config.sample, dice=random.random, wall_clock=time.time)

    def _front_of(self, settings: GatewayConfig, identity: _Identity | None) -> Front:
        return Front(
            settings,
            self._switch,
            reactor=self._reactor,
            bridge=self._bridge,
            credentials=None if identity is None else identity.credentials,
            endpoints=self._endpoints,
            health=lambda: self.health,
            status=self._status,
            observed=self._observed,
            extension=self._custom,
            place=self._place,
        )

    def _endpoints(self) -> Endpoints:
        return self._graph.pool.endpoints()

    def _observed(self, engine: Engine, protocol: str) -> Engine:
        return (
            Observed(engine, protocol, self._observers, self._reactor.seconds) if self._observers else engine
        )

    def _renew_from(self, identity: _Identity, settings: GatewayConfig) -> None:
        """Take up changes of the files of TLS from now on."""
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

    def _trace(self, collector: Collector) -> None:
        # Few gateways send traces, and what sends them is large.
        from gatewayd.telemetry.exporting import SpanExport
        from gatewayd.telemetry.tracer import Tracer

        settings = self.flow.gateway
        instance = f"{settings.name}/{socket.gethostname()}/{os.getpid()}"
        self._traces = SpanExport(collector, settings.name, instance, self.flow.name)
        self._observers.append(
            Tracer(
                settings.traces_sample,
                self._traces.export,
                self._reactor.seconds,
                from_clients=settings.traces_from_clients,
            )
        )

    def _record(self, config: RecordConfig) -> None:
        from gatewayd.telemetry.recorder import Recorder

        log.info("requests and their answers are recorded in {path} (gateway.record)", path=config.path)
        self._recorder = Recorder(config, self.flow.name, self._bridge.offload, self._reactor)
        try:
            self._recorder.open()
        except OSError as error:
            raise ConfigError(
                f"gateway.record: {config.path} cannot be written: {error.strerror}; name a file in a folder "
                "that the gateway's user may write to"
            ) from error
        self._observers.append(self._recorder)

    def _renewed(self, credentials: TlsCredentials) -> None:
        if self._front is not None:
            self._front.renew(credentials)

    def _mounted(self, custom: GatewayClass) -> Mounted:
        # Most gateways have no class of their own, and one that speaks gRPC alone needs nothing of the web.
        from gatewayd.custom.loading import create
        from gatewayd.custom.mount import Mounted

        instance = create(custom, self.flow.base_dir)
        settings = self.flow.gateway
        web = any(set(listener.protocols) - {"grpc"} for listener in settings.listeners)
        self._custom_switch = Switch(self._for_custom(settings))
        return Mounted(
            instance,
            custom.place,
            dispatcher=self._custom_switch,
            reactor=self._reactor,
            web=web,
        )

    def _for_custom(self, settings: GatewayConfig) -> Engine:
        exposed = for_clients(self._switch, expose_errors=settings.expose_errors)
        return self._observed(exposed, "custom")

    async def serve(self) -> bool:
        """
        Every executor has served once: start what is to be started then, and report every port as healthy.

        Returns whether it serves; False if it is being stopped. Raises ConfigError.
        """
        await self._discovered(self._graph.pool.discovered())
        if self._custom is not None and not self._stopping:
            await self._custom.start()
        if self._stopping or self._front is None:
            return False
        self._phase = "serving"
        self._has_started = True
        self._tell_health()
        if self._announces:
            announce_ready(self.port_reports)
        return True

    def _discovered(self, known: Deferred[None]) -> Deferred[None]:
        """
        Fires when it is ``known`` what the executors bind, or has not become known within a few seconds.

        Paths and hints depend on it from the first request on.
        """
        limit = self._reactor.callLater(_DISCOVERY_LIMIT_S, known.cancel)

        def late(failure: Failure) -> None:
            failure.trap(CancelledError)
            log.warn("not all executors have told which endpoints they bind; they are called for every one")

        def done(_: None) -> None:
            if limit.active():
                limit.cancel()

        return known.addErrback(late).addCallback(done)

    def reopen_logs(self) -> None:
        """Open the files anew that this process writes by itself."""
        if self._access_file is not None:
            self._access_file.reopen()

    def set_log_level(self, level: str, namespace: str) -> None:
        """Nothing to do: the log of this process has it already."""

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

        What is returned fires when nothing is left of the graph before. Raises ConfigError, or Draining if
        the gateway is stopped meanwhile; then all is as it was.
        """
        settings, front, graph = flow.gateway, self._front, self._graph
        assert front is not None, "change before start"
        identity = None
        if settings.tls is not None:
            identity = await self._bridge.offload(_Identity.read, settings.tls)
        if changes.front:
            front = await self._bridge.offload(self._front_of, settings, identity)
        try:
            if changes.graph:
                graph = await self._next_graph(flow, changes.replicas, generation)
            if self._stopping:
                raise Draining
            entries = self._entries(front, flow, changes, reserved)
        except BaseException:
            if graph is not self._graph:
                graph.pool.close()
            raise
        finally:
            self._next = None
        # From here on nothing fails, and nothing else happens in between.
        return self._turn(flow, graph, front, entries, identity)

    async def _next_graph(self, flow: FlowConfig, replicas: Collection[ReplicaId], generation: int) -> Graph:
        """One whose executors are connected, and have told what they bind."""
        before = self._graph.pool
        graph = Graph.over(generation, flow, replicas, self._bridge, self._reactor, before=before)
        self._next = graph
        for replica, address in self._addresses.items():
            graph.replica_up(replica, address)
        try:
            await self._discovered(graph.pool.discovered(before.reached()))
        except BaseException:
            graph.pool.close()
            raise
        return graph

    def _entries(
        self, front: Front, flow: FlowConfig, changes: Changes, reserved: Reserved
    ) -> list[tuple[Listener, Port]]:
        """The ports of ``front`` for each listener: those that stay, and new ones, which accept already."""
        assert self._front is not None
        before, opened, found = self._front.entries, [], []
        with _grpc_is_quiet():
            try:
                for index, listener in enumerate(flow.gateway.listeners):
                    source = changes.sources[index]
                    if source is not None and front is self._front and before[source][0] == listener:
                        found.append(before[source])
                        continue
                    sockets = reserved.take(index) if source is None else before[source][1].share()
                    opened.append(front.opened(listener, sockets))
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
        old_flow, self._flow = self._flow, flow
        old_graph, self._graph = self._graph, graph
        old_front, self._front = self._front, front
        assert old_front is not None
        old_ports = old_front.ports
        front.entries = entries
        if graph is not old_graph:
            self._switch.turn(graph.dispatcher)
            graph.pool.on_change(self._tell_health)
            if self._requests is not None:
                self._requests.measure(each.name for each in flow.deployments)
        if front is not old_front:
            front.start()
            if self._custom_switch is not None:
                self._custom_switch.turn(self._for_custom(flow.gateway))
        self._follow(identity, front, renewed=front is old_front)
        added = [port for port in front.ports if port not in old_ports]
        self._told = None  # by new ports
        self._tell_health()
        announce(port.report() for port in added)
        gone = [port for port in old_ports if port not in front.ports]
        if gone or front is not old_front:
            end = old_front.stop_looking if front is not old_front else lambda: None
            self._leaving.add_ports(gone, old_flow.gateway.grace_period_s, end)
        return succeed(None) if graph is old_graph else self._leaving.add_graph(old_graph)

    def _follow(self, identity: _Identity | None, front: Front, *, renewed: bool) -> None:
        """Use the certificates that were read just now, and look for changes of these files from now on."""
        before = self._renewal
        if before is not None:
            before.stop()
        self._renewal = None
        if identity is not None:
            if renewed and before is not None and before.credentials != identity.credentials:
                front.renew(identity.credentials)
            self._renew_from(identity, front.settings)

    def admit(self, replica: ReplicaId) -> None:
        """Call ``replica``, too, when it is up."""
        self._graph.admit(replica)

    def known(self, replica: ReplicaId) -> Deferred[None]:
        """Fires when ``replica``, which is up, is connected and has told what it binds."""
        address = self._addresses[replica]
        return self._graph.pool.replica_known(replica.deployment, address, replica.shard)

    def all_known(self, *, but: ReplicaId) -> Deferred[None]:
        """Fires when all replicas that are up, ``but`` one, are known, or after a few seconds."""
        waiting = [self.known(each) for each in self._addresses if each != but]
        known: Deferred[None] = gatherResults(waiting).addCallback(lambda _: None)
        clock: Any = self._reactor
        known.addTimeout(_DISCOVERY_LIMIT_S, clock)
        return known.addErrback(_trap_timeout)

    def give_up(self, replica: ReplicaId) -> Deferred[None]:
        """Call ``replica`` no more. Fires when what it has is answered."""
        address = self._addresses.get(replica)
        graphs = (self._graph, *self._leaving.graphs)
        return gatherResults([graph.retire(replica, address) for graph in graphs]).addCallback(lambda _: None)

    # -- the end -------------------------------------------------------------------------------------

    def retire(self) -> None:
        """Another process accepts from its sockets: have clients leave, and serve on until ``stop``."""
        self._is_retired = True
        self._leave()
        if self._front is not None:
            for port in self._front.ports:
                port.retire()

    def _leave(self) -> None:
        if self._place is not None:
            self._place.leave()

    async def stop(self, grace_s: float | None = None) -> None:
        """
        Returns when everything has ended: a little after the longer of the two grace periods, at the latest.

        Clients are refused after the first; floating calls, which no client waits for, have the second. A
        ``grace_s`` stands for both. One that has served is not ready for ``drain_delay_s`` before that, for
        load balancers to see; unless ``grace_s`` is given, or another worker has taken its place.
        """
        self._stopping = True
        if grace_s is None and self._phase == "serving" and not self._is_retired:
            await self._seen_not_ready(self.flow.gateway.drain_delay_s)
        self._phase = "stopping"
        self._leave()
        floating_s = self.flow.gateway.floating_grace_period_s if grace_s is None else grace_s
        if grace_s is None:
            grace_s = self.flow.gateway.grace_period_s
        started = self._reactor.seconds()
        if self._renewal is not None:
            self._renewal.stop()
        for dispatcher in self._dispatchers:
            dispatcher.close()
        over = self._reactor.callLater(grace_s, self._grace_over)
        floating = (
            None
            if floating_s is None
            else self._reactor.callLater(max(grace_s, floating_s), self._floating_over)
        )
        # The connections stay a moment longer than the grace period, for the refusals of what did not finish.
        ports = [] if self._front is None else self._front.ports
        self._leaving.hurry()
        draining = [port.drain(grace_s) for port in (*ports, *self._leaving.ports)]
        ending = [dispatcher.drain() for dispatcher in self._dispatchers]
        await DeferredList([*draining, *ending, self._leaving.ports_closed()], consumeErrors=True)
        for timer in (over, floating):
            if timer is not None and timer.active():
                timer.cancel()
        if self._custom is not None:
            await self._custom.stop(grace_s - (self._reactor.seconds() - started))
        left_s = max(1.0, grace_s - (self._reactor.seconds() - started))
        await self._executors.stop(left_s)
        self._graph.pool.close()
        if self._front is not None:
            self._front.stop_looking()
        if self._lag is not None:
            self._lag.stop()
        if self._recorder is not None:
            await self._recorder.stop()
        if self._traces is not None:
            await self._traces.stop(self._reactor, self._bridge.offload)
        if self._access_file is not None:
            await self._access_file.stop()
        await self._bridge.stop()
        for port in ports:
            await port.stop()
        log.info("stopped")

    async def _seen_not_ready(self, delay_s: float) -> None:
        if delay_s:
            self._phase = "draining"
            self._tell_health()
            log.info("not ready from now on; the ports close in {delay_s:g} s", delay_s=delay_s)
            over: Deferred[None] = Deferred()
            self._reactor.callLater(delay_s, over.callback, None)
            await over

    @property
    def _dispatchers(self) -> list[Dispatcher]:
        """Of all graphs that may have requests."""
        return [graph.dispatcher for graph in (self._graph, *self._leaving.graphs)]

    def _grace_over(self) -> None:
        count = sum(dispatcher.refuse_awaited() for dispatcher in self._dispatchers)
        if count:
            log.warn(
                "the grace period of {grace_s} s is over; {count} requests that were under way are refused",
                grace_s=self.flow.gateway.grace_period_s,
                count=count,
            )

    def _floating_over(self) -> None:
        dropped: Counter[str] = Counter()
        for dispatcher in self._dispatchers:
            dropped += dispatcher.abandon()
        if dropped:
            log.warn(
                "floating calls have not ended within {limit_s} s (gateway.floating_grace_period); "
                "dropped: {dropped}",
                limit_s=self.flow.gateway.floating_grace_period_s,
                dropped=", ".join(f"{count} of {name}" for name, count in sorted(dropped.items())),
            )

    # -- executors -----------------------------------------------------------------------------------

    def replica_up(self, replica: ReplicaId, address: str) -> None:
        """A replica's process serves at ``address``."""
        self._addresses[replica] = address
        for graph in self._graphs:
            graph.replica_up(replica, address)

    def replica_down(self, replica: ReplicaId) -> None:
        """A replica's process has ended, or is about to."""
        address = self._addresses.pop(replica, None)
        if address is not None:
            for graph in self._graphs:
                graph.replica_down(replica, address)

    @property
    def _graphs(self) -> list[Graph]:
        """All that call replicas: the one that serves, earlier ones, and the one that is to serve."""
        return [self._graph, *self._leaving.graphs, *([] if self._next is None else [self._next])]


def _trap_timeout(failure: Failure) -> None:
    failure.trap(TimeoutError)


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
def _grpc_is_quiet() -> Iterator[None]:
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
