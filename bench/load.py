"""
The load generator: one process, one case, bytes made beforehand and answers hardly looked at.

    python -m bench.load KIND PAYLOAD PORT CONCURRENCY

Prints ``ready`` once it has connected and warmed up. Then each line of standard input is an order, answered
with one line of JSON after ``RESULT``:

    closed SECONDS          so many requests at a time, each one after the last
    open SECONDS RATE       so many requests a second, whether or not earlier ones are answered

KIND is one of KINDS, with ``+tls`` (the certificate is not checked) or ``+trace`` (gRPC, a new traceparent
with each call).
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import ssl
import struct
import sys
import time
from collections.abc import Awaitable, Callable
from statistics import quantiles
from typing import Any, Final

import uvloop

from bench import http2
from bench.payloads import PAYLOADS
from gatewayd.messages.methods import SINGLE, STREAM

Request = Callable[[], Awaitable[None]]
# From a port, a payload and TLS to what makes one request.
Connect = Callable[[int, bytes, ssl.SSLContext | None], Awaitable[Request]]
WARM_UP_S: Final = 0.4
# Requests of an open loop that are under way at once; further ones wait, and their time runs.
_UNANSWERED: Final = 64
# Timers of the loop are that coarse: a request begun no later than this is on time.
_PUNCTUAL_S: Final = 0.002
# A connection of HTTP/1.1 that was silent for longer is not used again: uvicorn closes it after 5 s.
_RESTED_S: Final = 3.0


def _check(answer: bytes) -> None:
    # Far from a comparison, but an error or an empty answer would not pass.
    if b"exec_a" not in answer:
        raise AssertionError(answer[:500])


async def grpc_unary(
    port: int, payload: bytes, tls: ssl.SSLContext | None, *, trace: bool = False
) -> Request:
    connection = await http2.connect(SINGLE, port, tls)
    loop = asyncio.get_running_loop()
    numbers = itertools.count(1)

    async def request() -> None:
        more = b""
        if trace:
            # Not indexed, as grpcio sends it.
            value = b"00-%032x-%016x-01" % (0xAB << 96 | next(numbers), next(numbers))
            more = b"\x00\x0btraceparent" + bytes([len(value)]) + value
        stream = connection.open(payload, ends=True, more_headers=more)
        stream.answer = loop.create_future()
        _check(await stream.answer)

    return request


async def grpc_trace(port: int, payload: bytes, tls: ssl.SSLContext | None) -> Request:
    return await grpc_unary(port, payload, tls, trace=True)


_calls: dict[int, http2.Connection] = {}


async def grpc_stream(port: int, payload: bytes, tls: ssl.SSLContext | None) -> Request:
    """A stream of its own for each; all on one connection, as gRPC's clients have them."""
    connection = _calls.get(port)
    if connection is None:
        connection = _calls[port] = await http2.connect(STREAM, port, tls)
    loop = asyncio.get_running_loop()
    stream: http2.Stream | None = None

    async def request() -> None:
        nonlocal stream
        if stream is None:
            stream = connection.open(payload, ends=False)
            stream.whole = False
        else:
            connection.send(stream, payload)
        stream.answer = loop.create_future()
        _check(await stream.answer)

    return request


async def _http(port: int, payload: bytes, tls: ssl.SSLContext | None, path: str, sign: bytes) -> Request:
    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", port, limit=1 << 24, ssl=tls)

    reader, writer = await connect()
    used_s = time.monotonic()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Type: application/json\r\n"
    message = f"{head}Content-Length: {len(payload)}\r\n\r\n".encode() + payload

    async def request() -> None:
        nonlocal reader, writer, used_s
        if reader.at_eof() or time.monotonic() - used_s > _RESTED_S:
            # Servers close what has been idle, here while the other sides had their turn; perhaps just now.
            writer.close()
            reader, writer = await connect()
        writer.write(message)
        headers = (await reader.readuntil(b"\r\n\r\n")).lower()
        if not headers.startswith(b"http/1.1 200"):
            raise AssertionError(headers)
        length = int(headers.split(b"content-length:")[1].split(b"\r\n")[0])
        answer = await reader.readexactly(length)
        used_s = time.monotonic()
        if sign not in answer:
            raise AssertionError(answer[:500])

    return request


async def http(port: int, payload: bytes, tls: ssl.SSLContext | None) -> Request:
    return await _http(port, payload, tls, "/post", b"exec_a")


async def graphql(port: int, payload: bytes, tls: ssl.SSLContext | None) -> Request:
    return await _http(port, payload, tls, "/graphql", b"hello, world")


