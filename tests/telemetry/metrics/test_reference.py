"""The gateway by the names of the reference, and executors' metrics beside it."""

from prometheus_client.exposition import generate_latest

from gatewayd.telemetry.metrics import table
from gatewayd.telemetry.metrics.exposition import ReadingCollector
from gatewayd.telemetry.metrics.gathered import gathered, merged
from gatewayd.telemetry.metrics.reading import Histogram, Reading
from gatewayd.telemetry.metrics.reference import reference_families


def lines(families):
    text = generate_latest(ReadingCollector(families)).decode()
    return [line for line in text.splitlines() if not line.startswith("#")]


def a_reading():
    reading = Reading()
    for protocol, outcome, count in (("grpc", "ok", 2), ("http", "ok", 1), ("http", "deadline", 1)):
        reading.set(table.REQUESTS, count, protocol, "/x", outcome)
    for protocol in ("grpc", "http"):
        seconds = Histogram(table.REQUEST_SECONDS)
        seconds.observe(0.5)
        seconds.observe(1.0)
        reading.set(table.REQUEST_SECONDS, seconds.value(), protocol, "/x")
    reading.set(table.REQUESTS_UNDER_WAY, 3)
    return reading


def test_the_names_and_sums_are_those_of_the_reference():
    found = lines(reference_families(a_reading(), "gateway"))

    name = '{runtime_name="gateway/rep-0"}'
    assert f"jina_receiving_request_seconds_count{name} 4.0" in found
    assert f"jina_receiving_request_seconds_sum{name} 3.0" in found
    assert f"jina_successful_requests_total{name} 3.0" in found
    assert f"jina_failed_requests_total{name} 1.0" in found
    assert f"jina_number_of_pending_requests{name} 3.0" in found
    for each in ("sending_request_seconds", "received_request_bytes", "sent_response_bytes"):
        assert f"jina_{each}_count{name} 0.0" in found


def test_executors_are_told_apart():
    own = "# TYPE seen counter\nseen_total 2.0\n"
    summary = (
        '# TYPE jina_x summary\njina_x_count{runtime_name="NAME"} 1.0\njina_x_sum{runtime_name="NAME"} 2.0\n'
    )
    texts = [(name, own + summary.replace("NAME", name)) for name in ("a/rep-0", "a/rep-1")]
    found = lines(gathered(texts))

    assert found.count('seen_total{runtime_name="a/rep-1"} 2.0') == 1
    assert found.count('jina_x_count{runtime_name="a/rep-0"} 1.0') == 1
    assert len(found) == 6


def test_what_cannot_be_read_or_is_of_another_kind_is_left_out():
    texts = [("a", "# TYPE x counter\nx_total 1.0\n"), ("b", "}{"), ("c", "# TYPE x gauge\nx 1.0\n")]

    assert lines(gathered(texts)) == ['x_total{runtime_name="a"} 1.0']


def test_a_gateways_families_and_its_executors_are_one():
    text = "# TYPE jina_failed_requests counter\njina_failed_requests_total 5.0\n"
    families = merged([*reference_families(a_reading(), "gateway"), *gathered([("a/rep-0", text)])])

    assert [each.name for each in families].count("jina_failed_requests") == 1
    assert 'jina_failed_requests_total{runtime_name="a/rep-0"} 5.0' in lines(families)
