"""
Gateways that are stopped while requests are half sent on all ports: exit code 0, every time.

Twenty-five in a row with each gRPC server; with GATEWAYD_SECURITY_FULL=1 two hundred, which takes minutes.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import statistics
import time

import pytest

from tests.processes import ExecutorProcess, Gateway, external
from tests.protocols.websocket.frames_by_hand import BINARY, TEXT, frame
from tests.security import figures
from tests.security.test_floods import HEADERS, h2

pytestmark = pytest.mark.security

STOPS = 400 if os.environ.get("GATEWAYD_SECURITY_FULL") == "1" else 50
GRACE_S = 0.3

POST = b"POST /post HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HELLO = PREFACE + h2(4, 0, 0)
CALL_PATH = b"/jina.JinaRPC/Call"
CALL = b"\x83\x86\x04" + bytes([len(CALL_PATH)]) + CALL_PATH + HEADERS[HEADERS.index(b"\x01\x01x") :]

BEGUN = {
    "http": (
        b"",
        b"POST /po",
        POST[:-2],
        POST + b"Content-Length: 1000\r\n\r\n{",
        POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",
        POST + b"Content-Length: 2\r\n\r\n{}",
        POST + b"Expect: 100-continue\r\nContent-Length: 1000\r\n\r\n",
    ),
    "websocket": (
        b"",
        UPGRADE[:60],
        UPGRADE,
        UPGRADE + frame(TEXT, b"{", fin=False),
        UPGRADE + frame(TEXT, b"{}" * 500)[:100],
        UPGRADE + frame(TEXT, b'{"data": []}') * 20,
        UPGRADE + frame(BINARY, b"")[:1],
    ),
    "grpc": (
        b"",
        PREFACE[:10],
        HELLO,
        HELLO + h2(1, 0, 1, HEADERS),  # the head is not complete
        HELLO + h2(1, 4, 1, HEADERS),  # the message does not begin
        HELLO + h2(1, 4, 1, HEADERS) + h2(0, 0, 1, b"\0\0\0\1\0ab"),  # nor end
        HELLO + h2(1, 4, 1, CALL) + h2(0, 0, 1, b"\0\0\0\0\0" * 3),  # three requests of a stream, and no end
        HELLO + b"".join(h2(1, 4, 2 * n + 1, HEADERS) + h2(0, 0, 2 * n + 1, b"\0") for n in range(50)),
    ),
}


def open_all(stack: contextlib.ExitStack, gateway: Gateway, dice: random.Random) -> None:
    """Connections with each beginning at each port, in some order."""
    begun = [(protocol, beginning) for protocol, beginnings in BEGUN.items() for beginning in beginnings]
    dice.shuffle(begun)
    for protocol, beginning in begun:
        connection = stack.enter_context(
            socket.create_connection(("127.0.0.1", gateway.ports[protocol]), timeout=10)
        )
        connection.sendall(beginning)


@pytest.mark.parametrize("server", ["grpcio", "gatewayd"])
def test_stops_in_a_row(executor: ExecutorProcess, server: str) -> None:
    took_s = []
    settings = {"grace_period": GRACE_S, "grpc_server": server}
    for number in range(STOPS // 2):
        gateway = Gateway({"gateway": settings, "executors": [external("target", executor.port)]})
        with contextlib.ExitStack() as stack:
            dice = random.Random(number)
            open_all(stack, gateway, dice)
            time.sleep(dice.choice((0.0, 0.05, 0.2)))
            began = time.monotonic()
            code = gateway.stop(30.0)
            took_s.append(time.monotonic() - began)
        assert code == 0, f"stop {number}:\n{gateway.output}"
        assert "Traceback" not in gateway.output, gateway.output
    figures.record(result=f"{len(took_s)} stops with exit code 0, {statistics.median(took_s):.1f} s each")
    assert max(took_s) < 15.0
