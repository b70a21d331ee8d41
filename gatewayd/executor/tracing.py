"""
The spans of an executor's methods, by OpenTelemetry's packages. Imported where the executor has ``tracing``.

A method's span is below the attempt of the gateway that called it. What the method does with ``self.tracer``
and its ``tracing_context``, or with OpenTelemetry's current span, is below the method's. The requests of a
batch have a span each, which is linked to the batch's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
)

import gatewayd
from gatewayd.executor.spec import ExecutorSpec
from gatewayd.executor.worker import Worker
from gatewayd.messages.trace_context import TRACE_HEADERS, context_of
from gatewayd.otlp import Sparse, resource, say_less, span_processor
from gatewayd.redaction import beginning_of

_LONGEST_TEXT: Final = 500
# How long a stop waits for what has not been sent.
_STOP_S: Final = 2.0


class Tracing:
    """Where a process's spans go, and how they begin. ``provider`` is for the executor's own."""

    def __init__(self, provider: TracerProvider, deployment: str) -> None:
        self.provider = provider
        self._deployment = deployment
        self._tracer = provider.get_tracer("gatewayd", gatewayd.__version__)

    @classmethod
    def of(cls, spec: ExecutorSpec) -> Tracing | None:
        """That of an executor; None if it has none. What sends spans runs from now on."""
        collector = spec.executor.traces
        if collector is None:
            return None
        say_less()
        for handler in logging.getLogger().handlers:
            handler.addFilter(Sparse())
        # It is shut down with the executor, in bounded time.
        provider = TracerProvider(
            resource=resource(spec.deployment, spec.runtime_name), shutdown_on_exit=False
        )
        provider.add_span_processor(span_processor(collector))
        return cls(provider, spec.deployment)

    def parent(self, metadata: Iterable[tuple[str, str | bytes]]) -> Context:
        """The place in a trace that a call's metadata name; the beginning of one if they name none."""
        texts = [(name, text) for name, text in metadata if name in TRACE_HEADERS and isinstance(text, str)]
        found = context_of(texts)
        if found is None:
            return Context()
        flags = TraceFlags(TraceFlags.SAMPLED if found.sampled else TraceFlags.DEFAULT)
        state = TraceState.from_header([found.state]) if found.state else None
        remote = SpanContext(found.trace_id, found.span_id, True, flags, state)
        return trace.set_span_in_context(NonRecordingSpan(remote), Context())

    def begin(self, endpoint: str, parent: Context, links: Sequence[Link] = ()) -> Span:
        """A span of ``endpoint``'s method. End it."""
        return self._tracer.start_span(
            endpoint,
            context=parent,
            kind=SpanKind.SERVER,
            attributes={"gatewayd.deployment": self._deployment, "gatewayd.endpoint": endpoint},
            links=links,
        )

    def batch(self, endpoint: str, requests: Sequence[Span]) -> Span:
        """
        The span of a method that handles several requests at once, whose own spans are ``requests``.

        It is in the trace of the first of them that is kept, and linked to all. End it.
        """
        kept = [each for each in requests if each.get_span_context().trace_flags.sampled]
        links = [Link(each.get_span_context()) for each in kept]
        # Below one that is not kept, it is not kept either.
        above = trace.set_span_in_context((kept or requests)[0], Context())
        span = self.begin(endpoint, above, links)
        span.set_attribute("gatewayd.batch_requests", len(requests))
        for each in kept:
            each.add_link(span.get_span_context())
        return span

    @contextmanager
    def current(self, span: Span) -> Iterator[Context]:
        """
        ``span`` is OpenTelemetry's current one meanwhile, and ends; what is raised is in it.

        Gives the context of what is below it.
        """
        try:
            with self.within(span) as context:
                yield context
        except BaseException as error:
            self.end(span, error)
            raise
        else:
            span.end()

    @contextmanager
    def within(self, span: Span) -> Iterator[Context]:
        """As ``current``, for a part of what it is the span of: it does not end."""
        context = self.below(span)
        token = contexts.attach(context)
        try:
            yield context
        finally:
            contexts.detach(token)

    def below(self, span: Span) -> Context:
        """The context of what is below a span."""
        return trace.set_span_in_context(span, Context())

    def end(self, span: Span, error: object = None) -> None:
        """End a span; ``error`` is what its method raised, if it did."""
        if isinstance(error, BaseException) and not isinstance(error, asyncio.CancelledError):
            text = beginning_of(f"{type(error).__name__}: {error}", _LONGEST_TEXT)
            span.set_status(Status(StatusCode.ERROR, text))
            span.set_attribute("error.type", type(error).__name__)
        span.end()

    async def stop(self) -> None:
        """Send what is left. Returns after two seconds at the latest."""
        sending = Worker("traces")
        sent = asyncio.Event()
        sending.run(self.provider.shutdown, lambda _: sent.set())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(sent.wait(), _STOP_S)
        sending.close()
