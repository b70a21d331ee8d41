"""Figures are united, sent to another process, and read as quantiles."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.telemetry.metrics import table
from gatewayd.telemetry.metrics.reading import Histogram, HistogramValue, Reading


def observed(*values, metric=table.REQUEST_SECONDS):
    histogram = Histogram(metric)
    for value in values:
        histogram.observe(value)
    return histogram.value()


def a_reading(requests=1, ready=1, *seconds):
    reading = Reading()
    reading.set(table.REQUESTS, requests, "grpc", "/search", "ok")
    reading.set(table.READY, ready)
    reading.set(table.REQUEST_SECONDS, observed(*seconds), "grpc", "/search")
    return reading


def test_counts_and_buckets_are_added_and_states_are_not():
    reading = a_reading(3, 1, 0.01, 0.02)
    other = a_reading(4, 0, 0.01)
    other.set(table.REQUESTS, 5, "http", "/search", "ok")
    reading.unite(other)

    assert reading.of(table.REQUESTS) == {("grpc", "/search", "ok"): 7, ("http", "/search", "ok"): 5}
    assert reading.number(table.READY) == 1
    assert reading.of(table.REQUEST_SECONDS)["grpc", "/search"] == observed(0.01, 0.02, 0.01)
    assert reading.total(table.REQUESTS) == 12


def test_of_a_process_that_has_ended_its_counts_stay():
    reading = a_reading(3, 1, 0.01)
    reading.set(table.LAG, observed(0.5, metric=table.LAG), "worker-1")

    kept = reading.counted()

    assert {metric.name for metric, _ in kept} == {table.REQUESTS.name, table.REQUEST_SECONDS.name}
    kept.unite(a_reading())
    assert reading.number(table.REQUESTS, "grpc", "/search", "ok") == 3


def test_a_reading_arrives_in_another_process():
    histogram = Histogram(table.REQUEST_SECONDS)
    histogram.observe(0.2)
    histogram.exemplars[7] = ("r1", 0.2)
    histogram.exemplars[8] = ("x" * 200, 0.3)
    reading = a_reading()
    reading.set(table.REQUEST_SECONDS, histogram.value(), "http", "")

    arrived = Reading.from_text(reading.as_text())

    assert dict(arrived) == dict(reading)
    # Long ids, and those with other characters, are none.
    histogram.exemplars[9] = ('a"b', 0.6)
    assert histogram.value().exemplars == ((7, "r1", 0.2),)


@pytest.mark.parametrize(
    "found",
    [
        {"nothing": [[1]]},
        {"gatewayd_ready": [["a", 1]]},
        {"gatewayd_ready": 1},
        [],
        {"gatewayd_ready": [[{}]]},
        "{",
    ],
)
def test_what_is_no_reading_is_refused(found):
    with pytest.raises(ValueError, match="no reading"):
        Reading.from_text(found if isinstance(found, str) else json.dumps(found))


def test_quantiles_are_those_of_prometheus():
    bounds = (1.0, 2.0, 4.0)

    assert HistogramValue((0, 0, 0, 0), 0.0).quantile(0.5, bounds) is None
    assert HistogramValue((10, 0, 0, 0), 0.0).quantile(0.5, bounds) == 0.5
    assert HistogramValue((5, 5, 0, 0), 0.0).quantile(0.9, bounds) == pytest.approx(1.8)
    assert HistogramValue((0, 0, 0, 3), 0.0).quantile(0.5, bounds) == 4.0


@given(st.lists(st.floats(0, 100), min_size=1), st.floats(0.01, 1.0))
def test_a_quantile_lies_in_its_bucket(values, share):
    bounds = table.REQUEST_SECONDS.bounds
    found = observed(*values).quantile(share, bounds)
    exact = sorted(values)[max(0, -(-round(share * 1e9) * len(values) // 10**9) - 1)]
    low = max((bound for bound in bounds if bound < exact), default=0.0)

    assert found is not None
    assert low <= found <= next((bound for bound in bounds if bound >= exact), bounds[-1])


def test_every_metric_has_a_name_of_its_own_and_prometheus_units():
    assert len(table.BY_NAME) == len(table.METRICS)
    for metric in table.METRICS:
        assert metric.name.startswith("gatewayd_")
        assert metric.doc.endswith(".")
        assert not metric.name.endswith("_total")
        assert bool(metric.bounds) == (metric.kind == "histogram")
