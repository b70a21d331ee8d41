"""
Sends spans to a collector, with OpenTelemetry's packages (``gatewayd/otlp.py``).

They queue and send in a thread of their own. Where the collector is down, the oldest spans are dropped, and
the log says so now and then.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState
from twisted.internet.defer import CancelledError, TimeoutError

import gatewayd
from gatewayd.bounded_log import BoundedLogger
from gatewayd.offload import Offload
from gatewayd.otlp import Collector, Sparse, resource, say_less, span_processor
from gatewayd.telemetry.spans import Span

log = BoundedLogger()

# How long a stop waits for what has not been sent.
_STOP_S: Final = 2.0
_KINDS: Final = {"internal": SpanKind.INTERNAL, "server": SpanKind.SERVER, "client": SpanKind.CLIENT}
_SCOPE: Final = InstrumentationScope("gatewayd", gatewayd.__version__)
_UNSET: Final = Status(StatusCode.UNSET)
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_NO_STATE: Final = TraceState()


class SpanExport:
    """Spans on their way to one collector. Reactor thread only."""

    def __init__(self, collector: Collector, name: str, instance: str, namespace: str | None) -> None:
        """Starts at once. The last three are as in ``otlp.resource``."""
        log_as_ours()
        say_less()
        self._resource = resource(name, instance, namespace)
        self._processor = span_processor(collector)

    def export(self, spans: Sequence[Span]) -> None:
        """Have them sent, some time."""
        for span in spans:
            self._processor.on_end(self._readable(span))

    async def stop(self, clock: Any, offload: Offload) -> None:
        """Send what is left. Returns after two seconds of the ``clock`` at the latest."""
        try:
            await offload(self._processor.shutdown).addTimeout(_STOP_S, clock)
        except (TimeoutError, CancelledError):
            log.warn("the collector of traces has not taken the last spans in time; they are lost")

    def discard(self) -> None:
        """Nothing was exported: end its thread. Any other thread; blocks for a moment."""
        self._processor.shutdown()  # type: ignore[no-untyped-call]

    def _readable(self, span: Span) -> ReadableSpan:
        state = TraceState.from_header([span.state]) if span.state else _NO_STATE
        parent = None
        if span.parent_id:
            parent = SpanContext(span.trace_id, span.parent_id, True, _SAMPLED, state)
        return ReadableSpan(
            span.name,
            SpanContext(span.trace_id, span.span_id, False, _SAMPLED, state),
            parent,
            self._resource,
            span.attributes,
            kind=_KINDS[span.kind],
            status=_UNSET if span.error is None else Status(StatusCode.ERROR, span.error),
            start_time=int(span.began_s * 1e9),
            end_time=int(span.ended_s * 1e9),
            instrumentation_scope=_SCOPE,
        )


def log_as_ours() -> None:
    """Have the packages' messages in our log, few of them."""
    theirs = logging.getLogger("opentelemetry")
    if not any(isinstance(handler, _Handler) for handler in theirs.handlers):
        handler = _Handler(logging.WARNING)
        handler.addFilter(Sparse())
        theirs.addHandler(handler)
        theirs.propagate = False


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        log.warn("traces: {text}", text=record.getMessage())
