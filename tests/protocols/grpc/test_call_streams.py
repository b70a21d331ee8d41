"""Call where endpoints stream, with both servers: which messages come in which order, and what is left."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor

from gatewayd.bridge import Bridge
from gatewayd.buffers import Buffers
from gatewayd.errors import CallFailed
from gatewayd.messages import wire
from gatewayd.messages.headers import AllowList
from gatewayd.messages.methods import SINGLE, STREAM
from gatewayd.messages.request import Request, Response
from gatewayd.messages.single import PART_OF_A_STREAM, content_of
from gatewayd.pb import DataRequestProto, DocumentProto
from gatewayd.protocols.grpc.crossing import AHEAD
from gatewayd.streams import StreamingEndpoints
from tests.protocols.grpc.servers import SERVERS
from tests.protocols.grpc.stream_site import Site
from tests.waiting import until_on_reactor

pytestmark = pytest.mark.slow

ORDERED = (("__results_in_order__", "true"),)
GEN = StreamingEndpoints(frozenset({"/gen"}))


def asking(request_id: str, endpoint: str = "/gen", text: str = "q", target: str = "") -> bytes:
    content = content_of(DocumentProto(text=text).SerializeToString())
    return bytes(wire.encode_request(Request(request_id, endpoint, target, documents=content)))


def response(text: str, **more: Any) -> Response:
    content = content_of(DocumentProto(text=text).SerializeToString())
    return Response("of the executor", "/gen", content, **more)


def texts(messages: list[bytes]) -> list[tuple[str, ...]]:
    found = [DataRequestProto.FromString(each) for each in messages]
    return [(each.header.request_id, *(one.text for one in each.data.docs.docs)) for each in found]


@pytest_twisted.async_yield_fixture(params=SERVERS)
async def site(request: Any) -> AsyncIterator[Site]:
    bridge = Bridge(reactor)
    bridge.start()
    made = Site(bridge, request.param)
    yield made
    await made.close()
    await bridge.stop()


async def call(site: Site, *messages: bytes, **more: Any) -> Any:
    if not site.ports:
        site.serve(streaming=GEN)
    return await site.call(*messages, path=STREAM, **more)


@pytest_twisted.ensureDeferred
async def test_each_answer_of_a_stream_is_a_message_with_the_id_of_the_request(site: Site) -> None:
    asked = await call(site, asking("r"))
    stream = await site.stream("r")
    stream.put(response("a"), response("b"))
    assert texts(await site.read(asked, 2)) == [("r", "a"), ("r", "b")]
    stream.put(response("c"), None)

    found, code, _ = await site.rest(asked)
    assert (texts(found), code) == ([("r", "c")], "OK")
    assert (stream.request.endpoint, len(site.dispatcher.requests)) == ("/gen", 1)


@pytest_twisted.ensureDeferred
async def test_the_answers_that_a_client_sees_are_those_of_its_endpoint(site: Site) -> None:
    asked = await call(site, asking("r"))
    (await site.stream("r")).put(response("a"), None)

    (found,), _, _ = await site.rest(asked)
    header = DataRequestProto.FromString(found).header
    assert header.exec_endpoint == "/gen"
    assert dict(header.headers) == dict([PART_OF_A_STREAM])


@pytest_twisted.ensureDeferred
async def test_in_order_a_stream_goes_out_between_its_neighbours(site: Site) -> None:
    messages = asking("0", "/one"), asking("1"), asking("2"), asking("3", "/one")
    asked = await call(site, *messages, metadata=ORDERED)
    first, second = await site.stream("1"), await site.stream("2")
    second.put(response("2a"), response("2b"), None)
    await until_on_reactor(reactor, lambda: len(site.dispatcher.waiting) == 2, 30.0, lambda: "others")
    site.dispatcher.settle("3")
    first.put(response("1a"))
    site.dispatcher.settle("0")
    assert texts(await site.read(asked, 2)) == [("0", "q"), ("1", "1a")]
    first.put(None)

    found, code, _ = await site.rest(asked)
    assert (texts(found), code) == ([("2", "2a"), ("2", "2b"), ("3", "q")], "OK")


@pytest_twisted.ensureDeferred
async def test_without_order_no_stream_waits_for_another(site: Site) -> None:
    asked = await call(site, asking("1"), asking("2"), asking("3", "/one"))
    first, second = await site.stream("1"), await site.stream("2")
    second.put(response("2a"))
    assert texts(await site.read(asked, 1)) == [("2", "2a")]
    first.put(response("1a"), None)
    assert texts(await site.read(asked, 1)) == [("1", "1a")]
    await until_on_reactor(reactor, lambda: site.dispatcher.waiting, 30.0, lambda: "the other")
    site.dispatcher.settle("3")
    assert texts(await site.read(asked, 1)) == [("3", "q")]
    second.put(response("2b"), None)

    found, code, _ = await site.rest(asked)
    assert (texts(found), code) == ([("2", "2b")], "OK")


@pytest_twisted.ensureDeferred
async def test_a_stream_keeps_its_place_in_the_window_until_its_end(site: Site) -> None:
    prefetch = (("__prefetch__", "1"),)
    asked = await call(site, asking("1"), asking("2"), metadata=prefetch)
    first = await site.stream("1")
    first.put(response("1a"))
    assert texts(await site.read(asked, 1)) == [("1", "1a")]
    assert [each.request_id for each in site.dispatcher.requests] == ["1"]
    first.put(None)
    (await site.stream("2")).put(None)

    assert (await site.rest(asked))[:2] == ([], "OK")


@pytest_twisted.ensureDeferred
async def test_an_error_in_mid_stream_names_the_request_and_ends_the_call(site: Site) -> None:
    site.serve(streaming=GEN, forwarded=AllowList.of(["x-*"], 500))
    asked = await call(site, asking("1"), asking("2"))
    stream, other = await site.stream("1"), await site.stream("2")
    boom = "Unexpected <class 'ValueError'>: mid boom"
    failure = CallFailed("g", ("1.1.1.1:1",), boom, "UNKNOWN")
    stream.put(response("a", headers=(("x-a", "1"),)), failure)

    found, code, details = await site.rest(asked)
    assert (texts(found), code) == ([("1", "a"), ("1",)], "UNKNOWN")
    assert boom in details
    trailing = await site.bridge.on_loop(asked.trailing_metadata)
    assert ("x-a", "1") in [tuple(each) for each in trailing]
    await until_on_reactor(reactor, lambda: other.cancelled, 30.0, lambda: "the cancel")


@pytest_twisted.ensureDeferred
async def test_what_a_stream_has_sent_takes_no_room_from_other_requests(site: Site) -> None:
    site.serve(streaming=GEN, max_unsent_bytes=100_000)
    asked = await call(site, asking("1"), done=False)
    parameters = b"\x0a\x05\x0a\x01p\x12\0" * 10_000
    (await site.stream("1")).put(*[response("a", parameters=parameters)] * 3)
    assert texts(await site.read(asked, 3)) == [("1", "a")] * 3
    await site.bridge.on_loop(asked.write, asking("2", "/one"))

    await until_on_reactor(reactor, lambda: site.dispatcher.waiting, 10.0, lambda: "the other request")
    site.dispatcher.settle("2")
    assert texts(await site.read(asked, 1)) == [("2", "q")]
    await site.on_loop(asked.cancel)


@pytest_twisted.ensureDeferred
async def test_a_client_that_cancels_ends_all_its_streams(site: Site) -> None:
    buffers = Buffers(1 << 26)
    site.serve(streaming=GEN, buffers=buffers)
    asked = await call(site, asking("1"), asking("2"), metadata=ORDERED)
    streams = [await site.stream("1"), await site.stream("2")]
    streams[0].put(response("a"))
    streams[1].put(response("waits for its turn"))
    await site.read(asked, 1)
    await site.on_loop(asked.cancel)

    await until_on_reactor(
        reactor, lambda: all(each.cancelled for each in streams), 30.0, lambda: "the cancel"
    )
    await until_on_reactor(reactor, lambda: buffers.held_bytes == 0, 30.0, lambda: "the end")


@pytest_twisted.ensureDeferred
async def test_a_client_that_does_not_read_stops_its_streams(site: Site) -> None:
    buffers = Buffers(1 << 26)
    site.serve(streaming=GEN, buffers=buffers)
    asked = await call(site, asking("slow"))
    slow = await site.stream("slow")
    slow.put(*[response("x" * 200_000)] * 500, None)
    other_call = await call(site, asking("other"))
    (await site.stream("other")).put(*[response("y" * 200_000)] * 500, None)
    found, code, _ = await site.rest(other_call)

    assert (len(found), code) == (500, "OK")
    # Client, transport and windows hold some megabytes; the rest waits where it comes from.
    assert slow.asked < 100
    assert 0 < buffers.held_bytes <= (AHEAD + 1) * 210_000
    found, code, _ = await site.rest(asked)
    assert (len(found), code) == (500, "OK")
    await until_on_reactor(reactor, lambda: buffers.held_bytes == 0, 30.0, lambda: "the end")


@pytest_twisted.ensureDeferred
async def test_a_stream_that_waits_for_its_turn_is_not_read_on(site: Site) -> None:
    buffers = Buffers(1 << 26)
    site.serve(streaming=GEN, buffers=buffers)
    asked = await call(site, asking("1"), asking("2"), metadata=ORDERED)
    first, second = await site.stream("1"), await site.stream("2")
    second.put(*[response("x" * 1000)] * 500, None)
    first.put(response("a"))
    await site.read(asked, 1)
    await until_on_reactor(reactor, lambda: second.asked >= AHEAD, 30.0, lambda: "what is read ahead")

    assert second.asked <= AHEAD + 1
    first.put(None)
    found, code, _ = await site.rest(asked)
    assert (len(found), code) == (500, "OK")


@pytest_twisted.ensureDeferred
async def test_one_answer_of_an_endpoint_that_streams_is_refused_with_what_to_do(site: Site) -> None:
    site.serve(streaming=GEN)
    found, code, details = await site.rest(await site.call(asking("r"), path=SINGLE))

    assert (found, code) == ([], "INVALID_ARGUMENT")
    assert "/gen" in details
    assert "stream_doc" in details
    assert site.dispatcher.requests == []


@pytest_twisted.ensureDeferred
async def test_executors_that_a_request_names_are_asked_for_one_answer(site: Site) -> None:
    site.serve(streaming=GEN)
    asked = await site.call(asking("r", target="b"), path=SINGLE)
    await until_on_reactor(reactor, lambda: site.dispatcher.waiting, 30.0, lambda: "the request")
    site.dispatcher.settle("r")

    found, code, _ = await site.rest(asked)
    assert (texts(found), code) == ([("r", "q")], "OK")
