"""
Hints on why a connection may have failed, and what to do about it.

Libraries report what happened; users want to know which keyword to change. gRPC's texts come from its C core,
without codes, so an unknown text gets no hint.
"""

from __future__ import annotations

import ssl
from typing import Final
from urllib.request import getproxies, proxy_bypass

import aiohttp

from gatewayd.client.address import GatewayAddress
from gatewayd.client.errors import GATEWAY, Unreachable

_REFUSED: Final = ("connection refused", "connect call failed")
_UNKNOWN_NAME: Final = ("dns resolution failed", "name or service not known", "domain name not found")
_NO_CONNECTION: Final = ("failed to connect to all addresses", "dns resolution failed")
_UNTRUSTED: Final = ("certificate_verify_failed", "certificate verify failed", "unable to get local issuer")
_OTHER_NAME: Final = ("hostname mismatch", "ip address mismatch", "hostname verification", "peer name")
# Alerts about a client's certificate (RFC 8446 section 6.2), in the words of OpenSSL and Python.
_MISSED: Final = ("certificate_required", "certificate required")
_DISLIKED: Final = ("alert_unknown_ca", "unknown ca", "alert certificate expired", "alert bad certificate")
_NO_TLS: Final = ("wrong_version_number", "wrong version number", "ssl handshake failed", "[ssl:")
_NO_HTTP2: Final = (
    "http1.x server",
    "http/1",
    "http2 settings",
    "not speak http/2",
    "socket closed",
    "connection reset",
)
_CUT: Final = (
    "server disconnected",
    "connection reset",
    "closed the connection",
    "expected http/",
    "closing transport",
    "can not write request body",
    "broken pipe",
)


def explained(details: str, address: GatewayAddress, cause: BaseException | None = None) -> str:
    """``details``, followed by what it most likely means for a Client of ``address``."""
    if GATEWAY in details:  # it saw that of an executor, not we of the gateway
        return details
    proxy = proxy_to(address)
    hint = (
        f"the connection goes through the proxy {proxy}, which the environment names (proxy=True)"
        if proxy
        else _hint(details.lower(), address, cause)
    )
    return f"{details}: {hint}" if hint and details else hint or details


def never_connected(error: Exception) -> bool:
    """Whether there was no connection to the gateway at all, so that it does not know of the request."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return True
    if not isinstance(error, Unreachable) or GATEWAY in error.details:
        return False
    return _any(error.details.lower(), _NO_CONNECTION)


def _hint(text: str, address: GatewayAddress, cause: BaseException | None) -> str:
    if isinstance(cause, aiohttp.ClientConnectorDNSError) or _any(text, _UNKNOWN_NAME):
        return f"there is no host of the name {address.host}"
    spelling, own = address.spelling, address.certificates.own
    if address.tls:
        if _any(text, _OTHER_NAME):
            other = f", or name one with {spelling.server_name}" if spelling.server_name else ""
            return (
                f"the gateway's certificate is not for {address.certificates.server_name or address.host}; "
                f"connect to a name that it has{other}"
            )
        if _any(text, _UNTRUSTED) or isinstance(cause, ssl.SSLCertVerificationError):
            given = address.certificates.ca
            return (
                f"the gateway's certificate is not of an authority in {given} ({spelling.ca.rstrip('=')})"
                if given
                else "the authority of the gateway's certificate is unknown here; "
                f"name its PEM file with {spelling.ca}"
            )
        if own is None and _any(text, _MISSED):
            return f"the gateway demands a client's certificate: give {spelling.own} and {spelling.key}"
        if own is not None and _any(text, _DISLIKED):
            return f"the gateway does not accept the certificate in {own} ({spelling.own.rstrip('=')})"
    if _any(text, _REFUSED):
        return f"nobody listens on {address.authority}"
    if address.tls and _any(text, _NO_TLS):
        return f"does {address.authority} speak TLS?"
    if _any(text, _NO_HTTP2 if address.protocol == "grpc" else _CUT):
        other = f" Does it need TLS ({spelling.tls})?"
        if address.tls:
            # gRPC does not say which alert there was, and of others it may be lost with the connection.
            demand = f" Does it demand a client's certificate ({spelling.own}, {spelling.key})?"
            other = demand if own is None else ""
        return f"does {address.authority} speak {address.protocol}?{other}"
    return ""


def proxy_to(address: GatewayAddress) -> str | None:
    """The environment's proxy on the way to ``address``, without a password; None for a direct way."""
    if not address.proxy or proxy_bypass(address.host):
        return None
    proxies = getproxies()
    # gRPC looks at these in turn (doc/environment_variables.md).
    schemes = (
        ("grpc", "https", "http") if address.protocol == "grpc" else ("https" if address.tls else "http",)
    )
    found = next((proxies[scheme] for scheme in schemes if proxies.get(scheme)), None)
    return None if found is None else found.rpartition("@")[2].rpartition("//")[2].rstrip("/")


def _any(text: str, parts: tuple[str, ...]) -> bool:
    return any(part in text for part in parts)
