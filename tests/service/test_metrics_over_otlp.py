"""``metrics``: a collector gets the figures of the whole service, and one that is down costs nothing."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import (
    MetricsServiceServicer,
    add_MetricsServiceServicer_to_server,
)

from tests.processes import Gateway, free_ports
from tests.service.test_metrics import REC, post
from tests.telemetry.otlp_servers import Service, grpc_server, http_server
from tests.waiting import until

pytestmark = pytest.mark.slow


class Collector:
    """What has arrived. ``resource`` and ``headers`` are those of the last message."""

    def __init__(self) -> None:
        self.port = 0
        self.resource: dict[str, str] = {}
        self.headers: dict[str, str] = {}
        self._latest: dict[str, list[Any]] = {}

    def take(self, message: ExportMetricsServiceRequest, headers: Mapping[str, str]) -> None:
        self.headers = dict(headers)
        latest: dict[str, list[Any]] = {}
        for of in message.resource_metrics:
            self.resource = {each.key: each.value.string_value for each in of.resource.attributes}
            for scope in of.scope_metrics:
                for metric in scope.metrics:
                    latest.setdefault(metric.name, []).append(metric)
        self._latest = latest

    def total(self, name: str, **labels: str) -> float:
        """The sum of a counter or gauge over the points with these labels, in the last message."""
        found = 0.0
        for metric in self._latest.get(name, []):
            for point in (*metric.sum.data_points, *metric.gauge.data_points):
                own = {each.key: each.value.string_value for each in point.attributes}
                found += point.as_double if labels.items() <= own.items() else 0.0
        return found


_SERVICE: Final = Service(
    "/v1/metrics",
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
    MetricsServiceServicer,
    add_MetricsServiceServicer_to_server,
)


@contextlib.contextmanager
def over_grpc() -> Iterator[Collector]:
    collector = Collector()
    with grpc_server(_SERVICE, collector.take) as collector.port:
        yield collector


@contextlib.contextmanager
def over_http() -> Iterator[Collector]:
    collector = Collector()
    with http_server(_SERVICE, collector.take) as collector.port:
        yield collector


def gateway_of(port: int, **gateway: Any) -> Gateway:
    settings = {
        "metrics": True,
        "metrics_exporter_host": "127.0.0.1",
        "metrics_exporter_port": port,
        "metrics_interval": 0.2,
        "metrics_exporter_headers": {"x-token": "secret-of-the-collector"},
    }
    flow = {"with": {"name": "shop"}, "gateway": {**settings, **gateway}, "executors": [REC]}
    process = Gateway(flow, protocols=["http"])
    process.line(r"\bready$")
    return process


@pytest.mark.parametrize(
    ("serve", "protocol", "workers"), [(over_grpc, "grpc", 1), (over_http, "http", 1), (over_grpc, "grpc", 2)]
)
def test_a_collector_gets_the_figures_of_the_whole_service(serve: Any, protocol: str, workers: int) -> None:
    with serve() as collector:
        gateway = gateway_of(collector.port, metrics_exporter_protocol=protocol, workers=workers)
        try:
            for _ in range(5):
                assert post(gateway.ports["http"], "/tag") == 200
            until(lambda: collector.total("gatewayd_requests", endpoint="/tag", outcome="ok") == 5)
            until(lambda: collector.total("gatewayd_replica_up", deployment="exec_a") == 1)
            assert collector.total("gatewayd_replica_memory_bytes", deployment="exec_a") > 1e6
            assert collector.resource["service.name"] == "gateway"
            assert collector.resource["service.namespace"] == "shop"
            assert collector.headers["x-token"] == "secret-of-the-collector"
            assert post(gateway.ports["http"], "/tag") == 200
        finally:
            assert gateway.stop() == 0
        # What happened since the last time is sent before the end.
        assert collector.total("gatewayd_requests", endpoint="/tag", outcome="ok") == 6
        assert "secret-of-the-collector" not in gateway.output


def test_one_that_is_down_costs_nothing_but_a_line_now_and_then() -> None:
    (port,) = free_ports(1)
    gateway = gateway_of(port)
    try:
        gateway.line("OpenTelemetry|traces:")
        for _ in range(20):
            assert post(gateway.ports["http"], "/tag") == 200
    finally:
        began_s = time.monotonic()
        assert gateway.stop() == 0
    assert time.monotonic() - began_s < 15
    assert "Traceback" not in gateway.output


def test_one_that_never_answers_holds_no_stop_up() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        gateway = gateway_of(silent.getsockname()[1])
        try:
            assert post(gateway.ports["http"], "/tag") == 200
        finally:
            began_s = time.monotonic()
            assert gateway.stop() == 0
        assert time.monotonic() - began_s < 15
