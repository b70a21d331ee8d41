"""Every request that passes is told of, once when it begins and once when it ends."""

from types import SimpleNamespace

import attrs
import pytest
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock

from gatewayd.errors import Draining
from gatewayd.messages.request import Request, Response
from gatewayd.telemetry.metrics import table
from gatewayd.telemetry.metrics.reading import Reading
from gatewayd.telemetry.metrics.requests import RequestMetrics
from gatewayd.telemetry.observed import Observed

REQUEST = Request("r", "/search")
RESPONSE = Response("r", "/search", b"")


class Engine:
    def __init__(self):
        self.asked = []
        self.answer = Deferred()

    def dispatch(self, request, *, timeout_s=None):
        self.asked.append((request, timeout_s))
        return self.answer


class Watching:
    def __init__(self, endpoint=None):
        self.endpoint = endpoint
        self.told = []

    def began(self, exchange):
        self.told.append(("began", exchange.protocol, exchange.request.endpoint))
        if self.endpoint is not None:
            exchange.request = attrs.evolve(exchange.request, endpoint=self.endpoint)

    def ended(self, exchange):
        took_s = exchange.ended_s - exchange.began_s
        self.told.append(("ended", exchange.response, type(exchange.error).__name__, took_s))


@pytest.fixture
def clock():
    return Clock()


def test_an_answer(clock):
    engine, one, other = Engine(), Watching(), Watching()
    answer = Observed(engine, "http", [one, other], clock.seconds).dispatch(REQUEST, timeout_s=3.0)
    clock.advance(2.0)
    engine.answer.callback(RESPONSE)

    assert answer.result is RESPONSE
    assert engine.asked == [(REQUEST, 3.0)]
    assert one.told == [("began", "http", "/search"), ("ended", RESPONSE, "NoneType", 2.0)]
    assert other.told == one.told


def test_a_failure(clock):
    engine, one = Engine(), Watching()
    failures = []
    Observed(engine, "grpc", [one], clock.seconds).dispatch(REQUEST).addErrback(failures.append)
    engine.answer.errback(Draining())

    assert [type(each.value) for each in failures] == [Draining]
    assert one.told[1:] == [("ended", None, "Draining", 0.0)]


class Failed:
    def __init__(self):
        self.errors = []

    def ended(self, exchange):
        self.errors.append(exchange.error if exchange.response is None else exchange.response.status)


@pytest.mark.parametrize("observers", [0, 1], ids=["counted", "observed"])
@pytest.mark.parametrize("status", [b"", b"an executor raised"])
def test_what_is_answered_is_counted_with_or_without_observers(clock, observers, status):
    metrics, failed, engine = RequestMetrics(["/search"], tuple), Failed(), Engine()
    response = attrs.evolve(RESPONSE, status=status)
    answer = Observed(
        *(engine, "http", [Watching()] * observers, clock.seconds),
        figures=metrics.of("http"),
        of_failures=[failed],
    ).dispatch(REQUEST, timeout_s=3.0)
    assert metrics.of("http").under_way == 1
    clock.advance(2.0)
    engine.answer.callback(response)

    assert answer.result is response
    assert engine.asked == [(REQUEST, 3.0)]
    assert metrics.of("http").under_way == 0
    reading = Reading()
    metrics.read(reading)
    outcome = "executor_error" if status else "ok"
    assert reading.number(table.REQUESTS, "http", "/search", outcome) == 1
    assert reading.of(table.REQUEST_SECONDS)["http", "/search"].total == 2.0
    assert failed.errors == ([status] if status else [])


@pytest.mark.parametrize("observers", [0, 1], ids=["counted", "observed"])
def test_what_fails_is_counted_and_told_with_or_without_observers(clock, observers):
    metrics, failed, engine = RequestMetrics(["/search"], tuple), Failed(), Engine()
    answer = Observed(
        *(engine, "http", [Watching()] * observers, clock.seconds),
        figures=metrics.of("http"),
        of_failures=[failed],
    ).dispatch(REQUEST, timeout_s=3.0)
    answer.addErrback(lambda failure: failure.trap(CancelledError))
    clock.advance(3.0)
    answer.cancel()

    assert metrics.of("http").under_way == 0
    reading = Reading()
    metrics.read(reading)
    assert reading.number(table.REQUESTS, "http", "/search", "deadline") == 1
    assert [type(error).__name__ for error in failed.errors] == ["ClientsDeadline"]


def test_a_stream_is_under_way_until_it_ends(clock):
    figures = RequestMetrics(["/search"], tuple).of("grpc")
    document = Response("r", "/search", b"123")
    stream = Observed(Streaming(document), "grpc", [], clock.seconds, figures=figures).stream(REQUEST)
    assert (figures.under_way, figures.streams_under_way) == (1, 1)
    stream.receive()
    stream.cancel()

    assert (figures.under_way, figures.streams_under_way) == (0, 0)
    assert figures.series["/search"].outcomes["cancelled"] == 1


def test_a_bug_of_what_counts_costs_no_answer(clock, caught_failures):
    def fail(*args):
        raise KeyError("a bug")

    engine, figures = Engine(), SimpleNamespace(under_way=0, streams_under_way=0, answered=fail, ended=fail)
    answer = Observed(engine, "http", [], clock.seconds, figures=figures).dispatch(REQUEST)
    engine.answer.callback(RESPONSE)

    assert answer.result is RESPONSE
    assert figures.under_way == 0
    assert [failure.type for failure in caught_failures] == [KeyError]
    caught_failures.clear()


