"""
Builds the parts of a running gateway from its config, starts them in order, and drains them on stop.

Start: bridge, pool, dispatcher, ports; the service starts the processes of the executors. Stop goes outside
in: take nothing new, let what is under way finish within the grace period, then close the client connections,
the executors, the channels to them, and the loop thread.

What serves, and may be changed meanwhile, is ``serving.py``'s; what a port speaks is its own matter
(``gatewayd.protocols.port``).
"""

from __future__ import annotations

import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import (
    Deferred,
    succeed,
)
from twisted.logger import Logger

from gatewayd.access.guard import Engine
from gatewayd.bridge import Bridge
from gatewayd.clocks import Reactor
from gatewayd.config import FlowConfig
from gatewayd.config.model import EVERY_ENDPOINT, GatewayClass, GatewayConfig
from gatewayd.crowd import Place
from gatewayd.health import Health, Phase, parts_of, serving_by_name
from gatewayd.messages.generations import Generation
from gatewayd.messages.request import Request
from gatewayd.offload import Offload
from gatewayd.protocols.backend import StatusMaps
from gatewayd.protocols.port import PortReport
from gatewayd.protocols.withholding import for_clients
from gatewayd.service.announcing import announce, announce_ready
from gatewayd.service.executors import Executors
from gatewayd.service.fitness import check_fitness, check_redaction
from gatewayd.service.front import Front
from gatewayd.service.graph import Graph, Switch
from gatewayd.service.observing import Observing, read_dropped
from gatewayd.service.readings import (
    read_bridge,
    read_errors,
    read_pool,
    read_ports,
    read_under_way,
)
from gatewayd.service.serving import Serving, grpc_is_quiet
from gatewayd.service.strangers import warning_for
from gatewayd.status import status_of, with_documents, with_followed
from gatewayd.streams import StreamingEndpoints
from gatewayd.supervisor.replica_id import ReplicaId
from gatewayd.telemetry.failures import FailedRequest, Failures
from gatewayd.telemetry.metrics import table
from gatewayd.telemetry.metrics.lag import ReactorLag
from gatewayd.telemetry.metrics.reading import Reading
from gatewayd.telemetry.metrics.requests import RequestMetrics
from gatewayd.telemetry.observed import Observed
from gatewayd.tls.credentials import TlsCredentials

