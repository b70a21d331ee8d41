"""Generators of the first generation, over a real socket: one document in, any number out."""

import asyncio
import contextlib
import threading

import grpc
import pytest
from docarray import Document, DocumentArray

from gatewayd import Executor, dynamic_batching, requests
from gatewayd.config import ExecutorConfig
from gatewayd.executor.runtime import Runtime
from gatewayd.executor.spec import ExecutorSpec
from gatewayd.pb import DataRequestProto, EndpointsProto, SingleDocumentRequestProto, StatusProto

STREAM_DOC = "/jina.JinaSingleDocumentRequestRPC/stream_doc"
DEADLINE_S = 10.0


class Words(Executor):
    """Each endpoint yields the words of a text."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.yielded = 0
        self.closed = asyncio.Event()
        self.closed_in = None
        self.seen = {}

    @requests(on="/words")
    async def words(self, doc, parameters, **kwargs):
        self.seen = {"parameters": parameters, **kwargs}
        for number, word in enumerate(doc.text.split()):
            yield Document(id=f"{doc.id}.{number}", text=word)

    @requests(on="/plain")
    def plain(self, doc, **kwargs):
        for number, word in enumerate(doc.text.split()):
            yield Document(id=f"{doc.id}.{number}", text=f"{word} {threading.current_thread().name}")

    @requests(on="/slow")
    async def slow(self, doc, **kwargs):
        try:
            yield doc
            await asyncio.Event().wait()
        finally:
            self.closed.set()

    @requests(on="/slow_plain")
    def slow_plain(self, doc, **kwargs):
        try:
            while True:
                yield doc
        finally:
            self.closed_in = threading.current_thread().name

    @requests(on="/endless")
    async def endless(self, doc, **kwargs):
        try:
            while True:
                self.yielded += 1
                yield Document(blob=bytes(100_000))
        finally:
            self.closed.set()

    @requests(on="/breaks")
    async def breaks(self, doc, **kwargs):
        yield doc
        raise ValueError("mid boom")

    @requests(on="/breaks_plain")
    def breaks_plain(self, doc, **kwargs):
        yield doc
        raise ValueError("mid boom")

    @requests(on="/wrong")
    async def wrong(self, doc, **kwargs):
        yield doc
        yield DocumentArray([doc])
        yield doc

    @requests(on="/headers")
    async def headers(self, doc, headers, response_headers, **kwargs):
        response_headers["x-words"] = "1"
        yield Document(text=headers["x-tenant"])

    @requests(on="/nothing")
    async def nothing(self, doc, **kwargs):
        if doc.text == "never":
            yield doc

    @requests(on="/one")
    def one(self, doc, **kwargs):
        return Document(text=doc.text + "!")

    @requests(on="/batch")
    def batch(self, docs, **kwargs):
        """A request."""


@contextlib.asynccontextmanager
async def serving(executor, options=(), fatal=None, **settings):
    """A channel to an executor that is served in this process."""
    spec = ExecutorSpec("words", ExecutorConfig(**settings), grace_s=1.0)
    runtime = Runtime(executor, spec, [].append if fatal is None else fatal.append)
    address = await runtime.start()
    try:
        async with grpc.aio.insecure_channel(address, options=options) as channel:
            yield channel, runtime
    finally:
        await runtime.stop()


def request(endpoint, text="a b c", **parameters):
    message = SingleDocumentRequestProto()
    message.header.request_id, message.header.exec_endpoint = "r", endpoint
    if parameters:
        message.parameters.update(parameters)
    message.document.id, message.document.text = "d", text
    return message.SerializeToString()


def call(channel, message, timeout=DEADLINE_S, metadata=()):
    return channel.unary_stream(STREAM_DOC)(message, timeout=timeout, metadata=metadata)


async def answers(channel, message, **more):
    return [SingleDocumentRequestProto.FromString(one) async for one in call(channel, message, **more)]


def served(work, executor=None, **settings):
    """What ``work(channel, executor)`` returns."""

    async def run():
        served_one = executor or Words()
        async with serving(served_one, **settings) as (channel, _):
            return await asyncio.wait_for(work(channel, served_one), DEADLINE_S)

    return asyncio.run(run())


async def refused(channel, message):
    """The messages before the end of a call that fails, its status, and its details."""
    begun, got = call(channel, message), []
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for one in begun:
            got.append(SingleDocumentRequestProto.FromString(one))
    return got, caught.value.code().name, caught.value.details()


def test_one_answer_for_each_document_that_is_yielded():
    async def work(channel, executor):
        return await answers(channel, request("/words", k=1.0, words__top=2.0)), executor.seen

    got, seen = served(work)

    assert [(one.document.id, one.document.text) for one in got] == [("d.0", "a"), ("d.1", "b"), ("d.2", "c")]
    assert {one.header.request_id for one in got} == {"r"}
    assert not any(one.routes or one.HasField("parameters") for one in got)
    assert seen == {
        "parameters": {"k": 1.0, "words__top": 2.0},
        "docs_matrix": None,
        "docs_map": None,
        "tracing_context": None,
    }


def test_a_plain_generator_runs_in_the_thread_of_plain_methods():
    got = served(lambda channel, _: answers(channel, request("/plain", "a b")))

    assert [one.document.text for one in got] == ["a words/rep-0", "b words/rep-0"]


def test_two_plain_generators_take_turns():
    class Turns(Executor):
        """Each of two generators waits for the other one's step."""

        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.begun = set()

        @requests(on="/turns")
        def turns(self, doc, **kwargs):
            self.begun.add(doc.text)
            while len(self.begun) < 2:
                yield doc
            yield Document(text="both")

    async def work(channel, _):
        both = asyncio.gather(*(answers(channel, request("/turns", text)) for text in ("one", "two")))
        return [got[-1].document.text for got in await both]

    assert served(work, Turns()) == ["both", "both"]


