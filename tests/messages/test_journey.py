"""What is written down of a request, and where its time went."""

from __future__ import annotations

import pytest

from gatewayd.messages.journey import Journey, Spent, Visit, spent


def visit(journey: Journey, name: str = "a") -> Visit:
    return journey.visit(name, 0.0, floating=False)


def test_a_visit_ends_once_and_with_it_what_was_under_way() -> None:
    journey = Journey()
    visited = visit(journey)
    waited = visited.wait("queue", 0.0)
    waited.end(1.0)
    attempt = visited.attempt("10.0.0.1:1", 1.0)

    journey.left("a", 3.0, "cancelled")
    journey.left("a", 4.0, "answered")
    journey.left("never called", 4.0, "failed", "Overloaded")

    assert (visited.outcome, visited.ended_s, waited.ended_s) == ("cancelled", 3.0, 1.0)
    assert (attempt.ended_s, attempt.code) == (3.0, "")
    assert list(journey.visits) == ["a"]
    assert visited.attempts == [attempt]


def test_a_visit_that_ends_late_is_told_of() -> None:
    journey = Journey()
    floating = journey.visit("log", 0.0, floating=True)
    late: list[Visit] = []
    journey.late = late.append

    journey.left("log", 9.0, "raised")

    assert late == [floating]


def test_a_reason_is_not_kept_whole() -> None:
    attempt = visit(Journey()).attempt("10.0.0.1:1", 0.0)
    attempt.end(1.0, "UNKNOWN", "x" * 100_000)

    assert len(attempt.reason) == 500


def test_the_time_of_a_request_without_a_journey_is_the_gateways() -> None:
    assert spent(None, 1.0, 3.0) == Spent(0.0, 0.0, 2.0)


def test_queue_attempt_pause_attempt() -> None:
    journey = Journey()
    visited = visit(journey)
    for kind, began_s, ended_s in [
        ("queue", 1, 2),
        ("attempt", 2, 4),
        ("backoff", 4, 4.5),
        ("attempt", 4.5, 5),
    ]:
        stage = visited.attempt("x", began_s) if kind == "attempt" else visited.wait(kind, began_s)  # type: ignore[arg-type]
        stage.end(ended_s)

    assert spent(journey, 0.0, 6.0) == Spent(queue_s=1.5, executors_s=2.5, gateway_s=2.0)


def test_parallel_branches_count_once() -> None:
    journey = Journey()
    visit(journey, "a").attempt("x", 1.0).end(3.0)
    visit(journey, "b").attempt("y", 2.0).end(5.0)
    visit(journey, "c").wait("queue", 2.0).end(6.0)

    assert spent(journey, 0.0, 6.0) == Spent(queue_s=1.0, executors_s=4.0, gateway_s=1.0)


@pytest.mark.parametrize("ended_s", [None, 20.0])
def test_what_floats_on_counts_up_to_the_answer(ended_s: float | None) -> None:
    journey = Journey()
    attempt = visit(journey).attempt("x", 1.0)
    if ended_s is not None:
        attempt.end(ended_s)

    assert spent(journey, 0.0, 4.0) == Spent(queue_s=0.0, executors_s=3.0, gateway_s=1.0)