if TYPE_CHECKING:
    from gatewayd.custom.mount import Mounted

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
    master says. ``on_health`` is told how the gateway is whenever that may have changed. ``name`` is that of
    the process in its figures. ``replicas`` are those that the Flow calls of the executors that are started
    here, None for all of whom it hears.
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
        on_health: Callable[[Health], None] = lambda health: None,
        name: str = "gateway",
    ) -> None:
        self._warns_of_strangers = warns_of_strangers
        self._on_listening = on_listening
        self._sockets = sockets
        self._place = place
        self._announces = announces
        self._status = status
        self._requests: RequestMetrics | None = None
        self._lag: ReactorLag | None = None
        self._on_health = on_health
        self._name = name
        self._stopping = False
        self._reactor = reactor
        self._bridge = Bridge(reactor)
        self._serving = Serving(flow, replicas, reactor, self._bridge, self._front_of, self._turned)
        self._executors = executors
        self._custom: Mounted | None = None
        self._custom_switch: Switch | None = None
        self._observing: Observing | None = None  # that of the first front
        self._phase: Phase = "starting"
        self._has_connected = False
        self._has_started = False
        self._is_retired = False
        self._told: tuple[bool, dict[str, bool], Generation | None] | None = (
            None  # what the ports know of health
        )
        self._streaming = StreamingEndpoints(known=self._until_known)
        self._learn()
        self.graph.pool.on_change(self._replicas_changed)
        if flow.gateway.measures:
            named = (*_NAMED_BY_PATHS, *flow.gateway.expose_endpoints)
            self._requests = RequestMetrics(
                (name for name in named if name != EVERY_ENDPOINT),
                lambda: self._serving.endpoints().bound.keys(),
            )
            self._requests.measure(each.name for each in flow.deployments)
            self._lag = ReactorLag(reactor)
        self._failures = Failures(time.time)
        self._of_failures = () if flow.gateway.admin_port is None else (self._failures,)

    @property
    def health(self) -> Health:
        """How the gateway is now."""
        optional = [each.name for each in self.flow.deployments if each.floating and not each.collected]
        pool = self.graph.pool
        parts = parts_of(pool.connected(), optional, pool.foreign(), pool.expected())
        return Health(self._phase, self._has_started, parts)

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
        serving = self._serving
        numbers = {
            (each.deployment, each.shard, address): each.replica
            for each, address in serving.addresses.items()
        }
        read_pool(reading, self.graph.pool, numbers)
        read_under_way(reading, (graph.pool for graph in serving.graphs), numbers)
        read_bridge(reading, self._bridge, self._name)
        read_errors(reading)
        if serving.front is not None:
            reports = [port.report() for port in serving.all_ports]
            read_ports(reading, reports, [front.held for front in serving.fronts])
            read_dropped(reading, [front.observing for front in serving.fronts])
        return succeed(reading)

    def _replicas_changed(self) -> None:
        self._learn()
        self._tell_health()

    def _learn(self) -> None:
        """Executors may have told of their endpoints."""
        self._streaming.endpoints = self._serving.endpoints().streaming
        self._streaming.unknown = self.graph.dispatcher.undecided

    def _until_known(self, request: Request | None, timeout_s: float | None) -> Deferred[float | None]:
        known = self.graph.dispatcher.known(request, timeout_s)

        def learn(left_s: float | None) -> float | None:
            self._learn()  # this may be before the pool has told of the change
            return left_s

        return known.addCallback(learn)

    def _tell_health(self) -> None:
        """Have the ports know what has changed, for the health service of gRPC."""
        self._on_health(self.health)
        settings = self.flow.gateway
        # Who asks by name learns which names there are.
        by_name = settings.expose_errors or settings.expose_health
        told = (
            self._phase == "serving",
            serving_by_name(self.health, self.flow.name) if by_name else {},
            self.graph.pool.endpoints().generation,
        )
        if told != self._told and self._phase != "stopping":
            self._told = told
            for port in self._serving.ports:
                port.set_serving(*told)

    @property
    def flow(self) -> FlowConfig:
        """What serves now."""
        return self._serving.flow

    @property
    def changeable(self) -> Serving:
        """What a reload changes."""
        return self._serving

    @property
    def graph(self) -> Graph:
        """The graph that new requests take."""
        return self._serving.graph

    @property
    def ports(self) -> list[int]:
        """The port that each of the config's listeners got, in their order; after ``start``."""
        return [report.port for report in self.port_reports]

    @property
    def port_reports(self) -> list[PortReport]:
        """What there is to say of each listener now, in their order; after ``start``."""
        return [port.report() for port in self._serving.ports]

    def under_way(self) -> int | None:
        """The requests that are under way, floating calls included; None if that is not known here."""
        return sum(dispatcher.in_flight for dispatcher in self._serving.dispatchers)

    def start(self) -> None:
        """
        Listen. Raises ConfigError: the process has to end then.

        Blocks for a moment while certificates are read and gRPC binds its ports.
        """
        for warning in self.flow.warnings:
            log.warn("{warning}", warning=warning)
        with grpc_is_quiet():
            self._listen()

    def _listen(self) -> None:
        settings = self.flow.gateway
        self._observing = Observing.of(self.flow, self._reactor, self._bridge.offload)
        if settings.custom is not None:
            self._custom = self._mounted(settings.custom)
        if self._lag is not None:
            self._lag.start()
        self._serving.listen(self._sockets)
        self._told = None  # by these ports
        self._tell_health()
        if self._announces:
            announce(self.port_reports)
        open_to_strangers = warning_for(settings, identifies=settings.auth is not None)
        is_open = open_to_strangers is not None
        if is_open and self._warns_of_strangers and self._announces:
            log.warn("{warning}", warning=open_to_strangers)
        self._on_listening(self.ports, is_open)

    def _front_of(self, flow: FlowConfig, credentials: TlsCredentials | None) -> Front:
        """In the thread of a reload, too. Raises ConfigError; then nothing is left open."""
        before = self._serving.front
        were = self._observing if before is None else before.observing
        assert were is not None
        observing = Observing.of(flow, self._reactor, self._bridge.offload, were)
        try:
            return Front(
                flow.gateway,
                self._serving.switch,
                reactor=self._reactor,
                bridge=self._bridge,
                credentials=credentials,
                endpoints=self._serving.endpoints,
                streaming=self._streaming,
                health=lambda: self.health,
                status=self._status_now,
                observing=observing,
                observed=partial(self._observed, observing),
                extension=self._custom,
                place=self._place,
                before=before,
            )
        except BaseException:
            observing.discard(were)
            raise

    def _status_now(self) -> StatusMaps:
        pool = self.graph.pool
        return with_documents(with_followed(self._status(), pool.followed()), pool.endpoints().generation)

    def _turned(self, is_other_graph: bool) -> None:
        """Something else serves."""
        flow = self.flow
        if is_other_graph:
            self.graph.pool.on_change(self._replicas_changed)
            self._learn()
        if self._requests is not None:
            self._requests.measure(each.name for each in flow.deployments)
        if self._custom_switch is not None:
            self._custom_switch.turn(self._for_custom(flow.gateway))
        check_redaction(flow.gateway.record, self.graph.pool)
        self._told = None  # by new ports
        self._tell_health()

    def _observed(self, observing: Observing, engine: Engine, protocol: str) -> Engine:
        figures = None if self._requests is None else self._requests.of(protocol)
        if figures is None and not observing.observers:
            return engine
        return Observed(
            engine,
            protocol,
            observing.observers,
            self._reactor.seconds,
            figures=figures,
            of_failures=self._of_failures,
        )

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
        exposed = for_clients(self._serving.switch, expose_errors=settings.expose_errors)
        front = self._serving.front
        observing = self._observing if front is None else front.observing
        assert observing is not None
        return self._observed(observing, exposed, "custom")

    async def connect(self) -> None:
        """
        Every executor serves: connect to them before ``start``, so that no client has to wait for that.

        Returns when that is done, or has taken a few seconds.
        """
        self._has_connected = True
        await self._serving.discovered(self.graph.pool.discovered())

    async def serve(self) -> bool:
        """
        Every executor has served once: start what is to be started then, and report every port as healthy.

        Returns whether it serves; False if it is being stopped. Raises ConfigError.
        """
        if not self._has_connected:
            await self.connect()
        if not self._stopping:
            check_fitness(self.graph.dispatcher.topology, self.graph.pool)
            check_redaction(self.flow.gateway.record, self.graph.pool)
        if self._custom is not None and not self._stopping:
            await self._custom.start()
        if self._stopping:
            return False
        self._phase = "serving"
        self._has_started = True
        self._tell_health()
        if self._announces:
            announce_ready(self.port_reports)
        return True

    def reopen_logs(self) -> None:
        """Open the files anew that this process writes by itself."""
        for front in self._serving.fronts:
            front.observing.reopen()

    def set_log_level(self, level: str, namespace: str) -> None:
        """Nothing to do: the log of this process has it already."""

    def retire(self) -> None:
        """Another process accepts from its sockets: have clients leave, and serve on until ``stop``."""
        self._is_retired = True
        self._leave()
        for port in self._serving.ports:
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
        self._serving.stop_changes()
        if grace_s is None and self._phase == "serving" and not self._is_retired:
            await self._seen_not_ready(self.flow.gateway.drain_delay_s)
        self._phase = "stopping"
        self._leave()
        floating_s = self.flow.gateway.floating_grace_period_s if grace_s is None else grace_s
        if grace_s is None:
            grace_s = self.flow.gateway.grace_period_s
        started = self._reactor.seconds()
        for dispatcher in self._serving.dispatchers:
            dispatcher.close()
        over = self._reactor.callLater(grace_s, self._grace_over)
        floating = (
            None
            if floating_s is None
            else self._reactor.callLater(max(grace_s, floating_s), self._floating_over)
        )
        # The connections stay a moment longer than the grace period, for the refusals of what did not finish.
        await self._serving.drain(grace_s)
        for timer in (over, floating):
            if timer is not None and timer.active():
                timer.cancel()
        if self._custom is not None:
            await self._custom.stop(grace_s - (self._reactor.seconds() - started))
        left_s = max(1.0, grace_s - (self._reactor.seconds() - started))
        await self._executors.stop(left_s)
        self._serving.close()
        if self._lag is not None:
            self._lag.stop()
        await self._serving.end_observing()
        if self._serving.front is None and self._observing is not None:
            await self._observing.end()  # it never listened
        await self._bridge.stop()
        for port in self._serving.ports:
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

    def _grace_over(self) -> None:
        count = sum(dispatcher.refuse_awaited() for dispatcher in self._serving.dispatchers)
        if count:
            log.warn(
                "the grace period of {grace_s} s is over; {count} requests that were under way are refused",
                grace_s=self.flow.gateway.grace_period_s,
                count=count,
            )

    def _floating_over(self) -> None:
        dropped: Counter[str] = Counter()
        for dispatcher in self._serving.dispatchers:
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
        self._serving.replica_up(replica, address)

    def replica_down(self, replica: ReplicaId) -> None:
        """A replica's process has ended, or is about to."""
        self._serving.replica_down(replica)
