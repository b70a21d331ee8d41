"""What becomes of one request: decisions, tested with values."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import attrs
import pytest

from gatewayd.errors import CallFailed, DeadlineExceeded, ExecutorUnreachable, Overloaded
from gatewayd.pool.attempts import AttemptRules, Attempts, BackOff, GiveUp, Start, Wait
from gatewayd.pool.retry import RetryBudget, RetryPolicy
from gatewayd.rpc.call import CallError

A, B = "10.0.0.1:1", "10.0.0.2:1"
LOST = CallError("UNAVAILABLE", "Stream removed")
LATE = CallError("DEADLINE_EXCEEDED", "Deadline Exceeded")


@attrs.define
class Replicas:
    """The replicas as a test says they are."""

    connected: bool = True
    labels: Mapping[str, str] = {A: A, B: B}
    reachable: Collection[str] = (A, B)
    deployment: str = "a"
    why_empty: str = "no replica is running"
    why_foreign: str = ""
    expected: bool = False


def attempts(
    replicas: Replicas | None = None,
    *,
    deadline_s: float | None = None,
    timeout_s: float | None = None,
    retries: int = -1,
) -> Attempts:
    rules = AttemptRules(timeout_s, connect_timeout_s=0.8, queue_timeout_s=5.0, retry=RetryPolicy(retries))
    return Attempts(rules, replicas or Replicas(), "/x", deadline_s)


def fail(
    one: Attempts, error: CallError = LOST, now_s: float = 0.0, *, readable: bool = True, budget: float = 10
) -> BackOff | GiveUp:
    return one.failed(
        error, A, now_s, readable=readable, budget=RetryBudget(0.2, reserve=int(budget)), dice=0.5
    )


# -- calling -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("timeout_s", "deadline_s", "expected"),
    [(None, None, None), (3.0, None, 3.0), (None, 12.0, 2.0), (3.0, 12.0, 2.0), (1.0, 12.0, 1.0)],
)
def test_a_call_gets_the_shorter_of_its_timeout_and_the_clients_deadline(
    timeout_s: float | None, deadline_s: float | None, expected: float | None
) -> None:
    one = attempts(timeout_s=timeout_s, deadline_s=deadline_s)

    assert one.start(A, 10.0, connected=True) == Start(expected)


def test_a_call_to_a_replica_that_is_not_connected_may_wait_for_the_connection() -> None:
    assert attempts().start(A, 0.0, connected=False) == Start(None, connect_s=0.8)


def test_a_call_after_the_deadline_is_not_made() -> None:
    one = attempts(deadline_s=10.0)
    step = one.start(A, 10.0, connected=True)

    assert isinstance(step, GiveUp)
    assert isinstance(step.error, DeadlineExceeded)
    assert one.tried == ()


# -- failures ------------------------------------------------------------------------------------------


def test_a_lost_call_is_retried_at_once_where_another_replica_is_left() -> None:
    one = attempts()
    one.start(A, 0.0, connected=True)

    assert fail(one) == BackOff(0.0)


def test_a_lost_call_is_retried_later_where_every_replica_was_tried() -> None:
    one = attempts(Replicas(labels={A: A}, reachable=(A,)))
    one.start(A, 0.0, connected=True)
    first = fail(one)
    one.start(A, 0.1, connected=True)
    second = fail(one, now_s=0.1)

    assert isinstance(first, BackOff)
    assert isinstance(second, BackOff)
    assert 0 < first.seconds < second.seconds < 0.5


def test_a_request_that_has_lost_two_executors_does_not_get_to_a_third() -> None:
    third = "10.0.0.3:1"
    one = attempts(Replicas(labels={A: A, B: B, third: third}, reachable=(A, B, third)), retries=9)
    broken = CallError("UNAVAILABLE", "Socket closed", lost=True)
    one.start(A, 0.0, connected=True)
    assert fail(one, broken) == BackOff(0.0)

    one.start(B, 0.0, connected=True)
    step = fail(one, broken)
    assert isinstance(step, GiveUp)
    assert isinstance(step.error, ExecutorUnreachable)
    assert step.error.addresses == (A, B)
    assert "Socket closed; 2 executors were lost while they handled this request" in str(step.error)


def test_an_executor_that_is_lost_twice_counts_twice() -> None:
    one = attempts(Replicas(labels={A: A}, reachable=(A,)))
    broken = CallError("UNAVAILABLE", "Socket closed", lost=True)
    one.start(A, 0.0, connected=True)
    assert isinstance(fail(one, broken), BackOff)
    one.start(A, 0.1, connected=True)
    # It is being started again: this attempt did not get there.
    assert isinstance(fail(one, CallError("UNAVAILABLE", "refused", reached=False), 0.1), BackOff)
    one.start(A, 0.2, connected=True)
    assert isinstance(fail(one, broken, 0.2), GiveUp)


@pytest.mark.parametrize(
    ("error", "readable", "budget", "decision"),
    [
        (CallError("INVALID_ARGUMENT", "no"), True, 10, "failed"),
        (LOST, False, 10, "failed"),
        (LOST, True, 0, "retry refused"),
    ],
)
def test_what_may_not_be_retried_is_given_up(
    error: CallError, readable: bool, budget: int, decision: str
) -> None:
    one = attempts()
    one.start(A, 0.0, connected=True)
    step = fail(one, error, readable=readable, budget=budget)

    assert isinstance(step, GiveUp)
    assert (step.decision, step.why) == (decision, f"{A}: {error}")


def test_a_pause_that_outlasts_the_deadline_is_not_begun() -> None:
    one = attempts(Replicas(labels={A: A}, reachable=(A,)), deadline_s=1.0)
    one.start(A, 0.0, connected=True)
    step = fail(one, now_s=0.99)

    assert isinstance(step, GiveUp)
    assert isinstance(step.error, ExecutorUnreachable)
    assert step.error.addresses == (A,)


def test_the_error_has_the_executors_code_and_the_replicas_labels() -> None:
    one = attempts(Replicas(labels={A: "executors.test:1"}))
    one.start(A, 0.0, connected=True)
    one.start(B, 0.0, connected=True)
    step = fail(one, CallError("INVALID_ARGUMENT", "no"))

    assert isinstance(step, GiveUp)
    assert isinstance(step.error, CallFailed)
    assert step.error.code == "INVALID_ARGUMENT"
    assert step.error.addresses == (B, "executors.test:1")


@pytest.mark.parametrize(
    ("error", "now_s", "expected"), [(LATE, 0.96, True), (LATE, 0.9, False), (LOST, 0.96, False)]
)
def test_a_call_that_ended_with_the_clients_deadline_is_not_held_against_the_replica(
    error: CallError, now_s: float, expected: bool
) -> None:
    assert attempts(deadline_s=1.0).client_was_impatient(error, now_s) is expected


# -- waiting -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("connected", "deadline_s", "expected"),
    [(True, None, 5.0), (True, 2.0, 2.0), (False, None, 0.8), (False, 0.5, 0.5)],
)
def test_how_long_a_request_waits(connected: bool, deadline_s: float | None, expected: float) -> None:
    one = attempts(Replicas(connected=connected), deadline_s=deadline_s)

    assert one.wait(0.0, queue_full=False) == Wait(expected)


def test_a_full_queue_refuses() -> None:
    step = attempts().wait(0.0, queue_full=True)

    assert isinstance(step, GiveUp)
    assert isinstance(step.error, Overloaded)
    assert (step.decision, step.why) == ("refused", "the queue is full")


@pytest.mark.parametrize(
    ("replicas", "deadline_s", "error", "decision"),
    [
        (Replicas(), None, Overloaded, "refused"),
        (Replicas(), 5.0, DeadlineExceeded, "refused"),
        (Replicas(connected=False), None, ExecutorUnreachable, "unreachable"),
    ],
)
def test_a_request_that_waited_too_long_fails_with_the_reason(
    replicas: Replicas, deadline_s: float | None, error: type[Exception], decision: str
) -> None:
    one = attempts(replicas, deadline_s=deadline_s)
    one.wait(0.0, queue_full=False)
    step = one.waited(5.0)

    assert isinstance(step, GiveUp)
    assert type(step.error) is error
    assert step.decision == decision


def test_a_wait_goes_on_for_a_slot_when_a_replica_came_back_meanwhile() -> None:
    replicas = Replicas(connected=False)
    one = attempts(replicas)
    one.wait(0.0, queue_full=False)
    replicas.connected = True

    assert one.waited(0.8) == Wait(5.0)


def test_an_outage_shortens_a_wait_once() -> None:
    replicas = Replicas()
    one = attempts(replicas)
    one.wait(0.0, queue_full=False)
    replicas.connected = False

    assert one.outage_began(1.0) == Wait(0.8)
    assert one.outage_began(1.1) is None


def test_the_allowance_for_an_outage_is_shared_by_all_attempts() -> None:
    replicas = Replicas(connected=False)
    one = attempts(replicas)
    one.start(A, 0.0, connected=False)
    one.stage_ended(0.5)
    assert isinstance(fail(one, now_s=0.5), BackOff)
    one.stage_ended(0.6)
    assert one.start(B, 0.6, connected=False) == Start(None, connect_s=pytest.approx(0.2))
    one.stage_ended(0.8)
    step = one.wait(0.8, queue_full=False)

    assert isinstance(step, GiveUp)
    assert isinstance(step.error, ExecutorUnreachable)
    assert step.why == "no replica is connected"


def test_why_no_replica_is_known_reaches_the_client() -> None:
    one = attempts(Replicas(connected=False, labels={}, reachable=()))
    one.wait(0.0, queue_full=False)
    step = one.waited(0.8)

    assert isinstance(step, GiveUp)
    assert "no replica is running" in str(step.error)
