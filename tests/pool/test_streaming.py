"""A stream from one replica of a Deployment: when another is tried, and how long its slot is held."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError

from gatewayd.config import DeploymentConfig, GatewayConfig
from gatewayd.config.model import ExecutorConfig
from gatewayd.errors import BadRequest, CallFailed, Draining, ExecutorUnreachable, Overloaded
from gatewayd.messages.request import Answer
from gatewayd.pool.streaming import ExecutorStream
from gatewayd.rpc.call import CallError
from tests.pool.fakes import ANSWER, CALL, LATE, LOST, REFUSED, FakeStream, Sent, Setup, external

BOOM = CallError("UNKNOWN", "Unexpected <class 'ValueError'>: mid boom")


def begin(setup: Setup, timeout_s: float | None = None) -> tuple[ExecutorStream, Sent]:
    stream = setup.pool.stream("a", CALL, timeout_s)
    return stream, Sent(stream.receive())


def streams(setup: Setup) -> list[FakeStream]:
    return [stream for channel in setup.opened for stream in channel.streams]


def test_answers_are_asked_for_one_by_one_and_the_slot_is_held_to_the_end() -> None:
    setup = Setup(external("1.1.1.1:1"), gateway=GatewayConfig(timeout_send_s=3.0))
    stream, first = begin(setup, timeout_s=9.0)
    (inner,) = streams(setup)
    inner.put(Answer(b"1"), Answer(b"2"))

    assert (first.result, inner.pulls, setup.in_flight) == (Answer(b"1"), 1, 1)
    assert (inner.gap_s, inner.left_s) == (3.0, 9.0)
    assert Sent(stream.receive()).result == Answer(b"2")
    last = Sent(stream.receive())
    assert not last.done
    inner.end()
    assert (last.result, setup.in_flight) == (None, 0)
    assert Sent(stream.receive()).result is None


def test_the_slot_is_free_as_soon_as_the_executor_has_ended() -> None:
    setup = Setup(external("1.1.1.1:1"))
    stream, _ = begin(setup)
    (inner,) = streams(setup)
    inner.put(Answer(b"1"), Answer(b"2"))
    inner.end()

    assert setup.in_flight == 0
    assert Sent(stream.receive()).result == Answer(b"2")
    assert Sent(stream.receive()).result is None
    assert setup.in_flight == 0


def test_before_the_first_answer_another_replica_is_tried() -> None:
    setup = Setup(external("1.1.1.1:1", "1.1.1.2:1"))
    _, first = begin(setup)
    streams(setup)[0].fail(REFUSED)
    setup.advance(1.0)
    asked = streams(setup)
    asked[-1].put(ANSWER)

    assert len(asked) == 2
    assert first.result == ANSWER
    assert setup.count("retried") == 1


@pytest.mark.parametrize(("error", "kind"), [(LOST, ExecutorUnreachable), (BOOM, CallFailed)])
def test_after_the_first_answer_nobody_is_tried(error: CallError, kind: type[Exception]) -> None:
    setup = Setup(external("1.1.1.1:1", "1.1.1.2:1"))
    stream, _ = begin(setup)
    (inner,) = streams(setup)
    inner.put(ANSWER)
    second = Sent(stream.receive())
    inner.fail(error)
    setup.advance(1.0)

    assert isinstance(second.result, kind)
    assert error.details in str(second.result)
    assert len(streams(setup)) == 1
    assert (setup.in_flight, setup.count("failed")) == (0, 1)
    assert Sent(stream.receive()).result is None


def test_the_executors_own_error_is_not_retried_before_the_first_answer_either() -> None:
    setup = Setup(external("1.1.1.1:1"))
    _, first = begin(setup)
    streams(setup)[0].fail(BOOM)

    assert isinstance(first.result, CallFailed)
    assert first.result.code == "UNKNOWN"


def test_streams_that_break_off_count_against_the_replica() -> None:
    setup = Setup(external("1.1.1.1:1", "1.1.1.2:1"), eject_after_failures=1)
    stream, _ = begin(setup)
    (inner,) = streams(setup)
    inner.put(ANSWER)
    Sent(stream.receive())
    inner.fail(LATE)

    assert setup.count("ejected") == 1


@pytest.mark.parametrize("answers", [0, 1, 2])
@pytest.mark.parametrize("waits", [True, False])
def test_cancelling_ends_the_call_and_frees_the_slot(answers: int, waits: bool) -> None:
    setup = Setup(external("1.1.1.1:1"))
    stream, found = begin(setup)
    (inner,) = streams(setup)
    if answers or not waits:
        inner.put(*[ANSWER] * max(1, answers))
    if answers and waits:
        for _ in range(answers):
            found = Sent(stream.receive())
    stream.cancel()
    stream.cancel()

    assert (inner.cancelled, setup.in_flight) == (True, 0)
    if waits:
        assert isinstance(found.result, CancelledError)
    assert Sent(stream.receive()).result is None


def test_cancelling_before_anything_was_asked_for_and_in_the_queue() -> None:
    setup = Setup(external("1.1.1.1:1"), max_in_flight=1)
    never = setup.pool.stream("a", CALL, None)
    never.cancel()
    holder, _ = begin(setup)
    stream, queued = begin(setup)
    stream.cancel()
    holder.cancel()

    assert isinstance(queued.result, CancelledError)
    assert (len(streams(setup)), setup.in_flight, setup.pool.waiting()["a"]) == (1, 0, 0)


def test_a_stream_waits_for_a_slot_and_is_refused_in_the_end() -> None:
    setup = Setup(external("1.1.1.1:1"), max_in_flight=1, queue_timeout_s=0.5)
    begin(setup)
    _, queued = begin(setup)
    setup.advance(1.0)

    assert isinstance(queued.result, Overloaded)


def test_closing_the_pool_ends_streams_with_draining() -> None:
    setup = Setup(external("1.1.1.1:1"))
    stream, _ = begin(setup)
    streams(setup)[0].put(ANSWER)
    waiting = Sent(stream.receive())
    setup.pool.close()

    assert isinstance(waiting.result, Draining)
    assert setup.in_flight == 0


def sharded(**options: Any) -> Setup:
    setup = Setup(DeploymentConfig("a", shards=2, **options), ready=False)
    for shard in range(2):
        setup.pool.replica_up("a", f"1.1.1.{shard}:1", shard)
    for channel in setup.opened:
        channel.set_state("ready")
    return setup


def test_shards_stream_in_turn() -> None:
    setup = sharded()
    begin(setup)
    begin(setup)

    assert [len(channel.streams) for channel in setup.opened] == [1, 1]


@pytest.mark.parametrize(
    ("options", "text"),
    [({"polling": {"/x": "all"}}, "polling"), ({"uses_after": ExecutorConfig()}, "uses_before")],
)
def test_shards_that_answer_together_cannot_stream(options: dict[str, Any], text: str) -> None:
    with pytest.raises(BadRequest, match=text):
        sharded(**options).pool.stream("a", CALL, None)
