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

from gatewayd.messages.trace_context import TraceContext

Kind = Literal["queue", "attempt", "backoff"]
Outcome = Literal["", "answered", "raised", "failed", "cancelled"]

# A reason may be an executor's own text, and is kept until it has been exported or logged.
_LONGEST_REASON: Final = 500
# Each document of a stream calls what stands behind it. The first stages of a visit are traced, the last ones
# say where the time went; those in between are let go.
MOST_TRACED: Final = 64
_MOST_STAGES: Final = 2 * MOST_TRACED


class Stage:
    """
    A part of a visit: in the queue, an attempt, or a pause before the next.

    An attempt has the ``address`` that was called, its ``number`` among those of one call, the ``span_id``
    that the executor was told if it is traced, and, when it has ended, the ``code`` of gRPC and the
    ``reason`` if that is an error; ``raised`` says that the executor's method raised. ``ended_s`` is None
    while it lasts.
    """

    __slots__ = ("address", "began_s", "code", "ended_s", "kind", "number", "raised", "reason", "span_id")

    def __init__(
        self, kind: Kind, began_s: float, address: str = "", span_id: int = 0, number: int = 0
    ) -> None:
        self.kind = kind
        self.began_s = began_s
        self.ended_s: float | None = None
        self.address = address
        self.number = number
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

    ``reason`` names the error of one that ``failed``. A deployment with shards has the stages of all of them,
    and one that is called for each document of a stream those of all ``calls``, of which ``under_way`` have
    not ended: the first MOST_TRACED stages, and as many of the last. With a ``trace``, attempts among the
    first have ids.
    """

    __slots__ = (
        *("began_s", "calls", "deployment", "ended_s", "floating", "outcome", "reason", "stages", "trace"),
        "under_way",
    )

    def __init__(self, deployment: str, began_s: float, *, floating: bool, trace: Trace | None) -> None:
        self.deployment = deployment
        self.floating = floating
        self.began_s = began_s
        self.ended_s: float | None = None
        self.outcome: Outcome = ""
        self.reason = ""
        self.calls = self.under_way = 1
        self.stages: list[Stage] = []
        self.trace = trace

    def wait(self, kind: Kind, now_s: float) -> Stage:
        """It begins to wait."""
        stage = Stage(kind, now_s)
        self._write_down(stage)
        return stage

    def attempt(self, address: str, now_s: float, number: int = 1) -> Stage:
        """A replica is called."""
        span_id = 0
        if self.trace is not None and (self.calls == 1 or len(self.stages) < MOST_TRACED):
            span_id = self.trace.new_id()
        stage = Stage("attempt", now_s, address, span_id, number)
        if self.calls == 1:
            self.stages.append(stage)
        else:
            self._write_down(stage)
        return stage

    @property
    def traced(self) -> list[Stage]:
        """The stages that have spans."""
        return self.stages if self.calls == 1 else self.stages[:MOST_TRACED]

    def _write_down(self, stage: Stage) -> None:
        stages = self.stages
        if self.calls > 1 and len(stages) >= _MOST_STAGES:
            del stages[MOST_TRACED]
        stages.append(stage)

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
        """A deployment is called, perhaps once more."""
        found = self.visits.get(deployment)
        if found is None:
            found = self.visits[deployment] = Visit(deployment, now_s, floating=floating, trace=self.trace)
        else:
            found.calls += 1
            found.under_way += 1
            found.ended_s = None
        return found

    def left(self, deployment: str, now_s: float, outcome: Outcome, reason: str = "") -> None:
        """
        A deployment has answered a call, or will not. What has not been called is not told of.

        Of several calls, the first that was not answered says what became of the visit.
        """
        visit = self.visits.get(deployment)
        if visit is None or visit.ended_s is not None:
            return
        if visit.outcome in ("", "answered"):
            visit.outcome = outcome
            visit.reason = reason[:_LONGEST_REASON]
        visit.under_way -= 1
        if visit.under_way:
            return
        visit.ended_s = now_s
        for stage in visit.stages:
            if stage.ended_s is None:
                stage.end(now_s)
        if self.late is not None:
            self.late(visit)

    def stages(self) -> Iterator[Stage]:
        """Those of every visit."""
        for visit in self.visits.values():
            yield from visit.stages


def spent(journey: Journey | None, began_s: float, ended_s: float) -> tuple[float, float, float]:
    """
    Where the time between ``began_s`` and ``ended_s`` went, in seconds: queue, executors, gateway.

    The three add up to all of it; parallel branches count once. With executors is when at least one attempt
    was under way; in the queue is when none was, and something waited for a slot or for the next attempt. The
    rest is the gateway's own work.
    """
    whole_s = max(0.0, ended_s - began_s)
    if journey is None:
        return 0.0, 0.0, whole_s
    # The usual case by hand: one thing after the other.
    queue_s = executors_s = 0.0
    until_s = began_s
    for visit in journey.visits.values():
        for stage in visit.stages:
            stage_ended_s = stage.ended_s
            if stage_ended_s is None or stage_ended_s > ended_s or stage.began_s < until_s:
                return _spent_at_once(journey, began_s, ended_s)
            until_s = stage_ended_s
            if stage.kind == "attempt":
                executors_s += stage_ended_s - stage.began_s
            else:
                queue_s += stage_ended_s - stage.began_s
    return queue_s, executors_s, max(0.0, whole_s - queue_s - executors_s)


def _spent_at_once(journey: Journey, began_s: float, ended_s: float) -> tuple[float, float, float]:
    """The same where stages overlap, or have not ended."""
    whole_s = max(0.0, ended_s - began_s)
    stages = [(stage.kind, _clipped(stage, began_s, ended_s)) for stage in journey.stages()]
    calls = [interval for kind, interval in stages if kind == "attempt"]
    executors_s = _covered_s(calls)
    either_s = _covered_s(interval for _, interval in stages)
    return either_s - executors_s, executors_s, max(0.0, whole_s - either_s)


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
