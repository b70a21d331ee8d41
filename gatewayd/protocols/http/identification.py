# mypy: disable-error-code="no-untyped-call"
"""What the head of an HTTP request says of its client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gatewayd.access.credentials import Credentials
from gatewayd.protocols.http.grammar import members
from gatewayd.tls.peer import names_of_transport

if TYPE_CHECKING:
    from gatewayd.protocols.http.request import GatewayRequest

_READS: Final = (b"GET", b"HEAD")
_AUTHORIZATION: Final = "authorization"
_PROTOCOLS: Final = b"sec-websocket-protocol"
# Pages cannot set headers of a WebSocket's handshake, but subprotocols.
_OFFERED: Final = "bearer."


def is_for_all(http_request: GatewayRequest) -> bool:
    """Whether a request is answered to everybody: the health checks, and the preflights of browsers."""
    header = http_request.header
    if http_request.method in _READS and http_request.path in http_request.channel.site.health_paths:
        return header(b"upgrade") is None
    return http_request.method == b"OPTIONS" and http_request.channel.site.cors.is_preflight(header)


def credentials_of(http_request: GatewayRequest) -> Credentials:
    """The credentials in the head of ``http_request``; those in a subprotocol are taken out of it."""
    upgrade = http_request.header(b"upgrade")
    is_websocket = upgrade is not None and b"websocket" in members([upgrade])
    offered = _taken_out(http_request) if is_websocket else None

    def header(name: str) -> str | None:
        value = http_request.header(name.encode())
        if value is None and offered is not None and name == _AUTHORIZATION:
            return f"Bearer {offered}"
        return None if value is None else value.decode("latin-1").strip()

    return Credentials(
        header,
        host_of(http_request),
        lambda: names_of_transport(http_request.channel.transport),
        method=http_request.method.decode("latin-1"),
        target=http_request.uri.decode("latin-1"),
        protocol="websocket" if is_websocket else "http",
    )


def host_of(http_request: GatewayRequest) -> str:
    """The client's host. A socket of both families has addresses of IPv4 in the form of IPv6."""
    return str(getattr(http_request.channel.getPeer(), "host", "")).removeprefix("::ffff:")


def _taken_out(http_request: GatewayRequest) -> str | None:
    """The credential among the offered subprotocols, which is not shown to what chooses one of them."""
    headers = http_request.requestHeaders
    offers = [
        offer.strip()
        for line in headers.getRawHeaders(_PROTOCOLS, ())
        for offer in line.decode("latin-1").split(",")
    ]
    found = [offer.removeprefix(_OFFERED) for offer in offers if offer.startswith(_OFFERED)]
    if not found:
        return None
    others = [offer for offer in offers if not offer.startswith(_OFFERED)]
    if others:
        headers.setRawHeaders(_PROTOCOLS, [", ".join(others).encode("latin-1")])
    else:
        headers.removeHeader(_PROTOCOLS)
    return found[0]
