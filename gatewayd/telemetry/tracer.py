"""
Traces requests: says which are, tells their executors, and makes spans of what became of them.

An ``Observer``: what goes on inside the engine is in the request's journey. Whoever calls the gateway may
have begun the trace (``messages/trace_context.py``), and has then decided whether it is kept; of all others a
share is.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from google.protobuf.message import DecodeError
from twisted.internet.defer import CancelledError

from gatewayd.messages.journey import Journey, Trace, Visit
from gatewayd.messages.trace_context import (
    TRACEPARENT,
    TraceContext,
    context_of,
    headers_of,
    without_context,
)
from gatewayd.pb import StatusProto
from gatewayd.redaction import beginning_of
from gatewayd.telemetry.metrics.outcomes import ended_as
from gatewayd.telemetry.observed import Exchange
from gatewayd.telemetry.spans import Attributes, Outcome, Span, request_span, visit_spans

_LONGEST_TEXT: Final = 500
_LOW_BITS: Final = (1 << 64) - 1


class Tracer:
    """
    Gives ``export`` the spans of each request that is traced, when it has ended. Reactor thread only.

    ``sample`` is the share of the requests without a trace of their own that begin one; with ``from_clients``
    those that their clients have begun go on. The clocks are the reactor's and the time of day;
    ``random_bits`` draws the ids.
    """

    def __init__(
        self,
        sample: float,
        export: Callable[[Sequence[Span]], object],
        seconds: Callable[[], float],
        *,
        from_clients: bool = True,
        wall_clock: Callable[[], float] = time.time,
        random_bits: Callable[[int], int] = random.getrandbits,
    ) -> None:
        self._below = round(sample * (1 << 64))
        self._export = export
        self._seconds = seconds
        self._from_clients = from_clients
        self._wall_clock = wall_clock
        self._random_bits = random_bits

    def began(self, exchange: Exchange) -> None:
        """The request is told where in a trace it is; one that is kept gets a journey."""
        request, random_bits = exchange.request, self._random_bits
        headers, asked = request.headers, None
        if headers:
            if self._from_clients:
                asked = context_of(headers)
            headers = without_context(headers)
        if asked is None:
            trace_id = random_bits(128) or 1
            # As OpenTelemetry's own sampler, so that all who look at an id come to the same decision.
            if trace_id & _LOW_BITS >= self._below:
                # Those behind it are told, so that they begin no trace of their own: headers_of by hand, for
                # this is what becomes of most requests where few are kept.
                told = (TRACEPARENT, f"00-{trace_id:032x}-{random_bits(64) or 1:016x}-00")
                exchange.request = request.watched((*headers, told), request.journey)
                return
            context = TraceContext(trace_id, self._new_id(), True)
        else:
            context = TraceContext(asked.trace_id, self._new_id(), asked.sampled, asked.state)
            if not context.sampled:
                exchange.request = request.watched((*headers, *headers_of(context)), request.journey)
                return
        if headers is not request.headers:
            exchange.request = request.watched(headers, request.journey)
        exchange.follow().trace = Trace(context, 0 if asked is None else asked.span_id, self._new_id)

    def ended(self, exchange: Exchange) -> None:
        """Its spans are exported, but for those of floating deployments that are under way."""
        journey = exchange.request.journey
        if journey is None or journey.trace is None:
            return
        request, trace = exchange.request, journey.trace
        to_epoch_s = self._to_epoch_s()
        spans = [
            request_span(
                trace,
                request.endpoint,
                exchange.began_s + to_epoch_s,
                exchange.ended_s + to_epoch_s,
                {
                    "gatewayd.protocol": exchange.protocol,
                    "gatewayd.endpoint": request.endpoint[:_LONGEST_TEXT],
                    "gatewayd.request_id": request.request_id[:_LONGEST_TEXT],
                    "gatewayd.request_bytes": exchange.bytes_in,
                    **_of_answer(exchange.bytes_out),
                    **_of_stream(exchange),
                },
                _outcome(exchange),
            )
        ]
        for visit in journey.visits.values():
            spans += visit_spans(visit, trace, to_epoch_s)
        journey.late = partial(self._late, trace)
        self._export(spans)

    def _late(self, trace: Trace, visit: Visit) -> None:
        self._export(list(visit_spans(visit, trace, self._to_epoch_s())))

    def _to_epoch_s(self) -> float:
        return self._wall_clock() - self._seconds()

    def _new_id(self) -> int:
        return self._random_bits(64) or 1


def trace_id_of(exchange: Exchange) -> str | None:
    """The id of the trace that is kept of a request, as texts have it; None if none is."""
    journey: Journey | None = exchange.request.journey
    if journey is None or journey.trace is None:
        return None
    return f"{journey.trace.context.trace_id:032x}"


def _of_answer(bytes_out: int | None) -> dict[str, int]:
    return {} if bytes_out is None else {"gatewayd.response_bytes": bytes_out}


def _of_stream(exchange: Exchange) -> Attributes:
    """Nothing for what is no stream."""
    if exchange.answers is None:
        return {}
    if exchange.first_s is None:
        return {"gatewayd.answers": exchange.answers}
    first_ms = round((exchange.first_s - exchange.began_s) * 1000)
    return {"gatewayd.answers": exchange.answers, "gatewayd.first_answer_ms": first_ms}


def _outcome(exchange: Exchange) -> Outcome:
    response, error = exchange.response, exchange.error
    name = ended_as(response, error)
    if isinstance(error, CancelledError):
        return Outcome(name)
    if error is not None:
        return Outcome(name, type(error).__name__, beginning_of(str(error), _LONGEST_TEXT))
    if response is None or not response.status:
        return Outcome(name)
    try:
        raised = StatusProto.FromString(response.status)
    except DecodeError:
        return Outcome(name)
    return Outcome(name, raised.exception.name, beginning_of(raised.description, _LONGEST_TEXT))
