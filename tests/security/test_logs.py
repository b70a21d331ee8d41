"""Clients that make the gateway write to its log."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.certificates import write_files
from tests.protocols.websocket.frames_by_hand import PONG, TEXT, Talk, closing, frame
from tests.security.conftest import Victim

pytestmark = pytest.mark.security


def bad_handshake(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: short\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        connection.recv(1000)


def denied_handshake(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(
            b"GET /?results_in_order=%0Aforged HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            b"Sec-WebSocket-Version: 13\r\n\r\n"
        )
        connection.recv(1000)


def broken_frame(port: int) -> None:
    talk = Talk(port)
    talk.send(frame(TEXT, b"\xff"))
    talk.close()


def mistakes(port: int) -> None:
    talk = Talk(port)
    talk.send(frame(TEXT, b"{"))
    talk.close()


def strange_close(port: int) -> None:
    talk = Talk(port)
    talk.send(closing(1006, b"\x1b[31m"))
    talk.close()


def reset(port: int) -> None:
    talk = Talk(port)
    talk._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    talk.close()


def no_http(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"\x16\x03\x01\0\x05hello\r\n\r\n")
        connection.recv(1000)


def no_http2(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 100)
        with contextlib.suppress(OSError):
            while connection.recv(1000):
                pass


ATTACKS: list[tuple[str, Callable[[int], None]]] = [
    ("websocket", bad_handshake),
    ("websocket", denied_handshake),
    ("websocket", broken_frame),
    ("websocket", mistakes),
    ("websocket", strange_close),
    ("websocket", reset),
    ("http", no_http),
    ("grpc", no_http2),
]


def lines_of(victim: Victim, act: Callable[[], None]) -> int:
    before = len(victim.gateway.output.splitlines())
    began = time.monotonic()
    act()
    victim.post()
    # Lines are bounded for each second.
    return int((len(victim.gateway.output.splitlines()) - before) / max(1.0, time.monotonic() - began))


@pytest.mark.parametrize(("protocol", "once"), ATTACKS, ids=[once.__name__ for _, once in ATTACKS])
def test_lines_a_second(attack: Callable[..., Victim], protocol: str, once: Callable[[int], None]) -> None:
    victim = attack()

    def act() -> None:
        for _ in range(400):
            once(victim.ports[protocol])

    assert lines_of(victim, act) < 60
    assert "\x1b" not in victim.gateway.output


def test_pongs_that_answer_no_ping(attack: Callable[..., Victim]) -> None:
    victim = attack(websocket_ping_interval=0.3, websocket_max_frames_per_second=0)
    before = len(victim.gateway.output)
    talk = Talk(victim.ports["websocket"])
    end = time.monotonic() + 3.0
    while time.monotonic() < end:
        talk.send(frame(PONG, b"x" * 15) * 100)
    talk.close()
    assert victim.post() == 200
    assert len(victim.gateway.output) - before < 500


@pytest.mark.parametrize("protocol", ["grpc", "http", "websocket"])
def test_clients_without_tls_at_a_port_with_it(
    attack: Callable[..., Victim], tmp_path: Path, protocol: str
) -> None:
    victim = attack(**write_files(tmp_path).settings)
    before = len(victim.gateway.output.splitlines())
    for _ in range(300):
        with socket.create_connection(("127.0.0.1", victim.ports[protocol]), timeout=10) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            with contextlib.suppress(OSError):
                connection.recv(1000)
    assert len(victim.gateway.output.splitlines()) - before < 60


@pytest.mark.parametrize("protocol", ["grpc", "http", "websocket"])
def test_handshakes_that_name_an_unknown_server(
    attack: Callable[..., Victim], tmp_path: Path, protocol: str
) -> None:
    victim = attack(**write_files(tmp_path).settings)
    before = len(victim.gateway.output.splitlines())
    context = ssl.create_default_context(cafile=str(tmp_path / "roots.pem"))
    context.check_hostname = False
    context.set_alpn_protocols(["h2", "http/1.1"])
    for number in range(300):
        with (
            socket.create_connection(("127.0.0.1", victim.ports[protocol]), timeout=10) as connection,
            context.wrap_socket(connection, server_hostname=f"unknown{number}.example"),
        ):
            pass
    assert len(victim.gateway.output.splitlines()) - before < 60
