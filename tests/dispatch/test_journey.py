"""The dispatcher writes down which deployments a request calls, if it has a journey."""

from __future__ import annotations

import attrs
from twisted.internet.task import Clock

from gatewayd.errors import ExecutorUnreachable
from gatewayd.messages.journey import Journey, Visit
from tests.dispatch.fakes import CHAIN, DIAMOND, REQUEST, FakePool, build, deployment, failed

FLOATING = (deployment("a"), deployment("log", "a", floating=True))


def times(journey: Journey) -> dict[str, tuple[float, float | None, str]]:
    return {name: (each.began_s, each.ended_s, each.outcome) for name, each in journey.visits.items()}


def test_a_chain() -> None:
    pool, clock, journey = FakePool(), Clock(), Journey()
    build(pool, *CHAIN, clock=clock).dispatch(attrs.evolve(REQUEST, journey=journey))
    clock.advance(1.0)
    pool.answer("a")
    clock.advance(1.0)
    pool.answer("b", failed())

    assert times(journey) == {"a": (0.0, 1.0, "answered"), "b": (1.0, 2.0, "raised")}
    assert [sent.call.visit for sent in pool.sent] == list(journey.visits.values())


def test_a_branch_that_fails_cancels_the_other() -> None:
    pool, journey = FakePool(), Journey()
    answer = build(pool, *DIAMOND).dispatch(attrs.evolve(REQUEST, journey=journey))
    answer.addErrback(lambda failure: failure.trap(ExecutorUnreachable))
    pool.fail("a", ExecutorUnreachable("a", (), "gone"))

    assert {name: each.outcome for name, each in journey.visits.items()} == {"a": "failed", "b": "cancelled"}
    assert journey.visits["a"].reason == "ExecutorUnreachable"


def test_a_floating_visit_ends_after_the_answer() -> None:
    pool, clock, journey = FakePool(), Clock(), Journey()
    answer = build(pool, *FLOATING, clock=clock).dispatch(attrs.evolve(REQUEST, journey=journey))
    late: list[Visit] = []
    answer.addCallback(lambda _: setattr(journey, "late", late.append))
    pool.answer("a")
    clock.advance(5.0)
    assert not late
    pool.answer("log")

    assert [(each.deployment, each.floating, each.ended_s) for each in late] == [("log", True, 5.0)]


def test_a_request_without_a_journey_has_calls_without_visits() -> None:
    pool = FakePool()
    build(pool, *CHAIN).dispatch(REQUEST)

    assert pool.sent[0].call.visit is None
