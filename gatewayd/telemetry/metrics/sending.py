"""
Sends readings to an OpenTelemetry collector, with OpenTelemetry's packages (``gatewayd/otlp.py``).

A reading is what the library calls metrics data: nothing is measured twice. ``send`` blocks while it is sent,
with retries for a few seconds: it is for a thread of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.metrics.export import Metric as Sent
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

import gatewayd
from gatewayd.otlp import Collector, metric_exporter, resource
from gatewayd.telemetry.exporting import log_as_ours
from gatewayd.telemetry.metrics.reading import HistogramValue, Labels, Reading, Value
from gatewayd.telemetry.metrics.table import Metric

_SCOPE: Final = InstrumentationScope("gatewayd", gatewayd.__version__)
_CUMULATIVE: Final = AggregationTemporality.CUMULATIVE
# By the end of a metric's name (UCUM, as OpenTelemetry has it).
_UNITS: Final = {"seconds": "s", "bytes": "By"}


class MetricSender:
    """
    To one collector. Its methods are for one thread at a time, any.

    ``began_ns`` is when counting began, in nanoseconds since the epoch; the other arguments are as in
    ``otlp.resource``.
    """

    def __init__(
        self, collector: Collector, name: str, instance: str, namespace: str | None, began_ns: int
    ) -> None:
        log_as_ours()
        self._resource = resource(name, instance, namespace)
        self._exporter = metric_exporter(collector)
        self._began_ns = began_ns

    def send(self, reading: Reading, now_ns: int) -> bool:
        """Whether the collector has taken ``reading``; if not, the next one says all that this one did."""
        data = metrics_data(reading, self._resource, self._began_ns, now_ns)
        return self._exporter.export(data) is MetricExportResult.SUCCESS

    def close(self) -> None:
        """Nothing is sent any more; what is being sent is given up soon."""
        self._exporter.shutdown()


def metrics_data(reading: Reading, of: Resource, began_ns: int, now_ns: int) -> MetricsData:
    """``reading`` as the library has it; its counts are since ``began_ns``."""
    metrics = [_sent(metric, values, began_ns, now_ns) for metric, values in reading]
    return MetricsData([ResourceMetrics(of, [ScopeMetrics(_SCOPE, metrics, "")], "")])


def _sent(metric: Metric, values: Mapping[Labels, Value], began_ns: int, now_ns: int) -> Sent:
    data: Any
    if metric.kind == "histogram":
        data = Histogram(list(_histograms(metric, values, began_ns, now_ns)), _CUMULATIVE)
    else:
        points = list(_numbers(metric, values, began_ns, now_ns))
        data = Gauge(points) if metric.kind == "gauge" else Sum(points, _CUMULATIVE, is_monotonic=True)
    unit = next((unit for end, unit in _UNITS.items() if metric.name.endswith(end)), "1")
    return Sent(metric.name, metric.doc, unit, data)


def _numbers(
    metric: Metric, values: Mapping[Labels, Value], began_ns: int, now_ns: int
) -> Iterator[NumberDataPoint]:
    for labels, value in values.items():
        assert not isinstance(value, HistogramValue), metric.name
        attributes = dict(zip(metric.labels, labels, strict=True))
        yield NumberDataPoint(attributes, began_ns, now_ns, float(value))


def _histograms(
    metric: Metric, values: Mapping[Labels, Value], began_ns: int, now_ns: int
) -> Iterator[HistogramDataPoint]:
    unknown: Any = None  # the least and the largest: they are not kept
    for labels, value in values.items():
        assert isinstance(value, HistogramValue), metric.name
        yield HistogramDataPoint(
            dict(zip(metric.labels, labels, strict=True)),
            began_ns,
            now_ns,
            sum(value.counts),
            value.total,
            value.counts,
            metric.bounds,
            unknown,
            unknown,
        )
