"""Answers that stream over HTTP: the bytes of events and lines, backpressure, how streams end (golden34)."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterable
from typing import Any

import attrs
import pytest
import pytest_twisted

from gatewayd.errors import CallFailed, DeadlineExceeded, Draining, ExecutorUnreachable
from gatewayd.messages.discovery import Endpoints
from gatewayd.messages.generations import Generation
from gatewayd.messages.request import Request, Response
from gatewayd.messages.second.reading import Model, decode_body
from gatewayd.messages.second.writing import documents_in
from gatewayd.pb import StatusProto
from gatewayd.protocols.http import streaming
from gatewayd.protocols.http.site import SiteLimits
from tests.golden34_data import endpoints_of, golden, typed
from tests.protocols.harness import answer_to, in_thread, served, until
from tests.protocols.http.test_http import call
from tests.protocols.streamed import StreamingDispatcher

DOCUMENT = {"id": "d", "text": "hi", "num": 3, "price": 0.3}
Streamed = Callable[[Request], Iterable[Response | Exception]]


def out(text: str, **fields: Any) -> bytes:
    """The documents of an answer with one document of the class Out."""
    model = Model.of(typed("S", "/stream"))
    made = Model("Out", model.answers, model.answers)
    body = json.dumps({"data": [{"id": "s", "text": text, **fields}]}).encode()
    return bytes(decode_body(body, made, "/stream").documents)


def answers(*texts: str | Exception) -> Streamed:
    return lambda request: [
        text if isinstance(text, Exception) else attrs.evolve(answer_to(request), documents=out(text))
        for text in texts
    ]


def streams(*texts: str | Exception, **more: Any) -> StreamingDispatcher:
    return StreamingDispatcher(endpoints=endpoints_of("S"), streamed=answers(*texts), **more)


def raw(port: int, request: bytes, stop: bytes = b"") -> bytes:
    """What one connection answers, until it is closed or ``stop`` has come."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(request)
        found = b""
        while not stop or stop not in found:
            more = client.recv(65536)
            if not more:
                break
            found += more
        return found


def get(path: str, body: object = None, *headers: str, method: str = "GET", version: str = "1.1") -> bytes:
    content = b"" if body is None else json.dumps(body).encode()
    length = [f"Content-Length: {len(content)}"] if content else []
    lines = [f"{method} {path} HTTP/{version}", "Host: localhost", "Connection: close", *length, *headers]
    return "\r\n".join((*lines, "", "")).encode() + content


def chunks(answer: bytes) -> tuple[dict[str, str], list[bytes], bool]:
    """The headers, the chunks and whether the last one came."""
    head, _, body = answer.partition(b"\r\n\r\n")
    fields = dict(line.split(": ", 1) for line in head.decode().lower().split("\r\n")[1:])
    found = []
    while body:
        size, _, rest = body.partition(b"\r\n")
        if not size.strip(b"0"):
            break
        found.append(rest[: int(size, 16)])
        body = rest[int(size, 16) + 2 :]
    return fields, found, body == b"0\r\n\r\n"


@pytest_twisted.ensureDeferred
async def test_events_are_those_of_the_reference_one_chunk_for_each() -> None:
    async with served(dispatcher=streams("hi 0", "hi 1")) as gateway:
        fields, events, ended = chunks(await in_thread(raw, gateway.port, get("/stream", DOCUMENT)))
        assert ended
        assert events[-1] == b"event: end\r\n\r\n"
        assert len(events) == 3
        shape = re.compile(rb"event: update\r\ndata: (\{.*\})\r\n\r\n")
        texts = [json.loads(shape.fullmatch(event)[1])["text"] for event in events[:2]]  # type: ignore[index]
        assert texts == ["hi 0", "hi 1"]
        reference = dict(golden("http_stream")[1]["response"]["headers"][2:])
        for name in ("cache-control", "x-accel-buffering", "content-type", "transfer-encoding"):
            assert fields[name] == reference[name]
        (request,) = gateway.dispatcher.requests
        assert (request.endpoint, request.request_id) == ("/stream", "d")


