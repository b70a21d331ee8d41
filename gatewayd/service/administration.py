"""
The admin site of a service: what it shows is gathered here, from the gateway or its workers, from the
supervisor of the executors, and from the system.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Protocol

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from gatewayd import __version__
from gatewayd.access.operators import warning_for
from gatewayd.admin.actions import Action
from gatewayd.admin.dashboard import HEADERS, PageFile, dashboard
from gatewayd.admin.site import METRICS, STATE, AdminSite, Site, answering, metrics_site
from gatewayd.admin.state import admin_state
from gatewayd.clocks import PortReactor
from gatewayd.config import FlowConfig
from gatewayd.errors import BadRequest
from gatewayd.health import READY, Health, verdict_of
from gatewayd.offload import Offload
from gatewayd.protocols.http.request import GatewayRequest
from gatewayd.service.executor_metrics import ExecutorMetrics
from gatewayd.service.kept import Kept
from gatewayd.service.metric_export import MetricExport
from gatewayd.service.readings import read_replicas, read_scaled
from gatewayd.service.reloading import Reloaded
from gatewayd.service.scaling import ScaledPart
from gatewayd.supervisor.process import ReplicaStatus
from gatewayd.telemetry.failures import FailedRequest
from gatewayd.telemetry.metrics import table
from gatewayd.telemetry.metrics.exposition import exposed
from gatewayd.telemetry.metrics.gathered import gathered, merged
from gatewayd.telemetry.metrics.processes import Usage, usage_of
from gatewayd.telemetry.metrics.reading import Reading
from gatewayd.telemetry.metrics.reference import reference_families

log = Logger()

# For the last figures, before a stop begins.
_LAST_S: Final = 1.0


class Operated(Protocol):
    """What is administered: a ``GatewayServer``, or the ``Workers`` of one."""

    @property
    def flow(self) -> FlowConfig:
        """What serves now."""
        ...

    @property
    def health(self) -> Health: ...
    @property
    def offload(self) -> Offload: ...
    @property
    def processes(self) -> Mapping[str, int]:
        """Its processes by the names that their figures have."""
        ...

    @property
    def failures(self) -> tuple[FailedRequest, ...]:
        """The requests that failed last, as of the last ``read``."""
        ...

    def read(self) -> Deferred[Reading]: ...


class ExecutorProcesses(Protocol):
    """A ``Supervisor``."""

    def states(self) -> tuple[ReplicaStatus, ...]: ...


class Administration:
    """The admin site of a service that serves ``flow``, and its port of metrics. Reactor thread only."""

    def __init__(
        self, flow: FlowConfig, reactor: PortReactor, gateway: Operated, executors: ExecutorProcesses
    ) -> None:
        self._flow = flow
        self._clock: Any = reactor
        self._gateway = gateway
        self._executors = executors
        self._executor_metrics = ExecutorMetrics(reactor)
        # What pages and scrapers see; encoding it is for a thread.
        self._figures = Kept(self.read, self._clock)
        self._scraped = Kept(self._scrape, self._clock)
        self._state = Kept(self._encoded_state, self._clock)
        settings = flow.gateway
        self.site: AdminSite | None = None
        self._sites: list[Site] = []
        if settings.admin_port is not None:
            self.site = AdminSite(settings, reactor, lambda: gateway.health)
            self.site.add(METRICS, self._show_metrics, is_public=True)
            self.site.add(STATE, self._show_state)
            for file in dashboard(flow.name or settings.name):
                self.site.add(file.path, _shows(file), is_public=bool(settings.admin_keys))
            self._sites.append(self.site)
        if settings.monitoring:
            metrics = metrics_site(settings, reactor)
            # The library's server, which the reference has, answers at every path.
            for path in ("/", METRICS):
                metrics.add(path, self._show_metrics, is_public=True)
            # For what cannot speak to clients' ports: kubelets know no TLS of gRPC, and have no certificate.
            metrics.add_probes(lambda: gateway.health, withheld=True)
            self._sites.append(metrics)
        collector = settings.metric_collector
        # What is scaled, once that has begun.
        self.scaled: Callable[[], Iterable[ScaledPart]] = lambda: ()
        self._export = None if collector is None else MetricExport(flow, collector, reactor, self.read)

    def steer(
        self,
        reload: Callable[[], Deferred[Reloaded]],
        replace: Callable[[str, int | None, int | None], Deferred[str]],
    ) -> None:
        """Offer what changes a gateway that serves as actions; it has started."""
        if self.site is None:
            return

        def drain(given: Mapping[str, Any]) -> Deferred[str]:
            return replace(*_replica_in(given))

        self.site.actions.add(
            Action(
                "reload",
                "Take up the Flow file, certificates and code as they are now; a mistake changes nothing.",
                lambda given: reload().addCallback(str),
            )
        )
        self.site.actions.add(
            Action(
                "drain",
                "Replace a replica's process by a new one; it ends after its last answer.",
                drain,
                {
                    "deployment": "The name of the executor.",
                    "shard": "The number of its shard; optional where there is one.",
                    "replica": "The number of the replica; optional where there is one.",
                },
                required=("deployment",),
            )
        )

    def start(self) -> None:
        """Listen. Raises PortTaken. Blocks while a host name is looked up."""
        for site in self._sites:
            site.listen()
        if self._export is not None:
            self._export.start()
        if (warning := warning_for(self._flow.gateway)) is not None:
            log.warn("{warning}", warning=warning)

    async def leave(self) -> None:
        """What is administered is about to stop: a collector gets its figures, if it takes them soon."""
        if self._export is not None:
            last = Deferred.fromCoroutine(self._export.send())
            await last.addTimeout(_LAST_S, self._clock)

    async def stop(self) -> None:
        """Stop listening; after what is administered has stopped, so that operators see what it waits for."""
        if self._export is not None:
            self._export.stop()
        for site in self._sites:
            await site.stop()

    async def read(self) -> Reading:
        """The figures of all processes of the service now, its executors' among them."""
        reading = await self._gateway.read()
        executors = self._executors.states()
        read_replicas(reading, executors)
        read_scaled(reading, self.scaled())
        pids: dict[tuple[str, ...], int] = {(name,): pid for name, pid in self._gateway.processes.items()}
        for each in executors:
            if each.pid is not None:
                pids[each.deployment, str(each.shard), str(each.replica)] = each.pid
        used: Mapping[tuple[str, ...], Usage] = await self._gateway.offload(usage_of, pids)
        for labels, usage in used.items():
            own = len(labels) == len(table.PROCESS_MEMORY.labels)
            memory, cpu = (
                (table.PROCESS_MEMORY, table.PROCESS_CPU)
                if own
                else (table.REPLICA_MEMORY, table.REPLICA_CPU)
            )
            reading.set(memory, usage.memory_bytes, *labels)
            reading.set(cpu, usage.cpu_s, *labels)
        reading.set(table.INFO, 1, __version__)
        reading.set(table.READY, verdict_of(READY, self._gateway.health).ok)
        return reading

    async def _encoded_state(self) -> bytes:
        """All that the site shows, as JSON."""
        reading = await self._figures.get()
        gateway = self._gateway
        return await gateway.offload(
            _encoded_state,
            __version__,
            gateway.flow,
            gateway.health,
            reading,
            self._executors.states(),
            gateway.processes,
            gateway.failures,
        )

    async def _scrape(self) -> _Scraped:
        reading = await self._figures.get()
        texts, silent = await self._executor_metrics.gather(self._monitored())
        return _Scraped(reading, tuple(texts), silent)

    def _show_metrics(self, http_request: GatewayRequest) -> Deferred[None]:
        async def answer() -> None:
            accept = http_request.text_header("accept") or ""
            scraped = await self._scraped.get()
            gateway = self._flow.gateway
            name = gateway.name if gateway.monitoring else None
            content_type, body = await self._gateway.offload(_exposed, scraped, accept, name)
            http_request.respond(200, body, content_type)

        return _working(http_request, answering(http_request, answer()))

    def _show_state(self, http_request: GatewayRequest) -> Deferred[None]:
        async def answer() -> None:
            state = await self._state.get()
            http_request.respond(200, state, headers=[(b"Cache-Control", b"no-store")])

        return _working(http_request, answering(http_request, answer()))

    def _monitored(self) -> list[tuple[str, str]]:
        """The executors that serve metrics now: their runtime names, and where."""
        return [
            (each.runtime_name, each.monitoring)
            for each in self._executors.states()
            if each.monitoring is not None
        ]