def test_an_empty_generator_ends_well():
    assert served(lambda channel, _: answers(channel, request("/nothing"))) == []


@pytest.mark.parametrize("endpoint", ["/breaks", "/breaks_plain"])
def test_what_a_generator_raises_ends_the_call_with_the_references_words(endpoint, caplog):
    got, code, details = served(lambda channel, _: refused(channel, request(endpoint)))

    assert [one.document.text for one in got] == ["a b c"]
    assert (code, details) == ("UNKNOWN", "Unexpected <class 'ValueError'>: mid boom")
    assert "words/rep-0 failed on '/br" in caplog.text


def test_an_exception_that_ends_the_executor_ends_it_from_a_generator_too():
    fatal = []

    served(
        lambda channel, _: refused(channel, request("/breaks")),
        fatal=fatal,
        exit_on_exceptions=("ValueError",),
    )

    assert fatal == ["ValueError('mid boom')"]


def test_what_is_no_document_is_an_error_among_the_answers():
    first, second, third = served(lambda channel, _: answers(channel, request("/wrong")))

    assert first.document.text == third.document.text == "a b c"
    assert second.header.status.code == StatusProto.ERROR
    assert second.header.status.description.startswith("ValueError('a generator with doc must yield Doc")
    assert second.header.status.exception.executor == "Words"
    assert second.header.request_id == "r"


def test_an_endpoint_that_does_not_stream_says_so():
    (got,) = served(lambda channel, _: answers(channel, request("/batch")))

    assert got.header.status.code == StatusProto.ERROR
    assert got.header.status.description.startswith("ValueError('endpoint must be generator")
    assert got.document.text == "a b c"


def test_an_endpoint_that_is_not_bound_is_refused_with_those_that_stream():
    got, code, details = served(lambda channel, _: refused(channel, request("/nope")))

    assert (got, code) == ([], "INVALID_ARGUMENT")
    assert details.startswith("Words has no endpoint '/nope'; it streams /words, /plain, ")


def test_documents_of_the_second_generation_are_refused_by_name():
    from gatewayd.pb import second

    message = second.SingleDocumentRequestProto()
    message.header.exec_endpoint = "/words"
    message.document.data["text"].text = "a b c"

    got, code, details = served(lambda channel, _: refused(channel, message.SerializeToString()))

    assert (got, code) == ([], "INVALID_ARGUMENT")
    assert "docarray 0.30 and later" in details


@pytest.mark.parametrize("message", [b"\x0a\xff", b"\x22\x05ab"])
def test_what_is_no_request_is_refused(message):
    _, code, details = served(lambda channel, _: refused(channel, message))

    assert code == "INVALID_ARGUMENT"
    assert details


def test_a_request_to_a_generator_says_to_stream_it():
    message = DataRequestProto()
    message.header.exec_endpoint = "/words"

    async def work(channel, _):
        return await channel.unary_unary("/jina.JinaSingleDataRequestRPC/process_single_data")(
            message.SerializeToString()
        )

    status = DataRequestProto.FromString(served(work)).header.status
    assert status.code == StatusProto.ERROR
    assert "Words.words answers one document with a stream: call it with stream_doc" in status.description


def test_discovery_names_the_endpoints_that_stream():
    async def work(channel, _):
        return await channel.unary_unary("/jina.JinaDiscoverEndpointsRPC/endpoint_discovery")(b"")

    told = EndpointsProto.FromString(served(work))
    assert "/words" in told.streaming
    assert {"/one", "/batch", "_jina_dry_run_"} <= set(told.endpoints) - set(told.streaming)