@pytest_twisted.ensureDeferred
async def test_answers_that_have_come_together_are_written_up_to_one_that_has_no_json_form() -> None:
    gateway_streams = streams("hi 0", "hi 1", "hi 2", "never")
    whole = gateway_streams.streamed

    def broken(request: Request) -> Iterable[Response | Exception]:
        found = list(whole(request))
        found[2] = attrs.evolve(found[2], documents=b"\xff")
        return found

    gateway_streams.streamed = broken
    async with served(dispatcher=gateway_streams) as gateway:
        _, events, ended = chunks(await in_thread(raw, gateway.port, get("/stream", DOCUMENT)))
        assert not ended
        assert [event.split(b"\r\n")[0] for event in events] == [
            *[b"event: update"] * 2,
            b"event: error",
        ]


@pytest_twisted.ensureDeferred
async def test_texts_that_would_break_the_references_client_are_escaped() -> None:
    async with served(dispatcher=streams('line1\nline2\r\nevent: update é漢 "q"')) as gateway:
        _, events, _ = chunks(await in_thread(raw, gateway.port, get("/unicode", DOCUMENT)))
        assert events[0].count(b"event: ") == 1
        data = events[0].removeprefix(b"event: update\r\ndata: ")
        assert b"\n" not in data.strip()
        assert json.loads(data)["text"] == 'line1\nline2\r\nevent: update é漢 "q"'


@pytest_twisted.ensureDeferred
async def test_the_document_is_the_body_the_query_or_the_data_of_a_post_with_parameters() -> None:
    async with served(dispatcher=streams()) as gateway:
        for request in (
            get("/stream", DOCUMENT),
            get("/stream?text=hi&num=3&id=d&zzz=1"),
            get("/stream?text=query", DOCUMENT),
            get("/stream", DOCUMENT, method="POST"),
            get("/stream", {"data": DOCUMENT, "parameters": {"k": 1}}, method="POST"),
            get("/stream", {"data": [DOCUMENT], "header": {"request_id": "d"}}, method="POST"),
        ):
            assert chunks(await in_thread(raw, gateway.port, request))[1:] == ([b"event: end\r\n\r\n"], True)
        found = gateway.dispatcher.requests
        bodies = [decode_text(request) for request in found]
        assert bodies == ["hi"] * 6
        assert found[4].parameters


def decode_text(request: Request) -> str:
    (document,) = documents_in(request.documents)
    return str(document.data["text"].text)


