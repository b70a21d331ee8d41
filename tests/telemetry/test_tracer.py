"""Which requests are traced, and the spans of what became of them, in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

import attrs
import pytest
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock

from gatewayd.errors import Overloaded
from gatewayd.messages.request import Request, Response
from gatewayd.messages.trace_context import TraceContext, context_of
from gatewayd.pb import StatusProto
from gatewayd.telemetry.observed import Observed
from gatewayd.telemetry.spans import Span
from gatewayd.telemetry.tracer import Tracer

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
REQUEST = Request("r1", "/search", documents=b"1234", parameters=b"567", headers=(("x-a", "1"),))
RESPONSE = Response("r1", "/search", b"12", parameters=b"3")


class Engine:
    """Holds the only request; the test answers it."""

    def __init__(self) -> None:
        self.request: Any = None
        self.answer: Deferred[Response] = Deferred()

    def dispatch(self, request: Request, *, timeout_s: float | None = None) -> Deferred[Response]:
        self.request = request
        return self.answer

    def stream(self, request: Request, *, timeout_s: float | None = None) -> OneAnswer:
        self.request = request
        return OneAnswer()

    def dry_run(self, documents: bytes = b"", **_: Any) -> Deferred[Response]:
        raise AssertionError


class Traced:
    """A tracer of an engine. Its ids count from 1; the time of day is 1000 s more than the reactor's."""

    def __init__(
        self, sample: float = 1.0, bits: Iterator[int] | None = None, *, from_clients: bool = True
    ) -> None:
        self.clock = Clock()
        self.engine = Engine()
        self.exported: list[list[Span]] = []
        drawn = bits or count(1)
        self.tracer = Tracer(
            sample,
            lambda spans: self.exported.append(list(spans)),
            self.clock.seconds,
            from_clients=from_clients,
            wall_clock=lambda: self.clock.seconds() + 1000,
            random_bits=lambda _: next(drawn),
        )
        self.engine_observed = Observed(self.engine, "http", [self.tracer], self.clock.seconds)

    def ask(self, *headers: tuple[str, str]) -> Deferred[Response]:
        request = attrs.evolve(REQUEST, headers=(*REQUEST.headers, *headers))
        return self.engine_observed.dispatch(request)

    @property
    def spans(self) -> Sequence[Span]:
        (spans,) = self.exported
        return spans


def parent(flags: str = "01") -> tuple[str, str]:
    return ("traceparent", f"00-{TRACE}-{PARENT}-{flags}")


def test_a_request_of_a_trace() -> None:
    traced = Traced()
    traced.clock.advance(5.0)
    traced.ask(parent(), ("tracestate", "rojo=1"))
    traced.clock.advance(2.0)
    traced.engine.answer.callback(RESPONSE)

    (span,) = traced.spans
    assert (span.name, span.trace_id, span.parent_id) == ("/search", int(TRACE, 16), int(PARENT, 16))
    assert (span.began_s, span.ended_s, span.error, span.state) == (1005.0, 1007.0, None, "rojo=1")
    assert span.attributes == {
        "gatewayd.protocol": "http",
        "gatewayd.endpoint": "/search",
        "gatewayd.request_id": "r1",
        "gatewayd.request_bytes": 7,
        "gatewayd.response_bytes": 3,
        "gatewayd.outcome": "ok",
    }


def test_executors_get_the_headers_of_attempts_and_not_the_clients() -> None:
    traced = Traced()
    traced.ask(parent())

    assert traced.engine.request.headers == (("x-a", "1"),)
    context = traced.engine.request.journey.trace.context
    assert context == TraceContext(int(TRACE, 16), 1, True, "")


def test_what_is_not_kept_is_told_to_executors_and_has_no_journey() -> None:
    traced = Traced()
    traced.ask(parent("00"), ("tracestate", "rojo=1"))
    traced.engine.answer.callback(RESPONSE)

    assert context_of(traced.engine.request.headers) == TraceContext(int(TRACE, 16), 1, False, "rojo=1")
    assert traced.engine.request.headers[0] == ("x-a", "1")
    assert traced.engine.request.journey is None
    assert not traced.exported


