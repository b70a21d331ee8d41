"""Bodies that are small on the way and large, or slow, to inflate."""

from __future__ import annotations

import gzip
import socket
import time
from collections.abc import Callable

import grpc
import pytest

from tests.security.conftest import MB, Bystander, Victim
from tests.waiting import until

pytestmark = pytest.mark.security


def send_gzip(port: int, body: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port))
    head = (
        "POST /post HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    connection.sendall(head.encode() + body)
    return connection


def test_members_without_content(attack: Callable[..., Victim]) -> None:
    victim = attack()
    body = gzip.compress(b"", mtime=0) * 500_000
    with Bystander(victim) as bystander:
        connections = [send_gzip(victim.ports["http"], body) for _ in range(12)]
        for connection in connections:
            assert connection.recv(100).startswith(b"HTTP/1.1 422 ")
            connection.close()

    assert bystander.statuses == {200}
    assert bystander.percentile_s(0.99) < 2.0


def test_a_stop_waits_for_no_pool_thread(attack: Callable[..., Victim]) -> None:
    """Bodies that take a second of inflating each, and clients that have left."""
    victim = attack()
    body = b"".join(gzip.compress(bytes(10_000), mtime=0) for _ in range(9_000))
    for _ in range(12):
        send_gzip(victim.ports["http"], body).close()
    began = time.monotonic()

    assert victim.gateway.stop(30.0) == 0
    assert time.monotonic() - began < 8.0


def test_what_inflates_to_a_thousand_times_its_size(attack: Callable[..., Victim]) -> None:
    victim = attack()
    with grpc.insecure_channel(f"127.0.0.1:{victim.ports['grpc']}") as channel:
        call = channel.unary_unary("/jina.JinaSingleDataRequestRPC/process_single_data")
        with Bystander(victim, 0.005) as bystander, pytest.raises(grpc.RpcError):
            call(bytes(900 * MB), compression=grpc.Compression.Gzip, timeout=30)
        assert bystander.most_bytes < 150 * MB
    connection = send_gzip(victim.ports["http"], gzip.compress(bytes(900 * MB), 1))
    with Bystander(victim, 0.005) as bystander:
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")
    connection.close()
    assert bystander.most_bytes < 250 * MB
    until(lambda: victim.grown_bytes() < 50 * MB)