@pytest.mark.parametrize(
    ("request_", "place"),
    [
        (get("/stream?text=hi&num=x"), ["query", "num"]),
        (get("/stream?num=2"), ["query", "text"]),
        (get("/stream"), ["query", "text"]),
        (get("/stream", {"num": 1}), ["body", "text"]),
        (get("/stream", [DOCUMENT]), ["body"]),
        (get("/stream", {"data": [DOCUMENT]}), ["body", "text"]),
        (get("/stream", {"data": [DOCUMENT] * 2}, method="POST"), ["body", "data"]),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_document_that_is_wrong_is_a_422_with_its_places(request_: bytes, place: list[str]) -> None:
    async with served(dispatcher=streams()) as gateway:
        answer = await in_thread(raw, gateway.port, request_)
        assert answer.startswith(b"HTTP/1.1 422 ")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["detail"][0]["loc"] == place
        assert gateway.dispatcher.opened == []


@pytest.mark.parametrize("error", [ExecutorUnreachable, DeadlineExceeded])
@pytest_twisted.ensureDeferred
async def test_an_executor_that_is_down_at_the_start_has_its_status(error: Any) -> None:
    async with served(dispatcher=streams(error("a", ["h:1"], "down"))) as gateway:
        status, _, answer = await in_thread(call, gateway.port, "GET", "/stream", DOCUMENT)
        assert status == {ExecutorUnreachable: 503, DeadlineExceeded: 504}[error]
        assert json.loads(answer)["header"]["status"]["description"].startswith("down")


def raised(text: str) -> Streamed:
    status = StatusProto(code=StatusProto.ERROR, description=text).SerializeToString()
    return lambda request: [attrs.evolve(answer_to(request), status=status, documents=b"")]


@pytest_twisted.ensureDeferred
async def test_an_executor_that_raises_at_the_start_is_a_500() -> None:
    dispatcher = StreamingDispatcher(endpoints=endpoints_of("S"), streamed=raised("ValueError('at start')"))
    async with served(dispatcher=dispatcher) as gateway:
        status, _, answer = await in_thread(call, gateway.port, "GET", "/raise0", DOCUMENT)
        assert (status, json.loads(answer)) == (500, {"detail": "ValueError('at start')"})


@pytest.mark.parametrize("accept", ["text/event-stream", "application/x-ndjson"])
@pytest_twisted.ensureDeferred
async def test_what_fails_in_the_middle_breaks_the_transfer_off(accept: str) -> None:
    error = CallFailed("a", ["h:1"], "mid boom", "UNKNOWN")
    async with served(dispatcher=streams("first", error)) as gateway:
        request = get("/midraise", DOCUMENT, f"Accept: {accept}")
        _, events, ended = chunks(await in_thread(raw, gateway.port, request))
        assert not ended
        assert len(events) == 2
        assert b"first" in events[0]
        assert b"mid boom" in events[1]
        assert events[1].startswith(b"event: error\r\ndata: " if accept.startswith("text") else b'{"detail":')
        assert b'"status":500}' in events[1]
        assert gateway.dispatcher.opened[0].cancels == 1
        old = await in_thread(raw_or_reset, gateway.port, get("/midraise", DOCUMENT, version="1.0"))
        assert old == "reset"


def raw_or_reset(port: int, request: bytes) -> str:
    try:
        return raw(port, request).decode()
    except ConnectionResetError:
        return "reset"


@pytest_twisted.ensureDeferred
async def test_lines_come_to_those_who_ask_for_them() -> None:
    async with served(dispatcher=streams("a", "b")) as gateway:
        request = get("/stream", DOCUMENT, "Accept: application/x-ndjson", method="POST")
        fields, lines, ended = chunks(await in_thread(raw, gateway.port, request))
        assert fields["content-type"] == "application/x-ndjson"
        assert ([json.loads(line)["text"] for line in lines], ended) == (["a", "b"], True)
        assert all(line.endswith(b"}\n") for line in lines)


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        (None, streaming.EVENTS),
        (b"*/*", streaming.EVENTS),
        (b"application/json", streaming.EVENTS),
        (b"application/x-ndjson", streaming.LINES),
        (b"application/jsonl; q=1, */*;q=0.1", streaming.LINES),
        (b"text/event-stream, application/x-ndjson", streaming.EVENTS),
        (b"text/event-stream;q=0.5, application/x-ndjson", streaming.LINES),
        (b"application/x-ndjson;q=0, */*", streaming.EVENTS),
    ],
)
def test_the_form_is_negotiated(accept: bytes | None, wanted: bytes) -> None:
    assert streaming.framing_for(accept).content_type == wanted


@pytest_twisted.ensureDeferred
async def test_connections_live_on_after_a_stream_and_older_ones_end_with_it() -> None:
    async with served(dispatcher=streams("a")) as gateway:
        twice = get("/stream?text=a").replace(b"Connection: close\r\n", b"") + get("/stream?text=a")
        answer = await in_thread(raw, gateway.port, twice)
        assert answer.count(b"HTTP/1.1 200") == 2
        assert answer.count(b"event: end\r\n\r\n\r\n0\r\n\r\n") == 2
        old = await in_thread(raw, gateway.port, get("/stream?text=a", version="1.0"))
        assert b"chunked" not in old
        assert old.endswith(b"event: end\r\n\r\n")
        head = await in_thread(raw, gateway.port, get("/stream?text=a", method="HEAD"))
        assert head.startswith(b"HTTP/1.1 405 ")
        assert len(gateway.dispatcher.opened) == 3


@pytest_twisted.ensureDeferred
async def test_the_head_waits_for_the_first_answer_and_events_go_out_as_they_come() -> None:
    async with served(dispatcher=streams("a", "b", held=True)) as gateway:
        found: list[bytes] = []

        def read() -> None:
            with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as client:
                client.sendall(get("/stream", DOCUMENT))
                while more := client.recv(65536):
                    found.append(more)

        reading = in_thread(read)
        await until(lambda: gateway.dispatcher.opened and gateway.dispatcher.opened[0].is_asked)
        (stream,) = gateway.dispatcher.opened
        assert found == []
        stream.release()
        await until(lambda: b'"text":"a"' in b"".join(found))
        assert stream.asked == 2
        stream.release()
        await until(lambda: b'"text":"b"' in b"".join(found))
        stream.release()
        await reading


