"""WebSocket clients that leave, fall silent, compress, or send more than can be held."""

import asyncio
import json
import socket
import struct

import pytest
import pytest_twisted
import websockets
from twisted.internet.task import deferLater

from gatewayd.errors import BadRequest, Overloaded
from gatewayd.messages import wire
from gatewayd.messages.request import Request
from tests.protocols.harness import FakeDispatcher, asyncio_client, in_thread, reactor, served, until
from tests.protocols.websocket.frames_by_hand import BINARY, CLOSE, PING, TEXT, Talk, frame

pytestmark = pytest.mark.slow


def request_bytes(request_id, documents=b""):
    return wire.encode_request(Request(request_id, "/tag", documents=documents))


def upgraded(port, subprotocol="bytes"):
    """A socket that speaks WebSocket from now on."""
    client = socket.create_connection(("127.0.0.1", port), timeout=10)
    client.sendall(
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Protocol: " + subprotocol.encode() + b"\r\n\r\n"
    )
    assert client.recv(4096).startswith(b"HTTP/1.1 101 ")
    return client


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves_while_its_window_is_full_is_noticed_at_once(how):
    engine = FakeDispatcher(held=True)
    async with served(("websocket",), engine, prefetch=2) as gateway:
        client = await in_thread(upgraded, gateway.port)
        for number in range(5):  # the last three stay unread
            client.sendall(frame(BINARY, request_bytes(f"r{number}")))
        await until(lambda: len(engine.waiting) == 2)
        if how == "reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        await until(lambda: sorted(engine.cancelled) == ["r0", "r1"])
        await until(lambda: not gateway.connections)
        assert len(engine.requests) == 2
        assert gateway.buffers.held_bytes == 0


@pytest_twisted.ensureDeferred
async def test_a_client_that_answers_no_ping_is_dropped():
    settings = {"websocket_ping_interval_s": 0.2, "websocket_ping_timeout_s": 0.2}
    async with served(("websocket",), **settings) as gateway:
        silent = await in_thread(Talk, gateway.port)
        opcodes = [opcode for _, opcode, _ in await in_thread(lambda: list(silent.frames()))]
        assert opcodes[0] == PING
        assert opcodes[1:] in ([], [CLOSE])
        await until(lambda: not gateway.connections)
        silent.close()


@pytest_twisted.ensureDeferred
async def test_a_client_that_is_still_sending_a_large_frame_is_not_dropped_for_its_silence():
    settings = {"websocket_ping_interval_s": 0.5, "websocket_ping_timeout_s": 0.5}
    async with served(("websocket",), **settings) as gateway:
        client = await in_thread(upgraded, gateway.port)
        whole = frame(BINARY, request_bytes("r0", bytes(200)))
        for start in range(0, len(whole), 10):  # more than a second, as a slow line would
            client.sendall(whole[start : start + 10])
            await deferLater(reactor, 0.06)
        await until(lambda: gateway.dispatcher.requests)
        client.close()


@pytest_twisted.ensureDeferred
async def test_pings_can_be_switched_off():
    async with served(("websocket",), websocket_ping_interval_s=0.0) as gateway:
        client = await in_thread(upgraded, gateway.port)
        (session,) = gateway.connections
        assert session.autoPingPendingCall is None
        client.close()


@pytest.mark.parametrize("size", [10, 5_000, 500_000])
@pytest_twisted.ensureDeferred
async def test_an_ordinary_client_compresses_and_is_answered_compressed_where_it_pays(size):
    async def conversation():
        async with websockets.connect(gateway.ws_url, proxy=None, max_size=None) as session:
            assert "permessage-deflate" in session.response.headers["Sec-WebSocket-Extensions"]
            for number in range(3):
                await session.send(json.dumps({"data": [{"id": f"d{number}", "text": "x" * size}]}))
            texts = [json.loads(await session.recv())["data"][0]["text"] for _ in range(3)]
            assert texts == ["x" * size] * 3

    async with served(("websocket",)) as gateway:
        await asyncio_client(conversation)
        assert gateway.buffers.held_bytes == 0


@pytest.mark.parametrize(
    ("error", "code"), [(Overloaded("4000 requests are waiting"), 1013), (BadRequest("no such target"), 1008)]
)
@pytest_twisted.ensureDeferred
async def test_what_the_dispatcher_refuses_closes_with_its_code(error, code):
    def refuse(request):
        raise error

    async def conversation():
        async with websockets.connect(gateway.ws_url, proxy=None) as session:
            await session.send('{"data": null}')
            await asyncio.wait_for(session.wait_closed(), 10)
            return session.close_code, session.close_reason

    async with served(("websocket",), FakeDispatcher(refuse)) as gateway:
        assert await asyncio_client(conversation) == (code, str(error))


@pytest_twisted.ensureDeferred
async def test_messages_that_would_exceed_the_buffers_close_with_1013():
    def converse(port):
        talk = Talk(port)
        talk.send(frame(TEXT, b"{" + b" " * 60_000 + b"}", fin=False))
        _, opcode, payload = next(talk.frames())
        talk.close()
        return opcode, struct.unpack("!H", payload[:2])[0], payload[2:].decode()

    async with served(("websocket",), FakeDispatcher(held=True), max_buffered_bytes=100_000) as gateway:
        first = await in_thread(upgraded, gateway.port)
        first.sendall(frame(BINARY, request_bytes("r0", bytes(60_000))))
        await until(lambda: gateway.dispatcher.waiting)
        opcode, code, reason = await in_thread(converse, gateway.port)
        assert (opcode, code) == (CLOSE, 1013)
        assert "try again" in reason or "max_buffered_bytes" in reason
        gateway.dispatcher.settle("r0")
        await until(lambda: gateway.buffers.held_bytes == 0)
        first.close()


@pytest_twisted.ensureDeferred
async def test_more_documents_than_allowed_close_with_1009():
    async def conversation():
        async with websockets.connect(gateway.ws_url, proxy=None) as session:
            await session.send('{"data": [{}, {}]}')
            assert len(json.loads(await session.recv())["data"]) == 2
            await session.send('{"data": [{"chunks": [{}, {}]}]}')
            await asyncio.wait_for(session.wait_closed(), 10)
            return session.close_code, session.close_reason

    async with served(("websocket",), max_documents=2) as gateway:
        code, reason = await asyncio_client(conversation)
        assert code == 1009
        assert "more than 2 documents" in reason


@pytest_twisted.ensureDeferred
async def test_json_that_becomes_too_much_closes_with_1013():
    async def conversation():
        async with websockets.connect(gateway.ws_url, proxy=None) as session:
            await session.send('{"parameters": {"a": [' + "[]," * 30_000 + "1]}}")
            await asyncio.wait_for(session.wait_closed(), 10)
            return session.close_code, session.close_reason

    async with served(("websocket",), max_buffered_bytes=1_000_000) as gateway:
        code, reason = await asyncio_client(conversation)
        assert code == 1013
        assert "the JSON would take about" in reason
        assert gateway.buffers.held_bytes == 0
