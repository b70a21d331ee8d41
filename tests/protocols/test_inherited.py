"""Ports at sockets that listen already, from which other processes accept as well."""

from __future__ import annotations

import socket
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
import pytest_twisted

from gatewayd.bridge import Bridge
from gatewayd.config.model import GatewayConfig, Listener
from gatewayd.errors import ConfigError
from gatewayd.pb import JinaInfoProto
from gatewayd.protocols.binding import bound_sockets
from gatewayd.protocols.port import LAST_WORDS_S, Port, make_port
from tests.protocols.harness import FakeDispatcher, backend, in_thread, reactor, status_maps

HOST = "127.0.0.1"
WEB = Listener(("http", "websocket"))
GRPC = Listener(("grpc",))


def copies(bound: list[socket.socket]) -> list[socket.socket]:
    """What a process inherits: descriptors of its own, of the same sockets."""
    return [each.dup() for each in bound]


@asynccontextmanager
async def two_at(listener: Listener, bound: list[socket.socket]) -> AsyncIterator[list[Port]]:
    """Two ports that accept from the same sockets, as those of two processes do."""
    bridge = Bridge(reactor)
    bridge.start()
    settings = GatewayConfig(host=HOST, listeners=(listener,), grpc_server="gatewayd")
    ports: list[Port] = []
    for _ in range(2):
        whole: Any = backend(settings, FakeDispatcher())
        object.__setattr__(whole, "bridge", bridge)
        ports.append(make_port(listener, whole))
        ports[-1].listen(copies(bound))
    try:
        yield ports
    finally:
        for port in ports:
            await port.drain(-LAST_WORDS_S)
            await port.stop()
        await bridge.stop()


def get(number: int) -> int:
    with urllib.request.urlopen(f"http://{HOST}:{number}/", timeout=10) as answer:
        found: int = answer.status
        return found


def ask_grpc(number: int) -> str:
    with grpc.insecure_channel(f"{HOST}:{number}") as channel:
        call: Any = channel.unary_unary(
            "/jina.JinaInfoRPC/_status", response_deserializer=JinaInfoProto.FromString
        )
        return str(call(b"", timeout=10).jina["jina"])


@pytest_twisted.ensureDeferred
async def test_the_end_of_one_leaves_the_others_listening_at_http() -> None:
    bound = bound_sockets(HOST, WEB)
    number = bound[0].getsockname()[1]
    async with two_at(WEB, bound) as (first, second):
        assert first.report().port == second.report().port == number
        assert [await in_thread(get, number) for _ in range(4)] == [200] * 4
        await first.drain(0.0)
        assert [await in_thread(get, number) for _ in range(4)] == [200] * 4
    for each in bound:
        each.close()


@pytest_twisted.ensureDeferred
async def test_the_end_of_one_leaves_the_others_listening_at_grpc() -> None:
    bound = bound_sockets(HOST, GRPC)
    number = bound[0].getsockname()[1]
    version = status_maps()["jina"]["jina"]
    async with two_at(GRPC, bound) as (first, _):
        assert [await in_thread(ask_grpc, number) for _ in range(4)] == [version] * 4
        await first.drain(0.0)
        assert [await in_thread(ask_grpc, number) for _ in range(4)] == [version] * 4
    for each in bound:
        each.close()


@pytest_twisted.ensureDeferred
async def test_a_connection_waits_while_nothing_accepts() -> None:
    bound = bound_sockets(HOST, WEB)
    waiting = in_thread(get, bound[0].getsockname()[1])
    async with two_at(WEB, bound):
        assert await waiting == 200
    for each in bound:
        each.close()


def test_grpcios_server_refuses_them() -> None:
    settings = GatewayConfig(host=HOST, listeners=(GRPC,), grpc_server="grpcio")
    bound = bound_sockets(HOST, GRPC)
    with pytest.raises(ConfigError, match=r"gateway\.grpc_server: grpcio"):
        make_port(GRPC, backend(settings, FakeDispatcher())).listen(bound)
    for each in bound:
        each.close()


def test_a_port_that_is_taken_is_named() -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        number = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"{number}"):
            bound_sockets(HOST, Listener(("http",), number))
