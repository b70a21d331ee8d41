"""The Dispatcher: calls made, failures, cancellation, deadlines, floating calls, draining."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher

from gatewayd.deadlines import SLACK_S
from gatewayd.dispatch.deadline import DeadlineOver
from gatewayd.errors import (
    BadRequest,
    DeadlineExceeded,
    Draining,
    ExecutorUnreachable,
    GenerationUnknown,
    TooManyValues,
)
from gatewayd.messages.discovery import Endpoints
from gatewayd.messages.generations import ForeignDocuments, Generation, generation_of
from gatewayd.messages.request import Answer, Call, Request, Response
from gatewayd.messages.wire import Malformed, decode_answer, decode_request
from tests.dispatch.fakes import (
    CHAIN,
    DIAMOND,
    REQUEST,
    ByHand,
    FakePool,
    build,
    deployment,
    documents,
    failed,
    ids,
    struct,
)

FLOATING = (deployment("a"), deployment("log", "a", floating=True), deployment("after", "log", floating=True))
DOWN = ExecutorUnreachable("a", ["127.0.0.1:1"], "refused")


def results(deferred: Deferred[Any]) -> list[Any]:
    """What the Deferred is fired with: a value, or an exception."""
    got: list[Any] = []
    deferred.addCallbacks(got.append, lambda failure: got.append(failure.value))
    return got


@pytest.fixture
def events() -> Any:
    seen: list[LogEvent] = []
    globalLogPublisher.addObserver(seen.append)
    yield seen
    globalLogPublisher.removeObserver(seen.append)


def test_a_chain_is_answered_with_every_route() -> None:
    pool, clock = FakePool(), Clock()
    dispatcher = build(pool, *CHAIN, clock=clock)
    got = results(dispatcher.dispatch(REQUEST))
    for name in "abc":
        assert not got
        clock.advance(1.0)
        pool.answer(name)
    (response,) = got
    assert isinstance(response, Response)
    assert [(each.executor, each.start_time, each.end_time) for each in response.routes] == [
        ("gateway", 0.0, 3.0),
        ("a", 0.0, 1.0),
        ("b", 1.0, 2.0),
        ("c", 2.0, 3.0),
    ]
    assert dispatcher.in_flight == 0


def test_a_failed_call_cancels_its_siblings_and_fails_the_request() -> None:
    pool = FakePool()
    dispatcher = build(pool, *DIAMOND)
    got = results(dispatcher.dispatch(REQUEST))
    pool.fail("a", DOWN)
    assert got == [DOWN]
    assert pool.cancelled == ["b"]
    assert dispatcher.in_flight == 0


def test_cancelling_cancels_every_call_the_client_waited_for() -> None:
    pool = FakePool()
    dispatcher = build(pool, *DIAMOND)
    result = dispatcher.dispatch(REQUEST)
    got = results(result)
    result.cancel()
    assert [type(each) for each in got] == [CancelledError]
    assert sorted(pool.cancelled) == ["a", "b"]
    assert dispatcher.in_flight == 0


def test_cancelling_after_the_answer_leaves_floating_calls_alone() -> None:
    pool = FakePool()
    dispatcher = build(pool, *FLOATING)
    result = dispatcher.dispatch(REQUEST)
    pool.answer("a")
    result.cancel()
    assert pool.cancelled == []
    assert pool.waiting == ["log"]


def test_floating_calls_carry_on_after_the_answer_and_are_drained() -> None:
    pool = FakePool()
    dispatcher = build(pool, *FLOATING)
    got = results(dispatcher.dispatch(REQUEST))
    pool.answer("a")
    (response,) = got
    assert [(each.executor, each.end_time is None) for each in response.routes] == [
        ("gateway", False),
        ("a", False),
        ("log", True),
    ]
    drained = results(dispatcher.drain())
    assert (dispatcher.in_flight, drained) == (1, [])
    pool.answer("log")
    assert drained == []
    pool.answer("after")
    assert (dispatcher.in_flight, drained) == (0, [None])


@pytest.mark.parametrize("early", [True, False])
def test_a_failed_floating_call_is_logged_and_affects_no_answer(early: bool, events: list[LogEvent]) -> None:
    pool = FakePool()
    dispatcher = build(pool, deployment("log", floating=True), deployment("a"))
    got = results(dispatcher.dispatch(REQUEST))
    if not early:
        pool.answer("a")
    pool.fail("log", DOWN)
    if early:
        pool.answer("a")
    assert [type(each) for each in got] == [Response]
    assert dispatcher.in_flight == 0
    (event,) = [each for each in events if each.get("deployment") == "log"]
    assert (event["request_id"], event["reason"]) == ("r1", "ExecutorUnreachable")


def test_a_floating_executor_that_raised_is_logged_by_the_name_of_its_error(events: list[LogEvent]) -> None:
    pool = FakePool()
    dispatcher = build(pool, deployment("log", floating=True), deployment("a"))
    got = results(dispatcher.dispatch(REQUEST))
    pool.answer("log", failed(name="KeyError"))
    pool.answer("a")
    assert got[0].status == b""
    assert [each["reason"] for each in events if each.get("deployment") == "log"] == ["KeyError"]


WATCHED = (
    deployment("a"),
    deployment("watch", "a", floating=True, collected=True),
    deployment("b", "a"),
)


def test_the_answer_waits_for_an_inspect_executor_and_has_nothing_of_its_documents() -> None:
    pool = FakePool()
    dispatcher = build(pool, *WATCHED)
    got = results(dispatcher.dispatch(REQUEST))
    pool.answer("a")
    pool.answer("b", Answer(documents("of b")))
    assert (got, pool.waiting) == ([], ["watch"])
    pool.answer("watch", Answer(documents("of watch")))
    (response,) = got
    assert ids(response.documents) == ["of b"]
    assert [(each.executor, each.end_time is None) for each in response.routes] == [
        ("gateway", False),
        ("a", False),
        ("watch", False),
        ("b", False),
    ]


@pytest.mark.parametrize("early", [True, False])
def test_a_failed_inspect_executor_is_logged_and_waited_for_no_more(
    early: bool, events: list[LogEvent]
) -> None:
    pool = FakePool()
    dispatcher = build(pool, *WATCHED)
    got = results(dispatcher.dispatch(REQUEST))
    pool.answer("a")
    if not early:
        pool.answer("b")
    pool.fail("watch", DOWN)
    if early:
        pool.answer("b")
    assert [type(each) for each in got] == [Response]
    assert [each["reason"] for each in events if each.get("deployment") == "watch"] == ["ExecutorUnreachable"]
    assert dispatcher.in_flight == 0


def test_inspect_executors_that_cannot_be_called_at_all_do_not_let_others_be_forgotten() -> None:
    class Broken(FakePool):
        def send(self, deployment: str, call: Call, timeout_s: float | None) -> Deferred[Answer]:
            return fail(DOWN) if deployment == "broken" else super().send(deployment, call, timeout_s)

    pool = Broken()
    dispatcher = build(
        pool,
        deployment("a"),
        deployment("broken", "a", floating=True, collected=True),
        deployment("watch", "a", floating=True, collected=True),
    )
    got = results(dispatcher.dispatch(REQUEST))
    pool.answer("a")
    assert (got, pool.waiting) == ([], ["watch"])
    pool.answer("watch")
    assert [type(each) for each in got] == [Response]


def test_the_clients_deadline_ends_the_wait_for_an_inspect_executor_and_names_it() -> None:
    pool, clock = FakePool(), Clock()
    dispatcher = build(pool, *WATCHED, clock=clock)
    got = results(dispatcher.dispatch(REQUEST, timeout_s=2.0))
    pool.answer("a")
    pool.answer("b")
    clock.advance(2.0)
    (error,) = got
    assert isinstance(error, DeadlineExceeded)
    assert error.deployment == "watch"
    assert (pool.cancelled, pool.waiting) == ([], ["watch"])


def test_floating_calls_do_not_end_with_the_clients_deadline() -> None:
    pool, clock = FakePool(), Clock()
    dispatcher = build(pool, deployment("log", floating=True), deployment("a"), clock=clock)
    got = results(dispatcher.dispatch(REQUEST, timeout_s=2.0))
    assert [(each.deployment, each.timeout_s) for each in pool.sent] == [("log", None), ("a", 2.0 + SLACK_S)]
    clock.advance(2.0)
    assert isinstance(got[0], DeadlineExceeded)
    assert (pool.cancelled, pool.waiting) == (["a"], ["log"])
    assert dispatcher.in_flight == 1
    pool.answer("log")
    assert dispatcher.in_flight == 0


def test_the_deadline_names_what_was_still_waited_for_and_shrinks_on_the_way() -> None:
    pool, clock = FakePool(), Clock()
    dispatcher = build(
        pool,
        deployment("first"),
        *[
            attrs.evolve(each, needs=tuple("first" if name == "gateway" else name for name in each.needs))
            for each in DIAMOND
        ],
        clock=clock,
    )
    got = results(dispatcher.dispatch(attrs.evolve(REQUEST, timeout_s=5.0), timeout_s=3.0))
    clock.advance(1.0)
    pool.answer("first")
    assert [each.timeout_s for each in pool.sent] == [3.0 + SLACK_S, 2.0 + SLACK_S, 2.0 + SLACK_S]
    clock.advance(2.0)
    assert isinstance(got[0], DeadlineExceeded)
    assert "a, b" in str(got[0])
    assert sorted(pool.cancelled) == ["a", "b"]
    assert not clock.getDelayedCalls()


def test_a_deadline_that_has_passed_sends_nothing() -> None:
    pool = FakePool()
    got = results(build(pool, *CHAIN).dispatch(REQUEST, timeout_s=0.0))
    assert isinstance(got[0], DeadlineExceeded)
    assert pool.sent == []


def test_an_answer_in_time_leaves_no_timer_behind() -> None:
    pool, clock = FakePool(), Clock()
    results(build(pool, deployment("a"), clock=clock).dispatch(REQUEST, timeout_s=5.0))
    pool.answer("a")
    assert not clock.getDelayedCalls()


def test_a_closed_dispatcher_refuses_and_finishes_what_is_under_way() -> None:
    pool = FakePool()
    dispatcher = build(pool, deployment("a"))
    under_way = results(dispatcher.dispatch(REQUEST))
    dispatcher.close()
    drained = results(dispatcher.drain())
    (refused,) = results(dispatcher.dispatch(REQUEST))
    assert isinstance(refused, Draining)
    pool.answer("a")
    assert isinstance(under_way[0], Response)
    assert drained == [None]


def test_one_impatient_drain_does_not_end_the_other() -> None:
    pool = FakePool()
    dispatcher = build(pool, deployment("a"))
    results(dispatcher.dispatch(REQUEST))
    impatient, patient = dispatcher.drain(), results(dispatcher.drain())
    left = results(impatient)
    impatient.cancel()
    pool.answer("a")
    assert isinstance(left[0], CancelledError)
    assert patient == [None]


def test_a_bad_target_fails_that_request_only() -> None:
    dispatcher = build(FakePool(), *CHAIN)
    (refused,) = results(dispatcher.dispatch(attrs.evolve(REQUEST, target="[")))
    assert isinstance(refused, BadRequest)
    assert dispatcher.in_flight == 0


def test_malformed_parameters_are_a_bad_request() -> None:
    dispatcher = build(FakePool(), *CHAIN)
    (refused,) = results(dispatcher.dispatch(attrs.evolve(REQUEST, parameters=b"\xff__")))
    assert isinstance(refused, Malformed)
    assert dispatcher.in_flight == 0


def test_malformed_results_of_an_executor_fail_the_request() -> None:
    pool = FakePool()
    dispatcher = build(pool, deployment("a"))
    got = results(dispatcher.dispatch(REQUEST))
    pool.answer("a", Answer(b"", parameters=b"\xff__results__"))
    assert isinstance(got[0], Malformed)
    assert dispatcher.in_flight == 0


class BrokenPool(FakePool):
    """Raises instead of returning a Deferred."""

    def send(self, deployment: str, call: Call, timeout_s: float | None) -> Deferred[Answer]:
        if deployment == "b":
            raise RuntimeError("a bug")
        return super().send(deployment, call, timeout_s)


def test_a_bug_in_the_pool_fails_the_request_and_cancels_the_rest() -> None:
    pool = BrokenPool()
    dispatcher = build(pool, *DIAMOND)
    got = results(dispatcher.dispatch(REQUEST))
    assert [str(each) for each in got] == ["a bug"]
    assert pool.cancelled == ["a"]
    assert dispatcher.in_flight == 0


class InstantPool(FakePool):
    """Answers before ``send`` returns."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self._error = error

    def send(self, deployment: str, call: Call, timeout_s: float | None) -> Deferred[Answer]:
        return fail(self._error) if self._error else succeed(decode_answer(call.messages[0]))