async def _websocket(
    port: int, payload: bytes, tls: ssl.SSLContext | None, subprotocol: str, opcode: int
) -> Request:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24, ssl=tls)
    writer.write(
        f"GET / HTTP/1.1\r\nHost: localhost:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Protocol: {subprotocol}\r\n\r\n".encode()
    )
    headers = await reader.readuntil(b"\r\n\r\n")
    assert b" 101 " in headers, headers
    # A mask of zeros is a mask: the payload goes out as it is.
    if len(payload) < 126:
        head = bytes([0x80 | opcode, 0x80 | len(payload)])
    elif len(payload) < 65536:
        head = bytes([0x80 | opcode, 0x80 | 126]) + struct.pack("!H", len(payload))
    else:
        head = bytes([0x80 | opcode, 0x80 | 127]) + struct.pack("!Q", len(payload))
    frame = head + bytes(4) + payload
    reading = asyncio.Lock()

    async def receive() -> bytes:
        while True:
            first, length = await reader.readexactly(2)
            if length == 126:
                (length,) = struct.unpack("!H", await reader.readexactly(2))
            elif length == 127:
                (length,) = struct.unpack("!Q", await reader.readexactly(8))
            body = await reader.readexactly(length)
            if first & 0x0F in (1, 2):
                return body
            if first & 0x0F == 9:
                writer.write(bytes([0x8A, 0x80 | len(body)]) + bytes(4) + body)
            elif first & 0x0F == 8:
                raise AssertionError(body)

    async def request() -> None:
        writer.write(frame)
        async with reading:
            _check(await receive())

    return request


async def websocket_bytes(port: int, payload: bytes, tls: ssl.SSLContext | None) -> Request:
    return await _websocket(port, payload, tls, "bytes", 2)


async def websocket_json(port: int, payload: bytes, tls: ssl.SSLContext | None) -> Request:
    return await _websocket(port, payload, tls, "json", 1)


# How to connect, and whether requests share one connection.
KINDS: dict[str, tuple[Connect, bool]] = {
    "grpc_unary": (grpc_unary, True),
    "grpc_trace": (grpc_trace, True),
    "grpc_stream": (grpc_stream, False),
    "http": (http, False),
    "graphql": (graphql, False),
    "websocket_bytes": (websocket_bytes, True),
    "websocket_json": (websocket_json, True),
}


def unchecked_tls(kind: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"] if kind.startswith("grpc") else ["http/1.1"])
    return context


def summary(latencies: list[float], took_s: float, cpu_s: float) -> dict[str, Any]:
    """``busy``: the share of one CPU that this process took."""
    if not latencies:
        raise AssertionError("no request was answered")
    steps = quantiles(latencies, n=100) if len(latencies) > 1 else latencies * 99
    return {
        "requests": len(latencies),
        "seconds": took_s,
        "busy": cpu_s / took_s,
        "median_ms": steps[49] * 1e3,
        "p99_ms": steps[98] * 1e3,
    }


class Load:
    """Requests of one kind to one port."""

    def __init__(self, connect: Callable[[], Awaitable[Request]], concurrency: int, *, shared: bool) -> None:
        self._connect = connect
        self._concurrency = concurrency
        self._shared = shared
        self._made: list[Request] = []
        self._free: list[Request] = []

    async def _take(self) -> Request:
        """A request that is not under way; any, where they share their connection."""
        if self._shared and self._made:
            return self._made[0]
        if self._free:
            return self._free.pop()
        self._made.append(await self._connect())
        return self._made[-1]

    def _release(self, request: Request) -> None:
        if not self._shared:
            self._free.append(request)

    async def closed(self, seconds: float) -> dict[str, Any]:
        requests = [await self._take() for _ in range(self._concurrency)]
        latencies: list[float] = []
        cpu, begun = time.process_time(), time.perf_counter()
        end = begun + seconds

        async def client(request: Request) -> None:
            now = time.perf_counter()
            while now < end:
                await request()
                before, now = now, time.perf_counter()
                latencies.append(now - before)

        await asyncio.gather(*(client(request) for request in requests))
        found = summary(latencies, time.perf_counter() - begun, time.process_time() - cpu)
        for request in requests:
            self._release(request)
        return found

    async def open(self, seconds: float, rate: float) -> dict[str, Any]:
        """Gaps are those of many independent clients (exponential), and the same ones in each run."""
        dice = random.Random(11)
        unanswered = asyncio.Semaphore(_UNANSWERED)
        latencies: list[float] = []
        tasks = []
        cpu, begun = time.process_time(), time.perf_counter()

        async def one(due: float) -> None:
            async with unanswered:
                request = await self._take()
                now = time.perf_counter()
                since = due if now - due > _PUNCTUAL_S else now
                await request()
                latencies.append(time.perf_counter() - since)
            self._release(request)

        due = begun + dice.expovariate(rate)
        while due < begun + seconds:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.append(asyncio.ensure_future(one(due)))
            due += dice.expovariate(rate)
        await asyncio.gather(*tasks)
        return summary(latencies, time.perf_counter() - begun, time.process_time() - cpu)


async def main(kind: str, payload: str, port: int, concurrency: int) -> None:
    kind, _, option = kind.partition("+")
    connect, shared = KINDS[kind]
    message = PAYLOADS[payload]()
    tls = unchecked_tls(kind) if option == "tls" else None
    load = Load(lambda: connect(port, message, tls), concurrency, shared=shared)
    await load.closed(WARM_UP_S)
    print("ready", flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        order, *figures = line.split()
        found = await getattr(load, order)(*map(float, figures))
        print("RESULT " + json.dumps(found), flush=True)
    os._exit(0)  # nothing to tidy up


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