class Streaming:
    """An engine whose stream has ``answers``, and then waits."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.is_cancelled = False

    def stream(self, request, *, timeout_s=None):
        return self

    def receive(self):
        return succeed(self.answers.pop(0)) if self.answers else Deferred()

    def more(self, most):
        taken, self.answers = self.answers[:most], self.answers[most:]
        return taken

    def cancel(self):
        self.is_cancelled = True


class Counting:
    def __init__(self):
        self.began_with = []
        self.found = []

    def began(self, exchange):
        self.began_with.append(exchange.answers)

    def ended(self, exchange):
        error = type(exchange.error).__name__
        self.found.append((exchange.answers, exchange.answers_bytes, exchange.first_s, error))


def test_a_stream_is_one_from_its_beginning_and_its_answers_are_counted_to_its_cancellation(clock):
    one, document = Counting(), Response("r", "/search", b"123")
    engine = Streaming(document, document, document)
    stream = Observed(engine, "grpc", [one], clock.seconds).stream(REQUEST)
    clock.advance(1.0)
    assert stream.receive().result is document
    clock.advance(1.0)
    assert stream.more(31) == [document, document]
    stream.cancel()
    stream.cancel()

    assert one.began_with == [0]
    assert one.found == [(3, 9, 1.0, "CancelledError")]
    assert engine.is_cancelled


def test_an_observer_may_take_each_answer(clock):
    class Taking(Counting):
        def began(self, exchange):
            exchange.answered = lambda response, now_s: self.found.append((response.documents, now_s))

        def ended(self, exchange):
            self.found.append(exchange.answers)

    one, answers = Taking(), [Response("r", "/search", text) for text in (b"1", b"2", b"3")]
    stream = Observed(Streaming(*answers), "grpc", [one], clock.seconds).stream(REQUEST)
    clock.advance(1.0)
    stream.receive()
    clock.advance(1.0)
    stream.more(31)
    stream.cancel()

    assert one.found == [(b"1", 1.0), (b"2", 2.0), (b"3", 2.0), 3]


def test_a_client_that_leaves(clock):
    engine, one = Engine(), Watching()
    answer = Observed(engine, "grpc", [one], clock.seconds).dispatch(REQUEST)
    answer.addErrback(lambda failure: failure.trap(CancelledError))
    answer.cancel()

    assert one.told[1:] == [("ended", None, "CancelledError", 0.0)]


@pytest.mark.parametrize(
    ("timeout_s", "own_s", "left_after_s", "told"),
    [
        (3.0, None, 2.96, "ClientsDeadline"),
        (None, 3.0, 3.0, "ClientsDeadline"),
        (9.0, 3.0, 2.99, "ClientsDeadline"),
        (3.0, None, 2.5, "CancelledError"),
    ],
)
def test_a_client_that_leaves_when_its_deadline_passes(clock, timeout_s, own_s, left_after_s, told):
    engine, one = Engine(), Watching()
    request = attrs.evolve(REQUEST, timeout_s=own_s)
    answer = Observed(engine, "grpc", [one], clock.seconds).dispatch(request, timeout_s=timeout_s)
    answer.addErrback(lambda failure: failure.trap(CancelledError))
    clock.advance(left_after_s)
    answer.cancel()

    assert one.told[1:] == [("ended", None, told, left_after_s)]


def test_a_stream_that_is_left_when_the_clients_deadline_passes(clock):
    one, document = Counting(), Response("r", "/search", b"123")
    stream = Observed(Streaming(document), "grpc", [one], clock.seconds).stream(REQUEST, timeout_s=2.0)
    stream.receive()
    clock.advance(2.0)
    stream.cancel()

    assert [error for *_, error in one.found] == ["ClientsDeadline"]


def test_an_observer_may_replace_the_request(clock):
    engine = Engine()
    Observed(engine, "http", [Watching("/other")], clock.seconds).dispatch(REQUEST)

    assert [request.endpoint for request, _ in engine.asked] == ["/other"]


class Following:
    def __init__(self):
        self.journeys = []

    def began(self, exchange):
        self.journeys.append(exchange.follow())

    def ended(self, exchange):
        self.journeys.append(exchange.request.journey)


def test_all_who_follow_a_request_get_the_same_journey(clock):
    engine, one, other = Engine(), Following(), Following()
    Observed(engine, "http", [one, other], clock.seconds).dispatch(REQUEST)
    engine.answer.callback(RESPONSE)

    (request, _) = engine.asked[0]
    assert request.journey is not None
    assert {id(each) for each in one.journeys + other.journeys} == {id(request.journey)}
    assert REQUEST.journey is None


@pytest.mark.parametrize("moment", ["began", "ended"])
def test_a_bug_of_an_observer_costs_no_answer(clock, caught_failures, moment):
    def fail(exchange):
        raise KeyError("a bug")

    engine, one, other = Engine(), Watching(), Watching()
    setattr(one, moment, fail)
    answer = Observed(engine, "http", [one, other], clock.seconds).dispatch(REQUEST)
    engine.answer.callback(RESPONSE)

    assert answer.result is RESPONSE
    assert [each[0] for each in other.told] == ["began", "ended"]
    assert [failure.type for failure in caught_failures] == [KeyError]
    caught_failures.clear()
