"""What is written down of a request, and where its time went."""

from __future__ import annotations

import pytest

from gatewayd.messages.journey import Journey, Visit, spent


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


def test_what_is_called_for_each_document_of_a_stream_is_one_visit_with_its_first_and_last_stages() -> None:
    journey = Journey()
    for number in range(1000):
        visit(journey).attempt(f"{number}", number).end(number + 0.5, "OK")
        if number:  # two are under way at a time
            journey.left("a", number + 0.5, "answered" if number != 500 else "failed", "CallFailed")

    visited = journey.visits["a"]
    assert (visited.calls, visited.under_way, visited.ended_s) == (1000, 1, None)
    journey.left("a", 1000.0, "cancelled")
    assert (visited.outcome, visited.reason, visited.ended_s) == ("failed", "CallFailed", 1000.0)
    numbers = [*range(64), *range(1000 - 64, 1000)]
    assert [stage.address for stage in visited.stages] == [f"{number}" for number in numbers]
    assert [stage.address for stage in visited.traced] == [f"{number}" for number in range(64)]


def test_a_reason_is_not_kept_whole() -> None:
    attempt = visit(Journey()).attempt("10.0.0.1:1", 0.0)
    attempt.end(1.0, "UNKNOWN", "x" * 100_000)

    assert len(attempt.reason) == 500


def test_the_time_of_a_request_without_a_journey_is_the_gateways() -> None:
    assert spent(None, 1.0, 3.0) == (0.0, 0.0, 2.0)


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

    assert spent(journey, 0.0, 6.0) == (1.5, 2.5, 2.0)


def test_parallel_branches_count_once() -> None:
    journey = Journey()
    visit(journey, "a").attempt("x", 1.0).end(3.0)
    visit(journey, "b").attempt("y", 2.0).end(5.0)
    visit(journey, "c").wait("queue", 2.0).end(6.0)

    assert spent(journey, 0.0, 6.0) == (1.0, 4.0, 1.0)


@pytest.mark.parametrize("ended_s", [None, 20.0])
def test_what_floats_on_counts_up_to_the_answer(ended_s: float | None) -> None:
    journey = Journey()
    attempt = visit(journey).attempt("x", 1.0)
    if ended_s is not None:
        attempt.end(ended_s)

    assert spent(journey, 0.0, 4.0) == (0.0, 3.0, 1.0)
