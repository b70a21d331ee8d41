# mypy: disable-error-code="no-untyped-call"
"""
One port of HTTP, WebSocket, or both.

Everything arrives as HTTP. Where the port speaks WebSocket, a request to upgrade goes to Autobahn. The rest
goes to the HTTP paths: all of them where the port speaks HTTP, a few where it does not.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import attrs
from autobahn.twisted.resource import WebSocketResource
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from gatewayd.bridge import Bridge
from gatewayd.config.model import Listener, Protocol
from gatewayd.errors import PortTaken, UpgradeForbidden
from gatewayd.protocols.backend import Backend
from gatewayd.protocols.http.errors import encode_error
from gatewayd.protocols.http.request import GatewayRequest
from gatewayd.protocols.http.resource import HttpApi
from gatewayd.protocols.http.site import GatewaySite, SiteLimits
from gatewayd.protocols.port import LAST_WORDS_S, PortReport
from gatewayd.protocols.websocket.deflate import usable_offers
from gatewayd.protocols.websocket.listener import WebSocketListener
from gatewayd.protocols.websocket.session import PATHS
from gatewayd.tls import WebTls

# Connections that wait to be accepted: Twisted's 50 make a burst of clients wait for seconds.
_BACKLOG: Final = 1024
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
            http_request.respond_with(encode_error(UpgradeForbidden()))
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


class WebSite(GatewaySite):
    """A factory to listen with, for HTTP and WebSocket."""

    def __init__(
        self,
        root: Resource,
        limits: SiteLimits,
        backend: Backend,
        *,
        cors: bool,
        websockets: WebSocketListener | None,
    ) -> None:
        super().__init__(root, limits, backend.buffers, backend.reactor, cors=cors)
        self.websockets = websockets

    @property
    def connections(self) -> int:
        """How many connections are open, or not yet closed."""
        return len(self.channels) + (0 if self.websockets is None else self.websockets.open_sessions)

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
    protocols: Collection[Protocol], backend: Backend, *, limits: SiteLimits | None = None
) -> WebSite:
    """
    The factory for a port that speaks ``protocols``: http, websocket or both.

    ``limits`` replace those of ``backend.gateway``. Raises ConfigError for exposed endpoints that cannot be
    paths.
    """
    gateway = backend.gateway
    full = "http" in protocols
    api = HttpApi(gateway, backend, full=full)
    websockets = None
    root: Resource = api
    if "websocket" in protocols:
        websockets = WebSocketListener(backend, gateway)
        root = Upgradable(api, websockets)
    cors = full and gateway.cors
    return WebSite(root, limits or SiteLimits.of(gateway), backend, cors=cors, websockets=websockets)


def make_port(listener: Listener, backend: Backend) -> WebPort:
    """The port of ``listener`` for HTTP, WebSocket or both (see ``gatewayd.protocols.port``)."""
    return WebPort(listener, backend)


class WebPort:
    """One listening port of HTTP, WebSocket, or both. Reactor thread only."""

    def __init__(self, listener: Listener, backend: Backend) -> None:
        self._protocols = listener.protocols
        self._port = listener.port
        self._backend = backend
        # Long queries keep a loop busy, and gRPC's calls must not wait for them.
        self._queries = (
            Bridge(backend.reactor, "graphql loop")
            if backend.gateway.expose_graphql_endpoint and "http" in listener.protocols
            else None
        )
        self._site = build_site(self._protocols, attrs.evolve(backend, loop=self._queries))
        self._listening: Any = None

    def listen(self) -> None:
        """Bind and serve. Raises PortTaken."""
        backend, host = self._backend, self._backend.gateway.host
        try:
            if backend.identity is None:
                self._listening = backend.reactor.listenTCP(
                    self._port, self._site, backlog=_BACKLOG, interface=host
                )
            else:
                self._listening = backend.reactor.listenSSL(
                    self._port, self._site, WebTls(backend.identity), backlog=_BACKLOG, interface=host
                )
        except CannotListenError as error:
            raise PortTaken("+".join(self._protocols), host, self._port, str(error.socketError)) from error
        self._port = int(self._listening.getHost().port)
        if self._queries is not None:
            self._queries.start()

    def set_serving(self) -> None:
        """HTTP has no health that depends on the executors."""

    def drain(self, grace_s: float) -> Deferred[None]:
        """Stop listening; close idle connections now and the others after their requests."""
        ends = [maybeDeferred(self._listening.stopListening), self._site.close_all(grace_s + LAST_WORDS_S)]
        return gatherResults(ends).addCallback(lambda _: None)

    def stop(self) -> Deferred[None]:
        """End GraphQL's loop."""
        return succeed(None) if self._queries is None else Deferred.fromCoroutine(self._queries.stop())

    def report(self) -> PortReport:
        """What the port speaks, where, and its open connections."""
        host, tls = self._backend.gateway.host, self._backend.identity is not None
        at = "localhost" if host in ("0.0.0.0", "::", "") else host
        # Whether the certificate is valid for this name is not known here.
        curl = f"curl {'-sk' if tls else '-s'} {'https' if tls else 'http'}://{at}:{self._port}/post"
        return PortReport(
            protocols=self._protocols,
            host=host,
            port=self._port,
            tls=tls,
            connections=self._site.connections,
            try_it=f"{curl} -H 'content-type: application/json' -d '{{}}'"
            if "http" in self._protocols
            else None,
        )
