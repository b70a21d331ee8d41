"""Requests are counted by protocol, endpoint and outcome, however many names clients make up."""

import pytest
from twisted.internet.defer import CancelledError

from gatewayd import errors
from gatewayd.errors import (
    TABLE,
    CallFailed,
    DeadlineExceeded,
    Draining,
    ExecutorUnreachable,
    GatewayError,
    Overloaded,
    RateLimited,
    WithheldNetworkError,
)
from gatewayd.messages.journey import Journey, Trace
from gatewayd.messages.request import Request, Response, Route
from gatewayd.messages.trace_context import TraceContext
from gatewayd.telemetry.metrics import table
from gatewayd.telemetry.metrics.outcomes import OUTCOMES, outcome_of
from gatewayd.telemetry.metrics.reading import Reading
from gatewayd.telemetry.metrics.requests import MOST_ENDPOINTS, OTHER, RequestMetrics
from gatewayd.telemetry.observed import Exchange


class Setup:
    def __init__(self, named=("/search",)):
        self.bound = []
        self.now_s = 0.0
        self.metrics = RequestMetrics(named, lambda: self.bound, ["a"])

    def ask(
        self,
        endpoint="/search",
        protocol="grpc",
        took_s=0.02,
        error=None,
        request_id="r",
        journey=None,
        **answer,
    ):
        request = Request(request_id, endpoint, documents=b"12345", journey=journey)
        exchange = Exchange(protocol, request, self.now_s)
        self.now_s += took_s
        exchange.ended_s = self.now_s
        exchange.error = error
        if error is None:
            exchange.response = Response("r", endpoint, b"123", **answer)
        self.metrics.of(protocol).ended(exchange)

    @property
    def reading(self):
        reading = Reading()
        self.metrics.read(reading)
        return reading

    def counts(self):
        return {labels: count for labels, count in self.reading.of(table.REQUESTS).items() if count}


def test_an_executor_that_raises_in_a_stream_is_an_error_of_its_deployment():
    setup = Setup()
    setup.ask(error=CallFailed("a", ["x"], "Unexpected <class 'ValueError'>: no", "UNKNOWN"))
    setup.ask(error=CallFailed("b", ["x"], "it is not measured", "UNKNOWN"))
    setup.ask(error=CallFailed("a", ["x"], "too large", "RESOURCE_EXHAUSTED"))

    assert setup.counts() == {("grpc", "/search", "executor_error"): 2, ("grpc", "/search", "unavailable"): 1}
    assert dict(setup.reading.of(table.CALL_ERRORS)) == {("a",): 1}


def test_an_exemplar_leads_to_the_trace_of_a_request_that_has_one():
    journey = Journey()
    setup = Setup()
    setup.ask(journey=journey)
    journey.trace = Trace(TraceContext(0xABC, 1, True), 0, lambda: 1)
    setup.ask(journey=journey, took_s=0.5)

    seconds = setup.reading.of(table.REQUEST_SECONDS)["grpc", "/search"]
    assert seconds.exemplars == ((4, "r", 0.02), (8, f"trace {0xABC:032x}", 0.5))


def test_each_request_is_counted_once_with_its_time_and_sizes():
    setup = Setup()
    setup.ask(
        request_id="r1", routes=(Route("gateway", 1.0, 2.0), Route("a", 1.0, 1.3), Route("b", 1.0, 2.0))
    )
    setup.ask(took_s=0.5, status=b"an executor raised", parameters=None)

    assert setup.counts() == {("grpc", "/search", "ok"): 1, ("grpc", "/search", "executor_error"): 1}
    seconds = setup.reading.of(table.REQUEST_SECONDS)["grpc", "/search"]
    assert sum(seconds.counts) == 2
    assert seconds.total == pytest.approx(0.52)
    assert seconds.exemplars == ((4, "r1", 0.02), (8, "r", 0.5))
    assert setup.reading.of(table.REQUEST_BYTES)["grpc", "/search"].total == 10
    assert setup.reading.of(table.RESPONSE_BYTES)["grpc", "/search"].total == 6
    calls = setup.reading.of(table.CALL_SECONDS)
    assert set(calls) == {("a",)}
    assert calls["a",].total == pytest.approx(0.3)


def test_those_under_way_are_known():
    setup = Setup()
    setup.metrics.of("http").under_way += 2
    setup.metrics.of("grpc").under_way += 1
    setup.metrics.of("grpc").streams_under_way += 1

    assert setup.reading.number(table.REQUESTS_UNDER_WAY) == 3
    assert setup.reading.number(table.STREAMS_UNDER_WAY) == 1


