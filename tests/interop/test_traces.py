"""Traces that pass through our gateway and the real Jina's executors, and back from its gateway into ours."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator

import pytest
from docarray import Document

from gatewayd.client.client import Client
from tests.processes import Child, Gateway, external, free_ports
from tests.telemetry.collector import Collector, over_grpc
from tests.waiting import until

pytestmark = pytest.mark.interop

PARENT = "00f067aa0ba902b7"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with over_grpc() as found:
        yield found


@pytest.fixture(scope="module")
def traced(cli: Callable[..., Child], collector: Collector) -> int:
    """The real Jina's executor with its own tracing; its port."""
    (port,) = free_ports(1)
    exporter = ("--traces-exporter-host", "http://127.0.0.1", "--traces-exporter-port", collector.port)
    at = ("--name", "exec_t", "--port", port, "--host", "127.0.0.1")
    cli("executor", "--uses", "Rec", "--py-modules", "executors.py", *at, "--tracing", *exporter)
    return port


def test_their_executors_spans_are_below_our_attempts(traced: int, collector: Collector) -> None:
    tracing = {
        "tracing": True,
        "traces_exporter_host": "http://127.0.0.1",
        "traces_exporter_port": collector.port,
    }
    gateway = Gateway({"gateway": tracing, "executors": [external("exec_t", traced)]}, protocols=["grpc"])
    trace_id = secrets.token_hex(16)
    try:
        with Client(port=gateway.ports["grpc"]) as client:
            until(client.is_flow_ready, 60.0)
            headers = {"traceparent": f"00-{trace_id}-{PARENT}-01"}
            client.post("/tag", Document(text="x"), headers=headers)
        spans = collector.trace(trace_id, 5)
    finally:
        gateway.stop()

    (attempt,) = (span for span in spans if span.name == "attempt")
    theirs = [span for span in spans if span.service != "gateway"]
    assert [span for span in theirs if span.parent_id == attempt.span_id], spans
    # Theirs of the method is below theirs of the call.
    assert "/tag" in {span.name for span in theirs}
