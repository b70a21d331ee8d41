"""A gateway that asks who calls: gRPC, HTTP and WebSocket on real sockets, with a dispatcher of its own."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import attrs
import grpc
from twisted.internet import reactor as _reactor

from gatewayd.access.service import AccessService
from gatewayd.bridge import Bridge
from gatewayd.buffers import Buffers
from gatewayd.config.auth import AuthConfig
from gatewayd.config.model import GatewayConfig, Listener
from gatewayd.protocols.backend import Backend
from gatewayd.protocols.grpc.servers import make_port
from gatewayd.protocols.web_port import WebPort
from tests.protocols.harness import FakeDispatcher, closed, status_maps

reactor: Any = _reactor


@attrs.define
class Guarded:
    """One that listens; ``engine`` has the requests that were let through."""

    engine: FakeDispatcher
    service: AccessService
    web: WebPort
    grpc_port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.web.report().port}"

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.web.report().port}"

    def channel(self) -> grpc.Channel:
        options = [("grpc.use_local_subchannel_pool", 1)]
        return grpc.insecure_channel(f"127.0.0.1:{self.grpc_port}", options)


@contextlib.asynccontextmanager
async def guarded(
    auth: AuthConfig, *, engine: FakeDispatcher | None = None, **settings: Any
) -> AsyncIterator[Guarded]:
    """Serve on free ports; everything is closed at the end."""
    engine = engine or FakeDispatcher()
    gateway = GatewayConfig(host="127.0.0.1", auth=auth, expose_graphql_endpoint=True, **settings)
    bridge = Bridge(reactor)
    service = AccessService(auth, reactor, bridge.offload)
    backend = Backend(
        gateway,
        service.guarded(engine),
        status_maps,
        bridge.offload,
        reactor,
        Buffers(gateway.max_buffered_bytes),
        bridge,
        access=service.access,
        endpoints=lambda: engine.endpoints,
    )
    bridge.start()
    service.start()
    web = WebPort(Listener(("http", "websocket")), backend)
    grpc_port = make_port(Listener(("grpc",)), backend)
    web.listen()
    grpc_port.listen()
    grpc_port.set_serving()
    try:
        yield Guarded(engine, service, web, grpc_port.report().port)
    finally:
        service.stop()
        await closed(web)
        await grpc_port.drain(0)
        await bridge.stop()
