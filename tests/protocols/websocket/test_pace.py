"""Frames that come too fast, and many that come at once."""

from __future__ import annotations

import asyncio
import json
import struct
from typing import Any

import pytest
import pytest_twisted
import websockets

from gatewayd.errors import TooManyFrames
from gatewayd.messages import wire
from gatewayd.messages.request import Request
from gatewayd.protocols.websocket.pace import Pace
from tests.protocols.harness import FakeDispatcher, asyncio_client, in_thread, served, until
from tests.protocols.websocket.frames_by_hand import BINARY, CLOSE, PING, PONG, TEXT, Talk, frame


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_so_many_frames_a_second_and_no_more() -> None:
    clock = Clock()
    pace = Pace(10, clock)
    for _ in range(30):
        for _ in range(10):
            pace.frame(PING, 0, fin=True)
        clock.now_s += 1.0
    pace.frame(PING, 125, fin=True)
    for _ in range(9):
        pace.frame(0, 255, fin=False)
    with pytest.raises(TooManyFrames, match=r"more than 10 .*websocket_max_frames_per_second"):
        pace.frame(CLOSE, 2, fin=True)


@pytest.mark.parametrize(
    ("opcode", "size", "fin"),
    [(TEXT, 1, True), (PONG, 0, True), (BINARY, 0, False), (0, 0, True), (0, 256, False)],
)
def test_messages_and_large_pieces_are_not_counted(opcode: int, size: int, fin: bool) -> None:
    pace = Pace(1, Clock())
    for _ in range(1000):
        pace.frame(opcode, size, fin=fin)


def test_0_is_no_limit() -> None:
    pace = Pace(0, Clock())
    for _ in range(100_000):
        pace.count()


def until_closed(talk: Talk) -> list[tuple[int, int, bytes]]:
    frames = []
    for each in talk.frames():
        frames.append(each)
        if each[1] == CLOSE:
            break
    return frames


PIECES = frame(TEXT, b'{"data":', fin=False) + frame(0, b" ", fin=False) * 1100


@pytest.mark.parametrize(
    "flood",
    [PIECES, frame(PING) * 1100, frame(PONG, b"x" * 125) * 1100, frame(PING, b"x" * 100) * 1100],
    ids=["pieces", "pings", "pongs", "large pings"],
)
@pytest_twisted.ensureDeferred
async def test_a_flood_is_closed_with_1008_and_parsed_no_further(flood: bytes) -> None:
    async with served(("websocket",)) as gateway:
        talk = await in_thread(Talk, gateway.port)
        await in_thread(talk.send, flood + flood)
        frames = await in_thread(lambda: list(talk.frames()))
        *before, (_, opcode, payload) = frames
        assert opcode == CLOSE
        assert struct.unpack("!H", payload[:2])[0] == 1008
        assert b"websocket_max_frames_per_second" in payload
        assert {opcode for _, opcode, _ in before} <= {PONG}
        assert len(before) <= 1000
        talk.close()
        await until(lambda: not gateway.connections)
        assert gateway.buffers.held_bytes == 0


@pytest.mark.parametrize("path", ["/dry_run", "/"])
@pytest_twisted.ensureDeferred
async def test_messages_that_nothing_is_done_for_are_counted(path: str) -> None:
    engine = FakeDispatcher(held=True)
    async with served(("websocket",), engine, websocket_max_frames_per_second=50) as gateway:
        talk = await in_thread(Talk, gateway.port, path=path)
        first = frame(TEXT, b'{"data": null, "requestId": "r"}') + frame(TEXT, b"{}")  # the end of input
        await in_thread(talk.send, (first if path == "/" else b"") + frame(TEXT, b"x") * 60)
        frames = await in_thread(lambda: list(talk.frames()))
        _, opcode, payload = frames[-1]
        assert opcode == CLOSE
        if path == "/":
            assert struct.unpack("!H", payload[:2])[0] == 1008
            assert engine.cancelled == ["r"]
        talk.close()


@pytest_twisted.ensureDeferred
async def test_many_frames_in_one_read_are_answered_in_turns_and_whole() -> None:
    """Requests in tiny frames, in two pieces, and with pings among them: all in reads of many frames."""
    requests = [wire.encode_request(Request(f"r{n}", "/tag")) for n in range(900)]
    sent = b"".join(
        frame(BINARY, whole)
        if number % 3
        else frame(BINARY, whole[:5], fin=False) + frame(PING, b"p") + frame(0, whole[5:])
        for number, whole in enumerate(requests)
    )
    async with served(("websocket",), prefetch=7) as gateway:
        talk = await in_thread(Talk, gateway.port, subprotocol="bytes")
        await in_thread(talk.send, sent + frame(BINARY, b"\0"))
        frames = await in_thread(until_closed, talk)
        assert sum(opcode == BINARY for _, opcode, _ in frames) == 900
        assert sum(opcode == PONG for _, opcode, _ in frames) == 300
        assert frames[-1][2][:2] == struct.pack("!H", 1000)
        assert [request.request_id for request in gateway.dispatcher.requests] == [
            f"r{n}" for n in range(900)
        ]
        talk.close()


@pytest_twisted.ensureDeferred
async def test_large_frames_among_small_ones() -> None:
    texts = ["x" * (size + n) for n, size in enumerate([10, 70_000, 3, 500_000, 1000, 1024, 65_536] * 3)]

    async def conversation() -> list[Any]:
        url = f"{gateway.ws_url}/?results_in_order=true"
        async with websockets.connect(url, proxy=None, max_size=None, compression=None) as session:
            for text in texts:
                await session.send(json.dumps({"data": [{"text": text}]}))
            return [json.loads(await session.recv())["data"][0]["text"] for _ in texts]

    async with served(("websocket",)) as gateway:
        assert await asyncio_client(conversation) == texts


@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves_between_two_turns() -> None:
    async with served(("websocket",), websocket_max_frames_per_second=0) as gateway:
        talk = await in_thread(Talk, gateway.port)
        await in_thread(talk.send, frame(PING) * 50_000)
        talk.close()
        await until(lambda: not gateway.connections)


@pytest_twisted.ensureDeferred
async def test_pongs_that_answer_no_ping_are_ignored() -> None:
    async def conversation() -> str:
        async with websockets.connect(gateway.ws_url, proxy=None) as session:
            for number in range(100):
                await session.pong(b"%d" % number)
            await asyncio.sleep(0.3)  # pings of the gateway's own are under way
            await session.pong(b"late")
            await session.send('{"data": null}')
            return str(await session.recv())

    async with served(("websocket",), websocket_ping_interval_s=0.1) as gateway:
        assert "request_id" in await asyncio_client(conversation)
