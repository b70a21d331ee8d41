"""A Deployment that has no replica because none was needed: its calls wait for the first one."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from gatewayd.config import DeploymentConfig
from gatewayd.config.scaling import ScalingConfig
from gatewayd.errors import ExecutorUnreachable, Overloaded
from gatewayd.messages.discovery import DRY_RUN
from gatewayd.messages.request import Answer
from tests.pool.fakes import ANSWER, CALL, Setup

A = DeploymentConfig("a", scaling=ScalingConfig(most=2, least=0))
FIRST, SECOND = "unix:/first", "unix:/second"


class Resting(Setup):
    """``a`` has had a replica, which told that it binds ``/x`` and dry runs, and has none now."""

    def __init__(self, **limits: Any) -> None:
        super().__init__(A, **limits)
        self.needed = 0
        self.pool.on_needed(self._count)
        self.up(FIRST)
        self.pool.rest("a", 0, True)
        self.left = outcome(self.pool.replica_retired("a", FIRST))

    def _count(self) -> None:
        self.needed += 1

    def up(self, address: str) -> None:
        self.pool.replica_up("a", address)
        self.channels[address].set_state("ready")
        self.channels[address].answer_discovery(("/x", DRY_RUN))

    def send(self) -> list[Any]:
        return outcome(self.pool.send("a", CALL, None))


def outcome(work: Deferred[Any]) -> list[Any]:
    found: list[Any] = []
    work.addBoth(found.append)
    return found


def test_calls_wait_for_the_first_replica_longer_than_for_a_connection() -> None:
    setup = Resting(connect_timeout_s=0.8, queue_timeout_s=5.0)
    answers = [setup.send(), setup.send()]
    assert setup.needed == 2
    setup.clock.advance(4.9)
    assert answers == [[], []]

    setup.up(SECOND)
    setup.channels[SECOND].answer()
    setup.channels[SECOND].answer()

    assert answers == [[ANSWER], [ANSWER]]


def test_they_wait_no_longer_than_for_a_slot_and_hear_why() -> None:
    setup = Resting(queue_timeout_s=5.0)
    answer = setup.send()

    setup.clock.advance(5.0)

    (failure,) = answer
    assert failure.check(ExecutorUnreachable)
    assert "no replica was needed before, and the first one did not start within 5 s" in str(failure.value)


def test_a_first_replica_that_comes_and_goes_makes_nobody_wait_longer() -> None:
    setup = Resting(queue_timeout_s=5.0)
    answer = setup.send()
    for number in range(5):
        setup.clock.advance(1.0)
        setup.pool.replica_up("a", f"unix:/{number}")
        setup.channels[f"unix:/{number}"].set_state("failed")
        setup.pool.replica_down("a", f"unix:/{number}")

    assert answer[0].check(ExecutorUnreachable)


def test_no_more_wait_than_the_queue_holds() -> None:
    setup = Resting(max_queued=1)
    setup.send()

    (failure,) = setup.send()

    assert failure.check(ExecutorUnreachable, Overloaded)


def test_what_the_last_replica_bound_is_remembered() -> None:
    setup = Resting()

    assert setup.pool.serves("a", "/x")
    assert not setup.pool.serves("a", "/other")
    assert setup.pool.reached() == {"a"}


def test_dry_runs_leave_it_out_until_it_has_a_replica() -> None:
    setup = Resting()
    assert not setup.pool.serves("a", DRY_RUN)

    setup.up(SECOND)

    assert setup.pool.serves("a", DRY_RUN)
    assert setup.pool.expected() == frozenset()


def test_a_first_replica_that_cannot_start_is_an_outage() -> None:
    setup = Resting(connect_timeout_s=0.8, queue_timeout_s=5.0)
    answer = setup.send()
    assert setup.pool.expected() == {("a", 0)}

    setup.pool.rest("a", 0, False)
    setup.clock.advance(0.8)

    assert setup.pool.expected() == frozenset()
    assert answer[0].check(ExecutorUnreachable)


def test_calls_of_the_last_replica_end_before_it_does() -> None:
    setup = Setup(A)
    setup.pool.replica_up("a", FIRST)
    setup.channels[FIRST].set_state("ready")
    answered: list[Answer] = outcome(setup.pool.send("a", CALL, None))
    setup.pool.rest("a", 0, True)
    left = outcome(setup.pool.replica_retired("a", FIRST))
    assert (left, answered) == ([], [])

    setup.channels[FIRST].answer()

    assert (left, answered) == ([None], [ANSWER])


def test_a_later_pool_knows_what_an_earlier_one_did() -> None:
    setup = Resting()
    later = Setup(A, before=setup.pool)

    assert later.pool.expected() == {("a", 0)}
    assert later.pool.serves("a", "/x")
    assert not later.pool.serves("a", "/other")


@pytest.mark.parametrize("rests", [True, False])
def test_one_that_is_connected_is_called_as_ever(rests: bool) -> None:
    setup = Setup(A)
    setup.pool.replica_up("a", FIRST)
    setup.channels[FIRST].set_state("ready")
    setup.pool.rest("a", 0, rests)

    answered = outcome(setup.pool.send("a", CALL, None))
    setup.channels[FIRST].answer()

    assert answered == [ANSWER]