def test_a_long_chain_answered_at_once_needs_no_stack() -> None:
    before = ["gateway", *(f"n{index}" for index in range(2000))]
    dispatcher = build(InstantPool(), *(deployment(f"n{index}", before[index]) for index in range(2000)))
    (response,) = results(dispatcher.dispatch(REQUEST))
    assert len(response.routes) == 2001
    assert dispatcher.in_flight == 0


def test_a_call_that_fails_at_once_fails_the_request() -> None:
    dispatcher = build(InstantPool(DOWN), *DIAMOND)
    assert results(dispatcher.dispatch(REQUEST)) == [DOWN]
    assert dispatcher.in_flight == 0


def test_heavy_merges_are_offloaded_and_light_ones_are_not() -> None:
    pool, offload = FakePool(), ByHand()
    dispatcher = build(pool, *DIAMOND, offload=offload, offload_bytes=100)
    results(dispatcher.dispatch(REQUEST))
    pool.answer("a")
    pool.answer("b")
    assert (offload.waiting, pool.waiting) == ([], ["c"])
    results(dispatcher.dispatch(attrs.evolve(REQUEST, documents=documents(*map(str, range(100))))))
    pool.answer("a")
    pool.answer("b")
    assert (len(offload.waiting), pool.waiting) == (1, ["c"])
    offload.run()
    assert pool.waiting == ["c", "c"]