def _shows(file: PageFile) -> Callable[[GatewayRequest], None]:
    return lambda http_request: http_request.respond(200, file.body, file.content_type, HEADERS)


@attrs.frozen
class _Scraped:
    """A reading that others see as well, the texts of executors, and how many of these did not answer."""

    reading: Reading
    texts: tuple[tuple[str, str], ...]
    silent: int


def _exposed(scraped: _Scraped, accept: str, reference_name: str | None) -> tuple[bytes, bytes]:
    """As ``exposed``, with executors' metrics, and the gateway's by the reference's names if it has one."""
    reading = Reading()
    reading.unite(scraped.reading)
    reading.set(table.SILENT, scraped.silent, "executor")
    reference = () if reference_name is None else tuple(reference_families(reading, reference_name))
    return exposed(reading, accept, merged((*reference, *gathered(scraped.texts))))


def _encoded_state(*args: Any) -> bytes:
    """``admin_state`` as JSON."""
    return admin_state(*args).as_json()


def _replica_in(given: Mapping[str, Any]) -> tuple[str, int | None, int | None]:
    """Which replica an action is for, None for a number that is left out. Raises BadRequest."""
    try:
        shard, replica = (int(given[name]) if name in given else None for name in ("shard", "replica"))
        return str(given["deployment"]), shard, replica
    except (TypeError, ValueError):
        raise BadRequest("drain: shard and replica are numbers") from None


def _working(http_request: GatewayRequest, work: Deferred[None]) -> Deferred[None]:
    """``work``, which is cancelled if the client hangs up."""
    if not work.called:
        http_request.work_begun(work)
    return work
