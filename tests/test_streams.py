"""What stands before the engine, and streams."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from gatewayd.access.limited import Limited
from gatewayd.access.rates import Rates
from gatewayd.config.rates import RateRule
from gatewayd.errors import CallFailed, RateLimited, WithheldNetworkError
from gatewayd.messages.request import Request, Response
from gatewayd.pb import StatusProto
from gatewayd.protocols.withholding import Withholding
from gatewayd.service.graph import Switch
from gatewayd.streams import Failing
from gatewayd.telemetry.observed import Exchange, Observed

REQUEST = Request("r", "/gen", documents=b"\x0a\x02\x0a\x00")
BROKEN = CallFailed("g", ("1.1.1.1:1",), "secret boom", "UNKNOWN")


class Given:
    """A Stream of given answers; an exception fails it."""

    def __init__(self, *found: Any) -> None:
        self._found = [*found]
        self.cancelled = False

    def receive(self) -> Deferred[Any]:
        answer: Deferred[Any] = Deferred()
        found = self._found.pop(0) if self._found else None
        if isinstance(found, Exception):
            answer.errback(found)
        else:
            answer.callback(found)
        return answer

    def more(self, most: int) -> list[Any]:
        found = []
        while self._found and len(found) < most and isinstance(self._found[0], Response):
            found.append(self._found.pop(0))
        return found

    def cancel(self) -> None:
        self.cancelled = True


class GivingEngine:
    """Streams what it is told to."""

    def __init__(self, *found: Any) -> None:
        self.given = Given(*found)
        self.asked: list[tuple[Request, float | None]] = []

    def stream(self, request: Request, *, timeout_s: float | None = None) -> Given:
        self.asked.append((request, timeout_s))
        return self.given

    dispatch = dry_run = stream


class Watching:
    def __init__(self) -> None:
        self.began_with: list[Exchange] = []
        self.ended_with: list[Exchange] = []

    def began(self, exchange: Exchange) -> None:
        self.began_with.append(exchange)

    def ended(self, exchange: Exchange) -> None:
        self.ended_with.append(exchange)


def outcomes(stream: Any, count: int) -> list[Any]:
    got: list[Any] = []
    for _ in range(count):
        stream.receive().addCallbacks(got.append, lambda failure: got.append(failure.value))
    return got


def response(documents: bytes, status: bytes = b"") -> Response:
    return Response("r", "/gen", documents, b"pp", status=status)


def observed(*found: Any) -> tuple[Any, Watching, Given]:
    watching, clock, engine = Watching(), Clock(), GivingEngine(*found)
    stream = Observed(engine, "grpc", [watching], clock.seconds).stream(REQUEST, timeout_s=3.0)  # type: ignore[arg-type]
    assert engine.asked == [(REQUEST, 3.0)]
    return stream, watching, engine.given


def test_a_stream_is_observed_as_one_request_that_ends_with_it() -> None:
    stream, watching, _ = observed(response(b"one"), response(b"three"))
    outcomes(stream, 2)
    assert (len(watching.began_with), watching.ended_with) == (1, [])

    assert outcomes(stream, 2) == [None, None]
    stream.cancel()
    (exchange,) = watching.ended_with
    assert (exchange.answers, exchange.bytes_out, exchange.first_s) == (2, 12, 0.0)
    assert exchange.response == response(b"three")
    assert exchange.error is None


def test_answers_that_are_taken_together_are_observed_as_well() -> None:
    stream, watching, _ = observed(response(b"one"), response(b"three"), response(b"seven"), BROKEN)
    outcomes(stream, 1)
    assert stream.more(1) == [response(b"three")]
    assert (stream.more(9), stream.more(9)) == ([response(b"seven")], [])
    stream.cancel()

    (exchange,) = watching.ended_with
    assert (exchange.answers, exchange.answers_bytes) == (3, 19)


def test_a_stream_that_tells_an_error_is_observed_with_it() -> None:
    stream, watching, _ = observed(response(b"", b"bad"), response(b"good"))
    outcomes(stream, 3)

    assert watching.ended_with[0].response == response(b"", b"bad")


@pytest.mark.parametrize("cancels", [True, False])
def test_a_stream_that_fails_or_is_cancelled_is_observed_so(cancels: bool) -> None:
    stream, watching, given = observed(response(b"one"), BROKEN)
    outcomes(stream, 1 if cancels else 2)
    if cancels:
        stream.cancel()
        assert given.cancelled

    (exchange,) = watching.ended_with
    assert exchange.response is None
    assert isinstance(exchange.error, CancelledError if cancels else CallFailed)


def test_a_stream_counts_once_against_a_rate() -> None:
    engine = GivingEngine(response(b"one"), response(b"two"))
    limited = Limited(engine, Rates([RateRule(requests=1)]), Clock())  # type: ignore[arg-type]
    first, second = limited.stream(REQUEST), limited.stream(REQUEST)

    assert len(outcomes(first, 2)) == 2
    assert isinstance(outcomes(second, 1)[0], RateLimited)
    assert outcomes(second, 1) == [None]


def test_what_is_behind_the_gateway_is_withheld_of_streams_too() -> None:
    status = StatusProto(code=StatusProto.ERROR, description="secret").SerializeToString()
    engine = GivingEngine(response(b"one"), response(b"", status), BROKEN)
    got = outcomes(Withholding(engine).stream(REQUEST), 4)  # type: ignore[arg-type]

    assert got[0] == response(b"one")
    assert b"secret" not in got[1].status
    assert isinstance(got[2], WithheldNetworkError)
    assert got[3] is None
    together = Withholding(GivingEngine(*[response(b"", status)] * 3)).stream(REQUEST)  # type: ignore[arg-type]
    assert [b"secret" in each.status for each in together.more(2)] == [False, False]


def test_the_switch_turns_streams_as_well() -> None:
    one, other = GivingEngine(), GivingEngine()
    switch = Switch(one)  # type: ignore[arg-type]
    switch.stream(REQUEST)
    switch.turn(other)  # type: ignore[arg-type]
    switch.stream(REQUEST)

    assert (len(one.asked), len(other.asked)) == (1, 1)


def test_a_stream_that_was_cancelled_does_not_fail() -> None:
    failing = Failing(BROKEN)
    failing.cancel()

    assert outcomes(failing, 1) == [None]