def test_cancelling_during_an_offloaded_merge_drops_its_result() -> None:
    pool, offload = FakePool(), ByHand()
    dispatcher = build(pool, *DIAMOND, offload=offload, offload_bytes=0)
    result = dispatcher.dispatch(REQUEST)
    got = results(result)
    pool.answer("a")
    pool.answer("b")
    result.cancel()
    assert isinstance(got[0], CancelledError)
    offload.run()
    assert pool.names == ["a", "b"]
    assert dispatcher.in_flight == 0


def test_the_final_order_can_be_offloaded_too() -> None:
    pool, offload = FakePool(), ByHand()
    dispatcher = build(
        pool, deployment("a", when={"id": {"$exists": True}}), offload=offload, offload_bytes=0
    )
    got = results(dispatcher.dispatch(REQUEST))
    offload.run()
    pool.answer("a", Answer(documents("d1", "d0")))
    assert got == []
    offload.run()
    assert ids(got[0].documents) == ["d0", "d1"]
    assert dispatcher.in_flight == 0


def test_documents_that_cannot_be_read_fail_a_request_that_must_merge_them() -> None:
    pool = FakePool()
    dispatcher = build(pool, *DIAMOND)
    got = results(dispatcher.dispatch(REQUEST))
    pool.answer("a", Answer(b"\x12\x03abc"))  # docs_bytes
    pool.answer("b")
    assert "docs_bytes" in str(got[0])
    assert dispatcher.in_flight == 0


