"""Each caller that waits has a Deferred of its own."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError, Deferred

from gatewayd.waiters import Waiters


def results(*waiting: Deferred[int]) -> list[int]:
    got: list[int] = []
    for each in waiting:
        each.addCallback(got.append)
    return got


def test_all_that_wait_get_the_result_in_their_order() -> None:
    waiters: Waiters[int] = Waiters()
    got = results(waiters.wait(), waiters.wait())

    waiters.fire(1)

    assert got == [1, 1]
    assert len(waiters) == 0


def test_an_error_reaches_all_that_wait() -> None:
    waiters: Waiters[int] = Waiters()
    waiting = waiters.wait(), waiters.wait()
    seen: list[object] = []
    for each in waiting:
        each.addErrback(lambda failure: seen.append(failure.value))

    error = ValueError("gone")
    waiters.fail(error)

    assert seen == [error, error]


def test_one_that_gives_up_leaves_the_others_waiting() -> None:
    waiters: Waiters[int] = Waiters()
    impatient, patient = waiters.wait(), waiters.wait()
    got = results(patient)

    impatient.addErrback(lambda failure: failure.trap(CancelledError))
    impatient.cancel()
    assert len(waiters) == 1
    waiters.fire(2)

    assert got == [2]


def test_a_callback_that_waits_again_waits_for_the_next_event() -> None:
    waiters: Waiters[int] = Waiters()
    got: list[int] = []

    def again(result: int) -> None:
        got.append(result)
        waiters.wait().addCallback(got.append)

    waiters.wait().addCallback(again)
    waiters.fire(1)
    assert got == [1]

    waiters.fire(2)
    assert got == [1, 2]


def test_a_callback_may_cancel_one_that_has_not_been_fired_yet() -> None:
    waiters: Waiters[int] = Waiters()
    first = waiters.wait()
    second = waiters.wait()
    first.addCallback(lambda _: second.cancel())
    second.addErrback(lambda failure: failure.trap(CancelledError))
    third = results(waiters.wait())

    waiters.fire(3)

    assert third == [3]


@pytest.mark.parametrize("rounds", [0, 1])
def test_an_event_without_waiters_is_no_event(rounds: int) -> None:
    waiters: Waiters[int] = Waiters()
    for _ in range(rounds):
        waiters.fire(1)

    got = results(waiters.wait())

    assert got == []
