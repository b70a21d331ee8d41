"""
What the master and its workers say to each other: one line of JSON for each message, and nothing that waits.

    master ── Start, then ReplicaUp, ReplicaDown, GiveUp, ExecutorsReady, WholeService, Retire ──> worker
    master ── Measure, SetLogLevel, ReopenLogs ──> worker
    worker ── Failed, Listening, Ready, Serving, Connected, Loaded, OutOfReach, Measured, GivenUp, Logged
                                                                                                   ──> master

``Ready`` and ``Failed`` are what any supervised process reports (``supervisor/process.py``).
"""

from __future__ import annotations

import base64
import json
import pickle
from collections.abc import Mapping
from typing import Any, Final, TypeVar

import attrs

from gatewayd.config import FlowConfig
from gatewayd.protocols.port import PortReport
from gatewayd.supervisor.replica_id import ReplicaId
from gatewayd.telemetry.failures import FailedRequest

T = TypeVar("T")

UNASKED: Final = 0  # the number of figures that are told without a question; those of questions are greater


@attrs.frozen
class ReplicaAddress:
    """Where a replica of an executor serves."""

    deployment: str
    shard: int
    replica: int
    address: str
    incarnation: int = 0

    @classmethod
    def of(cls, replica: ReplicaId, address: str) -> ReplicaAddress:
        return cls(replica.deployment, replica.shard, replica.replica, address, replica.incarnation)

    @property
    def id(self) -> ReplicaId:
        return ReplicaId(self.deployment, self.shard, self.replica, self.incarnation)


@attrs.frozen
class Start:
    """
    The first message: all that a worker needs to serve.

    ``version`` is the master's. ``flow`` is ``packed``, with the worker's share of limits. ``sockets`` has
    the descriptors of each listener, in the order of the Flow. ``uid`` and ``started`` are what /status shows
    of the service, whichever worker is asked. ``crowd`` is the descriptor of what ``gatewayd.crowd`` shares,
    None without, and ``slot`` the worker's own in it. With ``executors_ready`` there will be no message of
    that. ``log_levels`` are those that were set since the service's start, by namespace.
    """

    version: str
    name: str
    flow: str = attrs.field(repr=False)
    sockets: tuple[tuple[int, ...], ...]
    replicas: tuple[ReplicaAddress, ...]
    executors_ready: bool
    crowd: int | None
    slot: int
    uid: str
    started: str
    log_levels: Mapping[str, str] = attrs.field(factory=dict)


@attrs.frozen
class ReplicaUp:
    """A replica serves."""

    replica: ReplicaAddress


@attrs.frozen
class ReplicaDown:
    """A replica's process has ended, or is about to."""

    deployment: str
    shard: int
    replica: int
    incarnation: int = 0

    @property
    def id(self) -> ReplicaId:
        return ReplicaId(self.deployment, self.shard, self.replica, self.incarnation)


@attrs.frozen
class GiveUp(ReplicaDown):
    """Call a replica no more, once all others are connected; what it has may finish."""


@attrs.frozen
class GivenUp(ReplicaDown):
    """What the worker had there is answered."""


@attrs.frozen
class OutOfReach(ReplicaDown):
    """The worker's connection to a replica was lost, or cannot be made."""


@attrs.frozen
class ExecutorsReady:
    """Every executor has served once: finish the start."""


@attrs.frozen
class WholeService:
    """How many workers there are to be, and how many of them serve."""

    workers: int
    serving: int


@attrs.frozen
class Retire:
    """Another worker takes the place of this one: have clients leave. SIGTERM follows."""


@attrs.frozen
class Measure:
    """Say what your figures are; ``number`` comes back with them."""

    number: int


@attrs.frozen
class Measured:
    """
    The figures of the worker, as a text of ``telemetry.metrics.reading``, and its requests that failed last.
    ``number`` is UNASKED for those at its end.
    """

    number: int
    reading: str = attrs.field(repr=False)
    failures: tuple[FailedRequest, ...] = ()


@attrs.frozen
class SetLogLevel:
    """Log what is at least of this level, of a namespace and all below it; of all if that is empty."""

    level: str
    namespace: str


@attrs.frozen
class ReopenLogs:
    """Open the files anew that the worker writes by itself: somebody has moved them."""


@attrs.frozen
class Listening:
    """The worker accepts connections at ``ports``, which are in the order of the Flow."""

    ports: tuple[PortReport, ...]


@attrs.frozen
class Ready:
    """The same, for the supervisor of the process."""


@attrs.frozen
class Serving:
    """The worker's start is over."""