def test_a_floating_filter_that_cannot_be_read_is_only_logged(events: list[LogEvent]) -> None:
    pool = FakePool()
    dispatcher = build(
        pool, deployment("log", floating=True, when={"id": {"$exists": True}}), deployment("a")
    )
    got = results(dispatcher.dispatch(Request("r1", "/x", documents=b"\x12\x03abc")))
    pool.answer("a")
    # The answer itself has to be put in order, which needs its documents as well.
    assert "docs_bytes" in str(got[0])
    assert [each["reason"] for each in events if each.get("deployment") == "log"] == ["UnreadableDocuments"]
    assert dispatcher.in_flight == 0


def test_a_dry_run_goes_through_every_deployment() -> None:
    pool = FakePool()
    dispatcher = build(pool, *CHAIN)
    got = results(dispatcher.dry_run(documents("probe")))
    for name in "abc":
        assert pool.sent[-1].call.endpoint == "_jina_dry_run_"
        pool.answer(name)
    assert ids(got[0].documents) == ["probe"]


def test_each_executor_gets_its_own_parameters() -> None:
    pool = FakePool()
    results(build(pool, *DIAMOND).dispatch(attrs.evolve(REQUEST, parameters=struct(k=1, a__k=2))))
    sent = {each.deployment: decode_answer(each.call.messages[0]).parameters for each in pool.sent}
    assert sent == {"a": struct(k=2), "b": struct(k=1)}


