"""Requests that come before it is known whether their endpoint streams, over every protocol."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import attrs
import pytest
import pytest_twisted
from twisted.internet import reactor

from gatewayd.bridge import Bridge
from gatewayd.buffers import Buffers
from gatewayd.messages.discovery import Endpoints
from gatewayd.messages.generations import Generation
from gatewayd.messages.methods import SINGLE, STREAM
from tests.golden34_data import endpoints_of
from tests.protocols.grpc.servers import SERVERS
from tests.protocols.grpc.stream_site import Site
from tests.protocols.grpc.test_call_streams import asking, response, texts
from tests.protocols.harness import FakeDispatcher, answer_to, asyncio_client, in_thread, served, until
from tests.protocols.http.test_http import call
from tests.protocols.http.test_streams import DOCUMENT, chunks, get, raw, streams
from tests.protocols.telling_late import ToldLate
from tests.protocols.websocket.test_typed_and_streams import is_end, talk

UNKNOWN = Endpoints(unknown=("a",))
OF_FIRST = Endpoints(unknown=("a",), generation=Generation.FIRST)
GEN = Endpoints({"/gen": ""}, streaming=frozenset({"/gen"}))
SECOND = endpoints_of("S")  # whose endpoint /stream streams


@pytest.fixture
def late() -> ToldLate:
    return ToldLate()


# -- gRPC -------------------------------------------------------------------------------------------------


@pytest_twisted.async_yield_fixture(params=SERVERS)
async def site(request: Any) -> AsyncIterator[Site]:
    bridge = Bridge(reactor)
    bridge.start()
    made = Site(bridge, request.param)
    yield made
    await made.close()
    await bridge.stop()


@pytest_twisted.ensureDeferred
async def test_call_answers_with_a_stream_once_it_is_known_that_there_is_one(
    site: Site, late: ToldLate
) -> None:
    buffers = Buffers(1 << 20)
    site.serve(streaming=late, buffers=buffers)
    asked = await site.call(asking("r"), path=STREAM)
    await until(lambda: late.waiting)
    assert buffers.held_bytes > 0
    assert not site.dispatcher.requests
    late.tell(GEN)
    (await site.stream("r")).put(response("a"), response("b"), None)

    found, code, _ = await site.rest(asked)
    assert (texts(found), code) == ([("r", "a"), ("r", "b")], "OK")
    assert [each.endpoint for each in site.dispatcher.requests] == ["/gen"]
    await until(lambda: not buffers.held_bytes)


@pytest.mark.parametrize("endpoint", ["/gen", "/one"])
@pytest_twisted.ensureDeferred
async def test_one_answer_is_given_or_refused_once_it_is_known_what_streams(
    site: Site, late: ToldLate, endpoint: str
) -> None:
    site.dispatcher.held = False
    site.serve(streaming=late)
    asked = await site.call(asking("r", endpoint), path=SINGLE)
    await until(lambda: late.waiting)
    late.tell(GEN)

    found, code, details = await site.rest(asked)
    if endpoint == "/one":
        assert (texts(found), code) == ([("r", "q")], "OK")
    else:
        assert code == "INVALID_ARGUMENT"
        assert "/gen answers with a stream of documents" in details
        assert not site.dispatcher.requests


@pytest_twisted.ensureDeferred
async def test_what_nobody_tells_in_time_is_dispatched_as_before(site: Site, late: ToldLate) -> None:
    site.dispatcher.held = False
    site.serve(streaming=late)
    asked = await site.call(asking("r"), path=SINGLE)
    await until(lambda: late.waiting)
    late.give_up()

    found, code, _ = await site.rest(asked)
    assert (texts(found), code) == ([("r", "q")], "OK")


@pytest_twisted.ensureDeferred
async def test_who_cancels_a_call_is_waited_for_no_more(site: Site, late: ToldLate) -> None:
    buffers = Buffers(1 << 20)
    site.serve(streaming=late, buffers=buffers)
    asked = await site.call(asking("r"), path=STREAM)
    await until(lambda: late.waiting)
    await site.on_loop(asked.cancel)
    await until(lambda: not late.waiting)
    assert not buffers.held_bytes
    assert not site.dispatcher.requests


@pytest_twisted.ensureDeferred
async def test_without_room_nothing_waits(site: Site, late: ToldLate) -> None:
    site.serve(streaming=late, buffers=Buffers(1))
    asked = await site.call(asking("r"), path=SINGLE)
    _, code, _ = await site.rest(asked)
    assert code == "RESOURCE_EXHAUSTED"
    assert not late.waiting


# -- HTTP -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/stream", DOCUMENT),
        ("POST", "/stream", {"data": DOCUMENT}),
        ("POST", "/post", {"data": [DOCUMENT], "execEndpoint": "/stream"}),
    ],
)
@pytest.mark.parametrize("known", [UNKNOWN, attrs.evolve(UNKNOWN, generation=Generation.SECOND)])
@pytest_twisted.ensureDeferred
async def test_http_streams_what_it_could_not_know_when_it_was_asked(
    late: ToldLate, known: Endpoints, method: str, path: str, body: Any
) -> None:
    engine = streams("hi 0", "hi 1")
    engine.endpoints = known
    async with served(dispatcher=engine, streaming=late) as gateway:
        headers = ("Content-Type: application/json", "Accept: text/event-stream")
        asked = in_thread(raw, gateway.port, get(path, body, *headers, method=method))
        await until(lambda: late.waiting)
        assert not engine.requests
        late.tell(SECOND, engine)
        _, events, ended = chunks(await asked)
    assert ended
    assert [each.split(b"\r\n")[0] for each in events] == [b"event: update"] * 2 + [b"event: end"]
    assert [each.endpoint for each in engine.requests] == ["/stream"]


@pytest_twisted.ensureDeferred
async def test_http_sends_lines_where_they_are_asked_for(late: ToldLate) -> None:
    engine = streams("hi 0", "hi 1")
    engine.endpoints = UNKNOWN
    async with served(dispatcher=engine, streaming=late) as gateway:
        asked = in_thread(raw, gateway.port, get("/stream?text=a", None, "Accept: application/x-ndjson"))
        await until(lambda: late.waiting)
        late.tell(SECOND, engine)
        _, lines, ended = chunks(await asked)
    assert ended
    assert [json.loads(each)["text"] for each in b"".join(lines).splitlines()] == ["hi 0", "hi 1"]


@pytest.mark.parametrize("told", [True, False])
@pytest_twisted.ensureDeferred
async def test_paths_that_there_are_not_are_told_once_that_is_known_or_may_be_asked_for_again(
    late: ToldLate, told: bool
) -> None:
    engine = FakeDispatcher(endpoints=UNKNOWN)
    async with served(dispatcher=engine, streaming=late) as gateway:
        asked = in_thread(call, gateway.port, "POST", "/nowhere", {"data": [{}]})
        await until(lambda: late.waiting)
        if told:
            late.tell(GEN, engine)
        else:
            late.give_up()
        status, headers, answer = await asked
    assert status == (404 if told else 503)
    if not told:
        assert headers["retry-after"] == "1"
        assert "no executor has told what it binds" in json.loads(answer)["detail"]
    assert late.asked == [None]


@pytest_twisted.ensureDeferred
async def test_what_executors_cannot_change_is_answered_at_once(late: ToldLate) -> None:
    async with served(dispatcher=FakeDispatcher(endpoints=UNKNOWN), streaming=late) as gateway:
        for path in ("/", "/status", "/openapi.json"):
            status, _, _ = await in_thread(call, gateway.port, "GET", path)
            assert status == 200
    assert not late.asked


@pytest_twisted.ensureDeferred
async def test_who_hangs_up_is_waited_for_no_more(late: ToldLate) -> None:
    engine = FakeDispatcher(endpoints=UNKNOWN)
    async with served(dispatcher=engine, streaming=late) as gateway:
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as client:
            client.sendall(get("/stream", DOCUMENT))
            await until(lambda: late.waiting)
        await until(lambda: not late.waiting)
        await until(lambda: not gateway.buffers.held_bytes)
    assert not engine.requests


@pytest_twisted.ensureDeferred
async def test_a_body_of_the_first_generation_is_dispatched_when_nobody_tells(late: ToldLate) -> None:
    engine = FakeDispatcher(endpoints=OF_FIRST)
    async with served(dispatcher=engine, streaming=late) as gateway:
        body = {"data": [{"text": "a"}], "execEndpoint": "/one"}
        headers = {"Content-Type": "application/json", "X-Request-Timeout": "5"}
        asked = in_thread(call, gateway.port, "POST", "/post", body, headers)
        await until(lambda: late.waiting)
        late.give_up()
        status, _, _ = await asked
    assert status == 200
    assert [each and each.endpoint for each in late.asked] == ["/one"]
    assert engine.timeouts == [5.0]


# -- WebSocket --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"compression": None}])
@pytest.mark.parametrize("known", [UNKNOWN, attrs.evolve(UNKNOWN, generation=Generation.SECOND)])
@pytest_twisted.ensureDeferred
async def test_websocket_sends_a_frame_for_each_answer_once_it_is_known_that_there_are_several(
    late: ToldLate, known: Endpoints, options: dict[str, Any]
) -> None:
    engine = streams("hi 0", "hi 1")
    engine.endpoints = known
    async with served(("websocket",), engine, streaming=late) as gateway:
        asked = {"data": [DOCUMENT], "execEndpoint": "/stream"}
        talking = asyncio_client(lambda: talk(gateway, asked, is_end, **options))
        await until(lambda: late.waiting)
        late.tell(SECOND, engine)
        found = await talking
    assert [each["data"][0]["text"] for each in found[:-1]] == ["hi 0", "hi 1"]


@pytest_twisted.ensureDeferred
async def test_a_binary_frame_waits_as_well(late: ToldLate) -> None:
    engine = streams("hi 0")
    engine.endpoints = OF_FIRST
    engine.streamed = lambda request: [answer_to(request)] * 2
    async with served(("websocket",), engine, streaming=late) as gateway:
        talking = asyncio_client(lambda: talk(gateway, asking("r"), is_end, "bytes"))
        await until(lambda: late.waiting)
        late.tell(GEN, engine)
        found = await talking
    assert len(found) == 3
