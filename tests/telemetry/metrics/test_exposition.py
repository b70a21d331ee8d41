"""What Prometheus gets: parsed by the library's own parsers, and by promtool where it is installed."""

import shutil
import subprocess

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from gatewayd.telemetry.metrics import table
from gatewayd.telemetry.metrics.exposition import exposed
from gatewayd.telemetry.metrics.reading import Histogram, Reading

OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


@pytest.fixture
def reading():
    """A value of every metric."""
    reading = Reading()
    for metric in table.METRICS:
        labels = [f"{label} \"'\\\n" for label in metric.labels]
        if metric.kind == "histogram":
            histogram = Histogram(metric)
            histogram.observe(metric.bounds[1])
            histogram.observe(2 * metric.bounds[-1])
            histogram.exemplars[1] = ("r1", metric.bounds[1])
            reading.set(metric, histogram.value(), *labels)
        else:
            reading.set(metric, 3, *labels)
    return reading


def samples(families):
    return {sample.name for family in families for sample in family.samples}


@pytest.mark.parametrize(
    ("accept", "parse", "content_type"),
    [
        ("", parse_text, b"text/plain"),
        ("*/*", parse_text, b"text/plain"),
        (OPENMETRICS, parse_openmetrics, b"application/openmetrics-text"),
    ],
)
def test_every_metric_is_there_under_its_names(reading, accept, parse, content_type):
    found_type, body = exposed(reading, accept)

    assert found_type.startswith(content_type)
    assert samples(parse(body.decode())) == {name for metric in table.METRICS for name in metric.samples()}


def test_openmetrics_has_exemplars(reading):
    _, body = exposed(reading, OPENMETRICS)
    (family,) = (each for each in parse_openmetrics(body.decode()) if each.name == table.REQUEST_SECONDS.name)
    found = [sample.exemplar for sample in family.samples if sample.exemplar is not None]

    assert [(each.labels, each.value) for each in found] == [({"request_id": "r1"}, 0.0025)]


def test_an_exemplar_of_a_trace_has_the_label_that_grafana_follows():
    histogram = Histogram(table.REQUEST_SECONDS)
    histogram.counts[1] = 1
    histogram.exemplars[1] = (int("a" * 32, 16), 0.0025)
    reading = Reading()
    reading.set(table.REQUEST_SECONDS, histogram.value(), "grpc", "/search")
    _, body = exposed(reading, OPENMETRICS)

    assert '# {trace_id="' + "a" * 32 + '"} 0.0025' in body.decode()


def test_buckets_are_cumulative(reading):
    _, body = exposed(reading, "")
    (family,) = (each for each in parse_text(body.decode()) if each.name == table.LAG.name)
    counts = [sample.value for sample in family.samples if sample.name.endswith("_bucket")]

    assert counts == [0, *[1] * (len(table.LAG.bounds) - 1), 2]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_finds_nothing_to_complain_of(reading):
    _, body = exposed(reading, "")
    done = subprocess.run(["promtool", "check", "metrics"], input=body, capture_output=True, timeout=60)

    assert (done.returncode, done.stderr.decode()) == (0, "")


def test_a_client_cannot_pass_its_id_for_that_of_a_trace():
    metric = table.REQUEST_SECONDS
    histogram = Histogram(metric)
    for at, name in enumerate(("trace_id=" + "a" * 32, "trace " + "a" * 32)):
        histogram.exemplars[at] = (name, 0.0005)
        histogram.counts[at] = 1
    reading = Reading()
    reading.set(metric, histogram.value(), "http", "/")

    _, body = exposed(reading, "application/openmetrics-text")

    assert f'# {{request_id="trace_id={"a" * 32}"}}'.encode() in body
    assert b'{trace_id="' not in body
