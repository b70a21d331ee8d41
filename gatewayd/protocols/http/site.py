# mypy: disable-error-code="no-untyped-call"
"""The connections of one HTTP port: what they share, and the limits of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import attrs
from twisted.internet.interfaces import IAddress
from twisted.web.server import Site

from gatewayd.access.proxies import Proxies
from gatewayd.config.model import GatewayConfig
from gatewayd.errors import GatewayError
from gatewayd.health import PROBES
from gatewayd.protocols.arrival import ArrivalLimits
from gatewayd.protocols.backend import Ground
from gatewayd.protocols.connections import Connections
from gatewayd.protocols.hangups import HangUps
from gatewayd.protocols.http.browsers import Browsers
from gatewayd.protocols.http.channel import GatewayChannel
from gatewayd.protocols.http.cors import Cors
from gatewayd.protocols.http.errors import ErrorResponse, encode_error
from gatewayd.protocols.http.request import GatewayRequest

ErrorEncoder = Callable[[GatewayError], ErrorResponse]


@attrs.frozen
class SiteLimits:
    """
    The limits of one connection.

    ``body_bytes`` limits a body, ``write_s`` the time for which a client may read nothing, ``idle_s``
    the silence between or within requests, ``head_s`` the time from a request's first byte to the end of
    its headers, ``arrival`` that for its body, and ``linger_s`` how long the rest of a refused request is
    read and dropped. For ``trust_s`` a client that has half-closed is believed to be there.
    ``head_bytes`` limits a request's head; the default is twice nginx's.
    """

    body_bytes: int
    write_s: float = 60.0
    idle_s: float = 75.0
    head_s: float = 30.0
    linger_s: float = 2.0
    trust_s: float = 1.0
    head_bytes: int = 64 * 1024
    headers: int = 200
    arrival: ArrivalLimits = attrs.field(factory=lambda: ArrivalLimits.of(GatewayConfig()))

    @classmethod
    def of(cls, gateway: GatewayConfig) -> SiteLimits:
        """The limits in a gateway's settings."""
        return cls(
            body_bytes=gateway.max_message_bytes,
            write_s=gateway.write_timeout_s,
            idle_s=gateway.http_idle_timeout_s,
            head_s=gateway.http_head_timeout_s,
            head_bytes=gateway.http_max_head_bytes,
            arrival=ArrivalLimits.of(gateway),
        )


def health_paths(gateway: GatewayConfig) -> frozenset[bytes]:
    """The paths that tell load balancers of a port's health."""
    return frozenset(path.encode() for path in ("/", *(PROBES if gateway.expose_health else ())))


class Root(Protocol):
    """The resource that gets all requests of a site."""

    def render(self, http_request: GatewayRequest) -> int:
        """Begin to answer."""
        ...

    def wants_body(self, http_request: GatewayRequest) -> bool:
        """Whether a body that has yet to come matters; if not, ``render`` answers without it, and at once."""
        ...


class GatewaySite(Site):
    """
    All connections to one listener.

    There is no access log: a line for each request costs more than the gateway's own work on it.
    """

    protocol = GatewayChannel  # type: ignore[assignment]
    requestFactory = GatewayRequest
    noisy = False  # the gateway logs its ports itself

    def __init__(
        self,
        root: Root,
        limits: SiteLimits,
        backend: Ground,
        connections: Connections,
        hangups: HangUps,
        *,
        cors: Cors,
        encode_error: ErrorEncoder = encode_error,
        errors_below: Mapping[bytes, ErrorEncoder] = {},
    ) -> None:
        """Clients of paths that begin with one of ``errors_below`` know errors in a form of their own."""
        super().__init__(root, timeout=limits.idle_s, reactor=backend.reactor, parsePOSTFormSubmission=False)
        self.limits = limits
        self._encode_error = encode_error
        self._errors_below = tuple(errors_below.items())
        self.buffers = backend.buffers
        self.admission = backend.admission
        self.access = backend.access
        self.connections = connections
        self.hangups = hangups
        self.cors = cors
        self.secure_headers = backend.secure_headers
        self.browsers = Browsers.of(backend.gateway)
        self.proxies = Proxies.of(backend.gateway)
        # Whose answers are for everybody who asks, by whatever name of the gateway.
        self.health_paths = health_paths(backend.gateway)

    def encode_error(self, error: GatewayError, path: bytes = b"") -> ErrorResponse:
        """``error`` as the clients of ``path`` know errors."""
        for prefix, encode in self._errors_below:
            if path.startswith(prefix):
                return encode(error)
        return self._encode_error(error)

    def buildProtocol(self, addr: IAddress | None) -> Any:
        return None if self.connections.draining else super().buildProtocol(addr)

    def startFactory(self) -> None:
        """Opens no log."""

    def stopFactory(self) -> None:
        """Closes no log."""

    def log(self, request: object) -> None:
        """Keeps no access log."""

    def acceptableProtocols(self) -> list[bytes]:
        return [b"http/1.1"]

    def headers_for(self, http_request: GatewayRequest) -> Iterable[tuple[bytes, bytes]]:
        """Headers for every answer: those of TLS, and of CORS, if it is on and the client is a browser."""
        if http_request.method == b"OPTIONS" and self.cors.is_preflight(http_request.header):
            return self.secure_headers
        return (*self.secure_headers, *self.cors.answer(http_request.header))
