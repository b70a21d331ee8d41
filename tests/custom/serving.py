"""A port with the routes of a gateway class, for tests."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from twisted.internet import reactor

from gatewayd import Gateway
from gatewayd.config.model import GatewayConfig, Listener
from gatewayd.custom.mount import Mounted
from gatewayd.protocols.http.site import SiteLimits
from gatewayd.protocols.web_port import WebPort
from tests.protocols.harness import FakeDispatcher, Served, backend, closed, in_thread
from tests.protocols.http.test_http import call


@contextlib.asynccontextmanager
async def serving(
    gateway: Gateway,
    dispatcher: FakeDispatcher | None = None,
    *protocols: Any,
    limits: SiteLimits | None = None,
    **settings: Any,
) -> AsyncIterator[Served]:
    """A port with the routes of ``gateway``, started."""
    engine = dispatcher or FakeDispatcher()
    mounted = Mounted(gateway, "flow.yml:3:5", dispatcher=engine, reactor=reactor)
    config = GatewayConfig(host="127.0.0.1", **settings)
    listener = Listener(protocols or ("http",))
    port = WebPort(listener, backend(config, engine, extension=mounted), limits=limits)
    port.listen()
    try:
        await mounted.start()
        yield Served(port, engine)
    finally:
        await closed(port)
        await mounted.stop(1.0)


async def get(gateway: Served, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body."""
    found: tuple[int, dict[str, str], bytes] = await in_thread(call, gateway.port, "GET", path, None, headers)
    return found
