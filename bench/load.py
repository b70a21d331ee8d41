"""
The load generator: one process, one case, bytes made beforehand and answers hardly looked at.

    python -m bench.load KIND PORT CONCURRENCY

Says ``ready`` once it has connected and warmed up. For each line with a number of seconds on standard
input it makes requests that long, and prints one JSON line: requests, seconds, latencies in ms.
"""

from __future__ import annotations

import asyncio
import json
import os
import struct
import sys
import time
from collections.abc import Awaitable, Callable
from statistics import quantiles
from typing import Any

import grpc
import uvloop

from bench.payloads import PAYLOADS

Request = Callable[[], Awaitable[None]]
WARM_UP_S = 0.5
_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def _check(answer: bytes) -> None:
    # Far from a comparison, but an error or an empty answer would not pass.
    if b"exec_a" not in answer:
        raise AssertionError(answer[:500])


async def grpc_unary(port: int, payload: bytes) -> Request:
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=_OPTIONS)
    method = channel.unary_unary("/jina.JinaSingleDataRequestRPC/process_single_data")

    async def request() -> None:
        _check(await method(payload))

    return request


async def grpc_stream(port: int, payload: bytes) -> Request:
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=_OPTIONS)
    call = channel.stream_stream("/jina.JinaRPC/Call")()

    async def request() -> None:
        await call.write(payload)
        _check(await call.read())

    return request


async def http(port: int, payload: bytes) -> Request:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
    head = f"POST /post HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Type: application/json\r\n"
    message = f"{head}Content-Length: {len(payload)}\r\n\r\n".encode() + payload

    async def request() -> None:
        writer.write(message)
        headers = (await reader.readuntil(b"\r\n\r\n")).lower()
        if not headers.startswith(b"http/1.1 200"):
            raise AssertionError(headers)
        length = int(headers.split(b"content-length:")[1].split(b"\r\n")[0])
        _check(await reader.readexactly(length))

    return request


async def _websocket(port: int, payload: bytes, subprotocol: str, opcode: int) -> Request:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
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


async def websocket_bytes(port: int, payload: bytes) -> Request:
    return await _websocket(port, payload, "bytes", 2)


async def websocket_json(port: int, payload: bytes) -> Request:
    return await _websocket(port, payload, "json", 1)


# How to connect, and whether requests share one connection.
KINDS: dict[str, tuple[Callable[[int, bytes], Awaitable[Request]], bool]] = {
    "grpc_unary": (grpc_unary, True),
    "grpc_stream": (grpc_stream, False),
    "http": (http, False),
    "websocket_bytes": (websocket_bytes, True),
    "websocket_json": (websocket_json, True),
}


async def burst(requests: list[Request], seconds: float) -> dict[str, Any]:
    latencies: list[float] = []
    begun = time.perf_counter()
    end = begun + seconds

    async def client(request: Request) -> None:
        now = time.perf_counter()
        while now < end:
            await request()
            before, now = now, time.perf_counter()
            latencies.append(now - before)

    await asyncio.gather(*(client(request) for request in requests))
    took = time.perf_counter() - begun
    steps = quantiles(latencies, n=100) if len(latencies) > 1 else [latencies[0]] * 99
    return {
        "requests": len(latencies),
        "seconds": took,
        "median_ms": steps[49] * 1e3,
        "p99_ms": steps[98] * 1e3,
    }


async def main(kind: str, payload: str, port: int, concurrency: int) -> None:
    connect, shared = KINDS[kind]
    message = PAYLOADS[payload]()
    if shared:
        requests = [await connect(port, message)] * concurrency
    else:
        requests = [await connect(port, message) for _ in range(concurrency)]
    await burst(requests, WARM_UP_S)
    print("ready", flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print("RESULT " + json.dumps(await burst(requests, float(line))), flush=True)
    os._exit(0)  # nothing to tidy up, and gRPC takes its time for it


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
