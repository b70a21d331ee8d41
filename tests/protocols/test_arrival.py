"""Bodies and messages that arrive slowly: how slowly they may, over HTTP and WebSocket."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from typing import Any

import attrs
import pytest
import pytest_twisted
from twisted.internet.task import Clock

from gatewayd.protocols.arrival import Arrival, ArrivalLimits
from gatewayd.protocols.http.site import SiteLimits
from tests.protocols.harness import in_thread, served, until
from tests.protocols.websocket.frames_by_hand import CLOSE, PONG, TEXT, Talk, frame

LIMITS = ArrivalLimits(grace_s=10.0, min_rate=100, most_s=60.0)


@attrs.define
class Watched:
    """An Arrival on a clock of its own, and when it was late."""

    limits: ArrivalLimits = LIMITS
    clock: Clock = attrs.Factory(Clock)
    late_s: list[float] = attrs.Factory(list)
    arrival: Arrival = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.arrival = Arrival(self.limits, self.clock, lambda: self.late_s.append(self.clock.seconds()))

    def pass_s(self, seconds: float) -> None:
        for _ in range(round(seconds)):
            self.clock.advance(1.0)


def test_what_stops_arriving_is_late_after_the_grace_and_what_has_come_gives_more() -> None:
    watched = Watched()
    watched.arrival.received(500)
    watched.pass_s(14)
    assert not watched.late_s
    watched.pass_s(2)
    assert watched.late_s == [15.0]


def test_what_comes_at_the_least_rate_is_late_only_in_the_end() -> None:
    watched = Watched()
    for _ in range(100):
        watched.arrival.received(100)
        watched.pass_s(1)
    assert watched.late_s == [60.0]


def test_what_drips_is_late() -> None:
    watched = Watched()
    for _ in range(100):
        watched.arrival.received(1)
        watched.pass_s(1)
    assert 10.0 <= watched.late_s[0] <= 11.0


@pytest.mark.parametrize(
    ("limits", "late_s"),
    [
        (ArrivalLimits(10.0, 0, 60.0), [60.0]),
        (ArrivalLimits(10.0, 0, 0.0), []),
        (ArrivalLimits(10.0, 100, 0.0), [11.0]),
    ],
)
def test_limits_that_are_off(limits: ArrivalLimits, late_s: list[float]) -> None:
    watched = Watched(limits)
    watched.arrival.received(100)
    watched.pass_s(1000)
    assert watched.late_s == late_s


def test_each_has_its_own_time_and_one_timer_serves_all() -> None:
    watched = Watched()
    for _ in range(20):
        watched.arrival.received(1)
        watched.pass_s(3)
        watched.arrival.ended()
        assert len(watched.clock.getDelayedCalls()) <= 1
    assert not watched.late_s
    watched.pass_s(11)
    assert not watched.clock.getDelayedCalls()


def test_the_time_in_which_the_connection_is_not_read_does_not_count() -> None:
    watched = Watched()
    watched.arrival.received(1)
    watched.pass_s(5)
    watched.arrival.pause()
    watched.pass_s(200)
    watched.arrival.resume()
    watched.pass_s(4)
    assert not watched.late_s
    watched.pass_s(11)
    assert len(watched.late_s) == 1


def test_a_connection_that_is_closed_leaves_no_timer() -> None:
    watched = Watched()
    watched.arrival.received(1)
    watched.arrival.close()
    watched.arrival.close()
    assert not watched.clock.getDelayedCalls()


# -- on real connections ------------------------------------------------------------------------------

QUICK = ArrivalLimits(grace_s=0.4, min_rate=1000, most_s=2.0)
BODY = json.dumps({"data": [{"text": "x" * 1000}]}).encode()
HEAD = b"POST /post HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
DECLARED = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY)
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def limits() -> SiteLimits:
    return SiteLimits(body_bytes=1_000_000, linger_s=0.1, arrival=QUICK)


def settings() -> dict[str, Any]:
    return {"receive_timeout_s": 0.4, "min_receive_rate": 1000, "max_receive_time_s": 2.0}


def drip(port: int, head: bytes, piece: bytes, pause_s: float, most: int = 200) -> bytes:
    """The answer to a request whose body comes piece by piece."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(head)
        client.settimeout(pause_s)
        for _ in range(most):
            try:
                return client.recv(65536)
            except TimeoutError:
                client.sendall(piece)
    raise AssertionError("no answer")


