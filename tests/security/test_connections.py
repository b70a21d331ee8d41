"""Clients that open connections and leave it at that."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from gatewayd.pb import DataRequestProto
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
        assert gateway.output.count("connections of HTTP and WebSocket are refused") == 1
    until(lambda: len(list(Path(f"/proc/{gateway.pid}/fd").iterdir())) < 100)
    assert Victim(gateway).post() == 200
    assert gateway.stop(30.0) == 0