@attrs.frozen
class Part:
    """How many replicas of a Deployment's shard the worker can call, and why none of those that are there."""

    deployment: str
    shard: int
    connected: int
    why: str = ""


@attrs.frozen
class Connected:
    """The worker's connections to executors, each time that these change."""

    parts: tuple[Part, ...]


@attrs.frozen
class PartLoad:
    """What a worker has under way at a Deployment's shard: at its replicas, and in its queue."""

    deployment: str
    shard: int
    in_flight: int
    queued: int


@attrs.frozen
class ReplicaLoad(ReplicaDown):
    """What a worker has under way at one replica."""

    in_flight: int = 0


@attrs.frozen
class Loaded:
    """What the worker has under way at what is scaled, each time that it looks and this has changed."""

    parts: tuple[PartLoad, ...]
    replicas: tuple[ReplicaLoad, ...]


@attrs.frozen
class Failed:
    """It cannot serve; ``kind`` is the name of the exception's class."""

    kind: str
    error: str


@attrs.frozen
class Logged:
    """
    An event of the worker's log: its message and traceback as texts, and what it says besides.

    ``level`` is a name of Twisted's; ``fields`` are plain.
    """

    level: str
    namespace: str
    text: str
    traceback: str | None = None
    fields: Mapping[str, Any] = attrs.field(factory=dict)


ToWorker = (
    ReplicaUp
    | ReplicaDown
    | GiveUp
    | ExecutorsReady
    | WholeService
    | Measure
    | Retire
    | SetLogLevel
    | ReopenLogs
)
FromWorker = (
    Listening | Ready | Serving | Connected | Loaded | OutOfReach | Measured | GivenUp | Failed | Logged
)

_NAMES: Final[Mapping[type, str]] = {
    Start: "start",
    ReplicaUp: "replica_up",
    ReplicaDown: "replica_down",
    GiveUp: "give_up",
    GivenUp: "given_up",
    ExecutorsReady: "executors_ready",
    WholeService: "whole_service",
    Measure: "measure",
    Measured: "measured",
    Retire: "retire",
    SetLogLevel: "set_log_level",
    ReopenLogs: "reopen_logs",
    Listening: "listening",
    Ready: "ready",
    Serving: "serving",
    Connected: "connected",
    Loaded: "loaded",
    OutOfReach: "out_of_reach",
    Failed: "failed",
    Logged: "log",
}
_CLASSES: Final = {name: cls for cls, name in _NAMES.items()}


def to_line(message: Start | ToWorker | FromWorker) -> bytes:
    """One line of JSON."""
    return json.dumps({"event": _NAMES[type(message)], **attrs.asdict(message)}).encode() + b"\n"


def from_line(line: bytes) -> Any:
    """The message of a line, the inverse of ``to_line``. Raises ValueError."""
    return from_event(json.loads(line))


def from_event(event: Mapping[str, Any]) -> Any:
    """The message in a line that has been read as JSON. Raises ValueError."""
    fields = dict(event)
    name = fields.pop("event", None)
    try:
        cls = _CLASSES[name]
        if cls is Start:
            fields["sockets"] = tuple(tuple(each) for each in fields["sockets"])
            fields["replicas"] = tuple(ReplicaAddress(**each) for each in fields["replicas"])
        elif cls is ReplicaUp:
            fields["replica"] = ReplicaAddress(**fields["replica"])
        elif cls is Measured:
            fields["failures"] = tuple(map(FailedRequest.from_json, fields["failures"]))
        elif cls is Connected:
            fields["parts"] = tuple(Part(**each) for each in fields["parts"])
        elif cls is Loaded:
            fields["parts"] = tuple(PartLoad(**each) for each in fields["parts"])
            fields["replicas"] = tuple(ReplicaLoad(**each) for each in fields["replicas"])
        elif cls is Listening:
            fields["ports"] = tuple(
                PortReport(**{**each, "protocols": tuple(each["protocols"])}) for each in fields["ports"]
            )
        return cls(**fields)
    except (KeyError, TypeError) as error:
        raise ValueError(f"no message of a worker or to one: {name!r} ({error!r})") from None


def packed(flow: FlowConfig) -> str:
    """
    A Flow as it was read, as text.

    It is not read again by workers: a file that was changed meanwhile would make two graphs of one.
    """
    return base64.b64encode(pickle.dumps(flow)).decode()


def unpacked(text: str) -> FlowConfig:
    """The inverse of ``packed``, for what the own master has sent: it runs what the text says."""
    flow: FlowConfig = pickle.loads(base64.b64decode(text))
    return flow
