"""
The spans of a Client with ``tracing``: one for each ``post``, below OpenTelemetry's current span.

The gateway is told where in the trace it is called from, and goes on there. Imported by Clients with
``tracing`` alone.
"""

from __future__ import annotations

import atexit
import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import attrs
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanKind, Status, StatusCode

import gatewayd
from gatewayd.client.post import Post
from gatewayd.messages.trace_context import TraceContext, headers_of
from gatewayd.otlp import Collector, Sparse, resource, span_processor
from gatewayd.redaction import without_passwords

_LONGEST_TEXT: Final = 500
# How long ``close``, or the end of the process, waits for what has not been sent.
_STOP_S: Final = 2.0


class ClientTracing:
    """Where a Client's spans go. Any thread."""

    def __init__(self, collector: Collector) -> None:
        self._provider = TracerProvider(resource=resource("client"), shutdown_on_exit=False)
        self._provider.add_span_processor(span_processor(collector))
        self._tracer = self._provider.get_tracer("gatewayd.client", gatewayd.__version__)
        _say_little()
        # At the end of the process, or of the Client if that is earlier.
        atexit.register(_stop, weakref.ref(self))

    @contextmanager
    def span(self, post: Post) -> Iterator[Post]:
        """The span of a ``post`` until all its responses are there: ``post`` as it is to be sent."""
        span = self._tracer.start_span(post.on or "/", kind=SpanKind.CLIENT)
        context = span.get_span_context()
        sampled, state = context.trace_flags.sampled, context.trace_state.to_header()
        told = headers_of(TraceContext(context.trace_id, context.span_id, sampled, state))
        try:
            yield attrs.evolve(post, headers={**post.headers, **dict(told)})
        except GeneratorExit:  # whoever iterates has enough
            raise
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"[:_LONGEST_TEXT]
            span.set_status(Status(StatusCode.ERROR, without_passwords(text)))
            span.set_attribute("error.type", type(error).__name__)
            raise
        finally:
            span.end()

    def flush(self) -> None:
        """Send what there is. Returns after two seconds at the latest."""
        _within(self._provider.force_flush)

    def stop(self) -> None:
        """As ``flush``; nothing is sent after it."""
        _within(self._provider.shutdown)


def _within(work: Callable[[], object]) -> None:
    # A collector that is down would have either wait for half a minute.
    sending = threading.Thread(target=work, name="gatewayd traces", daemon=True)
    sending.start()
    sending.join(_STOP_S)


def _stop(tracing: weakref.ref[ClientTracing]) -> None:
    if (there := tracing()) is not None:
        there.stop()


def _say_little() -> None:
    """Of the packages' messages a few: how they are shown is the program's own matter."""
    theirs = logging.getLogger("opentelemetry")
    exporters = ("exporter.otlp.proto.grpc.exporter", "exporter.otlp.proto.http.trace_exporter")
    for name in ("sdk._shared_internal", *exporters):
        logger = theirs.getChild(name)
        if not any(isinstance(each, Sparse) for each in logger.filters):
            logger.addFilter(Sparse())
