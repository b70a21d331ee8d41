"""The spans and the figures of generators: one of each for a whole stream."""

import asyncio

import pytest
from docarray import Document
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gatewayd import Executor, requests
from gatewayd.executor.handling import Handling
from gatewayd.executor.metrics import Registry
from gatewayd.executor.spec import ExecutorSpec
from gatewayd.executor.tracing import Tracing
from gatewayd.pb import SingleDocumentRequestProto

TRACE, PARENT = 0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7
HEADER = ("traceparent", f"00-{TRACE:032x}-{PARENT:016x}-01")


class Outlet:
    """Keeps what is sent."""

    def __init__(self):
        self.sent = []
        self.ended = asyncio.get_running_loop().create_future()

    async def send(self, message):
        self.sent.append(message)

    def finished(self, failure, headers):
        self.ended.set_result(failure)


class Watched(Executor):
    @requests(on="/async")
    async def coroutine(self, doc, **kwargs):
        for _ in range(3):
            await asyncio.sleep(0)
            yield Document(text=str(trace.get_current_span().get_span_context().span_id))

    @requests(on="/plain")
    def plain(self, doc, tracing_context, **kwargs):
        for _ in range(3):
            yield Document(text=str(trace.get_current_span(tracing_context).get_span_context().span_id))

    @requests(on="/breaks")
    async def breaks(self, doc, **kwargs):
        yield doc
        raise ValueError("boom")


def run(endpoint, *, tracing=None, registry=None, leave=False):
    """The documents of a stream, and what ended it."""
    message = SingleDocumentRequestProto()
    message.header.exec_endpoint = endpoint
    message.document.id = "a"
    spec = ExecutorSpec("a", monitoring_port=None if registry is None else 0)

    async def stream():
        executor = Watched(runtime_args={"name": "a/rep-0", "metrics_registry": registry})
        handling = Handling(executor, spec, lambda reason: None, tracing)
        outlet = Outlet()
        try:
            cancel = handling.begin_stream(message.SerializeToString(), lambda: [HEADER], outlet)
            if leave:
                await asyncio.sleep(0)
                cancel()
            failure = await asyncio.wait_for(outlet.ended, 10)
            await handling.end_streams()
        finally:
            handling.close(wait=True)
        return [SingleDocumentRequestProto.FromString(one).document.text for one in outlet.sent], failure

    return asyncio.run(stream())


@pytest.fixture
def spans():
    memory = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    return Tracing(provider, "a"), memory


@pytest.mark.parametrize("endpoint", ["/async", "/plain"])
def test_a_stream_has_one_span_which_is_current_at_each_step(spans, endpoint):
    tracing, memory = spans

    texts, failure = run(endpoint, tracing=tracing)

    (span,) = memory.get_finished_spans()
    assert failure is None
    assert (span.name, span.context.trace_id, span.parent.span_id) == (endpoint, TRACE, PARENT)
    assert set(texts) == {str(span.context.span_id)}


def test_what_a_generator_raises_is_in_its_span(spans, caplog):
    tracing, memory = spans

    _, failure = run("/breaks", tracing=tracing)

    (span,) = memory.get_finished_spans()
    assert repr(failure) == "ValueError('boom')"
    assert span.status.description == "ValueError: boom"


def test_a_stream_that_is_left_ends_its_span(spans):
    tracing, memory = spans

    _, failure = run("/async", tracing=tracing, leave=True)

    (span,) = memory.get_finished_spans()
    assert isinstance(failure, asyncio.CancelledError)
    assert span.status.is_unset


def figures(registry):
    families = text_string_to_metric_families(generate_latest(registry).decode())
    found: dict[str, float] = {}
    for family in families:
        for sample in family.samples:  # of each endpoint
            found[sample.name] = found.get(sample.name, 0) + sample.value
    return found


def test_a_stream_counts_as_one_request_with_the_bytes_of_all_its_answers():
    registry = Registry()

    run("/async", registry=registry)

    found = figures(registry)
    assert found["jina_successful_requests_total"] == 1
    assert found["jina_document_processed_total"] == 1
    assert found["jina_process_request_seconds_count"] == 1
    assert found["jina_sent_response_bytes_count"] == 1
    assert found["jina_sent_response_bytes_sum"] > 3
    assert found["jina_failed_requests_total"] == 0


def test_a_stream_that_fails_counts_as_a_failed_request(caplog):
    registry = Registry()

    run("/breaks", registry=registry)

    found = figures(registry)
    assert (found["jina_failed_requests_total"], found["jina_successful_requests_total"]) == (1, 0)