@pytest.mark.parametrize(
    ("head", "piece"), [(DECLARED, b"{"), (CHUNKED, b"1\r\n{\r\n"), (DECLARED, b""), (CHUNKED, b"1;a")]
)
@pytest_twisted.ensureDeferred
async def test_a_body_that_drips_is_answered_with_408(head: bytes, piece: bytes) -> None:
    async with served(limits=limits()) as gateway:
        answer = await in_thread(drip, gateway.port, head, piece, 0.05)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"arrives too slowly" in answer
        assert b"Connection: close" in answer
        await until(lambda: not gateway.connections)
        assert gateway.buffers.held_bytes == 0


@pytest_twisted.ensureDeferred
async def test_the_second_request_of_a_connection_has_the_same_limits() -> None:
    def twice(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            client.sendall(DECLARED)
            client.sendall(BODY)
            assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
            client.sendall(DECLARED + BODY[:-1])
            return client.recv(65536)

    async with served(limits=limits()) as gateway:
        assert (await in_thread(twice, gateway.port)).startswith(b"HTTP/1.1 408 ")
        await until(lambda: not gateway.connections)


@pytest.mark.slow
@pytest_twisted.ensureDeferred
async def test_a_slow_upload_passes() -> None:
    """1023 bytes in some 0.8 s, where 0.4 s are allowed to those that do not come."""

    def upload(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            client.sendall(DECLARED)
            for start in range(0, len(BODY), 50):
                client.sendall(BODY[start : start + 50])
                time.sleep(0.04)
            return client.recv(65536)

    # Far slower would do: how long these pauses are is the machine's affair, too.
    patient = ArrivalLimits(grace_s=0.4, min_rate=50, most_s=30.0)
    async with served(limits=attrs.evolve(limits(), arrival=patient)) as gateway:
        assert (await in_thread(upload, gateway.port)).startswith(b"HTTP/1.1 200 ")


@pytest_twisted.ensureDeferred
async def test_a_connection_without_a_request_is_not_late() -> None:
    def wait(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            client.sendall(DECLARED + BODY)
            first = client.recv(65536)
            time.sleep(1.0)
            client.sendall(DECLARED + BODY)
            return first[:12] + client.recv(65536)[:12]

    async with served(limits=limits()) as gateway:
        assert await in_thread(wait, gateway.port) == b"HTTP/1.1 200" * 2


def close_code(port: int, piece: bytes, pause_s: float) -> tuple[int, bytes]:
    """The close frame for a client that begins a message and goes on with pieces."""
    talk = Talk(port)
    talk.send(frame(TEXT, b"{", fin=False))
    talk._socket.settimeout(pause_s)
    for _ in range(200):
        try:
            for _, opcode, payload in talk.frames():
                if opcode == CLOSE:
                    talk.close()
                    return int.from_bytes(payload[:2], "big"), payload[2:]
        except TimeoutError:
            talk.send(piece)
    raise AssertionError("not closed")


@pytest.mark.parametrize(
    "piece", [frame(0, b" ", fin=False), frame(PONG), b""], ids=["frames", "pongs", "nothing"]
)
@pytest_twisted.ensureDeferred
async def test_a_message_that_drips_is_closed_with_1008(piece: bytes) -> None:
    async with served(("websocket",), **settings()) as gateway:
        code, reason = await in_thread(close_code, gateway.port, piece, 0.05)
        assert code == 1008
        assert b"arrives too slowly" in reason
        await until(lambda: not gateway.connections)
        assert gateway.buffers.held_bytes == 0


@pytest_twisted.ensureDeferred
async def test_a_frame_that_drips_is_closed_with_1008() -> None:
    def talk(port: int) -> list[int]:
        with contextlib.closing(Talk(port)) as client:
            client.send(frame(TEXT, BODY)[:500])
            closes = [payload for _, opcode, payload in client.frames() if opcode == CLOSE]
            return [int.from_bytes(payload[:2], "big") for payload in closes]

    async with served(("websocket",), **settings()) as gateway:
        assert await in_thread(talk, gateway.port) == [1008]
        await until(lambda: not gateway.connections)


@pytest_twisted.ensureDeferred
async def test_a_connection_between_messages_is_not_late() -> None:
    def talk(port: int) -> bytes:
        with contextlib.closing(Talk(port)) as client:
            client.send(frame(TEXT, BODY[:100], fin=False) + frame(0, BODY[100:]))
            next(client.frames())
            time.sleep(1.0)
            client.send(frame(TEXT, BODY))
            return next(payload for _, opcode, payload in client.frames() if opcode == TEXT)

    async with served(("websocket",), **settings()) as gateway:
        assert b"xxx" in await in_thread(talk, gateway.port)
