"""The pool writes down what a request goes through at one deployment, if it has a journey."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError

from gatewayd.config import DeploymentConfig
from gatewayd.messages.journey import Journey, Trace, Visit
from gatewayd.messages.request import Answer, Call
from gatewayd.messages.trace_context import TraceContext, context_of
from tests.pool.fakes import LOST, Setup, external

A, B = "10.0.0.1:1", "10.0.0.2:1"


def visited() -> tuple[Visit, Call]:
    visit = Journey().visit("a", 0.0, floating=False)
    return visit, Call((b"",), "/x", visit=visit)


def stages(visit: Visit) -> list[tuple[str, str]]:
    return [(each.kind, each.code) for each in visit.stages]


def test_an_attempt_that_is_answered() -> None:
    setup = Setup(external(A))
    visit, call = visited()
    setup.send(call)
    setup.clock.advance(2.0)
    setup.channels[A].answer()

    (attempt,) = visit.stages
    assert (attempt.kind, attempt.address, attempt.code, attempt.raised) == ("attempt", A, "OK", False)
    assert (attempt.began_s, attempt.ended_s) == (0.0, 2.0)


def test_an_executor_that_raised() -> None:
    setup = Setup(external(A))
    visit, call = visited()
    setup.send(call)
    setup.channels[A].answer(Answer(b"", failed=True))

    assert [(each.code, each.raised) for each in visit.stages] == [("OK", True)]


def test_a_failure_a_pause_and_another_attempt() -> None:
    setup = Setup(external(A))
    visit, call = visited()
    setup.send(call)
    setup.channels[A].fail(LOST)
    setup.advance(1.0)
    setup.channels[A].answer()

    assert stages(visit) == [("attempt", "UNAVAILABLE"), ("backoff", ""), ("attempt", "OK")]
    assert visit.stages[0].reason == LOST.details
    assert visit.stages[1].ended_s == visit.stages[2].began_s


def test_what_waited_for_a_slot() -> None:
    setup = Setup(external(A), max_in_flight_per_replica=1)
    setup.send()
    visit, call = visited()
    setup.send(call)
    setup.clock.advance(1.0)
    setup.channels[A].answer()
    setup.channels[A].answer()

    assert stages(visit) == [("queue", ""), ("attempt", "OK")]
    assert (visit.stages[0].began_s, visit.stages[0].ended_s) == (0.0, 1.0)


@pytest.mark.parametrize(("busy", "expected"), [(False, [("attempt", "CANCELLED")]), (True, [("queue", "")])])
def test_a_client_that_leaves(busy: bool, expected: list[tuple[str, str]]) -> None:
    setup = Setup(external(A), max_in_flight_per_replica=1)
    if busy:
        setup.send()
    visit, call = visited()
    sent = setup.send(call)
    sent.deferred.cancel()

    assert isinstance(sent.result, CancelledError)
    assert stages(visit) == expected
    assert visit.stages[0].ended_s == 0.0


def test_what_waited_too_long() -> None:
    setup = Setup(external(A), max_in_flight_per_replica=1, queue_timeout_s=3.0)
    setup.send()
    visit, call = visited()
    setup.send(call)
    setup.advance(5.0)

    assert stages(visit) == [("queue", "")]
    assert visit.stages[0].ended_s == pytest.approx(3.0, abs=0.1)


def test_each_attempt_of_a_trace_tells_the_executor_its_place() -> None:
    ids = iter(range(10, 20))
    journey = Journey()
    journey.trace = Trace(TraceContext(7, 8, True, "rojo=1"), 0, lambda: next(ids))
    visit = journey.visit("a", 0.0, floating=False)
    setup = Setup(external(A))
    setup.send(Call((b"",), "/x", headers=(("x-a", "1"),), visit=visit))
    (first, _, _) = setup.channels[A].calls[0]
    setup.channels[A].fail(LOST)
    setup.advance(1.0)
    (second, _, _) = setup.channels[A].calls[0]

    assert context_of(first.headers) == TraceContext(7, 10, True, "rojo=1")
    assert context_of(second.headers) == TraceContext(7, 11, True, "rojo=1")
    assert first.headers[0] == ("x-a", "1")
    assert [each.span_id for each in visit.attempts] == [10, 11]


def test_the_stages_of_all_shards_are_the_deployments() -> None:
    setup = Setup(DeploymentConfig("a", shards=2, polling={"*": "all"}), ready=False)
    for shard, address in enumerate((A, B)):
        setup.pool.replica_up("a", address, shard)
        setup.channels[address].set_state("ready")
    visit, call = visited()
    setup.send(call)
    for address in (A, B):
        setup.channels[address].answer()

    assert {each.address for each in visit.attempts} == {A, B}
    assert stages(visit) == [("attempt", "OK")] * 2