@pytest.mark.parametrize(
    ("sample", "low_bits", "kept"),
    [
        (0.0, 0, False),
        (0.25, (1 << 62) - 1, True),
        (0.25, 1 << 62, False),
        (1.0, (1 << 64) - 1, True),
    ],
)
def test_a_share_of_those_without_a_trace_begins_one(sample: float, low_bits: int, kept: bool) -> None:
    traced = Traced(sample, iter([(7 << 64) + low_bits, 5]))
    traced.ask()
    traced.engine.answer.callback(RESPONSE)

    assert bool(traced.exported) is kept
    if kept:
        assert (traced.spans[0].trace_id, traced.spans[0].parent_id) == ((7 << 64) + low_bits, 0)


def test_a_share_of_none_keeps_what_clients_keep() -> None:
    traced = Traced(0.0)
    traced.ask(parent())
    traced.engine.answer.callback(RESPONSE)

    assert len(traced.spans) == 1


def test_strangers_do_not_decide_what_is_kept() -> None:
    traced = Traced(0.0, from_clients=False)
    traced.ask(parent(), ("tracestate", "rojo=1"))
    traced.engine.answer.callback(RESPONSE)

    context = context_of(traced.engine.request.headers)
    assert context is not None
    assert (context.trace_id, context.sampled, context.state) == (1, False, "")
    assert not traced.exported


def test_the_way_through_the_engine() -> None:
    traced = Traced(bits=count(100))
    traced.ask(parent())
    journey = traced.engine.request.journey
    visit = journey.visit("encoder", 0.0, floating=False)
    visit.wait("queue", 0.0).end(1.0)
    first = visit.attempt("10.0.0.1:1", 1.0)
    first.end(2.0, "UNAVAILABLE", "gone")
    visit.wait("backoff", 2.0).end(2.5)
    second = visit.attempt("10.0.0.2:1", 2.5)
    second.end(3.0, "OK")
    journey.left("encoder", 3.0, "answered")
    traced.engine.answer.callback(RESPONSE)

    request, node, *stages = traced.spans
    assert (node.name, node.parent_id, node.kind) == ("encoder", request.span_id, "internal")
    assert [(span.name, span.kind, span.error) for span in stages] == [
        ("queue", "internal", None),
        ("attempt", "client", "UNAVAILABLE: gone"),
        ("backoff", "internal", None),
        ("attempt", "client", None),
    ]
    assert [span.attributes["gatewayd.outcome"] for span in (node, stages[1], stages[3])] == [
        "ok", "unavailable", "ok",
    ]  # fmt: skip
    assert {span.parent_id for span in stages} == {node.span_id}
    assert [span.span_id for span in (stages[1], stages[3])] == [first.span_id, second.span_id]
    assert stages[1].attributes == {
        "rpc.system": "grpc",
        "server.address": "10.0.0.1:1",
        "gatewayd.deployment": "encoder",
        "gatewayd.attempt": 1,
        "gatewayd.outcome": "unavailable",
        "error.type": "UNAVAILABLE",
    }
    assert len({span.span_id for span in traced.spans}) == 6


def test_a_floating_deployment_is_told_of_when_it_ends() -> None:
    traced = Traced()
    traced.ask(parent())
    journey = traced.engine.request.journey
    journey.visit("log", 0.0, floating=True).attempt("10.0.0.1:1", 0.0)
    traced.engine.answer.callback(RESPONSE)
    traced.clock.advance(9.0)
    journey.left("log", 9.0, "answered")

    (request,), (node, attempt) = traced.exported
    assert (node.parent_id, node.ended_s, node.attributes["gatewayd.floating"]) == (
        request.span_id, 1009.0, True,
    )  # fmt: skip
    assert attempt.ended_s == 1009.0


def test_what_failed() -> None:
    traced = Traced()
    traced.ask(parent()).addErrback(lambda failure: failure.trap(Overloaded))
    traced.engine.answer.errback(Overloaded("no room"))

    (span,) = traced.spans
    assert (span.error, span.attributes["gatewayd.outcome"]) == ("no room", "overloaded")
    assert span.attributes["error.type"] == "Overloaded"


