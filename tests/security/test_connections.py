"""Clients that open connections and leave it at that."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from gatewayd.pb import DataRequestProto
from tests.certificates import write_files
from tests.processes import Gateway
from tests.security.conftest import EXECUTORS, Victim
from tests.waiting import until

pytestmark = pytest.mark.security


@contextlib.contextmanager
def descriptors(count: int) -> Iterator[None]:
    """What is started meanwhile may have ``count`` descriptors open."""
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, most))


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def ask(port: int) -> None:
    request = DataRequestProto()
    request.header.request_id = "r"
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary("/jina.JinaSingleDataRequestRPC/process_single_data")
        assert call(request.SerializeToString(), timeout=20)


def test_idle_connections_leave_descriptors_for_the_others() -> None:
    executor = {"name": "target", "uses": "Target", "py_modules": [str(EXECUTORS)]}
    with descriptors(256):
        gateway = Gateway({"gateway": {"grace_period": 5}, "executors": [executor]})
    with contextlib.ExitStack() as idle:
        for count in range(600):
            port = gateway.ports["http" if count % 2 else "websocket"]
            idle.enter_context(socket.create_connection(("127.0.0.1", port)))
        ask(gateway.ports["grpc"])
        (before,) = children(gateway.pid)
        os.kill(before, signal.SIGKILL)
        gateway.line("serves at", count=2)
        ask(gateway.ports["grpc"])
        assert len(list(Path(f"/proc/{gateway.pid}/fd").iterdir())) < 200
        assert "Too many open files" not in gateway.output
        assert gateway.output.count("connections are refused") == 1
    until(lambda: len(list(Path(f"/proc/{gateway.pid}/fd").iterdir())) < 100)
    assert Victim(gateway).post() == 200
    assert gateway.stop(30.0) == 0


def test_half_open_tls_handshakes_end_in_time(attack: Callable[..., Victim], tmp_path: Path) -> None:
    files = write_files(tmp_path)
    victim = attack(ssl_certfile=str(files.chain), ssl_keyfile=str(files.key))
    began = time.monotonic()
    with contextlib.ExitStack() as opened:
        waiting = {
            opened.enter_context(socket.create_connection(("127.0.0.1", port)))
            for port in victim.ports.values()
            for _ in range(50)
        }
        for count, connection in enumerate(waiting):
            connection.sendall(b"\x16\x03\x01\x02\x00\x01"[: count % 7])
        while waiting:
            ended, _, _ = select.select(waiting, [], [], 20.0 - (time.monotonic() - began))
            assert ended, f"{len(waiting)} are still open"
            for connection in ended:
                with contextlib.suppress(ConnectionResetError):
                    if connection.recv(1000):
                        continue
                waiting.discard(connection)
    assert 9.0 < time.monotonic() - began < 13.0


def test_tls_ports_hold_as_many_that_wait_as_others(attack: Callable[..., Victim], tmp_path: Path) -> None:
    """Five hundred connect while the gateway is busy with something else: here, stopped."""
    victim = attack(**write_files(tmp_path).settings, protocols=("http",))
    os.kill(victim.gateway.pid, signal.SIGSTOP)
    try:
        with contextlib.ExitStack() as opened:
            for _ in range(min(500, int(Path("/proc/sys/net/core/somaxconn").read_text()))):
                opened.enter_context(socket.create_connection(("127.0.0.1", victim.ports["http"]), timeout=5))
    finally:
        os.kill(victim.gateway.pid, signal.SIGCONT)
