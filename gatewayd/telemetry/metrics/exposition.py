"""A reading as Prometheus scrapes it: its text format, or OpenMetrics where that is accepted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, Exemplar, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from gatewayd.telemetry.metrics.reading import TRACE_ID, HistogramValue, Labels, Reading, Value
from gatewayd.telemetry.metrics.table import Metric


class ReadingCollector(Collector):
    """What the library's encoders ask, over families that have been read already."""

    def __init__(self, collected: Iterable[Family]) -> None:
        self._families = tuple(collected)

    def collect(self) -> Iterator[Family]:
        return iter(self._families)


def families(reading: Reading) -> Iterator[Family]:
    """Each metric of ``reading`` as a family of the library's."""
    for metric, values in reading:
        yield _family(metric, values)


def exposed(reading: Reading, accept: str, more: Sequence[Family] = ()) -> tuple[bytes, bytes]:
    """
    The content type and the body for a scraper that sends ``accept``; ``more`` are families besides.

    Pure, but not quick where there are many series: offload it.
    """
    encode: Callable[[Collector], bytes]
    encode, content_type = choose_encoder(accept)
    return content_type.encode(), encode(ReadingCollector((*families(reading), *more)))


def _family(metric: Metric, values: Mapping[Labels, Value]) -> Family:
    if metric.kind == "histogram":
        histogram = HistogramMetricFamily(metric.name, metric.doc, labels=metric.labels)
        for labels, value in values.items():
            assert isinstance(value, HistogramValue), metric.name
            histogram.add_metric(labels, _buckets(metric, value), value.total)
        return histogram
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = kind(metric.name, metric.doc, labels=metric.labels)
    for labels, value in values.items():
        assert not isinstance(value, HistogramValue), metric.name
        family.add_metric(labels, value)
    return family


def _of_exemplar(name: str) -> dict[str, str]:
    # By this label Grafana leads from a point to its trace.
    trace_id = name.removeprefix(TRACE_ID)
    return {"request_id": name} if trace_id == name else {"trace_id": trace_id}


def _buckets(metric: Metric, value: HistogramValue) -> list[tuple[str, float] | tuple[str, float, Exemplar]]:
    exemplars = {at: Exemplar(_of_exemplar(name), took) for at, name, took in value.exemplars}
    names = [*map(floatToGoString, metric.bounds), "+Inf"]
    return [
        (name, float(count), exemplars[at]) if at in exemplars else (name, float(count))
        for at, (name, count) in enumerate(zip(names, accumulate(value.counts), strict=True))
    ]
