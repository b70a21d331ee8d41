"""``stream_doc``: of both Clients, over gRPC and HTTP, and of a Flow in this process."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import threading

import orjson
import pytest
from docarray import Document
from twisted.internet.defer import fail, succeed

from gatewayd import Client, Executor, requests
from gatewayd.client.errors import (
    BadClientInput,
    BadServerFlow,
    NoSuchEndpoint,
    RequestRefused,
    TimedOut,
    Unreachable,
)
from gatewayd.client.inputs import encoded_documents, single_message
from gatewayd.client.loop import LoopThread
from gatewayd.client.post import Post
from gatewayd.errors import ExecutorRaised
from gatewayd.executor.runtime import Runtime
from gatewayd.executor.spec import ExecutorSpec
from gatewayd.messages.request import Response
from gatewayd.testing.transport import LocalTransport
from tests.waiting import until


class Words(Executor):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.yielded = 0
        self.ended = threading.Event()
        self.parameters = {}

    @requests(on="/words")
    async def words(self, doc, parameters, **kwargs):
        self.parameters = parameters
        for word in doc.text.split():
            yield Document(text=word)

    @requests(on="/fail")
    async def fail(self, doc, **kwargs):
        yield Document(text="first")
        raise ValueError("on purpose")

    @requests(on="/count")
    async def count(self, doc, **kwargs):
        self.ended.clear()
        try:
            for number in range(100_000):
                self.yielded = number
                yield Document(text=f"{number} " + doc.text)
        finally:
            self.ended.set()

    @requests(on="/silent")
    async def silent(self, doc, **kwargs):
        yield doc
        await asyncio.Event().wait()


@pytest.fixture(scope="module")
def executor():
    return Words()


@pytest.fixture(scope="module")
def port(executor):
    """An executor that streams to whoever calls it: to a client it is as a gateway over gRPC."""
    loop = LoopThread()
    runtime = Runtime(executor, ExecutorSpec("words"), lambda reason: None)
    address = loop.run(runtime.start())
    yield int(address.rpartition(":")[2])
    loop.run(runtime.stop())
    loop.end()


def stream_all(where, kind, *arguments, **keywords):
    """The texts that came, and what was raised after them."""
    texts = []

    def wait():
        with Client(**where) as client:
            for one in client.stream_doc(*arguments, **keywords):
                texts.append(one.text)

    async def run():
        async with Client(asyncio=True, **where) as client:
            async for one in client.stream_doc(*arguments, **keywords):
                texts.append(one.text)

    try:
        wait() if kind == "waits" else asyncio.run(run())
    except Exception as error:
        return texts, error
    return texts, None


@pytest.fixture(params=["waits", "asyncio"])
def kind(request):
    return request.param


@pytest.fixture
def stream(port, kind):
    return lambda *args, **keywords: stream_all({"host": "127.0.0.1", "port": port}, kind, *args, **keywords)


def test_documents_come_one_by_one(stream, executor):
    assert stream("/words", Document(text="a b c"), parameters={"k": 1}) == (["a", "b", "c"], None)
    assert executor.parameters == {"k": 1.0}
    assert stream("/words", "x y") == (["x", "y"], None)
    assert stream("/words", "") == ([], None)


def test_an_error_in_the_middle_is_raised_after_what_came(stream):
    texts, error = stream("/fail", "x")

    assert texts == ["first"]
    assert isinstance(error, BadServerFlow)
    assert "on purpose" in str(error)


def test_an_endpoint_that_does_not_stream_is_told(stream):
    texts, error = stream("/nobody", "x")

    assert texts == []
    assert isinstance(error, RequestRefused | BadServerFlow)
    assert "/words" in str(error)


def test_the_timeout_is_that_of_the_whole_stream(stream):
    texts, error = stream("/silent", "x", timeout=1.5)

    assert texts == ["x"]
    assert isinstance(error, TimedOut)


def test_nobody_listens(kind):
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    for protocol in ("grpc", "http"):
        where = {"host": "127.0.0.1", "port": free, "protocol": protocol}
        texts, error = stream_all(where, kind, "/words", "x")
        assert texts == []
        assert isinstance(error, Unreachable)


@pytest.mark.parametrize("inputs", [None, [], ["a", "b"], object()])
def test_it_takes_one_document(stream, inputs):
    texts, error = stream("/words", inputs)

    assert texts == []
    assert isinstance(error, BadClientInput)


@pytest.mark.parametrize("leave", ["break", "close", "drop"])
def test_leaving_early_ends_the_generator(port, executor, leave):
    with Client(host="127.0.0.1", port=port) as client:
        documents = client.stream_doc("/count", "x" * 2000)
        if leave == "break":
            for one in documents:
                assert one.text.startswith("0 ")
                break
        else:
            next(documents)
        if leave == "close":
            documents.close()
        else:
            del documents
            gc.collect()
        assert executor.ended.wait(10)
        assert executor.yielded < 100_000 - 1
        assert next(client.stream_doc("/words", "still")).text == "still"


def test_leaving_an_asynchronous_loop_ends_the_generator(port, executor):
    async def leave():
        async with Client(host="127.0.0.1", port=port, asyncio=True) as client:
            documents = client.stream_doc("/count", "x")
            async for _ in documents:
                break
            await documents.aclose()
            assert await asyncio.to_thread(executor.ended.wait, 10)

    asyncio.run(leave())


def test_a_generator_waits_for_a_slow_reader(port, executor):
    with Client(host="127.0.0.1", port=port) as client:
        documents = client.stream_doc("/count", "x" * 20_000, prefetch=2)
        next(documents)
        seen = [-1]

        def stands_still():
            before, seen[0] = seen[0], executor.yielded
            return before == executor.yielded

        # Two looks at the same number, with a pause in between, are a generator that waits.
        until(stands_still)
        assert executor.yielded < 5000
        documents.close()
    assert executor.ended.wait(10)


def test_unknown_keywords_are_refused():
    with pytest.raises(TypeError, match="stream_doc\\(\\) has no keyword request_size"):
        Client(port=1).stream_doc("/words", "x", request_size=2)


class Engine:
    """A dispatcher whose stream is of these answers, and ends with an error if there is one."""

    def __init__(self, *texts, error=None):
        self._answers = [Response("r", "/e", encoded_documents([Document(text=text)])) for text in texts]
        self._error = error
        self.cancelled = False

    def stream(self, request, timeout_s):
        self.asked = request.endpoint, timeout_s
        return self

    def receive(self):
        if self._answers:
            return succeed(self._answers.pop(0))
        return succeed(None) if self._error is None else fail(self._error)

    def cancel(self):
        self.cancelled = True


@pytest.mark.parametrize("error", [None, ExecutorRaised("boom")])
def test_a_flow_in_this_process_streams(error):
    engine = Engine("a", "b", error=error)
    transport = LocalTransport(engine, ())
    texts = []

    async def arrive(read, size):
        texts.extend(read().docs.texts)

    post = Post(on="/e", inputs="x", timeout=3.0)
    with pytest.raises(BadServerFlow, match="boom") if error else contextlib.nullcontext():
        asyncio.run(transport.stream(post, single_message(post, transport.encode), arrive))

    assert (texts, engine.asked, engine.cancelled) == (["a", "b"], ("/e", 3.0), True)


def test_progress_is_shown(port, capfd):
    with Client(host="127.0.0.1", port=port) as client:
        list(client.stream_doc("/words", "a b c", show_progress=True))

    assert "documents" in capfd.readouterr().err


# -- HTTP, against what a server may send ------------------------------------------------------------


class Server:
    """Answers each request with the next of ``answers``, and closes; what came is in ``requests``."""

    def __init__(self, *answers):
        self.requests = []
        self._answers = answers
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    @property
    def where(self):
        return {"host": "127.0.0.1", "port": self._socket.getsockname()[1], "protocol": "http"}

    def _serve(self):
        with self._socket:
            for answer in self._answers:
                connection, _ = self._socket.accept()
                with connection, contextlib.suppress(OSError):
                    self.requests.append(self._received(connection))
                    for part in answer:
                        connection.sendall(part)

    def _received(self, connection):
        got = b""
        while b"\r\n\r\n" not in got:
            got += connection.recv(65536)
        head, _, body = got.partition(b"\r\n\r\n")
        fields = [line.partition(b":") for line in head.lower().split(b"\r\n")]
        size = next((int(value) for name, _, value in fields if name == b"content-length"), 0)
        while len(body) < size:
            body += connection.recv(65536)
        return head, body

    def close(self):
        self._thread.join(10)


HEAD = (
    b"HTTP/1.1 200 OK\r\nServer: gatewayd\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
)
LAST = b"0\r\n\r\n"


def chunk(text):
    return b"%x\r\n%s\r\n" % (len(text), text)


def update(text):
    return b"event: update\r\ndata: %s\r\n\r\n" % orjson.dumps({"id": "d", "text": text})


def refusal(status, body, server="gatewayd"):
    content = orjson.dumps(body)
    head = (
        f"HTTP/1.1 {status} No\r\nServer: {server}\r\nContent-Type: application/json\r\nConnection: close\r\n"
    )
    return [f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content]


def test_events_of_ours(kind):
    server = Server(
        [
            HEAD,
            chunk(update("a")),
            chunk(update("b")[:9]),
            chunk(update("b")[9:]),
            chunk(b"event: end\n\n"),
            LAST,
        ]
    )

    assert stream_all(server.where, kind, "/two words", "x", parameters={"k": 1}) == (["a", "b"], None)

    server.close()
    ((head, body),) = server.requests
    assert head.startswith(b"POST /two%20words HTTP/1.1")
    assert b"Accept: text/event-stream" in head
    assert b"Content-Type: application/x-protobuf" in head
    assert b"/two words" in body


@pytest.mark.parametrize(
    ("end", "error", "says"),
    [
        ([], Unreachable, ""),  # the connection breaks off
        ([LAST], Unreachable, "before its end"),
        ([chunk(b'event: error\ndata: {"detail": "boom"}\n\n')], BadServerFlow, "boom"),
        ([chunk(b'event: error\ndata: {"detail": "late", "status": 504}\n\n')], TimedOut, "late"),
        ([chunk(b'event: error\ndata: {"detail": "gone", "status": 503}\n\n')], Unreachable, "gone"),
        ([chunk(b"event: update\ndata: nonsense\n\n")], BadServerFlow, "no document in JSON"),
    ],
)
def test_a_stream_that_ends_badly_raises_after_what_came(kind, end, error, says):
    server = Server([HEAD, chunk(update("a")), *end])

    texts, raised = stream_all(server.where, kind, "/e", "x")

    server.close()
    assert texts == ["a"]
    assert isinstance(raised, error)
    assert says in str(raised)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (refusal(404, {"detail": "Not Found"}), NoSuchEndpoint),
        (refusal(422, {"detail": "no"}), RequestRefused),
        (refusal(503, {"header": {"status": {"description": "down"}}}), Unreachable),
        (refusal(504, {"header": {"status": {"description": "late"}}}), TimedOut),
        (refusal(200, {}), BadServerFlow),
    ],
)
def test_a_refusal_is_raised(kind, answer, error):
    server = Server(answer)

    texts, raised = stream_all(server.where, kind, "/e", "x")

    server.close()
    assert texts == []
    assert isinstance(raised, error)
    assert len(server.requests) == 1
