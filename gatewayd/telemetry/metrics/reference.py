"""
A gateway's figures by the names that the reference has for its gateways, for dashboards made for it (pure).

Its summaries are sums and counts. Not here are ``jina_sent_request_bytes`` and
``jina_received_response_bytes``, the bytes of calls to executors: executors count the same bytes at their
end.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily
from prometheus_client.metrics_core import Metric as Family

from gatewayd.telemetry.metrics import table
from gatewayd.telemetry.metrics.gathered import RUNTIME_NAME
from gatewayd.telemetry.metrics.outcomes import OK
from gatewayd.telemetry.metrics.reading import HistogramValue, Reading
from gatewayd.telemetry.metrics.table import Metric

_SUMMARIES: tuple[tuple[str, str, Metric], ...] = (
    ("receiving_request_seconds", "Time spent processing request", table.REQUEST_SECONDS),
    (
        "sending_request_seconds",
        "Time spent between sending a request to the Executor/Head and receiving the response",
        table.CALL_SECONDS,
    ),
    ("received_request_bytes", "The size in bytes of the request", table.REQUEST_BYTES),
    ("request_size_bytes", "The size in bytes of the request", table.REQUEST_BYTES),
    ("sent_response_bytes", "The size in bytes of the request returned to the client", table.RESPONSE_BYTES),
)


def reference_families(reading: Reading, gateway: str) -> Iterator[Family]:
    """Those of the gateway of this name."""
    name = (f"{gateway}/rep-0",)
    for suffix, doc, metric in _SUMMARIES:
        values = [each for each in reading.of(metric).values() if isinstance(each, HistogramValue)]
        summary = SummaryMetricFamily(f"jina_{suffix}", doc, labels=(RUNTIME_NAME,))
        count = sum(sum(each.counts) for each in values)
        summary.add_metric(name, count, sum(each.total for each in values))
        yield summary
    ended: dict[bool, float] = {True: 0.0, False: 0.0}
    for labels in reading.of(table.REQUESTS):
        ended[labels[-1] == OK] += reading.number(table.REQUESTS, *labels)
    for suffix, doc, good in (
        ("successful_requests", "Number of successful requests", True),
        ("failed_requests", "Number of failed requests", False),
    ):
        counter = CounterMetricFamily(f"jina_{suffix}", doc, labels=(RUNTIME_NAME,))
        counter.add_metric(name, ended[good])
        yield counter
    pending = GaugeMetricFamily(
        "jina_number_of_pending_requests", "Number of pending requests", labels=(RUNTIME_NAME,)
    )
    pending.add_metric(name, reading.total(table.REQUESTS_UNDER_WAY))
    yield pending
