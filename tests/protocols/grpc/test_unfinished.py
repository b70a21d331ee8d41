"""Connections of gRPC's own server whose handshake is not complete: found, and ended."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator

import pytest

from gatewayd.protocols.grpc.unfinished import PLAIN_BYTES, end_unfinished

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells how much has come")


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.mark.parametrize(("sent", "ended"), [(0, 1), (10, 1), (PLAIN_BYTES - 1, 1), (PLAIN_BYTES, 0)])
def test_those_on_which_too_little_has_come(server: socket.socket, sent: int, ended: int) -> None:
    port = server.getsockname()[1]
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        accepted, _ = server.accept()
        with accepted:
            client.sendall(b"x" * sent)
            if sent:
                accepted.recv(100)
            assert end_unfinished(port, PLAIN_BYTES) == ended
            if ended:
                assert client.recv(1) == b""
            else:
                accepted.sendall(b"y")
                assert client.recv(1) == b"y"


def test_those_of_other_ports_and_our_own_to_that_port_are_left(server: socket.socket) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        socket.create_connection(other.getsockname()) as client,
    ):
        accepted, _ = other.accept()
        with accepted:
            assert end_unfinished(server.getsockname()[1], PLAIN_BYTES) == 0
            accepted.sendall(b"y")
            assert client.recv(1) == b"y"


def test_looking_for_them_leaves_no_descriptor_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with open(os.devnull):
        assert end_unfinished(1, PLAIN_BYTES) == 0
    assert len(os.listdir("/proc/self/fd")) == before
