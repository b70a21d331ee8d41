"""Many frames and streams that cost their sender nothing."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.protocols.websocket.frames_by_hand import PING, PONG, TEXT, Talk, frame
from tests.security.conftest import MB, Bystander, Victim

pytestmark = pytest.mark.security

BEGIN = frame(TEXT, b'{"data":', fin=False)


@contextmanager
def flood(port: int, first: bytes, again: bytes, clients: int = 4) -> Iterator[list[int]]:
    """Clients that send as fast as they can, and connect again when they are closed: the close codes."""
    stop = threading.Event()
    codes: list[int] = []

    def attack() -> None:
        while not stop.is_set():
            try:
                talk = Talk(port)
            except OSError:
                continue
            try:
                talk.send(first)
                while not stop.is_set():
                    talk.send(again)
            except OSError:
                pass
            codes.extend(
                struct.unpack("!H", payload[:2])[0] for _, opcode, payload in _frames(talk) if opcode == 8
            )
            talk.close()

    threads = [threading.Thread(target=attack) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield codes
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _frames(talk: Talk) -> Iterator[tuple[int, int, bytes]]:
    try:
        yield from talk.frames()
    except OSError:
        return


@pytest.mark.parametrize(
    ("first", "again"),
    [
        (BEGIN, frame(0, b" ", fin=False) * 9000),
        (b"", frame(PING) * 9000),
        (b"", frame(PING, b"x" * 125) * 500),
        (b"", frame(PONG, b"x" * 15) * 3000),
    ],
    ids=["continuation frames of 7 bytes", "pings", "large pings", "pongs"],
)
def test_websocket_frames(attack: Callable[..., Victim], first: bytes, again: bytes) -> None:
    victim = attack()
    with flood(victim.ports["websocket"], first, again) as codes, Bystander(victim) as bystander:
        time.sleep(4.0)

    assert bystander.statuses == {200}
    assert bystander.percentile_s(0.5) < 0.1
    assert bystander.most_bytes < 30 * MB
    assert codes
    assert set(codes) == {1008}


HEADERS = (
    b"\x83\x86"  # :method POST, :scheme http
    + b"\x04" + bytes([len(path := b"/jina.JinaSingleDataRequestRPC/process_single_data")]) + path
    + b"\x01\x01x" + b"\x0f\x10\x10application/grpc" + b"\x00\x02te\x08trailers"
)  # fmt: skip


def h2(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


@pytest.mark.parametrize("server", ["grpcio", "gatewayd"])
def test_rapid_reset_over_grpc(attack: Callable[..., Victim], server: str) -> None:
    """Streams that are opened, and reset at once: 20 000 of them."""
    victim = attack(grpc_server=server)
    request = b"\0\0\0\0\0"
    with Bystander(victim) as bystander:
        connection = socket.create_connection(("127.0.0.1", victim.ports["grpc"]), timeout=10)
        threading.Thread(target=_swallow, args=(connection,), daemon=True).start()
        try:
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + h2(4, 0, 0) + h2(4, 1, 0))
            for start in range(0, 20_000, 500):
                connection.sendall(
                    b"".join(
                        h2(1, 4, stream, HEADERS) + h2(0, 1, stream, request) + h2(3, 0, stream, bytes(4))
                        for stream in range(2 * start + 1, 2 * start + 1001, 2)
                    )
                )
        except OSError:
            pass
        time.sleep(3.0)
        connection.close()

    assert bystander.statuses == {200}
    assert bystander.percentile_s(0.99) < 2.5  # some ms where nothing else runs
    assert bystander.most_bytes < 50 * MB


def _swallow(connection: socket.socket) -> None:
    try:
        while connection.recv(1 << 16):
            pass
    except OSError:
        pass