@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves_cancels_the_stream() -> None:
    async with served(dispatcher=streams("a", "b", held=True)) as gateway:
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as client:
            client.sendall(get("/stream", DOCUMENT))
            await until(lambda: gateway.dispatcher.opened and gateway.dispatcher.opened[0].is_asked)
            gateway.dispatcher.opened[0].release()
            await until(lambda: gateway.dispatcher.opened[0].asked == 2)
        await until(lambda: gateway.dispatcher.opened[0].cancels)
        await until(lambda: len(gateway.connections) == 0)


SIGNS = {
    "events": (get("/stream", DOCUMENT), b": ping"),
    "events of HTTP/1.0": (get("/stream", DOCUMENT, version="1.0"), b": ping"),
    "lines": (get("/stream", DOCUMENT, "Accept: application/x-ndjson"), b"\n\r\n0"),
}


@pytest.mark.parametrize("goes", [True, False], ids=["and goes", "and waits"])
@pytest.mark.parametrize(("asked", "sign"), SIGNS.values(), ids=SIGNS)
@pytest_twisted.ensureDeferred
async def test_a_client_that_half_closes_in_mid_stream_is_asked_for_a_sign_of_life(
    asked: bytes, sign: bytes, goes: bool
) -> None:
    limits = SiteLimits(body_bytes=1 << 20, trust_s=0.01, linger_s=0.1)
    async with served(dispatcher=streams("a", "b", held=True), limits=limits) as gateway:
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as client:
            client.sendall(asked)
            await until(lambda: gateway.dispatcher.opened and gateway.dispatcher.opened[0].is_asked)
            stream = gateway.dispatcher.opened[0]
            stream.release()
            await until(lambda: stream.asked == 2)
            if not goes:
                client.shutdown(socket.SHUT_WR)
            found = await in_thread(client.recv, 65536)
            while b'"a"' not in found or (not goes and sign not in found):
                found += await in_thread(client.recv, 65536)
            if not goes:
                assert not stream.cancels
                stream.release()
                await until(lambda: stream.asked == 3)
                stream.release()
                while more := await in_thread(client.recv, 65536):
                    found += more
        if goes:  # having read all that there was
            await until(lambda: stream.cancels)
        elif b"chunked" in found:
            _, read, whole = chunks(found)
            assert whole
            assert b'"b"' in b"".join(read)
        else:
            assert found.endswith(b"event: end\r\n\r\n")
        await until(lambda: len(gateway.connections) == 0)


@pytest_twisted.ensureDeferred
async def test_nothing_is_asked_of_executors_while_a_client_does_not_read() -> None:
    large = "x" * 200_000
    limits = SiteLimits(body_bytes=1 << 20, write_s=1.0, linger_s=0.5)
    async with served(dispatcher=streams(*[large] * 500), limits=limits) as gateway:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", gateway.port))
            client.sendall(get("/stream", DOCUMENT))
            # It is held to what the sockets take, and let go when the client takes nothing for too long.
            await until(lambda: gateway.dispatcher.opened and gateway.dispatcher.opened[0].cancels)
            assert gateway.dispatcher.opened[0].asked < 100
        await until(lambda: len(gateway.connections) == 0)
        assert gateway.buffers.held_bytes == 0


@pytest_twisted.ensureDeferred
async def test_a_silent_stream_is_kept_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "PING_S", 0.05)
    async with served(dispatcher=streams("a", held=True)) as gateway:
        reading = in_thread(raw, gateway.port, get("/stream", DOCUMENT), b": ping\r\n\r\n")
        await until(lambda: gateway.dispatcher.opened and gateway.dispatcher.opened[0].is_asked)
        gateway.dispatcher.opened[0].release()
        answer = await reading
        assert answer.index(b'"text":"a"') < answer.index(b"\r\na\r\n: ping\r\n\r\n")