def test_refusing_what_is_awaited_lets_floating_calls_finish() -> None:
    pool = FakePool()
    dispatcher = build(pool, deployment("a"), deployment("log", "a", floating=True), deployment("b", "a"))
    answered, refused = results(dispatcher.dispatch(REQUEST)), results(dispatcher.dispatch(REQUEST))
    pool.answer("a")
    pool.answer("b")  # the first request is answered, its floating call is under way

    assert dispatcher.refuse_awaited() == 1

    assert [type(each) for each in (*answered, *refused)] == [Response, Draining]
    assert dispatcher.in_flight == 1
    assert dispatcher.abandon() == {"log": 1}
    assert dispatcher.in_flight == 0


def test_abandoning_refuses_what_is_in_flight_and_cancels_its_calls() -> None:
    dispatcher = build(FakePool(), *CHAIN)
    ended = results(dispatcher.dispatch(REQUEST))

    dispatcher.abandon()

    assert [type(error) for error in ended] == [Draining]
    assert dispatcher.in_flight == 0


def test_a_deadline_of_the_client_has_a_short_reason_of_its_own() -> None:
    error = DeadlineOver(("a" * 100, "b" * 100), 1.5)
    assert error.summary() == "The request's own deadline of 1.5 s passed."
    assert "a" * 100 in str(error)


# -- hints --------------------------------------------------------------------------------------------

BOUND = {"a": ("/index", "/search"), "b": ("/index",)}
TWO = (deployment("a"), deployment("b", "a"))


def hints_in(events: list[LogEvent]) -> list[str]:
    return [
        each["hint"]
        for each in events
        if each.get("log_namespace") == "gatewayd.dispatch.hints" and "hint" in each
    ]


def hint_of(pool: FakePool, request: Request, *deployments: Any) -> str:
    (response,) = results(build(pool, *(deployments or TWO)).dispatch(request))
    assert isinstance(response, Response)
    assert response.documents == request.documents
    return response.hint


