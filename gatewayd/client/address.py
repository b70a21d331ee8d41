"""
Where a Client connects: host, port, protocol and TLS, from keywords or from one address.

``Client(host="wss://example.org")`` says three of them at once; what is said twice is refused, even
when both say the same, because one of them will be forgotten when the other is changed.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit

import attrs

from gatewayd.redaction import redacted_url
from gatewayd.schemes import PROTOCOLS, SCHEMES, Protocol

# Of clients of the reference, besides the schemes that everything accepts.
_CLIENT_SCHEMES: Final = {**SCHEMES, "websocket": SCHEMES["ws"]}


class CertificateMistake(ValueError):
    """The files of certificates do not go together, or not with the address."""


@attrs.frozen
class Spelling:
    """How users write what this module knows as ``Certificates``, for texts that name it."""

    ca: str = "tls_ca_certfile="
    own: str = "tls_certfile="
    key: str = "tls_keyfile="
    server_name: str | None = "tls_server_name="  # None where it cannot be given
    tls: str = "tls=True"
    headers: str = "headers="


KEYWORDS: Final = Spelling()
COMMAND_LINE: Final = Spelling("--ca", "--cert", "--key", None, "grpcs://, https:// or wss://", "--header")


@attrs.frozen
class Certificates:
    """
    Files in PEM form, read when a connection is made.

    ``ca`` holds the authorities to trust instead of the system's; ``own`` and ``key`` are what the
    client shows of itself. ``server_name`` is the name that the gateway's certificate is to have; None
    for the host that is connected to.
    """

    ca: str | None = None
    own: str | None = None
    key: str | None = None
    server_name: str | None = None

    def context(self, default_ca: str | None = None) -> ssl.SSLContext:
        """
        For all that is not gRPC's own. ``default_ca`` replaces the system's authorities.

        Raises OSError (ssl.SSLError is one) for files that can't be used.
        """
        context = ssl.create_default_context(cafile=self.ca or default_ca)
        # As in gRPC, a certificate that is named is trusted even if it is the gateway's own and not a root.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        if self.own is not None:
            context.load_cert_chain(self.own, self.key)
        return context

    def contents(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """For gRPC: authorities, key, certificate. Raises OSError."""
        # As OpenSSL does it: without a file of its own, the key is beside the certificate.
        names = (self.ca, self.key or self.own, self.own)
        ca, key, own = (None if name is None else Path(name).read_bytes() for name in names)
        return ca, key, own


@attrs.frozen
class GatewayAddress:
    """
    ``proxy`` says whether the environment's proxy settings (``HTTPS_PROXY`` and such) are used; ``spelling``,
    how its user has given it.
    """

    host: str
    port: int
    protocol: Protocol
    tls: bool = False
    certificates: Certificates = Certificates()
    proxy: bool = False
    spelling: Spelling = KEYWORDS

    @property
    def authority(self) -> str:
        """``host:port`` (RFC 3986, section 3.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def url(self, path: str) -> str:
        """The URL of a path, for HTTP and the HTTP side of WebSocket."""
        return f"{'https' if self.tls else 'http'}://{self.authority}{path}"


def parse_address(
    host: str | None,
    port: int | str | None,
    protocol: str | None,
    tls: bool | None,
    certificates: Certificates,
    *,
    proxy: bool = False,
    spelling: Spelling = KEYWORDS,
) -> GatewayAddress:
    """
    The address that a Client's keywords mean; None where a keyword was not given.

    Raises ValueError for what is unknown, out of range or said twice; a CertificateMistake is one.
    """
    address = _split("0.0.0.0" if host is None else host)
    shown = redacted_url(host or "")
    said_protocol: Protocol | None = None
    said_tls: bool | None = None
    if address.scheme:
        scheme = _CLIENT_SCHEMES.get(address.scheme)
        if scheme is None:
            known = ", ".join(_CLIENT_SCHEMES)
            raise ValueError(f"{shown}: the scheme {address.scheme!r} is not one of {known}")
        said_protocol, said_tls = scheme.protocol, scheme.tls
    asked_protocol = None if protocol is None else _protocol(protocol)
    _only_once("port", address.port, port)
    _only_once("protocol", said_protocol, asked_protocol)
    # tls=False beside a scheme without TLS is what the default of other clients looks like.
    _only_once("tls", said_tls or None, tls or None)
    if said_tls is False and said_protocol is not None and tls:
        raise ValueError(f"You can't have two definitions of tls: {shown} has none, tls={tls}")

    files = certificates != Certificates()
    secure = bool(said_tls or tls or (files and said_tls is None and tls is None))
    if files and not secure:
        raise CertificateMistake(
            f"certificates are given, but the connection is without TLS: use {spelling.tls}"
        )
    _check_pair(certificates, spelling)
    chosen = address.port if port is None else _port(port)
    return GatewayAddress(
        host=address.hostname or "0.0.0.0",
        port=(443 if secure else 80) if chosen is None else chosen,
        protocol=said_protocol or asked_protocol or "grpc",
        tls=secure,
        certificates=certificates,
        proxy=proxy,
        spelling=spelling,
    )


def _check_pair(certificates: Certificates, spelling: Spelling) -> None:
    own, key = spelling.own.rstrip("="), spelling.key.rstrip("=")
    if certificates.key is not None and certificates.own is None:
        raise CertificateMistake(f"{key}: a key needs its certificate; name that with {spelling.own}")
    if certificates.own is not None and certificates.key is None:
        try:
            alone = b"PRIVATE KEY-----" not in Path(certificates.own).read_bytes()
        except OSError:
            return  # the connection tells what is wrong with the file
        if alone:
            raise CertificateMistake(
                f"{own}: {certificates.own} has no private key; name the file of its key with {spelling.key}"
            )


def _split(host: str) -> SplitResult:
    text = host.rstrip("/")
    try:
        split = urlsplit(text if "://" in text else f"//{text}")
        _ = split.port  # only now looked at: raises ValueError
    except ValueError as error:
        if text.count(":") > 1 and "://" not in text and not text.startswith("["):
            return _split(f"[{text}]")  # a bare IPv6 address
        # urlsplit's own texts quote parts of a password.
        why = "" if "@" in text else f": {error}"
        raise ValueError(f"host: {redacted_url(host)!r} is no address{why}") from None
    if split.path or split.query or split.fragment:
        raise ValueError(
            f"host: {redacted_url(host)!r} has a path; a gateway's address is scheme://host:port"
        )
    return split


def _protocol(name: str) -> Protocol:
    protocol = name.lower()
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol: {name!r} is not one of {', '.join(PROTOCOLS)}")
    return protocol


def _port(port: int | str) -> int:
    try:
        number = int(port)
    except (TypeError, ValueError):
        raise ValueError(f"port: {port!r} is no port number") from None
    if not 0 < number < 65536:
        raise ValueError(f"port: {number} is not between 1 and 65535")
    return number


def _only_once(name: str, said: object, asked: object) -> None:
    if said is not None and asked is not None:
        raise ValueError(f"You can't have two definitions of {name}: {said} in host, {name}={asked}")
