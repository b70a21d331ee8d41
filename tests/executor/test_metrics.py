"""What an executor measures where it has monitoring, by the names of the reference."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from prometheus_client import Counter, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gatewayd import Executor, dynamic_batching, monitor, requests
from gatewayd.executor.handling import Handling
from gatewayd.executor.metrics import Registry
from gatewayd.executor.spec import ExecutorSpec
from gatewayd.pb import DataRequestProto

SPEC = ExecutorSpec("a", monitoring_port=0)


class Measured(Executor):
    @requests(on="/tell")
    def tell(self, docs, **kwargs):
        self.prepare()
        for doc in docs:
            doc.text = "x"

    @requests(on="/later")
    async def later(self, docs, **kwargs):
        await asyncio.sleep(0)

    @requests(on="/fail")
    def fail(self, **kwargs):
        raise ValueError("no")

    @dynamic_batching(preferred_batch_size=2, timeout=10)
    @requests(on="/batch")
    def batch(self, docs, **kwargs):
        pass

    @monitor()
    def prepare(self):
        with self.monitor("inner_seconds", "the inner part"):
            pass


class Setup:
    def __init__(self, cls: type[Executor] = Measured, spec: ExecutorSpec = SPEC) -> None:
        registry = None if spec.monitoring_port is None else Registry()
        self.executor = cls(runtime_args={"name": "a/rep-0", "metrics_registry": registry})
        self.handling = Handling(self.executor, spec, lambda reason: None)

    def ask(self, *endpoints: str) -> list[bytes]:
        async def all_of_them() -> Any:
            return await asyncio.gather(*(self.handling.handle([request(each)]) for each in endpoints))

        try:
            return [each.message for each in asyncio.run(all_of_them())]
        finally:
            self.handling.close(wait=True)

    def found(self, name: str, **labels: str) -> float | None:
        text = generate_latest(self.executor.runtime_args.metrics_registry).decode()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == name and {**sample.labels, **labels} == sample.labels:
                    return sample.value
        return None


def request(endpoint: str) -> bytes:
    message = DataRequestProto()
    message.header.exec_endpoint = endpoint
    message.data.docs.docs.add(id="d0", text="a")
    message.data.docs.docs.add(id="d1")
    return message.SerializeToString()


@pytest.mark.parametrize("endpoint", ["/tell", "/later", "/batch"])
def test_each_request_is_counted_with_its_bytes_documents_and_times(endpoint: str) -> None:
    setup = Setup()
    (answer,) = setup.ask(endpoint)
    labels = {"executor_endpoint": endpoint, "executor": "Measured", "runtime_name": "a/rep-0"}

    assert setup.found("jina_received_request_bytes_sum", **labels) == len(request(endpoint))
    assert setup.found("jina_request_size_bytes_count", **labels) == 1
    assert setup.found("jina_sent_response_bytes_sum", **labels) == len(answer)
    assert setup.found("jina_document_processed_total", **labels) == 2
    assert setup.found("jina_process_request_seconds_count", **labels) == 1
    assert setup.found("jina_receiving_request_seconds_count", runtime_name="a/rep-0") == 1
    assert setup.found("jina_successful_requests_total", runtime_name="a/rep-0") == 1
    assert setup.found("jina_failed_requests_total", runtime_name="a/rep-0") == 0


def test_a_failure_is_counted_as_that() -> None:
    setup = Setup()
    setup.ask("/fail")

    assert setup.found("jina_failed_requests_total", runtime_name="a/rep-0") == 1
    assert setup.found("jina_successful_requests_total", runtime_name="a/rep-0") == 0
    assert setup.found("jina_process_request_seconds_count", executor_endpoint="/fail") == 1


def test_a_batch_is_one_call_for_several_requests() -> None:
    setup = Setup()
    setup.ask("/batch")
    assert setup.found("jina_process_request_seconds_count", executor_endpoint="/batch") == 1


def test_methods_and_blocks_that_are_monitored_are_summaries() -> None:
    setup = Setup()
    setup.ask("/tell", "/tell")

    assert setup.found("jina_prepare_seconds_count", runtime_name="a/rep-0") == 2
    assert setup.found("jina_inner_seconds_count", runtime_name="a/rep-0") == 2
    text = generate_latest(setup.executor.runtime_args.metrics_registry).decode()
    assert "# HELP jina_inner_seconds the inner part" in text


def test_an_endpoint_that_a_client_made_up_is_no_label() -> None:
    class Every(Executor):
        @requests
        def every(self, **kwargs):
            pass

    setup = Setup(Every)
    setup.ask(*(f"/made-up/{number}" for number in range(20)))

    assert setup.found("jina_received_request_bytes_count", executor_endpoint="/default") == 20


def test_a_class_may_add_metrics_of_its_own() -> None:
    class Own(Executor):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.seen = Counter("seen", "What was seen.", registry=self.runtime_args.metrics_registry)

        @requests(on="/tell")
        def tell(self, docs, **kwargs):
            self.seen.inc(len(docs))

    setup = Setup(Own)
    setup.ask("/tell")
    assert setup.found("seen_total") == 2


def test_without_monitoring_nothing_is_measured() -> None:
    setup = Setup(spec=ExecutorSpec("a"))
    assert setup.ask("/tell")
    assert setup.executor.runtime_args.metrics_registry is None
