# mypy: disable-error-code="no-untyped-call"
"""
One port of HTTP, WebSocket, or both.

Everything arrives as HTTP. Where the port speaks WebSocket, a request to upgrade goes to Autobahn. The rest
goes to the HTTP paths: all of them where the port speaks HTTP, a few where it does not.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from autobahn.twisted.resource import WebSocketResource
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import IAddress
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from gatewayd.config.model import Listener
from gatewayd.errors import GatewayError, UpgradeForbidden
from gatewayd.messages.caller import Caller
from gatewayd.messages.generations import Generation
from gatewayd.protocols.backend import Backend
from gatewayd.protocols.connections import Connections
from gatewayd.protocols.hangups import HangUps
from gatewayd.protocols.http.cors import Cors
from gatewayd.protocols.http.errors import encode_error
from gatewayd.protocols.http.grammar import members
from gatewayd.protocols.http.openai import paths as openai_paths
from gatewayd.protocols.http.openai.errors import encode_error as openai_error
from gatewayd.protocols.http.request import GatewayRequest
from gatewayd.protocols.http.resource import HttpApi
from gatewayd.protocols.http.site import GatewaySite, SiteLimits
from gatewayd.protocols.port import LAST_WORDS_S, PortReport
from gatewayd.protocols.tcp import ListeningPorts, listen_tcp
from gatewayd.protocols.websocket.deflate import usable_offers
from gatewayd.protocols.websocket.listener import WebSocketListener
from gatewayd.tls.credentials import TlsCredentials

# A WebSocketListener, or GraphQL's.
WebSocketFactory = Any

_EXTENSIONS = b"sec-websocket-extensions"


class Upgradable(Resource):
    """
    The root of a port some of whose paths take WebSocket connections; ``api`` gets the plain requests.

    ``listeners`` make the sessions, by path. On a port that is ``strict``, which speaks WebSocket itself,
    there is no upgrade elsewhere; on one of HTTP such a request is one as any other.
    """

    isLeaf = True

    def __init__(self, api: HttpApi, listeners: Mapping[bytes, WebSocketFactory], *, strict: bool) -> None:
        super().__init__()
        self._api = api
        self._listeners = listeners
        self._strict = strict

    def wants_body(self, http_request: GatewayRequest) -> bool:
        return self._api.wants_body(http_request)

    def render(self, http_request: GatewayRequest) -> int:
        listener = self._listeners.get(http_request.path)
        if not (listener or self._strict) or not _asks_to_upgrade(http_request):
            return self._api.render(http_request)
        try:
            http_request.site.browsers.check_origin(http_request.header)
            if listener is None:
                raise UpgradeForbidden
        except GatewayError as error:
            http_request.respond_with(encode_error(error))
        else:
            _decline_unknown_extensions(http_request)
            http_request.release()
            channel = http_request.channel
            WebSocketResource(_Sessions(listener, http_request.caller)).render(http_request)
            # Only now: a port that drains waits for either, and one of the two must be open.
            channel.upgraded()
        return NOT_DONE_YET


@attrs.frozen
class _Sessions:
    """Makes the session of one connection, whose caller is known."""

    listener: WebSocketFactory
    caller: Caller

    def buildProtocol(self, address: IAddress) -> Any:
        session: Any = self.listener.buildProtocol(address)
        session.caller = self.caller
        return session


def _asks_to_upgrade(http_request: GatewayRequest) -> bool:
    """In HTTP/1.0 there is no Upgrade, and it has to be ignored (RFC 9110 section 7.8)."""
    asked = http_request.header(b"upgrade")
    return asked is not None and http_request.clientproto == b"HTTP/1.1" and b"websocket" in members([asked])


def _decline_unknown_extensions(http_request: GatewayRequest) -> None:
    headers = http_request.requestHeaders
    offers = b", ".join(headers.getRawHeaders(_EXTENSIONS, ()))
    if offers:
        headers.setRawHeaders(_EXTENSIONS, [usable_offers(offers.decode("latin-1")).encode("latin-1")])


def make_port(listener: Listener, backend: Backend) -> WebPort:
    """The port of ``listener`` for HTTP, WebSocket or both (see ``gatewayd.protocols.port``)."""
    return WebPort(listener, backend)


class WebPort:
    """
    One listening port of HTTP, WebSocket, or both. Reactor thread only.

    ``site`` makes its connections; ``websockets`` is None where the port speaks no WebSocket.
    """

    def __init__(self, listener: Listener, backend: Backend, *, limits: SiteLimits | None = None) -> None:
        """
        ``limits`` replace those of ``backend.gateway``.

        Raises ConfigError for exposed endpoints that cannot be paths.
        """
        gateway = backend.gateway
        self._listener = listener
        self._backend = backend
        self._listening: ListeningPorts | None = None
        self._unbound: Deferred[None] | None = None
        full = "http" in listener.protocols
        self._api = HttpApi(backend, full=full)
        self.connections = Connections(backend.reactor)
        self._hangups = HangUps(backend.reactor)
        self.websockets: WebSocketListener | None = None
        root: HttpApi | Upgradable = self._api
        listeners: dict[bytes, WebSocketFactory] = {}
        if self._api.graphql is not None:
            # Most gateways don't serve GraphQL: load its library only if it is needed.
            from gatewayd.protocols.graphql.session import PATH, GraphqlListener

            listeners[PATH] = GraphqlListener(backend, self._api.graphql, self.connections, self._hangups)
        if "websocket" in listener.protocols:
            self.websockets = WebSocketListener(backend, self.connections, self._hangups)
            listeners |= {path.encode(): self.websockets for path in self.websockets.paths}
        if listeners:
            root = Upgradable(self._api, listeners, strict=self.websockets is not None)
        self.site = GatewaySite(
            root,
            limits or SiteLimits.of(gateway),
            backend,
            self.connections,
            self._hangups,
            cors=Cors(gateway.cors),
            errors_below={} if gateway.openai is None or not full else {openai_paths.ALL: openai_error},
        )

    def listen(self, inherited: Sequence[socket.socket] = ()) -> None:
        """Bind and serve, or serve at ``inherited`` sockets. Raises PortTaken."""
        self._listening = listen_tcp(self._listener, self._backend, self.site, inherited)
        self._api.start()

    def set_serving(
        self,
        serving: bool = True,
        parts: Mapping[str, bool] = {},
        generation: Generation | None = None,
    ) -> None:
        """HTTP's paths of health ask the gateway themselves; executors may have told of their endpoints."""
        self._api.learn()
        if self.websockets is not None:
            self.websockets.learn()

    def renew(self, credentials: TlsCredentials) -> None:
        """Use these for connections from now on."""
        assert self._listening is not None, "renew before listen"
        self._listening.renew(credentials)

    def share(self) -> list[socket.socket]:
        """Copies of its sockets, which listen on when this port does not."""
        assert self._listening is not None, "share before listen"
        return self._listening.share()

    def retire(self) -> None:
        """Stop listening; HTTP connections end with their next answer."""
        self._stop_listening()
        self.connections.retiring = True

    def drain(self, grace_s: float) -> Deferred[None]:
        """Stop listening; close idle connections now and the others after their requests."""
        ends = [self._stop_listening(), self.connections.close_all(grace_s + LAST_WORDS_S)]
        return gatherResults(ends).addCallback(lambda _: None)

    def _stop_listening(self) -> Deferred[None]:
        assert self._listening is not None, "drain before listen"
        if self._unbound is None:
            self._unbound = maybeDeferred(self._listening.stopListening)
        return self._unbound

    def stop(self) -> Deferred[None]:
        """Release what watches connections, and end what serves paths."""
        self._hangups.close()
        return self._api.stop()

    def report(self) -> PortReport:
        """What the port speaks, where, and its open connections."""
        assert self._listening is not None, "report before listen"
        host, port = self._backend.gateway.host, int(self._listening.getHost().port)
        tls = self._backend.tls is not None
        at = "localhost" if host in ("0.0.0.0", "::", "") else f"[{host}]" if ":" in host else host
        # Whether the certificate is valid for this name is not known here.
        curl = f"curl {'-sk' if tls else '-s'} {'https' if tls else 'http'}://{at}:{port}/post"
        return PortReport(
            protocols=self._listener.protocols,
            host=host,
            port=port,
            tls=tls,
            connections=len(self.connections),
            try_it=self._try_it(f"{curl} -H 'content-type: application/json' -d '{{}}'"),
        )

    def _try_it(self, curl: str) -> str | None:
        auth = self._backend.gateway.auth
        if "http" not in self._listener.protocols:
            return None
        if auth is None:
            return curl
        return f"{curl} -H '{auth.api_key_header}: KEY'" if auth.takes_keys else None