def stream(answers, error=None, took_s=0.5):
    exchange = Exchange("grpc", Request("r", "/search", documents=b"12345"), 0.0)
    exchange.answers = answers
    if answers:
        exchange.answers_bytes, exchange.first_s = 30 * answers, 0.1
    exchange.ended_s = took_s
    exchange.error = error
    exchange.response = None if error else Response("r", "/search", b"123")
    return exchange


def test_a_stream_is_counted_with_all_its_answers():
    setup = Setup()
    setup.metrics.of("grpc").ended(stream(5))

    series = ("grpc", "/search")
    reading = setup.reading
    assert setup.counts() == {(*series, "ok"): 1}
    assert reading.number(table.STREAM_ANSWERS, *series) == 5
    assert reading.of(table.STREAM_FIRST_SECONDS)[series].total == pytest.approx(0.1)
    assert reading.of(table.STREAM_GAP_SECONDS)[series].total == pytest.approx(0.1)
    assert reading.of(table.RESPONSE_BYTES)[series].total == 150


def test_a_stream_that_is_cancelled_has_its_answers_and_no_gap():
    setup = Setup()
    setup.metrics.of("grpc").ended(stream(2, CancelledError()))

    series = ("grpc", "/search")
    reading = setup.reading
    assert setup.counts() == {(*series, "cancelled"): 1}
    assert reading.number(table.STREAM_ANSWERS, *series) == 2
    assert reading.of(table.RESPONSE_BYTES)[series].total == 60
    assert sum(reading.of(table.STREAM_FIRST_SECONDS)[series].counts) == 1
    assert sum(reading.of(table.STREAM_GAP_SECONDS)[series].counts) == 0


def test_a_stream_without_an_answer_has_no_first():
    setup = Setup()
    setup.metrics.of("grpc").ended(stream(0, Draining()))

    reading = setup.reading
    assert reading.number(table.STREAM_ANSWERS, "grpc", "/search") == 0
    assert sum(reading.of(table.STREAM_FIRST_SECONDS)["grpc", "/search"].counts) == 0


def test_requests_without_a_stream_have_no_figures_of_streams():
    setup = Setup()
    setup.ask()
    assert setup.reading.of(table.STREAM_ANSWERS) == {}


def test_endpoints_that_nobody_knows_share_a_series():
    setup = Setup()
    for number in range(10_000):
        setup.ask(f"/made-up/{number}")

    assert setup.counts() == {("grpc", OTHER, "ok"): 10_000}
    assert list(setup.metrics.of("grpc").series) == [OTHER]


def test_an_endpoint_becomes_known_when_an_executor_binds_it():
    setup = Setup()
    setup.ask("/rank")
    setup.bound = ["/rank"]
    setup.ask("/rank", took_s=2.0)
    setup.ask("/rank")
    setup.bound = []
    setup.ask("/rank", took_s=2.0)

    assert setup.counts() == {("grpc", OTHER, "ok"): 1, ("grpc", "/rank", "ok"): 3}


def test_executors_that_bind_thousands_have_no_more_series_than_others():
    setup = Setup()
    setup.bound = [f"/{number}" for number in range(5000)]
    for number in range(5000):
        setup.ask(f"/{number}", took_s=0.0)

    assert len(setup.counts()) == MOST_ENDPOINTS


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (DeadlineExceeded("a", ()), "deadline"),
        (WithheldNetworkError(DeadlineExceeded("a", ()), "r"), "deadline"),
        (WithheldNetworkError(ExecutorUnreachable("a", ()), "r"), "unavailable"),
        (CallFailed("a", (), "", "ABORTED"), "unavailable"),
        (CallFailed("a", (), "", "UNKNOWN"), "executor_error"),
        (WithheldNetworkError(CallFailed("a", (), "", "UNKNOWN"), "r"), "executor_error"),
        (Overloaded("full"), "overloaded"),
        (RateLimited("10 in 1 s", 1.0), "rate_limited"),
        (Draining(), "draining"),
        (CancelledError(), "cancelled"),
        (ValueError("a bug"), "internal"),
    ],
)
def test_outcomes_are_a_few_words(error, outcome):
    assert outcome_of(error) == outcome


def test_every_error_of_the_table_has_a_word_that_is_not_by_accident():
    for kind in TABLE:
        found = outcome_of(kind.__new__(kind))
        assert found in OUTCOMES
        assert found != "internal" or kind in (GatewayError, errors.InternalError)