@pytest.mark.parametrize(
    ("endpoint", "target", "hint"),
    [
        (
            "/serach",
            "",
            "no executor binds the endpoint '/serach'; they bind '/index', '/search'; "
            "did you mean '/search'?",
        ),
        ("/other", "", "no executor binds the endpoint '/other'; they bind '/index', '/search'"),
        ("", "", "no executor binds the endpoint ''; they bind '/index', '/search'"),
        (
            "/search",
            "b",
            "no executor that target_executor 'b' matches binds the endpoint '/search'; "
            "they bind '/index', '/search'",
        ),
        (
            "/index",
            "string",
            "no executor has a name that target_executor 'string' matches; they are 'a', 'b'",
        ),
    ],
)
def test_a_request_that_no_executor_works_on_has_a_hint(
    endpoint: str, target: str, hint: str, events: Any
) -> None:
    request = Request("r", endpoint, target, documents=documents("d"))
    assert hint_of(FakePool(BOUND), request) == hint
    assert hints_in(events) == [hint]


def test_a_hint_is_logged_once_for_each_endpoint(events: Any) -> None:
    dispatcher = build(FakePool(BOUND), *TWO)
    for endpoint in ("/x", "/y", "/x", "/x", "/y"):
        (response,) = results(dispatcher.dispatch(Request("r", endpoint)))
        assert endpoint in response.hint
    assert len(hints_in(events)) == 2


def test_no_more_than_a_hundred_hints_are_logged_and_none_is_long(events: Any) -> None:
    dispatcher = build(FakePool(BOUND), *TWO)
    for number in range(300):
        (response,) = results(dispatcher.dispatch(Request("r", f"/{number}" + "x" * 900)))
        assert f"/{number}x" in response.hint
        assert len(response.hint) < 300
    assert len(hints_in(events)) == 100
    assert "further hints" in events[-1]["log_format"]


@pytest.mark.parametrize("bound", [{}, {"a": ("/x",)}, {"b": ("/x",)}, {"a": ("/x",), "b": ("/y",)}])
def test_a_request_that_some_executor_works_on_has_no_hint(bound: Any, events: Any) -> None:
    pool = FakePool(bound)
    got = results(build(pool, *TWO).dispatch(Request("r", "/x")))
    while pool.waiting:
        pool.answer(pool.waiting[0])
    assert got[0].hint == ""
    assert not hints_in(events)


def test_a_dry_run_and_a_flow_without_executors_have_no_hint(events: Any) -> None:
    (dry_run,) = results(build(FakePool({"a": ()}), deployment("a")).dry_run())
    (empty,) = results(build(FakePool()).dispatch(REQUEST))
    assert (dry_run.hint, empty.hint) == ("", "")
    assert not hints_in(events)


def test_a_floating_executor_counts_although_it_is_called_later(events: Any) -> None:
    by_hand = ByHand()
    log = deployment("log", floating=True, when={"text": {"$eq": "x"}})
    pool = FakePool({"a": ("/a",)})
    dispatcher = build(pool, deployment("a"), log, offload=by_hand, offload_bytes=-1)
    (response,) = results(dispatcher.dispatch(Request("r", "/x")))
    assert response.hint == ""
    by_hand.run()
    assert pool.names == ["log"]
    assert not hints_in(events)


SECOND_DOCUMENTS = b"\x0a\x11\x0a\x0f\x0a\x0d\x0a\x02id\x12\x07\x0a\x01a\x6a\x02id"
FIRST_DOCUMENTS = b"\x0a\x05\x0a\x03\x0a\x01a"


@pytest.mark.parametrize(
    ("served", "documents", "refused"),
    [
        (Generation.FIRST, SECOND_DOCUMENTS, True),
        (Generation.FIRST, FIRST_DOCUMENTS, False),
        (Generation.SECOND, FIRST_DOCUMENTS, True),
        (Generation.SECOND, SECOND_DOCUMENTS, False),
        (None, FIRST_DOCUMENTS, False),
        (None, SECOND_DOCUMENTS, False),
    ],
)
def test_documents_of_a_generation_that_the_flow_does_not_speak_are_refused(
    served: Generation | None, documents: bytes, refused: bool
) -> None:
    pool = FakePool()
    pool.generation = served
    found = results(build(pool, deployment("a")).dispatch(Request("r", "/x", documents=documents)))
    assert bool(found) is refused
    assert not refused or isinstance(found[0], ForeignDocuments)
    assert pool.names == ([] if refused else ["a"])


