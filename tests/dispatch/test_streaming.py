"""Streams through graphs: what comes out, in which order, and what is left when they end."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from gatewayd.dispatch.deadline import DeadlineOver
from gatewayd.dispatch.dispatcher import Dispatcher
from gatewayd.errors import BadRequest, CallFailed, Draining, NothingStreams
from gatewayd.messages.formats import FIRST, SECOND, DocumentFormat
from gatewayd.messages.request import Answer, Call, Request, Response
from gatewayd.messages.single import decode_single_answer
from gatewayd.messages.wire import decode_answer
from tests.dispatch.fakes import FakePool, build, deployment, documents, failed, ids, struct
from tests.messages.second.made import content, plain

BROKEN = CallFailed("g", ("1.1.1.1:1",), "mid boom", "UNKNOWN")


class Generated:
    """A stream of a generator, fed by the test."""

    def __init__(self, pool: StreamPool, name: str, call: Call) -> None:
        self.name, self.call = name, call
        self.asked = 0
        self.cancelled = False
        (self.document,) = pool.ids(bytes(decode_single_answer(call.messages[0]).documents))
        self._pool = pool
        self._there: list[Any] = []
        self._waiting: Deferred[Answer | None] | None = None
        self._over = False

    def ask(self, on_answer: Callable[[Any], object], on_failure: Callable[[Failure], object]) -> None:
        self.receive().addCallbacks(on_answer, on_failure)

    def receive(self) -> Deferred[Answer | None]:
        assert self._waiting is None
        assert not self._over
        self.asked += 1
        self._waiting = waiting = Deferred(lambda _: self._left())
        self._serve()
        return waiting

    def more(self, most: int) -> list[Answer]:
        assert self._waiting is None
        assert not self._over
        found = []
        while self._there and len(found) < most and isinstance(self._there[0], Answer):
            found.append(self._there.pop(0))
        return found

    def cancel(self) -> None:
        if not self._over:
            waiting = self._waiting
            if waiting is not None:
                waiting.cancel()
            else:
                self._left()

    def _left(self) -> None:
        self.cancelled = self._over = True
        self._waiting = None
        self._pool.open.remove(self)

    def put(self, *found: Any) -> None:
        """Answers or names of documents; None is the end, an exception an error."""
        for each in found:
            self._there.append(Answer(self._pool.documents(each)) if isinstance(each, str) else each)
        self._serve()

    def _serve(self) -> None:
        if self._waiting is not None and self._there:
            waiting, self._waiting = self._waiting, None
            found = self._there.pop(0)
            if found is None or isinstance(found, Exception):
                self._over = True
                self._pool.open.remove(self)
            if isinstance(found, Exception):
                waiting.errback(Failure(found))
            else:
                waiting.callback(found)


class StreamPool(FakePool):
    """A FakePool in which some Deployments stream, with documents of one generation."""

    def __init__(self, *streaming: str, bound: Any = None, format: DocumentFormat = FIRST) -> None:
        super().__init__(bound, format)
        self.is_second = format is not FIRST
        self.streaming = streaming
        self.opened: list[Generated] = []
        self.open: list[Generated] = []
        self.auto: Callable[[Generated], None] = lambda stream: None

    def documents(self, *names: str) -> bytes:
        return content(*({"id": name} for name in names)) if self.is_second else documents(*names)

    def ids(self, found: bytes) -> list[str]:
        return [each["id"] for each in plain(found)] if self.is_second else ids(found)

    def streams(self, deployment: str, endpoint: str) -> bool:
        return deployment in self.streaming

    def stream(self, deployment: str, call: Call, timeout_s: float | None) -> Generated:
        stream = Generated(self, deployment, call)
        self.opened.append(stream)
        self.open.append(stream)
        self.auto(stream)
        return stream


class Asker:
    """Pulls a stream, one answer at a time."""

    def __init__(self, dispatcher: Dispatcher, request: Request, timeout_s: float | None = None) -> None:
        self.stream = dispatcher.stream(request, timeout_s=timeout_s)
        self.got: list[Any] = []
        self.deferred: Deferred[Any] = succeed(None)

    def ask(self, times: int = 1) -> Asker:
        for _ in range(times):
            before = len(self.got)
            self.deferred = self.stream.receive()
            self.deferred.addCallbacks(self.got.append, lambda failure: self.got.append(failure.value))
            if len(self.got) == before:
                break
        return self

    def more(self, most: int) -> list[Any]:
        found = self.stream.more(most)
        self.got += found
        return found

    @property
    def names(self) -> list[Any]:
        """The ids of what came; None, and the class of an error, as they are."""
        return [
            ids(bytes(each.documents)) if isinstance(each, Response) else each and type(each)
            for each in self.got
        ]


def request(*names: str, **options: Any) -> Request:
    return Request("r", "/gen", documents=documents(*names), **options)


def made(pool: StreamPool, *deployments: Any, **options: Any) -> Dispatcher:
    return build(pool, *deployments, **options)


def test_a_generator_alone_streams_its_documents() -> None:
    pool = StreamPool("g")
    dispatcher = made(pool, deployment("g"))
    asker = Asker(dispatcher, request("q")).ask()
    (stream,) = pool.opened
    stream.put("a", "b", None)
    asker.ask(2)

    assert asker.names == [["a"], ["b"], None]
    assert stream.document == "q"
    assert asker.got[0].request_id == "r"
    assert [route.executor for route in asker.got[0].routes] == ["gateway", "g"]
    assert dispatcher.in_flight == 0
    assert asker.ask().got[-1] is None


def test_what_stands_before_it_is_called_once_and_what_stands_behind_it_for_each_document() -> None:
    pool = StreamPool("g")
    dispatcher = made(pool, deployment("a"), deployment("g", "a"), deployment("b", "g"))
    asker = Asker(dispatcher, request("q", parameters=struct(x=1, b__y=2))).ask()
    pool.answer("a", Answer(documents("q2"), struct(__results__={"a": 1})))
    pool.opened[0].put("1", "2")
    second = [call.call for call in pool.sent if call.deployment == "b"]
    pool.answer("b", Answer(documents("B1"), struct(__results__={"b": 1})))
    asker.ask()
    pool.answer("b")
    pool.opened[0].put(None)
    asker.ask()

    assert pool.opened[0].document == "q2"
    assert asker.names == [["B1"], ["2"], None]
    assert pool.names == ["a", "b", "b"]
    assert [ids(bytes(decode_answer(each.messages[0]).documents)) for each in second] == [["1"], ["2"]]
    assert decode_answer(second[0].messages[0]).parameters == struct(x=1, y=2)
    assert [route.executor for route in asker.got[0].routes] == ["gateway", "a", "g", "b"]
    assert b"__results__" in asker.got[0].parameters


def test_answers_keep_their_order_and_no_more_than_the_window_are_under_way() -> None:
    pool = StreamPool("g")
    dispatcher = made(pool, deployment("g"), deployment("b", "g"), stream_window=3)
    asker = Asker(dispatcher, request("q")).ask()
    pool.opened[0].put(*"123456", None)

    assert pool.waiting == ["b", "b", "b"]
    assert pool.opened[0].asked == 3
    first, second = pool.take("b"), pool.take("b")
    second.waiting.callback(decode_answer(second.call.messages[0]))
    assert asker.got == []
    assert pool.opened[0].asked == 3
    first.waiting.callback(decode_answer(first.call.messages[0]))
    assert asker.names == [["1"]]
    while asker.names[-1] is not None:
        asker.ask()
        while pool.waiting:
            pool.answer("b")
    assert asker.names == [["1"], ["2"], ["3"], ["4"], ["5"], ["6"], None]


def test_a_branch_beside_the_generator_is_joined_with_each_document() -> None:
    pool = StreamPool("g")
    dispatcher = made(pool, deployment("g"), deployment("b"), deployment("j", "g", "b"))
    asker = Asker(dispatcher, request("q")).ask()
    assert pool.opened == []  # b has not answered
    pool.answer("b", Answer(documents("beside")))
    pool.opened[0].put("1", "2", None)
    for _ in range(2):
        pool.answer("j")
        asker.ask()

    assert pool.names == ["b", "j", "j"]
    asker.ask(3)
    assert asker.names[:5] == [["beside"], ["1"], ["beside"], ["2"], None]
    joined = [ids(bytes(decode_answer(call.call.messages[0]).documents)) for call in pool.sent[1:]]
    assert [set(each) for each in joined] == [{"beside", "1"}, {"beside", "2"}]


def test_a_generator_behind_another_streams_for_each_of_its_documents_in_order() -> None:
    pool = StreamPool("g", "h")
    dispatcher = made(pool, deployment("g"), deployment("h", "g"))
    pool.auto = lambda stream: stream.put(
        *(["1", "2", "3"] if stream.name == "g" else [f"{stream.document}a", f"{stream.document}b"]), None
    )
    asker = Asker(dispatcher, request("q")).ask(10)

    assert asker.names[:7] == [["1a"], ["1b"], ["2a"], ["2b"], ["3a"], ["3b"], None]
    assert dispatcher.in_flight == 0


def test_each_document_of_the_request_is_streamed_in_turn_by_one_stream_at_a_time() -> None:
    pool = StreamPool("g")
    dispatcher = made(pool, deployment("g"))
    asker = Asker(dispatcher, request("p", "q")).ask()
    assert [stream.document for stream in pool.opened] == ["p"]
    pool.opened[0].put("1", None)
    asker.ask()
    pool.opened[1].put("2", None)
    asker.ask()

    assert [stream.document for stream in pool.opened] == ["p", "q"]
    assert asker.names == [["1"], ["2"], None]


def test_floating_executors_get_each_document_and_nobody_waits_for_them() -> None:
    pool = StreamPool("g")
    dispatcher = made(pool, deployment("g"), deployment("f", "g", floating=True))
    asker = Asker(dispatcher, request("q")).ask()
    pool.opened[0].put("1", "2", None)
    asker.ask(2)

    assert asker.names == [["1"], ["2"], None]
    assert (pool.waiting, dispatcher.in_flight) == (["f", "f"], 1)
    pool.answer("f")
    pool.answer("f")
    assert dispatcher.in_flight == 0


def test_an_executor_behind_that_drops_or_adds_documents_does_so_in_the_stream() -> None:
    pool = StreamPool("g")
    dispatcher = made(pool, deployment("g"), deployment("b", "g"))
    asker = Asker(dispatcher, request("q")).ask()
    pool.opened[0].put("1", "2", None)
    pool.answer("b", Answer(documents()))
    pool.answer("b", Answer(documents("x", "y")))
    asker.ask(2)

    assert asker.names == [["x"], ["y"], None]


def test_the_target_may_leave_the_generator_out_and_an_endpoint_may_not_stream() -> None:
    pool = StreamPool("g")
    dispatcher = made(pool, deployment("a"), deployment("g", "a"))
    left_out = Asker(dispatcher, request("p", "q", target="a")).ask()
    pool.answer("a")
    left_out.ask()

    assert left_out.names == [["p", "q"], None]
    assert pool.opened == []


def test_what_nobody_binds_is_no_stream_of_the_request_itself() -> None:
    pool = StreamPool(bound={"g": ["/gen"]})
    dispatcher = made(pool, deployment("g"))
    asker = Asker(dispatcher, attrs.evolve(request("q"), endpoint="/nope")).ask()

    assert asker.names == [NothingStreams]
    assert "binds the endpoint '/nope'" in str(asker.got[0])
    assert dispatcher.in_flight == 0


def test_an_executor_before_it_that_raises_is_the_only_answer() -> None:
    pool = StreamPool("g")
    asker = Asker(made(pool, deployment("a"), deployment("g", "a")), request("q")).ask()
    pool.answer("a", failed())
    asker.ask()

    assert asker.got[0].status
    assert (asker.got[1], pool.opened) == (None, [])


def test_an_answer_with_an_error_passes_and_the_stream_goes_on() -> None:
    pool = StreamPool("g")
    asker = Asker(made(pool, deployment("g"), deployment("b", "g")), request("q")).ask()
    pool.opened[0].put(failed(), "1", None)
    pool.answer("b")
    asker.ask(2)

    assert pool.names == ["b"]
    assert asker.got[0].status
    assert asker.names[1:] == [["1"], None]


def test_an_error_comes_behind_the_answers_before_it_and_ends_everything() -> None:
    pool = StreamPool("g")
    dispatcher = made(pool, deployment("g"), deployment("b", "g"))
    asker = Asker(dispatcher, request("q")).ask()
    pool.opened[0].put("1", BROKEN)
    assert asker.got == []
    pool.answer("b")
    asker.ask(2)

    assert asker.names == [["1"], CallFailed, None]
    assert dispatcher.in_flight == 0


def test_a_failed_call_behind_it_ends_the_generator_at_once() -> None:
    pool = StreamPool("g")
    dispatcher = made(pool, deployment("g"), deployment("b", "g"))
    asker = Asker(dispatcher, request("q")).ask()
    pool.opened[0].put("1", "2")
    second = [pool.take("b"), pool.take("b")]
    second[1].waiting.errback(Failure(BROKEN))

    assert pool.opened[0].cancelled
    second[0].waiting.callback(Answer(documents("B")))
    asker.ask(2)
    assert asker.names == [["B"], CallFailed, None]
    assert dispatcher.in_flight == 0


@pytest.mark.parametrize("waits", [True, False])
def test_cancelling_ends_every_stage(waits: bool) -> None:
    pool = StreamPool("g")
    dispatcher = made(pool, deployment("g"), deployment("b", "g"))
    asker = Asker(dispatcher, request("q")).ask()
    pool.opened[0].put("1", "2")
    if not waits:
        pool.answer("b")
    asker.stream.cancel()
    asker.stream.cancel()

    assert pool.opened[0].cancelled
    assert (pool.waiting, dispatcher.in_flight) == ([], 0)
    assert asker.names == ([CancelledError] if waits else [["1"]])
    assert asker.ask().got[-1] is None


def test_the_clients_deadline_bounds_the_whole_and_names_what_was_waited_for() -> None:
    pool, clock = StreamPool("g"), Clock()
    dispatcher = made(pool, deployment("g"), deployment("b", "g"), clock=clock)
    asker = Asker(dispatcher, request("q"), timeout_s=2.0).ask()
    pool.opened[0].put("1")
    pool.answer("b")
    clock.advance(1.5)
    asker.ask()
    clock.advance(0.6)

    assert asker.names == [["1"], DeadlineOver]
    assert asker.got[1].waiting_for == ("g",)
    late = Asker(dispatcher, request("q"), timeout_s=1.0).ask()
    pool.opened[1].put("1")
    pool.answer("b")
    clock.advance(1.5)  # while nobody asks
    assert late.ask(2).names == [["1"], DeadlineOver, None]
    assert (dispatcher.in_flight, pool.open, clock.getDelayedCalls()) == (0, [], [])


def test_a_dispatcher_that_closes_ends_streams_as_it_ends_requests() -> None:
    pool = StreamPool("g")
    dispatcher = made(pool, deployment("g"))
    never = Asker(dispatcher, request("q"))
    one, other = (Asker(dispatcher, request("q")).ask() for _ in range(2))
    dispatcher.close()
    drained = dispatcher.drain()
    assert never.ask().names == Asker(dispatcher, request("q")).ask().names == [Draining]
    pool.opened[0].put("1")
    assert one.names == [["1"]]  # what is under way goes on
    assert dispatcher.in_flight == 2
    assert dispatcher.refuse_awaited() == 2
    assert not dispatcher.abandon()

    assert other.names == [Draining]
    assert one.ask().names == [["1"], Draining]
    assert (drained.called, pool.open) == (True, [])


def test_two_generators_side_by_side_are_refused_by_their_names() -> None:
    pool = StreamPool("g", "h")
    dispatcher = made(pool, deployment("g"), deployment("h"), deployment("j", "g", "h"))
    asker = Asker(dispatcher, request("q")).ask()

    assert isinstance(asker.got[0], BadRequest)
    assert "g and h both stream /gen" in str(asker.got[0])
    assert (pool.opened, pool.sent, dispatcher.in_flight) == ([], [], 0)
    Asker(dispatcher, request("q", target="g|j")).ask()
    assert [stream.name for stream in pool.opened] == ["g"]


# -- properties ----------------------------------------------------------------------------------------


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[Any], list[str]]:
    """A graph, some with conditions, and which of its executors stream: some of those that need one other."""
    count = draw(st.integers(1, 5))
    names = [f"n{index}" for index in range(count)]
    deployments, single = [], []
    for index, name in enumerate(names):
        needs = draw(
            st.lists(st.sampled_from(["gateway", *names[:index]]), min_size=1, max_size=2, unique=True)
        )
        if len(needs) == 1:
            single.append(name)
        options: dict[str, Any] = {"floating": index < count - 1 and draw(st.integers(0, 5)) == 0}
        if draw(st.integers(0, 3)) == 0:
            unwanted = draw(st.sampled_from(["q", "q.1", "q.2", "q.1.1"]))
            options["when"] = {"id": {"$neq": unwanted}}
        deployments.append(deployment(name, *needs, **options))
    return deployments, draw(st.lists(st.sampled_from(single), max_size=2, unique=True))


def answer_deepest(pool: StreamPool, name: str) -> None:
    """An executor that answers the document which has come through the most generators."""
    sent = pool.take(name)
    found = pool.ids(bytes(decode_answer(sent.call.messages[0]).documents))
    deepest = sorted(found, key=lambda each: each.count("."))[-1:]  # none, where a condition lets none pass
    sent.waiting.callback(Answer(pool.documents(*deepest)))


@settings(max_examples=300, deadline=None)
@given(graphs(), st.sampled_from([FIRST, SECOND]), st.data())
def test_every_document_comes_once_in_order_and_nothing_is_left(
    graph: tuple[list[Any], list[str]], format: DocumentFormat, data: Any
) -> None:
    deployments, streaming = graph
    pool = StreamPool(*streaming, format=format)
    dispatcher = made(pool, *deployments, stream_window=data.draw(st.integers(1, 3)))
    background = {node.name for node in dispatcher.topology.nodes if node.background}
    fails = data.draw(st.booleans())
    cancels_at = data.draw(st.none() | st.integers(0, 30))
    fed: dict[Generated, list[str]] = {}
    over: set[Generated] = set()
    asker = Asker(dispatcher, Request("r", "/gen", documents=pool.documents("q"))).ask()
    for turn in range(400):
        if turn == cancels_at or (asker.got and not isinstance(asker.got[-1], Response)):
            break
        events: list[tuple[str, Any]] = [("answer", name) for name in dict.fromkeys(pool.waiting)]
        events += [("put", stream) for stream in pool.open if stream not in over]
        if asker.deferred.called:
            events.append(("ask", None))
        kind, what = data.draw(st.sampled_from(events))
        broken = fails and data.draw(st.integers(0, 9)) == 0
        if kind == "ask":
            if not asker.more(data.draw(st.integers(1, 4))):
                asker.ask()
        elif kind == "answer" and broken:
            pool.fail(what, BROKEN)
        elif kind == "answer":
            answer_deepest(pool, what)
        elif len(fed.setdefault(what, [])) < 3 and not broken and data.draw(st.integers(0, 3)):
            fed[what].append(f"{what.document}.{len(fed[what]) + 1}")
            what.put(fed[what][-1])
        else:
            over.add(what)
            what.put(BROKEN if broken else None)
    ended = bool(asker.got) and asker.got[-1] is None
    asker.stream.cancel()
    asked = len(pool.opened), len([each for each in pool.sent if each.deployment not in background])
    for name in list(pool.waiting):
        assert name in background
        answer_deepest(pool, name)
    while pool.waiting:
        answer_deepest(pool, pool.waiting[0])

    assert (pool.open, dispatcher.in_flight) == ([], 0)
    assert asked == (len(pool.opened), len([each for each in pool.sent if each.deployment not in background]))
    answers = [pool.ids(bytes(each.documents)) for each in asker.got if isinstance(each, Response)]
    seen = [found[0] for found in answers if found]
    if not any(each.when and len(each.needs) > 1 for each in deployments):
        # Where a condition takes one document out of a join, what stands beside it goes on, again and again.
        order = [[int(part) for part in name.split(".")[1:]] for name in seen]
        assert order == sorted(order)
        assert len(seen) == len(set(seen))
    generating = [name for name in streaming if name not in background]
    if ended and generating:
        last = max(generating)
        given = sorted(name for stream, names in fed.items() if stream.name == last for name in names)
        if any(each.when for each in deployments):
            assert set(seen) <= {"q", *(name for names in fed.values() for name in names)}
        else:
            assert seen == given


@pytest.mark.parametrize("how", ["end", "error", "cancel", "leave"])
def test_a_stream_leaves_nothing_for_the_garbage_collector(how: str) -> None:
    pool = StreamPool("g", "h")
    dispatcher = made(pool, deployment("g"), deployment("h", "g"))

    def stream() -> None:
        asker = Asker(dispatcher, request("q")).ask()
        pool.opened[0].put("1", "2")
        pool.opened[1].put("a", "b")
        assert asker.more(9)
        if how == "cancel":
            asker.stream.cancel()
        elif how == "leave":
            asker.ask().deferred.cancel()
        else:
            pool.opened[1].put(None if how == "end" else BROKEN)
            asker.ask()
            if how == "end":
                pool.opened[0].put(None)
                pool.opened[2].put(None)
                asker.ask(2)
        pool.opened.clear()
        assert (pool.open, dispatcher.in_flight) == ([], 0)

    stream()
    gc.collect()
    gc.disable()
    try:
        stream()
        # Failures refer to frames, and these to them.
        assert gc.collect() == 0 or how != "end"
    finally:
        gc.enable()


def test_a_long_stream_needs_no_deep_stack() -> None:
    pool = StreamPool("g")
    pool.auto = lambda stream: stream.put(*map(str, range(3000)), None)
    stream = made(pool, deployment("g")).stream(request("q"))

    async def read() -> int:
        count = 0
        while await stream.receive() is not None:
            count += 1
        return count

    counted: list[int] = []
    Deferred.fromCoroutine(read()).addCallback(counted.append)

    assert counted == [3000]


def test_of_documents_that_are_there_at_once_no_more_are_taken_than_asked_for() -> None:
    pool = StreamPool("g")
    pool.auto = lambda stream: stream.put(*"abcdef", None)
    asker = Asker(made(pool, deployment("g")), request("q", "r")).ask(2)

    assert asker.names == [["a"], ["b"]]
    assert (len(pool.opened), pool.opened[0].asked) == (1, 2)
    asker.stream.cancel()
    assert pool.open == []


def test_a_call_for_each_document_is_made_when_its_turn_has_come() -> None:
    pool = StreamPool("g")
    parameters = struct(a="x" * 100_000)
    many = request(*map(str, range(2000)), parameters=parameters)  # 200 MB, if all of them were made
    pool.auto = lambda stream: stream.put("a", None)
    tracemalloc.start()
    try:
        asker = Asker(made(pool, deployment("g")), many).ask(3)
        assert tracemalloc.get_traced_memory()[1] < 20 * len(parameters)
    finally:
        tracemalloc.stop()
    assert asker.names == [["a"]] * 3
    asker.stream.cancel()


def test_conditions_pass_over_documents_of_a_stream_one_by_one() -> None:
    pool = StreamPool("g")
    dispatcher = made(pool, deployment("g"), deployment("b", "g", when={"id": {"$eq": "2"}}))
    asker = Asker(dispatcher, request("q")).ask()
    pool.opened[0].put("1", "2", "3", None)
    while pool.waiting:
        pool.answer("b")
    asker.ask(3)

    sent = [ids(bytes(decode_answer(call.call.messages[0]).documents)) for call in pool.sent]
    assert [each for each in sent if each] == [["2"]]
    assert ["2"] in asker.names


def test_a_condition_on_the_generator_chooses_which_documents_of_the_request_it_gets() -> None:
    pool = StreamPool("g")
    dispatcher = made(pool, deployment("g", when={"id": {"$eq": "q"}}))
    asker = Asker(dispatcher, request("p", "q")).ask()
    assert [stream.document for stream in pool.opened] == ["q"]
    pool.opened[0].put("1", None)
    asker.ask(2)

    assert asker.names[0] == ["1"]
    assert asker.names[-1] is None


def test_branches_behind_a_generator_meet_for_each_document() -> None:
    pool = StreamPool("g")
    graph = deployment("g"), deployment("a", "g"), deployment("b", "g"), deployment("j", "a", "b")
    dispatcher = made(pool, *graph)
    asker = Asker(dispatcher, request("q")).ask()
    pool.opened[0].put("1", "2", None)
    for _ in range(2):
        for name in ("a", "b", "j"):
            pool.answer(name)
        asker.ask()

    assert asker.names == [["1"], ["2"], None]
    assert dispatcher.in_flight == 0


def test_without_a_reduction_the_join_gets_the_answers_of_both_branches() -> None:
    pool = StreamPool("g")
    dispatcher = made(pool, deployment("g"), deployment("b"), deployment("j", "g", "b", no_reduce=True))
    asker = Asker(dispatcher, request("q")).ask()
    pool.answer("b", Answer(documents("beside")))
    pool.opened[0].put("1", None)
    (joined,) = [call.call for call in pool.sent if call.deployment == "j"]
    found = [ids(bytes(decode_answer(message).documents)) for message in joined.messages]

    assert sorted(found) == [["1"], ["beside"]]
    pool.answer("j", Answer(documents("out")))
    asker.ask()
    assert asker.names == [["out"], None]


def test_a_floating_executor_beside_the_generator_is_called_once_and_not_joined() -> None:
    pool = StreamPool("g")
    dispatcher = made(pool, deployment("g"), deployment("f", floating=True))
    asker = Asker(dispatcher, request("q")).ask()
    pool.opened[0].put("1", "2", None)
    asker.ask(2)

    assert asker.names == [["1"], ["2"], None]
    assert pool.names == ["f"]
    pool.answer("f")
    assert dispatcher.in_flight == 0


def test_a_floating_generator_is_called_as_an_executor_that_does_not_stream() -> None:
    pool = StreamPool("g", "f")
    dispatcher = made(pool, deployment("g"), deployment("f", "g", floating=True))
    asker = Asker(dispatcher, request("q")).ask()
    pool.opened[0].put("1", None)
    asker.ask()

    assert asker.names == [["1"], None]
    assert [stream.name for stream in pool.opened] == ["g"]
    assert pool.names == ["f"]
    pool.answer("f")
    assert dispatcher.in_flight == 0


# -- before it is known what streams ----------------------------------------------------------------------


def test_a_stream_begins_when_it_is_known_what_streams() -> None:
    pool = StreamPool()
    pool.undecided = frozenset({"g", "elsewhere"})
    dispatcher = made(pool, deployment("g"))
    asker = Asker(dispatcher, request("q")).ask()
    assert pool.waited_for == [{"g"}]
    assert not pool.sent
    pool.streaming = ("g",)
    pool.decide()
    (stream,) = pool.opened
    stream.put("a", None)
    assert asker.ask().names == [["a"], None]
    assert dispatcher.in_flight == 0


def test_it_is_not_waited_for_longer_than_for_a_connection_and_the_wait_is_part_of_the_deadline() -> None:
    pool, clock = StreamPool(), Clock()
    pool.undecided = frozenset({"g"})
    dispatcher = made(pool, deployment("g"), clock=clock, connect_timeout_s=0.8)
    asker = Asker(dispatcher, request("q"), 2.0).ask()
    early = Asker(dispatcher, request("q", timeout_s=0.5)).ask()
    clock.advance(0.5)
    assert early.names == [DeadlineOver]
    assert not pool.sent
    clock.advance(0.3)
    assert pool.names == ["g"]
    clock.advance(1.1)
    assert asker.names == []
    clock.advance(0.1)
    assert asker.names == [DeadlineOver]
    assert not pool.waited_for
    assert not clock.getDelayedCalls()


@pytest.mark.parametrize(
    ("target", "waits"), [("", True), ("g", True), ("a", False), ("b", False), ("(", False)]
)
def test_who_does_not_go_there_does_not_wait(target: str, waits: bool) -> None:
    pool = StreamPool()
    pool.undecided = frozenset({"g", "f"})
    dispatcher = made(
        pool, deployment("a"), deployment("g", "a"), deployment("b", "g"), deployment("f", floating=True)
    )
    known = dispatcher.known(request("q", target=target), 3.0)
    assert known.called is not waits
    asker = Asker(dispatcher, request("q", target=target)).ask()
    assert pool.waited_for == [{"g"}] * (2 * waits)
    assert dispatcher.undecided
    asker.stream.cancel()
    assert pool.waited_for == [{"g"}] * waits
    assert asker.names == [BadRequest if target == "(" else CancelledError]
    known.addErrback(lambda failure: failure.trap(CancelledError))
    known.cancel()


def test_nothing_begins_after_a_wait_where_the_gateway_stops_meanwhile() -> None:
    pool = StreamPool()
    pool.undecided = frozenset({"g"})
    dispatcher = made(pool, deployment("g"))
    asker = Asker(dispatcher, request("q")).ask()
    dispatcher.close()
    pool.decide()
    assert asker.names == [Draining]
    assert not dispatcher.undecided