@pytest.mark.parametrize(
    ("outcome", "reason", "word"),
    [
        ("raised", "", "executor_error"),
        ("failed", "DeadlineExceeded", "deadline"),
        ("failed", "Overloaded", "overloaded"),
        ("failed", "ZeroDivisionError", "internal"),
        ("cancelled", "", "cancelled"),
    ],
)
def test_the_outcome_of_a_deployment_is_in_the_words_of_metrics(outcome: Any, reason: str, word: str) -> None:
    traced = Traced()
    traced.ask(parent())
    journey = traced.engine.request.journey
    journey.visit("a", 0.0, floating=False).attempt("x", 0.0)
    journey.left("a", 0.0, outcome, reason)
    traced.engine.answer.callback(RESPONSE)

    _, *spans = traced.spans
    assert {span.attributes["gatewayd.outcome"] for span in spans} == {word}


def test_a_password_in_an_error_is_not_told() -> None:
    traced = Traced()
    traced.ask(parent()).addErrback(lambda failure: failure.trap(Overloaded))
    attempt = traced.engine.request.journey.visit("a", 0.0, floating=False).attempt("x", 0.0)
    attempt.end(0.0, "UNKNOWN", "no https://me:s3cret@example.org")
    traced.engine.request.journey.left("a", 0.0, "failed", "CallFailed")
    traced.engine.answer.errback(Overloaded("no https://me:s3cret@example.org"))

    errors = [span.error or "" for span in traced.spans]
    assert "example.org" in errors[0] + errors[2]
    assert "s3cret" not in "".join(errors)


def test_what_an_executor_raised() -> None:
    status = StatusProto(code=StatusProto.ERROR, description="ValueError('boom')")
    status.exception.name = "ValueError"
    traced = Traced()
    traced.ask(parent())
    traced.engine.answer.callback(attrs.evolve(RESPONSE, status=status.SerializeToString()))

    (span,) = traced.spans
    assert (span.error, span.attributes["gatewayd.outcome"]) == ("ValueError('boom')", "executor_error")
    assert span.attributes["error.type"] == "ValueError"


def test_a_client_that_leaves_is_no_error() -> None:
    traced = Traced()
    answer = traced.ask(parent())
    answer.addErrback(lambda failure: failure.trap(CancelledError))
    answer.cancel()

    (span,) = traced.spans
    assert (span.error, span.attributes["gatewayd.outcome"]) == (None, "cancelled")


class OneAnswer:
    """A stream with one answer, which goes on."""

    def __init__(self) -> None:
        self.answers = [RESPONSE]

    def receive(self) -> Deferred[Response | None]:
        return succeed(self.answers.pop()) if self.answers else Deferred()

    def more(self, most: int) -> list[Response]:
        return []

    def cancel(self) -> None:
        self.answers = []


@pytest.mark.parametrize("has_answer", [True, False])
def test_a_stream_that_is_cancelled_has_its_answers_and_when_the_first_came(has_answer: bool) -> None:
    traced = Traced()
    stream = traced.engine_observed.stream(REQUEST)
    traced.clock.advance(0.25)
    if has_answer:
        stream.receive()
    traced.clock.advance(1.0)
    stream.cancel()

    (span,) = traced.spans
    found = {name: span.attributes.get(f"gatewayd.{name}") for name in ("answers", "first_answer_ms")}
    assert found == {"answers": int(has_answer), "first_answer_ms": 250 if has_answer else None}
    assert span.attributes.get("gatewayd.response_bytes") == (3 if has_answer else None)
    assert (span.error, span.attributes["gatewayd.outcome"]) == (None, "cancelled")
    assert span.ended_s - span.began_s == 1.25


def test_names_of_clients_are_cut() -> None:
    traced = Traced()
    traced.engine_observed.dispatch(Request("r" * 9999, "/" + "x" * 9999))
    traced.engine.answer.callback(RESPONSE)

    (span,) = traced.spans
    assert len(span.name) == 200
    assert max(len(str(each)) for each in span.attributes.values()) == 500
