"""With access control, every protocol says from where a request came."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import grpc
import pytest
import pytest_twisted
import requests
import websockets
from twisted.internet import reactor

from gatewayd.access.control import AccessControl
from gatewayd.bridge import Bridge
from gatewayd.config import GatewayConfig
from gatewayd.messages import methods, wire
from gatewayd.messages.caller import Caller
from gatewayd.messages.request import Request
from gatewayd.protocols.grpc.identification import host_of
from gatewayd.protocols.grpc.port import GrpcPort
from gatewayd.protocols.grpc.servicer import Servicer
from tests.protocols.harness import FakeDispatcher, asyncio_client, in_thread, served

HERE = Caller(address="127.0.0.1")


@pytest_twisted.ensureDeferred
async def test_of_http_graphql_and_websocket() -> None:
    async def talk(url: str) -> None:
        async with websockets.connect(url) as connection:
            await connection.send(json.dumps({"data": []}))
            await asyncio.wait_for(connection.recv(), 10)

    async with served(("http", "websocket"), access=AccessControl(), expose_graphql_endpoint=True) as gateway:
        await in_thread(requests.post, f"{gateway.url}/post", json={"execEndpoint": "/a"}, timeout=10)
        query = {"query": '{docs(execEndpoint: "/b") {id}}'}
        await in_thread(requests.post, f"{gateway.url}/graphql", json=query, timeout=10)
        await asyncio_client(lambda: talk(gateway.ws_url))

        assert [request.caller for request in gateway.dispatcher.requests] == [HERE] * 3


@pytest_twisted.ensureDeferred
async def test_of_grpc() -> None:
    bridge, engine = Bridge(reactor), FakeDispatcher()
    bridge.start()
    servicer = Servicer(bridge, engine, lambda: {}, prefetch=10, access=AccessControl())
    port = GrpcPort(bridge, servicer, GatewayConfig(host="127.0.0.1"))
    port.listen()
    message = wire.encode_request(Request("r", "/a"))

    def talk() -> Any:
        with grpc.insecure_channel(f"127.0.0.1:{port.report().port}") as channel:
            channel.unary_unary(methods.SINGLE)(message, timeout=10)
            return list(channel.stream_stream(methods.STREAM)(iter([message]), timeout=10))

    await in_thread(talk)
    await port.drain(0)
    await bridge.stop()

    assert [request.caller for request in engine.requests] == [HERE] * 2


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        ("ipv4:10.0.0.1:4000", "10.0.0.1"),
        ("ipv6:%5B2001:db8::1%5D:4000", "2001:db8::1"),
        ("ipv6:[::ffff:10.0.0.1]:4000", "10.0.0.1"),
        ("unix:/run/a.sock", ""),
        ("", ""),
    ],
)
def test_grpc_writes_addresses_in_its_own_way(peer: str, host: str) -> None:
    assert host_of(peer) == host
