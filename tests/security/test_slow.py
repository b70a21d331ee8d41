"""Many clients that send a byte now and then, to hold what a gateway has."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable

import pytest

from tests.protocols.websocket.frames_by_hand import TEXT, Talk, frame
from tests.security.conftest import MB, Bystander, Victim
from tests.waiting import until

pytestmark = pytest.mark.security

CLIENTS = 300
CHUNKED = (
    b"POST /post HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
)


def still_open(connection: socket.socket, piece: bytes) -> bool:
    """Send one more piece, and drop what is answered."""
    try:
        connection.sendall(piece)
        return connection.recv(65536, socket.MSG_DONTWAIT) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def test_bodies_and_messages_that_drip(attack: Callable[..., Victim]) -> None:
    victim = attack(receive_timeout=3, websocket_ping_interval=0)
    began = time.monotonic()
    with contextlib.ExitStack() as opened, Bystander(victim) as bystander:
        dripping: list[tuple[socket.socket, bytes]] = []
        for _ in range(CLIENTS):
            http = opened.enter_context(socket.create_connection(("127.0.0.1", victim.ports["http"])))
            http.sendall(CHUNKED)
            dripping.append((http, b"1\r\n{\r\n"))
            talk = Talk(victim.ports["websocket"])
            opened.callback(talk.close)
            talk.send(frame(TEXT, b"{", fin=False))
            dripping.append((talk._socket, frame(0, b" ", fin=False)))
        while dripping:
            time.sleep(0.5)
            dripping = [
                (connection, piece) for connection, piece in dripping if still_open(connection, piece)
            ]
            assert time.monotonic() - began < 20.0
    assert bystander.statuses == {200}
    assert bystander.percentile_s(0.99) < 1.0
    assert bystander.most_bytes < 60 * MB
    until(lambda: victim.grown_bytes() < 40 * MB)
