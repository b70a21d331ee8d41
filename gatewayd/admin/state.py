"""
All that the admin site shows of a gateway at one moment, as one value: what /api/state answers (pure).

Counts are those since the start: whoever wants rates asks twice. Buckets come with their bounds, in seconds,
so that quantiles of what happened in between can be computed; ``p50_s`` and ``p99_s`` are of all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol

import attrs
import orjson

from gatewayd.config.heads import head_executors
from gatewayd.config.model import FlowConfig
from gatewayd.health import READY, Health, Phase, Reason, verdict_of
from gatewayd.messages.generations import NAMED, Generation
from gatewayd.redaction import end_of
from gatewayd.telemetry.failures import FailedRequest
from gatewayd.telemetry.metrics import table
from gatewayd.telemetry.metrics.reading import HistogramValue, Reading
from gatewayd.telemetry.metrics.table import Metric

_LONGEST_WORDS: Final = 2000


class ReplicaProcess(Protocol):
    """What is known of the process of a replica (``supervisor.process.ReplicaStatus``)."""

    @property
    def deployment(self) -> str: ...
    @property
    def shard(self) -> int: ...
    @property
    def replica(self) -> int: ...
    @property
    def state(self) -> str: ...
    @property
    def address(self) -> str | None: ...
    @property
    def pid(self) -> int | None: ...
    @property
    def placement(self) -> str: ...
    @property
    def node(self) -> str | None: ...
    @property
    def last_words(self) -> str | None: ...


@attrs.frozen
class Times:
    """How long things took: a histogram, and two of its quantiles; None where there was nothing."""

    bounds_s: tuple[float, ...]
    counts: tuple[int, ...]
    total_s: float
    p50_s: float | None
    p99_s: float | None


@attrs.frozen
class DeploymentState:
    """
    A Deployment with its place in the graph, and what waits and works there; its shards together.

    ``errors`` are requests for which it raised, ``retries`` are by gRPC status, ``events`` the
    pool's other decisions. Heads of shards are of their own. ``wanted`` are the replicas that it is to have
    now, if that depends on its load.
    """

    name: str
    needs: tuple[str, ...]
    floating: bool
    external: bool
    shards: int
    queued: int
    in_flight: int
    attempts: int
    errors: int
    retries: Mapping[str, int]
    events: Mapping[str, int]
    times: Times | None
    wanted: int | None = None


@attrs.frozen
class ReplicaState:
    """
    A replica. ``replica`` is its number, or the address of one that runs elsewhere.

    What is of a process (``state``, ``pid``, ``restarts``, ``memory_bytes``, ``cpu_s``) is None then; so is
    ``connected`` where no worker has told. ``last_words`` are why its last process ended. ``placement`` is
    the engine that runs it, and ``node`` the address of its machine, None for this one.
    """

    deployment: str
    shard: int
    replica: str
    connected: bool
    ejected: bool
    in_flight: int
    state: str | None = None
    address: str | None = None
    pid: int | None = None
    restarts: int | None = None
    memory_bytes: int | None = None
    cpu_s: float | None = None
    last_words: str | None = None
    placement: str | None = None
    node: str | None = None


@attrs.frozen
class RequestsState:
    """Requests of one protocol and endpoint; ``outcomes`` are words of ``telemetry.metrics.outcomes``."""

    protocol: str
    endpoint: str
    outcomes: Mapping[str, int]
    times: Times


@attrs.frozen
class ProcessState:
    """A process of the gateway itself: the only one, the master, or a worker."""

    name: str
    pid: int
    memory_bytes: int | None
    cpu_s: float | None
    serves: bool | None
    restarts: int | None
    lag: Times | None


@attrs.frozen
class PortState:
    """Connections of clients at one port."""

    protocols: str
    port: str
    connections: int


@attrs.frozen
class LimitState:
    """How much of a limit is used. ``key`` is that of the Flow file."""

    key: str
    used: float
    limit: float


@attrs.frozen
class AdminState:
    """The whole. ``documents`` says which the Flow speaks, in words; None while that is not known."""

    version: str
    flow: str | None
    documents: str | None
    phase: Phase
    ready: bool
    reasons: tuple[Reason, ...]
    under_way: int
    requests: tuple[RequestsState, ...]
    deployments: tuple[DeploymentState, ...]
    replicas: tuple[ReplicaState, ...]
    processes: tuple[ProcessState, ...]
    ports: tuple[PortState, ...]
    limits: tuple[LimitState, ...]
    failures: tuple[FailedRequest, ...]

    def as_json(self) -> bytes:
        """As /api/state answers it: maps of the fields."""
        return orjson.dumps(attrs.asdict(self))


def admin_state(
    version: str,
    flow: FlowConfig,
    health: Health,
    reading: Reading,
    replicas: Iterable[ReplicaProcess],
    processes: Mapping[str, int],
    failures: Iterable[FailedRequest] = (),
) -> AdminState:
    """
    The state of a gateway that serves ``flow``.

    ``processes`` are its own, by the names in ``reading``, ``failures`` the requests that failed last.
    """
    verdict = verdict_of(READY, health)
    return AdminState(
        version=version,
        flow=flow.name,
        documents=_documents(reading),
        phase=health.phase,
        ready=verdict.ok,
        reasons=verdict.reasons,
        under_way=int(reading.total(table.REQUESTS_UNDER_WAY)),
        requests=tuple(_requests(reading)),
        deployments=tuple(_deployments(flow, reading)),
        replicas=tuple(_replicas(reading, replicas)),
        processes=tuple(_process(reading, name, pid) for name, pid in processes.items()),
        ports=tuple(
            PortState(protocols, port, int(reading.number(table.CONNECTIONS, protocols, port)))
            for protocols, port in reading.of(table.CONNECTIONS)
        ),
        limits=tuple(_limits(reading)),
        failures=tuple(failures),
    )


def _documents(reading: Reading) -> str | None:
    number = int(reading.number(table.GENERATION))
    return NAMED[Generation(number)] if number else None


def _times(metric: Metric, value: Any) -> Times:
    assert isinstance(value, HistogramValue)
    found = (value.quantile(share, metric.bounds) for share in (0.5, 0.99))
    return Times(metric.bounds, value.counts, value.total, *found)


def _requests(reading: Reading) -> Iterable[RequestsState]:
    outcomes: dict[tuple[str, str], dict[str, int]] = {}
    for protocol, endpoint, outcome in reading.of(table.REQUESTS):
        count = int(reading.number(table.REQUESTS, protocol, endpoint, outcome))
        outcomes.setdefault((protocol, endpoint), {})[outcome] = count
    for (protocol, endpoint), value in reading.of(table.REQUEST_SECONDS).items():
        counts = outcomes.get((protocol, endpoint), {})
        yield RequestsState(protocol, endpoint, counts, _times(table.REQUEST_SECONDS, value))


def _deployments(flow: FlowConfig, reading: Reading) -> Iterable[DeploymentState]:
    for deployment in flow.deployments:
        for each in (deployment, *head_executors(deployment)):
            times = reading.of(table.CALL_SECONDS).get((each.name,))
            yield DeploymentState(
                name=each.name,
                needs=each.needs,
                floating=each.floating,
                external=each.external,
                shards=each.shards,
                queued=int(_of_part(reading, table.QUEUED, each.name)),
                in_flight=int(_of_part(reading, table.IN_FLIGHT, each.name)),
                attempts=int(_of_part(reading, table.ATTEMPTS, each.name)),
                errors=int(reading.number(table.CALL_ERRORS, each.name)),
                retries=_by_word(reading, table.RETRIES, each.name),
                events=_by_word(reading, table.EVENTS, each.name),
                times=None if times is None else _times(table.CALL_SECONDS, times),
                wanted=None if each.scaling is None else int(_of_part(reading, table.WANTED, each.name)),
            )


def _of_part(reading: Reading, metric: Metric, name: str) -> float:
    return sum(reading.number(metric, *labels) for labels in reading.of(metric) if labels[0] == name)


def _by_word(reading: Reading, metric: Metric, name: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for labels in reading.of(metric):
        if labels[0] == name:
            found[labels[2]] = found.get(labels[2], 0) + int(reading.number(metric, *labels))
    return found


def _replicas(reading: Reading, processes: Iterable[ReplicaProcess]) -> Iterable[ReplicaState]:
    known = {(each.deployment, str(each.shard), str(each.replica)): each for each in processes}
    memory, cpu = reading.of(table.REPLICA_MEMORY), reading.of(table.REPLICA_CPU)
    for labels in sorted({*known, *reading.of(table.REPLICA_CONNECTED)}):
        deployment, shard, replica = labels
        seen = ReplicaState(
            deployment,
            int(shard),
            replica,
            connected=bool(reading.number(table.REPLICA_CONNECTED, *labels)),
            ejected=bool(reading.number(table.REPLICA_EJECTED, *labels)),
            in_flight=int(reading.number(table.REPLICA_IN_FLIGHT, *labels)),
        )
        process = known.get((deployment, shard, replica))
        if process is None:
            yield seen
            continue
        yield attrs.evolve(
            seen,
            state=process.state,
            address=process.address,
            pid=process.pid,
            restarts=int(reading.number(table.REPLICA_RESTARTS, *labels)),
            memory_bytes=int(reading.number(table.REPLICA_MEMORY, *labels)) if labels in memory else None,
            cpu_s=reading.number(table.REPLICA_CPU, *labels) if labels in cpu else None,
            last_words=_shown(process.last_words),
            placement=process.placement,
            node=process.node,
        )


def _shown(last_words: str | None) -> str | None:
    """The end of what a process has said, as much as a page shows, without the passwords in addresses."""
    return None if last_words is None else end_of(last_words, _LONGEST_WORDS)


def _process(reading: Reading, name: str, pid: int) -> ProcessState:
    label = (name,)
    lag = reading.of(table.LAG).get(label)

    def number(metric: Metric) -> float | None:
        return reading.number(metric, name) if label in reading.of(metric) else None

    memory, serves, restarts = map(number, (table.PROCESS_MEMORY, table.WORKER_SERVES, table.WORKER_RESTARTS))
    return ProcessState(
        name=name,
        pid=pid,
        memory_bytes=None if memory is None else int(memory),
        cpu_s=number(table.PROCESS_CPU),
        serves=None if serves is None else bool(serves),
        restarts=None if restarts is None else int(restarts),
        lag=None if lag is None else _times(table.LAG, lag),
    )


def _limits(reading: Reading) -> Iterable[LimitState]:
    yield LimitState(
        "max_connections", reading.total(table.CONNECTIONS), reading.number(table.CONNECTIONS_LIMIT)
    )
    yield LimitState("pool.max_in_flight", reading.number(table.CALLS), reading.number(table.CALLS_LIMIT))
    for buffer in reading.of(table.HELD):
        used, limit = (reading.number(metric, *buffer) for metric in (table.HELD, table.HELD_LIMIT))
        # The fullest of those that have the same limit is what is refused next.
        yield LimitState(f"max_buffered_bytes ({buffer[0]})", used, limit)