def test_a_method_that_takes_doc_and_returns_is_called_with_each_document():
    message = DataRequestProto()
    message.header.exec_endpoint = "/one"
    for text in ("a", "b"):
        message.data.docs.docs.add(text=text)

    async def work(channel, _):
        return await channel.unary_unary("/jina.JinaSingleDataRequestRPC/process_single_data")(
            message.SerializeToString()
        )

    answer = DataRequestProto.FromString(served(work))
    assert [doc.text for doc in answer.data.docs.docs] == ["a!", "b!"]


def test_headers_come_and_go():
    async def work(channel, _):
        begun = call(channel, request("/headers"), metadata=(("x-tenant", "blue"),))
        got = [SingleDocumentRequestProto.FromString(one) async for one in begun]
        return got, list(await begun.trailing_metadata())

    (got,), trailing = served(work)
    assert got.document.text == "blue"
    assert trailing == [("x-words", "1")]


def test_a_client_that_cancels_closes_the_generator():
    async def work(channel, executor):
        begun = call(channel, request("/slow"))
        await begun.read()
        begun.cancel()
        await executor.closed.wait()

    served(work)


def test_a_deadline_closes_the_generator():
    async def work(channel, executor):
        begun = call(channel, request("/slow"), timeout=1.5)
        await begun.read()
        await executor.closed.wait()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await begun.read()
        return caught.value.code()

    assert served(work) is grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_plain_generator_is_closed_in_its_thread():
    async def work(channel, executor):
        begun = call(channel, request("/slow_plain"))
        await begun.read()
        begun.cancel()
        # What follows in the thread comes after the close.
        await answers(channel, request("/plain", "a"))
        return executor.closed_in

    executor = Words()
    served(work, executor)
    assert executor.closed_in == "words/rep-0"


def test_a_client_that_does_not_read_stalls_the_generator():
    async def work(channel, executor):
        begun = call(channel, request("/endless"))
        await begun.read()
        before = -1
        while before != executor.yielded:
            before = executor.yielded
            # Other calls go on, and each is a turn of everything that could still move.
            for _ in range(20):
                await answers(channel, request("/words"))
        stalled = executor.yielded
        for _ in range(500):
            await begun.read()
        more = executor.yielded
        begun.cancel()
        await executor.closed.wait()
        return stalled, more

    stalled, more = served(work)
    # Of 100 kB: the windows of the connection and the stream, and what the kernel takes on a busy machine.
    assert stalled < 400
    assert more > stalled


def test_a_generator_that_never_waits_leaves_others_their_turn():
    async def work(channel, executor):
        begun = call(channel, request("/endless"))

        async def read():
            async for _ in begun:
                pass

        reading = asyncio.ensure_future(read())
        for _ in range(10):
            await answers(channel, request("/words"))
        begun.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await executor.closed.wait()

    served(work)


def test_a_stop_waits_for_streams_within_the_grace_period():
    class Ending(Executor):
        @requests(on="/ending")
        async def ending(self, doc, **kwargs):
            yield doc
            await self.go_on.wait()
            yield doc

    async def run():
        executor = Ending()
        executor.go_on = asyncio.Event()
        async with serving(executor) as (channel, runtime):
            begun = call(channel, request("/ending"))
            await begun.read()
            stopping = asyncio.ensure_future(runtime.stop())
            await asyncio.sleep(0)
            executor.go_on.set()
            last, end = await begun.read(), await begun.read()
            await stopping
            return SingleDocumentRequestProto.FromString(last).document.text, end is grpc.aio.EOF

    async def once():
        try:
            return await run()
        except (RuntimeError, ValueError) as error:  # stopped twice
            return error

    assert asyncio.run(once()) == ("a b c", True)


def test_a_stop_closes_what_is_left_before_the_executor():
    class Left(Words):
        def close(self):
            self.order = ["closed" if self.closed.is_set() else "open"]

    async def run():
        executor = Left()
        async with serving(executor) as (channel, _):
            await call(channel, request("/slow")).read()
        return executor.order

    assert asyncio.run(run()) == ["closed"]


def test_batching_of_a_generator_is_left_out_with_a_warning(caplog):
    class Batched(Executor):
        @requests(on="/batched")
        @dynamic_batching(preferred_batch_size=2)
        async def batched(self, doc, **kwargs):
            yield doc

    assert Batched().batching == {}
    assert "dynamic_batching of Batched /batched has no effect: its answers are a stream" in caplog.text


def test_a_generator_must_accept_what_it_is_called_with():
    with pytest.raises(TypeError, match=r"must accept \*\*kwargs, or doc and parameters; it accepts \(doc"):

        class Short(Executor):
            @requests
            async def short(self, doc):
                yield doc