@pytest.mark.parametrize("served", list(Generation))
def test_streams_refuse_documents_of_another_generation_too(served: Generation) -> None:
    pool = FakePool()
    pool.generation = served
    other = SECOND_DOCUMENTS if served == Generation.FIRST else FIRST_DOCUMENTS
    found = results(build(pool, deployment("a")).stream(Request("r", "/x", documents=other)).receive())
    assert isinstance(found[0], ForeignDocuments)
    assert not pool.names


@given(st.binary(max_size=12), st.sampled_from([b"", b"\x0a", b"\x0a\x0d\x0a\x0b\x0a\x09\x0a"]))
def test_documents_are_refused_by_the_first_look_as_by_the_whole_one(content: bytes, before: bytes) -> None:
    pool = FakePool()
    pool.generation = Generation.FIRST
    documents = before + content
    found = results(build(pool, deployment("a")).dispatch(Request("r", "/x", documents=documents)))
    assert bool(found) is (generation_of(documents) is Generation.SECOND)


def test_documents_that_nobody_may_read_before_executors_have_told_are_refused_for_now() -> None:
    pool = FakePool()
    dispatcher = build(pool, *DIAMOND)
    told, pool.endpoints = pool.endpoints, lambda: Endpoints(unknown=("a",))  # type: ignore[method-assign]
    found = results(dispatcher.dispatch(Request("r", "/x", documents=SECOND_DOCUMENTS)))
    assert isinstance(found[0], GenerationUnknown)
    assert isinstance(
        results(dispatcher.stream(Request("r", "/x", documents=SECOND_DOCUMENTS)).receive())[0],
        GenerationUnknown,
    )
    pool.endpoints = told  # type: ignore[method-assign]
    assert isinstance(
        results(dispatcher.dispatch(Request("r", "/x", documents=SECOND_DOCUMENTS)))[0], ForeignDocuments
    )
    assert not pool.sent


def test_documents_on_their_way_are_looked_at_again_when_executors_tell_what_they_speak() -> None:
    pool = FakePool()
    found = results(build(pool, *CHAIN).dispatch(Request("r", "/x", documents=SECOND_DOCUMENTS)))
    pool.generation = Generation.FIRST
    pool.answer("a")
    assert pool.names == ["a"]
    assert isinstance(found[0], GenerationUnknown)


def test_a_flow_of_the_second_generation_gets_no_document_of_the_first_in_a_dry_run() -> None:
    pool = FakePool()
    pool.generation = Generation.SECOND
    build(pool, deployment("a")).dry_run(FIRST_DOCUMENTS)
    assert decode_request(pool.take("a").call.messages[0]).documents == b""


def test_parameters_of_very_many_values_are_refused_before_anybody_is_asked() -> None:
    pool = FakePool()
    dispatcher = build(pool, *CHAIN, most_values=10)
    many = attrs.evolve(REQUEST, parameters=struct(a__b=[1.0] * 11))
    for got in (results(dispatcher.dispatch(many)), results(dispatcher.stream(many).receive())):
        (error,) = got
        assert isinstance(error, TooManyValues)
        assert "more than 10 values; the limit is gateway.max_parameter_values" in str(error)
    assert not pool.sent


def test_parameters_of_few_values_may_be_long() -> None:
    dispatcher = build(FakePool(), *CHAIN, most_values=10)
    long = attrs.evolve(REQUEST, parameters=struct(image="x" * 1_000_000))
    assert not results(dispatcher.dispatch(long))
