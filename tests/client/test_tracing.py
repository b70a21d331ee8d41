"""A Client with ``tracing``: its posts are the beginning of what the gateway goes on with."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from docarray import Document
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from gatewayd import Client
from gatewayd.client import client as client_module
from gatewayd.client.errors import Unreachable
from tests.processes import PROTOCOLS, Gateway
from tests.telemetry.collector import COLLECTORS, Collector, Recorded
from tests.waiting import until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["grpc", "http"])
def running(request: pytest.FixtureRequest) -> Iterator[tuple[Gateway, Collector, dict[str, Any]]]:
    with COLLECTORS[request.param]() as collector:
        keys = {
            "tracing": True,
            "traces_exporter_host": "http://127.0.0.1",
            "traces_exporter_port": collector.port,
            "traces_exporter_protocol": request.param,
        }
        gateway = Gateway({"gateway": keys, "executors": [{"name": "a"}]})
        try:
            yield gateway, collector, keys
        finally:
            gateway.stop()


def spans(collector: Collector, endpoint: str, count: int) -> list[Recorded]:
    def found() -> list[Recorded]:
        return [span for span in collector.spans if span.name == endpoint]

    until(lambda: len(found()) >= count, what=lambda: str(collector.spans))
    return sorted(found(), key=lambda span: span.service)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_gateways_span_is_below_the_clients(
    running: tuple[Gateway, Collector, dict[str, Any]], protocol: str
) -> None:
    gateway, collector, keys = running
    with Client(protocol=protocol, port=gateway.ports[protocol], **keys) as client:
        client.post(f"/{protocol}", Document(), headers={"x-a": "1"})

    client_, request = spans(collector, f"/{protocol}", 2)
    assert (client_.service, client_.kind, client_.parent_id) == ("client", "client", "")
    assert (request.service, request.trace_id) == ("gateway", client_.trace_id)
    assert request.parent_id == client_.span_id


def test_an_asynchronous_post_is_below_the_current_span(
    running: tuple[Gateway, Collector, dict[str, Any]],
) -> None:
    gateway, collector, keys = running

    async def post() -> int:
        tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
        async with Client(asyncio=True, port=gateway.ports["grpc"], **keys) as client:
            with tracer.start_as_current_span("mine") as mine:
                async for _ in client.post("/async", Document()):
                    assert trace.get_current_span() is mine
            return mine.get_span_context().span_id

    mine = asyncio.run(post())
    (client_, request) = spans(collector, "/async", 2)
    assert client_.parent_id == f"{mine:016x}"
    assert request.parent_id == client_.span_id


def test_a_post_that_fails(running: tuple[Gateway, Collector, dict[str, Any]]) -> None:
    _, collector, keys = running
    with Client(port=1, **keys) as client, pytest.raises(Unreachable):
        client.post("/down", Document())

    (span,) = spans(collector, "/down", 1)
    assert span.attributes["error.type"] == "Unreachable"
    assert span.error


def test_what_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "tracing_problem", lambda protocol: f"{protocol}: pip install it")

    with pytest.raises(ImportError, match="grpc: pip install it"):
        Client(tracing=True)
    with pytest.raises(ValueError, match="'tcp' is not one of grpc, http"):
        Client(tracing=True, traces_exporter_protocol="tcp")  # type: ignore[arg-type]
    assert Client(tracing=False, traces_exporter_host="x").port == 80
