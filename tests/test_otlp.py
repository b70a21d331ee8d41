"""Where spans go."""

from __future__ import annotations

import logging

import pytest

from gatewayd.otlp import Collector, Sparse, resource


@pytest.mark.parametrize(
    ("collector", "url"),
    [
        (Collector(), "http://localhost:4317"),
        (Collector(protocol="http"), "http://localhost:4318/v1/traces"),
        (Collector("https://otel.example", 443, "http"), "https://otel.example:443/v1/traces"),
        (Collector("http://otel.example"), "http://otel.example:4317"),
        (Collector("::1", 1), "http://[::1]:1"),
    ],
)
def test_the_address(collector: Collector, url: str) -> None:
    assert collector.url == url


def test_headers_may_log_us_in_and_are_not_shown() -> None:
    assert "s3cret" not in repr(Collector(headers={"authorization": "s3cret"}))


def test_who_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K8S_POD_NAME", "pod-1")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
    found = resource("encoder", "encoder/rep-0", "shop").attributes

    assert found["service.name"] == "encoder"
    assert found["service.instance.id"] == "encoder/rep-0"
    assert found["service.namespace"] == "shop"
    assert found["k8s.pod.name"] == "pod-1"
    assert found["deployment.environment"] == "test"


def test_a_collector_that_is_down_is_a_line_now_and_then() -> None:
    now_s = 0.0
    sparse = Sparse(lambda: now_s)

    def passes(name: str, level: int = logging.WARNING) -> bool:
        return sparse.filter(logging.LogRecord(name, level, "", 0, "it failed", None, None))

    assert passes("opentelemetry.exporter")
    assert not passes("opentelemetry.exporter")
    assert passes("opentelemetry.exporter", logging.ERROR)
    assert passes("opentelemetry.sdk")
    assert all(passes(name) for name in ("gatewayd", "gatewayd", "opentelemetryish"))
    now_s = 60.0
    assert passes("opentelemetry.exporter")
