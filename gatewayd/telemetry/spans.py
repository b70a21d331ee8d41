"""
The spans of one request, made of its journey when it has ended (pure).

    /search              the request, from decoded to answered
        encoder          a deployment's part in it
            queue        it waited for a slot
            attempt      a replica was called; the executor's own span is below this one
            backoff      the pause before the next attempt
            attempt

Names of attributes are OpenTelemetry's where it has one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, Literal

from gatewayd.errors import CallFailed
from gatewayd.messages.journey import Stage, Trace, Visit
from gatewayd.redaction import beginning_of
from gatewayd.telemetry.metrics.outcomes import (
    CANCELLED,
    EXECUTOR_ERROR,
    OK,
    outcome_of_class,
    outcome_of_code,
)
from gatewayd.values import value

Kind = Literal["internal", "server", "client"]
Attributes = Mapping[str, str | int | bool]

_WORDS: Final[Mapping[str, str]] = {"answered": OK, "raised": EXECUTOR_ERROR}
# Clients choose the names of endpoints.
_LONGEST_NAME: Final = 200
_LONGEST_TEXT: Final = 500


@value
class Span:
    """
    One span. Times are seconds since the epoch; ``parent_id`` 0 is none.

    ``error`` says what failed, None where nothing did.
    """

    name: str
    trace_id: int
    span_id: int
    parent_id: int
    kind: Kind
    began_s: float
    ended_s: float
    attributes: Attributes
    error: str | None = None
    state: str = ""


@value
class Outcome:
    """
    How a request ended: ``name`` is one of the words for it (metrics/outcomes.py). ``kind`` is the class of
    the error, and ``error`` its text, if it is one.
    """

    name: str
    kind: str = ""
    error: str | None = None


def request_span(
    trace: Trace, name: str, began_s: float, ended_s: float, attributes: Attributes, outcome: Outcome
) -> Span:
    """The span of the request itself."""
    context = trace.context
    return Span(
        name[:_LONGEST_NAME] or "request",
        context.trace_id,
        context.span_id,
        trace.parent_id,
        "server",
        began_s,
        ended_s,
        {**attributes, "gatewayd.outcome": outcome.name, **_error_type(outcome.kind)},
        outcome.error,
        context.state,
    )


def visit_spans(visit: Visit, trace: Trace, to_epoch_s: float) -> Iterator[Span]:
    """
    The spans of a visit that has ended: its own, and those of its first stages.

    ``to_epoch_s`` is added to the journey's times.
    """
    trace_id, state = trace.context.trace_id, trace.context.state
    own_id, ended_s = trace.new_id(), visit.ended_s
    if ended_s is None:
        return
    wrong = visit.outcome in ("raised", "failed")
    yield Span(
        visit.deployment,
        trace_id,
        own_id,
        trace.context.span_id,
        "internal",
        visit.began_s + to_epoch_s,
        ended_s + to_epoch_s,
        {
            "gatewayd.deployment": visit.deployment,
            "gatewayd.outcome": _of_visit(visit),
            **({"gatewayd.floating": True} if visit.floating else {}),
            **({"gatewayd.calls": visit.calls} if visit.calls > 1 else {}),
            **_error_type(visit.reason),
        },
        (visit.reason or "the executor raised") if wrong else None,
        state,
    )
    for stage in visit.traced:
        yield Span(
            stage.kind,
            trace_id,
            stage.span_id or trace.new_id(),
            own_id,
            "client" if stage.kind == "attempt" else "internal",
            stage.began_s + to_epoch_s,
            (ended_s if stage.ended_s is None else stage.ended_s) + to_epoch_s,
            _of_attempt(stage, visit) if stage.kind == "attempt" else {},
            _what_failed(stage),
            state,
        )


def _of_attempt(stage: Stage, visit: Visit) -> Attributes:
    failed = stage.code not in ("", "OK")
    return {
        "rpc.system": "grpc",
        "server.address": stage.address,
        "gatewayd.deployment": visit.deployment,
        "gatewayd.attempt": stage.number,
        "gatewayd.outcome": _of_call(stage, visit),
        **_error_type(stage.code if failed else ""),
    }


def _of_visit(visit: Visit) -> str:
    if visit.outcome == "failed":
        last = visit.stages[-1] if visit.stages else None
        if last is not None and last.code and visit.reason == CallFailed.__name__:
            return outcome_of_code(last.code)  # which the name of the class does not tell
        return outcome_of_class(visit.reason)
    return _WORDS.get(visit.outcome, CANCELLED)


def _of_call(stage: Stage, visit: Visit) -> str:
    if stage.raised:
        return EXECUTOR_ERROR
    return outcome_of_code(stage.code) if stage.code else _of_visit(visit)


def _what_failed(stage: Stage) -> str | None:
    if stage.raised:
        return "the executor raised"
    if stage.code in ("", "OK", "CANCELLED"):
        return None
    return beginning_of(f"{stage.code}: {stage.reason}", _LONGEST_TEXT) if stage.reason else stage.code


def _error_type(kind: str) -> Attributes:
    return {"error.type": kind} if kind else {}
