# mypy: disable-error-code="no-untyped-call"
"""
One port of HTTP, WebSocket, or both.

Everything arrives as HTTP. A request to upgrade goes to Autobahn where the port speaks WebSocket, all
else to the HTTP paths: all of them where the port speaks HTTP, a few where it does not.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from autobahn.twisted.resource import WebSocketResource
from twisted.internet.defer import Deferred, gatherResults
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from gatewayd.config.model import GatewayConfig, Protocol
from gatewayd.protocols.backend import Dispatcher, Loop, Needs
from gatewayd.protocols.buffers import Buffers
from gatewayd.protocols.http.answer import problem
from gatewayd.protocols.http.request import GatewayRequest
from gatewayd.protocols.http.resource import HttpApi
from gatewayd.protocols.http.site import GatewaySite, SiteLimits
from gatewayd.protocols.websocket.deflate import usable_offers
from gatewayd.protocols.websocket.listener import WebSocketListener
from gatewayd.protocols.websocket.session import PATHS

_EXTENSIONS = b"sec-websocket-extensions"
_PATHS = frozenset(path.encode() for path in PATHS)


class Upgradable(Resource):
    """The root of a port that speaks WebSocket; ``api`` gets the plain requests."""

    isLeaf = True

    def __init__(self, api: HttpApi, websockets: WebSocketListener) -> None:
        super().__init__()
        self._api = api
        self._upgrade = WebSocketResource(websockets)

    def render(self, http_request: GatewayRequest) -> int:
        asked = http_request.header(b"upgrade")
        if asked is None or asked.lower() != b"websocket":
            return self._api.render(http_request)
        if http_request.path not in _PATHS:
            http_request.respond(403, problem("Forbidden"))
        else:
            _decline_unknown_extensions(http_request)
            http_request.release()
            http_request.channel.leave_site()
            self._upgrade.render(http_request)
        return NOT_DONE_YET


def _decline_unknown_extensions(http_request: GatewayRequest) -> None:
    headers = http_request.requestHeaders
    offers = b", ".join(headers.getRawHeaders(_EXTENSIONS, ()))
    if offers:
        headers.setRawHeaders(_EXTENSIONS, [usable_offers(offers.decode("latin-1")).encode("latin-1")])


class ListenerSite(GatewaySite):
    """A factory to listen with, for ``listenTCP`` or ``listenSSL``."""

    def __init__(
        self,
        root: Resource,
        limits: SiteLimits,
        buffers: Buffers,
        reactor: Any,
        *,
        cors: bool,
        websockets: WebSocketListener | None,
    ) -> None:
        super().__init__(root, limits, buffers, reactor, cors=cors)
        self.websockets = websockets

    def close_all(self, grace_s: float) -> Deferred[None]:
        """
        Let what is under way finish within ``grace_s``, then close every connection.

        WebSockets are closed with 1001. Fires when no connection is left. Stop listening first.
        """
        ends = [super().close_all(grace_s)]
        if self.websockets is not None:
            ends.append(self.websockets.close_all(grace_s))
        return gatherResults(ends).addCallback(lambda _: None)


def build_site(
    protocols: Collection[Protocol],
    gateway: GatewayConfig,
    dispatcher: Dispatcher,
    status: Callable[[], Mapping[str, Mapping[str, str]]],
    offload: Callable[..., Deferred[Any]],
    reactor: Any,
    *,
    buffers: Buffers | None = None,
    limits: SiteLimits | None = None,
    loop: Loop | None = None,
) -> ListenerSite:
    """
    The factory for a port that speaks ``protocols``: http, websocket or both.

    ``status`` makes the maps of /status; ``offload(function, *args, **kwargs)`` runs a pure function in
    a pool thread; ``buffers`` are those of all listeners of the gateway, and of this one alone if left
    out; ``limits`` replace those made from ``gateway``; GraphQL runs on ``loop``, without which it is not
    served. Raises ConfigError for exposed endpoints that cannot be paths.
    """
    buffers = buffers or Buffers(gateway.max_buffered_bytes)
    needs = Needs(
        dispatcher=dispatcher, status=status, offload=offload, reactor=reactor, buffers=buffers, loop=loop
    )
    limits = limits or SiteLimits.of(gateway)
    full = "http" in protocols
    api = HttpApi(gateway, needs, full=full)
    websockets = None
    root: Resource = api
    if "websocket" in protocols:
        websockets = WebSocketListener(needs, gateway)
        root = Upgradable(api, websockets)
    return ListenerSite(root, limits, buffers, reactor, cors=full and gateway.cors, websockets=websockets)
