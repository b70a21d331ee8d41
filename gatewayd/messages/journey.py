"""
What the engine writes down of one request while it is under way, for those who watch requests.

A request has no journey unless somebody wants one (``Exchange.follow``); then the dispatcher writes a
``Visit`` for each deployment that is called, and the pool the ``Stage``s in it: waiting for a slot, each
attempt, the pauses between attempts. Times are seconds of the reactor's clock. Whoever reads a journey does
so when the request has ended; a floating deployment's visit may end later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, Literal

import attrs

from gatewayd.messages.trace_context import TraceContext

Kind = Literal["queue", "attempt", "backoff"]
Outcome = Literal["", "answered", "raised", "failed", "cancelled"]

# A reason may be an executor's own text, and is kept until it has been exported or logged.
_LONGEST_REASON: Final = 500


class Stage:
    """
    A part of a visit: in the queue, an attempt, or a pause before the next.

    An attempt has the ``address`` that was called, the ``span_id`` that the executor was told if the request
    is traced, and, when it has ended, the ``code`` of gRPC and the ``reason`` if that is an error;
    ``raised`` says that the executor's method raised. ``ended_s`` is None while it lasts.
    """

    __slots__ = ("address", "began_s", "code", "ended_s", "kind", "raised", "reason", "span_id")

    def __init__(self, kind: Kind, began_s: float, address: str = "", span_id: int = 0) -> None:
        self.kind = kind
        self.began_s = began_s
        self.ended_s: float | None = None
        self.address = address
        self.span_id = span_id
        self.code = ""
        self.reason = ""
        self.raised = False

    def end(self, now_s: float, code: str = "", reason: str = "", *, raised: bool = False) -> None:
        """It is over. What ended it first counts."""
        if self.ended_s is None:
            self.ended_s = now_s
            self.code = code
            self.reason = reason[:_LONGEST_REASON]
            self.raised = raised


class Trace:
    """
    How the visits of a traced request are told to executors.

    The ``context`` is that of the request's own span, below ``parent_id`` (0 for none); ``new_id()`` draws an
    id for a span.
    """

    __slots__ = ("context", "new_id", "parent_id")

    def __init__(self, context: TraceContext, parent_id: int, new_id: Callable[[], int]) -> None:
        self.context = context
        self.parent_id = parent_id
        self.new_id = new_id


class Visit:
    """
    One deployment's part in a request. ``outcome`` is empty while it lasts.

    ``reason`` names the error of one that ``failed``. A deployment with shards has the stages of all of them.
    With a ``trace``, attempts have ids.
    """

    __slots__ = ("began_s", "deployment", "ended_s", "floating", "outcome", "reason", "stages", "trace")

    def __init__(self, deployment: str, began_s: float, *, floating: bool, trace: Trace | None) -> None:
        self.deployment = deployment
        self.floating = floating
        self.began_s = began_s
        self.ended_s: float | None = None
        self.outcome: Outcome = ""
        self.reason = ""
        self.stages: list[Stage] = []
        self.trace = trace

    def wait(self, kind: Kind, now_s: float) -> Stage:
        """It begins to wait."""
        stage = Stage(kind, now_s)
        self.stages.append(stage)
        return stage

    def attempt(self, address: str, now_s: float) -> Stage:
        """A replica is called."""
        stage = Stage("attempt", now_s, address, 0 if self.trace is None else self.trace.new_id())
        self.stages.append(stage)
        return stage

    @property
    def attempts(self) -> list[Stage]:
        """The attempts among its stages, in their order."""
        return [stage for stage in self.stages if stage.kind == "attempt"]


class Journey:
    """
    The visits of one request, by deployment. ``late`` is told of those that end after the request.

    With a ``trace`` its executors are told where in the trace they are called from.
    """

    __slots__ = ("late", "trace", "visits")

    def __init__(self) -> None:
        self.visits: dict[str, Visit] = {}
        self.trace: Trace | None = None
        self.late: Callable[[Visit], object] | None = None

    def visit(self, deployment: str, now_s: float, *, floating: bool) -> Visit:
        """A deployment is called."""
        found = self.visits[deployment] = Visit(deployment, now_s, floating=floating, trace=self.trace)
        return found

    def left(self, deployment: str, now_s: float, outcome: Outcome, reason: str = "") -> None:
        """A deployment has answered, or will not. What has not been called is not told of."""
        visit = self.visits.get(deployment)
        if visit is None or visit.ended_s is not None:
            return
        visit.ended_s = now_s
        visit.outcome = outcome
        visit.reason = reason[:_LONGEST_REASON]
        for stage in visit.stages:
            stage.end(now_s)
        if self.late is not None:
            self.late(visit)

    def stages(self) -> Iterator[Stage]:
        """Those of every visit."""
        for visit in self.visits.values():
            yield from visit.stages


@attrs.frozen
class Spent:
    """
    Where the time of a request went, in seconds; the three add up to all of it.

    ``executors_s``: at least one attempt was under way. ``queue_s``: none was, and something waited for a
    slot or for the next attempt. ``gateway_s`` is the rest: the gateway's own work.
    """

    queue_s: float
    executors_s: float
    gateway_s: float


def spent(journey: Journey | None, began_s: float, ended_s: float) -> Spent:
    """Where the time between ``began_s`` and ``ended_s`` went. Parallel branches count once."""
    whole_s = max(0.0, ended_s - began_s)
    if journey is None:
        return Spent(0.0, 0.0, whole_s)
    stages = [(stage.kind, _clipped(stage, began_s, ended_s)) for stage in journey.stages()]
    calls = [interval for kind, interval in stages if kind == "attempt"]
    executors_s = _covered_s(calls)
    either_s = _covered_s(interval for _, interval in stages)
    return Spent(either_s - executors_s, executors_s, max(0.0, whole_s - either_s))


def _clipped(stage: Stage, began_s: float, ended_s: float) -> tuple[float, float]:
    end_s = ended_s if stage.ended_s is None else stage.ended_s
    return max(began_s, stage.began_s), min(ended_s, end_s)


def _covered_s(intervals: Iterable[tuple[float, float]]) -> float:
    """How much time is in at least one of the intervals."""
    total_s, until_s = 0.0, float("-inf")
    for began_s, ended_s in sorted(intervals):
        if ended_s > until_s:
            total_s += ended_s - max(began_s, until_s)
            until_s = ended_s
    return total_s
