"""
Builds the parts of a running gateway from its config, starts them in order, and drains them on stop.

Start: bridge, pool, dispatcher, ports; the service starts the processes of the executors. Stop goes outside
in: take nothing new, let what is under way finish within the grace period, then close the client connections,
the executors, the channels to them, and the loop thread.

What a port speaks is its own matter (``gatewayd.protocols.port``).
"""

from __future__ import annotations

import os
import random
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import CancelledError, Deferred, DeferredList, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from gatewayd.access.control import AccessControl
from gatewayd.access.guard import Engine
from gatewayd.access.limited import Limited
from gatewayd.access.proxies import Proxies
from gatewayd.access.service import AccessService
from gatewayd.bridge import Bridge
from gatewayd.buffers import Buffers
from gatewayd.clocks import Reactor
from gatewayd.config import FlowConfig
from gatewayd.config.log_kinds import AccessLogConfig
from gatewayd.config.model import EVERY_ENDPOINT, GatewayClass
from gatewayd.config.recording import RecordConfig
from gatewayd.crowd import Place
from gatewayd.dispatch.dispatcher import Dispatcher
from gatewayd.dispatch.topology import Topology
from gatewayd.errors import ConfigError
from gatewayd.health import Health, Phase, parts_of, serving_by_name
from gatewayd.offload import Offload
from gatewayd.otlp import Collector
from gatewayd.pool.pool import Pool
from gatewayd.protocols.backend import Backend, StatusMaps
from gatewayd.protocols.port import Port, PortReport, make_port
from gatewayd.protocols.withholding import for_clients
from gatewayd.service.announcing import announce, announce_ready
from gatewayd.service.executors import Executors
from gatewayd.service.readings import read_bridge, read_errors, read_pool, read_ports
from gatewayd.service.strangers import warning_for
from gatewayd.status import status_of
from gatewayd.telemetry.failures import FailedRequest, Failures
from gatewayd.telemetry.metrics import table
from gatewayd.telemetry.metrics.lag import ReactorLag
from gatewayd.telemetry.metrics.reading import Reading
from gatewayd.telemetry.metrics.requests import RequestMetrics
from gatewayd.telemetry.observed import Observed, Observer
from gatewayd.tls.credentials import TlsCredentials
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
    have changed. ``name`` is that of the process in its figures.
    """

    def __init__(
        self,
        flow: FlowConfig,
        reactor: Reactor,
        executors: Executors,
        *,
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
        self.flow = flow
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
        self._pool = Pool.over(self._bridge, flow.gateway, flow.deployments, reactor)
        self._dispatcher = Dispatcher(
            Topology.from_deployments(flow.deployments),
            self._pool,
            reactor,
            self._bridge.offload,
            forwarded=flow.gateway.forwarded,
        )
        self._exposed = for_clients(self._dispatcher, expose_errors=flow.gateway.expose_errors)
        self._executors = executors
        self._custom: Mounted | None = None
        self._access_service: AccessService | None = None
        self._addresses: dict[tuple[str, int, int], str] = {}
        self._ports: list[Port] = []
        self._renewal: Renewal | None = None
        self._access_file: AccessFile | None = None
        self._backend: Backend | None = None
        self._phase: Phase = "starting"
        self._has_started = False
        self._is_retired = False
        self._told: tuple[bool, dict[str, bool]] | None = None  # what the ports know of health
        self._optional = [each.name for each in flow.deployments if each.floating and not each.collected]
        self._pool.on_change(self._tell_health)
        if flow.gateway.measures:
            named = (*_NAMED_BY_PATHS, *flow.gateway.expose_endpoints)
            self._requests = RequestMetrics(
                (name for name in named if name != EVERY_ENDPOINT),
                lambda: self._pool.endpoints().bound.keys(),
                [each.name for each in flow.deployments],
            )
            self._lag = ReactorLag(reactor)
        self._observers = [*observers, *(() if self._requests is None else (self._requests,))]
        self._failures = Failures(time.time)
        if flow.gateway.admin_port is not None:
            self._observers.append(self._failures)

    @property
    def health(self) -> Health:
        """How the gateway is now."""
        return Health(self._phase, self._has_started, parts_of(self._pool.connected(), self._optional))

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
        read_pool(reading, self._pool, self._addresses)
        read_bridge(reading, self._bridge, self._name)
        read_errors(reading)
        if self._backend is not None:
            read_ports(reading, self.port_reports, self._backend.buffers, self._backend.admission)
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
            for port in self._ports:
                port.set_serving(*told)

    @property
    def ports(self) -> list[int]:
        """The port that each of the config's listeners got, in their order; after ``start``."""
        return [report.port for report in self.port_reports]

    @property
    def port_reports(self) -> list[PortReport]:
        """What there is to say of each listener now, in their order; after ``start``."""
        return [port.report() for port in self._ports]

    def under_way(self) -> int | None:
        """The requests that are under way, floating calls included; None if that is not known here."""
        return self._dispatcher.in_flight

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
        watched = None if settings.tls is None else Watched.of(settings.tls)
        credentials = None if watched is None else load_credentials(watched.files)
        engine: Engine = self._exposed
        if settings.rates:
            engine = Limited(engine, settings.rates, self._reactor)
        proxies = Proxies.of(settings)
        # Both want to know the addresses of callers.
        knows_callers = settings.rates or settings.access_log is not None
        access = AccessControl(proxies=proxies) if knows_callers else None
        if settings.auth is not None:
            self._access_service = AccessService(settings.auth, self._reactor, self._bridge.offload, proxies)
            # Who may not call does not use up what others may.
            engine = self._access_service.guarded(engine, self._pool.endpoints)
            access = self._access_service.access
        backend = self._backend = Backend(
            gateway=settings,
            dispatcher=engine,
            access=access,
            place=self._place,
            observed=self._observed,
            status=self._status,
            offload=self._bridge.offload,
            reactor=self._reactor,
            buffers=Buffers(settings.max_buffered_bytes),
            tls=credentials,
            bridge=self._bridge,
            extension=self._custom,
            endpoints=self._pool.endpoints,
            health=lambda: self.health,
        )
        self._bridge.start()
        if self._lag is not None:
            self._lag.start()
        if self._access_service is not None:
            self._access_service.start()
        for index, listener in enumerate(settings.listeners):
            port = make_port(listener, backend)
            port.listen(self._sockets[index] if self._sockets else ())
            self._ports.append(port)
        self._tell_health()
        if self._announces:
            announce(self.port_reports)
        if watched is not None and credentials is not None:
            self._renewal = Renewal(
                watched,
                credentials,
                self._renewed,
                clock=self._reactor,
                offload=self._bridge.offload,
                interval_s=settings.ssl_reload_interval_s,
                warning_days=settings.ssl_expiry_warning_days,
            )
            self._renewal.start()
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

    def _observed(self, engine: Engine, protocol: str) -> Engine:
        return (
            Observed(engine, protocol, self._observers, self._reactor.seconds) if self._observers else engine
        )

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
        self._recorder = Recorder(config, self.flow.name, self._bridge.offload, self._reactor.seconds)
        try:
            self._recorder.open()
        except OSError as error:
            raise ConfigError(
                f"gateway.record: {config.path} cannot be written: {error.strerror}; name a file in a folder "
                "that the gateway's user may write to"
            ) from error
        self._observers.append(self._recorder)

    def _renewed(self, credentials: TlsCredentials) -> None:
        for port in self._ports:
            port.renew(credentials)

    def _mounted(self, custom: GatewayClass) -> Mounted:
        # Most gateways have no class of their own, and one that speaks gRPC alone needs nothing of the web.
        from gatewayd.custom.loading import create
        from gatewayd.custom.mount import Mounted

        instance = create(custom, self.flow.base_dir)
        web = any(set(listener.protocols) - {"grpc"} for listener in self.flow.gateway.listeners)
        return Mounted(
            instance,
            custom.place,
            dispatcher=self._observed(self._exposed, "custom"),
            reactor=self._reactor,
            web=web,
        )

    async def serve(self) -> bool:
        """
        Every executor has served once: start what is to be started then, and report every port as healthy.

        Returns whether it serves; False if it is being stopped. Raises ConfigError.
        """
        await self._discovered()
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

    def _discovered(self) -> Deferred[None]:
        """
        Fires when it is known what the executors bind, or has not become known within a few seconds.

        Paths and hints depend on it from the first request on.
        """
        known = self._pool.discovered()
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

    def retire(self) -> None:
        """Another process accepts from its sockets: have clients leave, and serve on until ``stop``."""
        self._is_retired = True
        self._leave()
        for port in self._ports:
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
        self._dispatcher.close()
        over = self._reactor.callLater(grace_s, self._grace_over)
        floating = (
            None
            if floating_s is None
            else self._reactor.callLater(max(grace_s, floating_s), self._floating_over)
        )
        # The connections stay a moment longer than the grace period, for the refusals of what did not finish.
        draining = [port.drain(grace_s) for port in self._ports]
        await DeferredList([*draining, self._dispatcher.drain()], consumeErrors=True)
        for timer in (over, floating):
            if timer is not None and timer.active():
                timer.cancel()
        if self._custom is not None:
            await self._custom.stop(grace_s - (self._reactor.seconds() - started))
        left_s = max(1.0, grace_s - (self._reactor.seconds() - started))
        await self._executors.stop(left_s)
        self._pool.close()
        if self._lag is not None:
            self._lag.stop()
        if self._access_service is not None:
            self._access_service.stop()
        if self._recorder is not None:
            await self._recorder.stop(self._reactor)
        if self._traces is not None:
            await self._traces.stop(self._reactor, self._bridge.offload)
        if self._access_file is not None:
            await self._access_file.stop()
        await self._bridge.stop()
        for port in self._ports:
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
        count = self._dispatcher.refuse_awaited()
        if count:
            log.warn(
                "the grace period of {grace_s} s is over; {count} requests that were under way are refused",
                grace_s=self.flow.gateway.grace_period_s,
                count=count,
            )

    def _floating_over(self) -> None:
        dropped = self._dispatcher.abandon()
        if dropped:
            log.warn(
                "floating calls have not ended within {limit_s} s (gateway.floating_grace_period); "
                "dropped: {dropped}",
                limit_s=self.flow.gateway.floating_grace_period_s,
                dropped=", ".join(f"{count} of {name}" for name, count in sorted(dropped.items())),
            )

    # -- executors -----------------------------------------------------------------------------------

    def replica_up(self, deployment: str, shard: int, replica: int, address: str) -> None:
        """A replica's process serves at ``address``."""
        self._addresses[deployment, shard, replica] = address
        self._pool.replica_up(deployment, address, shard)

    def replica_down(self, deployment: str, shard: int, replica: int) -> None:
        """A replica's process has ended, or is about to."""
        address = self._addresses.pop((deployment, shard, replica), None)
        if address is not None:
            self._pool.replica_down(deployment, address, shard)


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
