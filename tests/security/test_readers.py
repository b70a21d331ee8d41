"""Clients that ask for much and read nothing, or vanish."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable

import grpc
import pytest
from websockets.sync.client import ClientConnection, connect

from gatewayd.pb import DataRequestProto
from tests.security.conftest import MB, Bystander, Victim
from tests.waiting import until

pytestmark = pytest.mark.security

LARGE = json.dumps({"data": [{"text": "q"}], "execEndpoint": "/large"})
LARGE_HTTP = (
    "POST /post HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    f"Content-Length: {len(LARGE)}\r\n\r\n{LARGE}"
).encode()


def websocket(victim: Victim) -> ClientConnection:
    return connect(f"ws://127.0.0.1:{victim.ports['websocket']}/", max_queue=1, ping_interval=None)


def small_receive_buffer(port: int) -> socket.socket:
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", port))
    return connection


def handshake(connection: socket.socket) -> None:
    connection.sendall(
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    head = b""
    while b"\r\n\r\n" not in head:
        head += connection.recv(1000)


def frame(text: str) -> bytes:
    """A masked text frame, with a mask of zeros."""
    data = text.encode()
    size = bytes([128 | len(data)]) if len(data) < 126 else bytes([128 | 126]) + len(data).to_bytes(2, "big")
    return b"\x81" + size + bytes(4) + data


def test_a_websocket_that_is_not_read(attack: Callable[..., Victim]) -> None:
    victim = attack()
    with small_receive_buffer(victim.ports["websocket"]) as connection, Bystander(victim) as bystander:
        handshake(connection)
        connection.sendall(frame(LARGE) * 900)
        time.sleep(10.0)
    assert bystander.most_bytes < 200 * MB
    assert bystander.statuses == {200}
    until(lambda: victim.grown_bytes() < 60 * MB)


def test_http_answers_that_are_not_read(attack: Callable[..., Victim]) -> None:
    """Of fifty clients, each of which asks twenty times."""
    victim = attack()
    connections = [small_receive_buffer(victim.ports["http"]) for _ in range(50)]
    with Bystander(victim) as bystander:
        for connection in connections:
            connection.sendall(LARGE_HTTP * 20)
        time.sleep(8.0)
    for connection in connections:
        connection.close()
    assert bystander.statuses == {200}
    assert bystander.most_bytes < 350 * MB
    until(lambda: victim.grown_bytes() < 60 * MB, what=victim.grown_bytes)


@pytest.mark.parametrize("server", ["grpcio", "gatewayd"])
def test_a_grpc_stream_that_is_not_read(attack: Callable[..., Victim], server: str) -> None:
    victim = attack(grpc_server=server)
    request = DataRequestProto()
    request.header.exec_endpoint = "/large"
    with grpc.insecure_channel(f"127.0.0.1:{victim.ports['grpc']}") as channel:
        with Bystander(victim) as bystander:
            requests = iter([request.SerializeToString()] * 900)
            call = channel.stream_stream("/jina.JinaRPC/Call")(requests)
            next(call)
            time.sleep(8.0)
        call.cancel()
    assert bystander.most_bytes < 250 * MB
    assert bystander.statuses == {200}


def test_clients_that_vanish_without_reading(attack: Callable[..., Victim]) -> None:
    victim = attack()
    for _ in range(2):
        connections = [small_receive_buffer(victim.ports["websocket"]) for _ in range(20)]
        for connection in connections:
            handshake(connection)
            connection.sendall(frame(LARGE) * 5)
        https = [small_receive_buffer(victim.ports["http"]) for _ in range(20)]
        for connection in https:
            connection.sendall(LARGE_HTTP)
        time.sleep(3.0)
        for connection in connections + https:
            connection.close()
    assert victim.post() == 200
    until(lambda: victim.grown_bytes() < 100 * MB, what=victim.grown_bytes)
