"""A reading as OpenTelemetry's data: nothing is measured twice, and nothing is left out."""

from __future__ import annotations

from typing import Any

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.resources import Resource

from gatewayd.otlp import Collector
from gatewayd.telemetry.metrics import table
from gatewayd.telemetry.metrics.reading import Histogram, Reading
from gatewayd.telemetry.metrics.sending import metrics_data

BEGAN_NS, NOW_NS = 5_000_000_000, 9_000_000_000


def sent(reading: Reading) -> dict[str, Any]:
    """The metrics by name, as they go over the wire."""
    message = encode_metrics(metrics_data(reading, Resource({"service.name": "x"}), BEGAN_NS, NOW_NS))
    (resource,) = message.resource_metrics
    (scope,) = resource.scope_metrics
    assert scope.scope.name == "gatewayd"
    return {each.name: each for each in scope.metrics}


def labels(point: Any) -> dict[str, str]:
    return {each.key: each.value.string_value for each in point.attributes}


def test_a_counter_is_a_sum_since_the_start() -> None:
    reading = Reading()
    reading.set(table.REQUESTS, 7, "http", "/search", "ok")
    found = sent(reading)["gatewayd_requests"]

    assert found.sum.is_monotonic
    assert found.sum.aggregation_temporality == 2  # cumulative
    (point,) = found.sum.data_points
    assert point.as_double == 7
    assert labels(point) == {"protocol": "http", "endpoint": "/search", "outcome": "ok"}
    assert (point.start_time_unix_nano, point.time_unix_nano) == (BEGAN_NS, NOW_NS)


def test_a_histogram_keeps_its_buckets() -> None:
    histogram = Histogram(table.REQUEST_SECONDS)
    for value in (0.02, 0.02, 100.0):
        histogram.observe(value)
    reading = Reading()
    reading.set(table.REQUEST_SECONDS, histogram.value(), "http", "/search")
    found = sent(reading)["gatewayd_request_duration_seconds"]

    (point,) = found.histogram.data_points
    assert (point.count, round(point.sum, 3)) == (3, 100.04)
    assert tuple(point.explicit_bounds) == table.REQUEST_SECONDS.bounds
    assert list(point.bucket_counts) == histogram.counts
    assert found.unit == "s"
    assert not point.HasField("min")


def test_every_metric_can_be_sent() -> None:
    reading = Reading()
    for metric in table.METRICS:
        value = Histogram(metric).value() if metric.kind == "histogram" else True
        reading.set(metric, value, *metric.labels)
    found = sent(reading)

    assert found.keys() == table.BY_NAME.keys()
    assert found["gatewayd_ready"].gauge.data_points[0].as_double == 1
    assert found["gatewayd_held_bytes"].unit == "By"


def test_the_path_is_that_of_metrics() -> None:
    assert Collector("h", 1, "http").url_for("metrics") == "http://h:1/v1/metrics"
    assert Collector("https://h", None, "grpc").url_for("metrics") == "https://h:4317"
