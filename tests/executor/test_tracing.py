"""Spans of an executor's methods, kept in memory."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from gatewayd import Executor, dynamic_batching, requests
from gatewayd.executor.executor import created
from gatewayd.executor.handling import Handling
from gatewayd.executor.spec import ExecutorSpec
from gatewayd.executor.tracing import Tracing
from gatewayd.pb import DataRequestProto

SPEC = ExecutorSpec("exec_a")
TRACE, PARENT = 0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7
HEADER = ("traceparent", f"00-{TRACE:032x}-{PARENT:016x}-01")


class Spanned(Executor):
    @requests(on="/plain")
    def plain(self, tracing_context, **kwargs):
        with self.tracer.start_as_current_span("inside", context=tracing_context):
            pass

    @requests(on="/coroutine")
    async def coroutine(self, **kwargs):
        with self.tracer.start_as_current_span("inside"):
            await asyncio.sleep(0)

    @requests(on="/current")
    def current(self, **kwargs):
        return {"recording": trace.get_current_span().is_recording()}

    @requests(on="/raise")
    def fail(self, **kwargs):
        raise ValueError("boom")

    @requests(on="/batched")
    @dynamic_batching(preferred_batch_size=3, timeout=10_000)
    async def batched(self, docs, headers, **kwargs):
        for doc in docs:
            doc.tags = headers

    @requests(on="/context")
    def context(self, tracing_context, **kwargs):
        return {"is_none": tracing_context is None}


class Begun(SpanProcessor):
    """Counts what has begun, whether or not it ends."""

    def __init__(self) -> None:
        self.count = 0

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        self.count += 1


class Traced:
    def __init__(self) -> None:
        self.begun = Begun()
        self._memory = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._memory))
        self.provider.add_span_processor(self.begun)
        self.executor = created(Spanned, {}, {"runtime_args": {"tracer_provider": self.provider}})

    def ask(self, endpoint: str, *calls: list[tuple[str, str | bytes]]) -> list[DataRequestProto]:
        """One request for each metadata in ``calls``, all at once."""
        return asyncio.run(self._ask(endpoint, calls))

    async def _ask(self, endpoint: str, calls: Any) -> list[DataRequestProto]:
        handling = Handling(self.executor, SPEC, lambda _: None, Tracing(self.provider, "exec_a"))
        request = DataRequestProto()
        request.header.request_id, request.header.exec_endpoint = "r", endpoint
        request.data.docs.docs.add(id="d")
        message = request.SerializeToString()
        try:
            handled = await asyncio.wait_for(
                asyncio.gather(*(handling.handle([message], lambda call=call: call) for call in calls)), 10
            )
        finally:
            handling.close()
        return [DataRequestProto.FromString(each.message) for each in handled]

    def spans(self) -> dict[str, ReadableSpan]:
        found = self._memory.get_finished_spans()
        assert len({span.name for span in found}) == len(found)
        return {span.name: span for span in found}

    @property
    def finished(self) -> tuple[ReadableSpan, ...]:
        return self._memory.get_finished_spans()


def ids(span: ReadableSpan) -> tuple[int, int]:
    """Trace and parent."""
    assert span.parent is not None
    return span.context.trace_id, span.parent.span_id


@pytest.mark.parametrize("endpoint", ["/plain", "/coroutine"])
def test_a_methods_span_is_below_the_attempt_and_its_own_spans_below_that(endpoint: str) -> None:
    traced = Traced()
    traced.ask(endpoint, [HEADER, ("tracestate", "rojo=1")])

    spans = traced.spans()
    assert ids(spans[endpoint]) == (TRACE, PARENT)
    assert ids(spans["inside"]) == (TRACE, spans[endpoint].context.span_id)
    assert spans[endpoint].context.trace_state.to_header() == "rojo=1"
    assert spans[endpoint].attributes == {"gatewayd.deployment": "exec_a", "gatewayd.endpoint": endpoint}


def test_the_methods_span_is_the_current_one_in_its_thread_and_not_after_it() -> None:
    traced = Traced()
    (answer,) = traced.ask("/current", [HEADER])

    assert answer.parameters["__results__"]["exec_a/rep-0"]["recording"] is True
    assert not trace.get_current_span().is_recording()


def test_what_is_raised_is_told() -> None:
    traced = Traced()
    traced.ask("/raise", [HEADER])

    (span,) = traced.finished
    assert (span.status.description, span.attributes["error.type"]) == ("ValueError: boom", "ValueError")  # type: ignore[index]


@pytest.mark.parametrize("metadata", [[], [("traceparent", "unreadable")], [("traceparent-bin", b"\0")]])
def test_without_a_trace_one_begins(metadata: Any) -> None:
    traced = Traced()
    traced.ask("/raise", metadata)

    assert traced.finished[0].parent is None


def test_a_trace_that_is_not_kept_leaves_no_span() -> None:
    traced = Traced()
    traced.ask("/plain", [("traceparent", f"{HEADER[1][:-2]}00")])

    assert not traced.finished


def test_requests_of_one_batch_may_be_of_different_traces() -> None:
    traced = Traced()
    others = [("traceparent", f"00-{TRACE + 1:032x}-{PARENT:016x}-{flags}") for flags in ("01", "00")]
    answers = traced.ask("/batched", [others[1]], [HEADER], [others[0]])

    (batch,) = (span for span in traced.finished if "gatewayd.batch_requests" in (span.attributes or {}))
    requests_ = [span for span in traced.finished if span is not batch]
    assert {ids(span) for span in requests_} == {(TRACE, PARENT), (TRACE + 1, PARENT)}
    assert [span.links[0].context.span_id for span in requests_] == [batch.context.span_id] * 2
    assert {link.context.span_id for link in batch.links} == {span.context.span_id for span in requests_}
    assert ids(batch)[0] == TRACE
    # What a method takes for headers has none of a trace, or no two requests would share a batch.
    assert [dict(each.data.docs.docs[0].tags) for each in answers] == [{}] * 3


def test_without_tracing_there_is_nothing() -> None:
    executor = Spanned()
    assert (executor.tracer, executor.tracer_provider) == (None, None)

    async def ask() -> DataRequestProto:
        handling = Handling(executor, SPEC, lambda _: None)
        request = DataRequestProto()
        request.header.request_id, request.header.exec_endpoint = "r", "/context"
        handled = await handling.handle([request.SerializeToString()], lambda: [HEADER])
        handling.close()
        return DataRequestProto.FromString(handled.message)

    answer = asyncio.run(ask())
    assert answer.parameters["__results__"]["exec_a/rep-0"]["is_none"] is True


def test_a_batched_request_that_cannot_be_read_leaves_no_span_open() -> None:
    traced = Traced()
    message = DataRequestProto()
    message.header.exec_endpoint = "/batched"

    async def ask() -> bool:
        handling = Handling(traced.executor, SPEC, lambda _: None, Tracing(traced.provider, "exec_a"))
        broken = message.SerializeToString() + b"\x12\x01\xff"  # parameters that are no Struct
        try:
            return (await handling.handle([broken], lambda: [HEADER])).failed
        finally:
            handling.close()

    assert asyncio.run(ask())
    assert traced.begun.count == len(traced.finished)