@pytest_twisted.ensureDeferred
async def test_unary_requests_for_an_endpoint_that_streams_are_told_where_it_is() -> None:
    async with served(dispatcher=streams("a")) as gateway:
        body = {"data": [DOCUMENT], "exec_endpoint": "/stream"}
        status, _, answer = await in_thread(call, gateway.port, "POST", "/post", body)
        assert (status, json.loads(answer)["hint"]) == (
            404,
            "the endpoint /stream streams: GET or POST /stream takes one document",
        )
        accept = {"Accept": "text/event-stream"}
        status, headers, answer = await in_thread(call, gateway.port, "POST", "/post", body, accept)
        assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")


@pytest_twisted.ensureDeferred
async def test_the_references_client_learns_that_post_is_not_for_streams() -> None:
    async with served(dispatcher=streams("a")) as gateway:
        header = {"request_id": "R", "exec_endpoint": "/stream"}
        body = {"header": header, "parameters": {}, "data": [DOCUMENT], "exec_endpoint": "/stream"}
        status, _, answer = await in_thread(call, gateway.port, "POST", "/stream", body)
        assert (status, "stream_doc" in json.loads(answer)["hint"]) == (404, True)


@pytest_twisted.ensureDeferred
async def test_streams_have_the_headers_of_the_first_answer_and_those_of_other_origins() -> None:
    def streamed(request: Request) -> list[Response | Exception]:
        response = attrs.evolve(answer_to(request), documents=out("a"), headers=(("x-model", "m"),))
        return [response]

    dispatcher = StreamingDispatcher(endpoints=endpoints_of("S"), streamed=streamed)
    async with served(dispatcher=dispatcher, cors=("https://a.example",)) as gateway:
        request = get("/stream", DOCUMENT, "Origin: https://a.example", "X-Request-ID: mine")
        answer = await in_thread(raw, gateway.port, request)
        fields, _, ended = chunks(answer)
        assert (fields["x-model"], fields["x-request-id"], ended) == ("m", "mine", True)
        assert fields["access-control-allow-origin"] == "https://a.example"
        assert b"Access-Control-Expose-Headers: x-model\r\n" in answer


@pytest_twisted.ensureDeferred
async def test_pages_of_other_origins_may_not_start_streams() -> None:
    async with served(dispatcher=streams("a"), allowed_origins=()) as gateway:
        request = get("/stream", DOCUMENT, "Origin: https://a.example")
        assert (await in_thread(raw, gateway.port, request)).startswith(b"HTTP/1.1 403 ")
        assert gateway.dispatcher.opened == []


@pytest_twisted.ensureDeferred
async def test_a_stream_under_way_is_told_that_the_gateway_stops() -> None:
    async with served(dispatcher=streams("a", held=True)) as gateway:
        reading = in_thread(raw, gateway.port, get("/stream", DOCUMENT))
        await until(lambda: gateway.dispatcher.opened and gateway.dispatcher.opened[0].is_asked)
        gateway.dispatcher.opened[0].release()
        await until(lambda: gateway.dispatcher.opened[0].asked == 2)
        gateway.dispatcher.opened[0].fail(Draining())
        _, events, ended = chunks(await reading)
        assert (events[1][:12], ended) == (b"event: error", False)
        assert b'"status":503}' in events[1]
        assert b"shutting down" in events[1]


@pytest_twisted.ensureDeferred
async def test_endpoints_of_the_first_generation_stream_their_own_documents() -> None:
    endpoints = Endpoints({"/chat": ""}, generation=Generation.FIRST, streaming=frozenset({"/chat"}))
    async with served(dispatcher=StreamingDispatcher(endpoints=endpoints)) as gateway:
        for request in (
            get("/chat?text=hi&zzz=1"),
            get("/chat", {"text": "hi"}),
            get("/chat", {"data": [{"text": "hi"}], "parameters": {"k": 1}}, method="POST"),
        ):
            _, events, ended = chunks(await in_thread(raw, gateway.port, request))
            assert (len(events), ended) == (4, True)
            found = json.loads(events[0].removeprefix(b"event: update\r\ndata: "))
            assert found["text"] == "hi"
            assert found["chunks"] is None  # as all fields of the first generation
        status, _, _ = await in_thread(call, gateway.port, "POST", "/chat", {"data": [{}, {}]})
        assert status == 422
