"""
Turns one certificate and its key into what Twisted needs; gRPC takes them as they are.

Everything that can be wrong with the two files is found when they are loaded, before anything listens:
clients would see a mistake only as a handshake that fails. An ``Identity`` is a value; ``WebTls`` asks
for its context at every new connection, so that a later identity can take the place of the first one
while connections go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import attrs
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLContextFactory
from zope.interface import implementer  # type: ignore[import-untyped]

from gatewayd.errors import ConfigError

# The seed's words for one file without the other.
PAIR: Final = "you can't pass a ssl_keyfile without a ssl_certfile and vice versa"

# Of TLS 1.2 only what has forward secrecy and authenticated encryption (RFC 9325 section 4.2); the
# ciphers of TLS 1.3 are all of that kind.
_CIPHERS_1_2: Final = b"ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL:!eNULL"


@attrs.frozen
class Identity:
    """
    A certificate chain, the gateway's own first, and its key: both PEM, checked, and one pair.

    ``certfile`` and ``keyfile`` say where they came from. ``key_kind`` names the kind of key where gRPC's
    clients in Python and C++ end a handshake with it (BoringSSL offers neither Ed25519 nor P-521).
    """

    certfile: str
    keyfile: str
    chain_pem: bytes
    key_pem: bytes = attrs.field(repr=False)
    key_kind: str | None = None


class UnusableIdentity(ConfigError):
    """The files cannot serve TLS: ``reason`` says why, ``setting`` is the key of the one to look at."""

    def __init__(self, setting: str, reason: str) -> None:
        self.setting = setting
        self.reason = reason
        super().__init__(f"gateway.{setting}: {reason}")


@implementer(IOpenSSLContextFactory)
class WebTls:
    """What ``listenSSL`` is given for a port of HTTP and WebSocket. Reactor thread only."""

    def __init__(self, identity: Identity) -> None:
        """Raises UnusableIdentity where OpenSSL does not take the certificate or key."""
        self._context = _context(identity)
        self._context.set_alpn_select_callback(_choose_protocol)

    def getContext(self) -> SSL.Context:
        """The context of the next connection."""
        return self._context


def load_identity(certfile: str | None, keyfile: str | None, now: datetime | None = None) -> Identity | None:
    """
    The pair of files that a gateway's ``ssl_certfile`` and ``ssl_keyfile`` name; None where both are None.

    Reads files, so it is to be called before the reactor runs, or in a thread. ``now`` is the time that
    the certificates must be valid at. Raises UnusableIdentity , which names the file and
    what is wrong with it.
    """
    if certfile is None and keyfile is None:
        return None
    if keyfile is None:
        raise UnusableIdentity("ssl_certfile", f"{certfile} is given without gateway.ssl_keyfile: {PAIR}")
    if certfile is None:
        raise UnusableIdentity("ssl_keyfile", f"{keyfile} is given without gateway.ssl_certfile: {PAIR}")
    chain_pem = _read("ssl_certfile", certfile)
    key_pem = _read("ssl_keyfile", keyfile)
    chain = _certificates(certfile, chain_pem, now or datetime.now(UTC))
    key = _private_key(keyfile, key_pem)
    _check_pair(certfile, chain, keyfile, key)
    identity = Identity(certfile, keyfile, chain_pem, key_pem, _unusual(key))
    _context(identity)
    return identity


def _choose_protocol(_connection: SSL.Connection, offered: list[bytes]) -> Any:
    # A client that offers only others is not refused: nothing says that it could not speak HTTP/1.1.
    return b"http/1.1" if b"http/1.1" in offered else SSL.NO_OVERLAPPING_PROTOCOLS


def _read(setting: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UnusableIdentity(setting, f"{path} cannot be read: {error.strerror or error}") from error


def _certificates(path: str, pem: bytes, now: datetime) -> list[x509.Certificate]:
    try:
        chain = x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise UnusableIdentity("ssl_certfile", f"{path} holds no PEM certificate: {error}") from error
    for certificate in chain:
        subject = certificate.subject.rfc4514_string() or "without a subject"
        begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if now > end:
            raise UnusableIdentity("ssl_certfile", f"{path}: the certificate {subject} expired on {end}")
        if now < begin:
            raise UnusableIdentity(
                "ssl_certfile", f"{path}: the certificate {subject} is not valid before {begin}"
            )
    return chain


def _private_key(path: str, pem: bytes) -> PrivateKeyTypes:
    try:
        return serialization.load_pem_private_key(pem, password=None)
    except TypeError as error:
        # What cryptography raises where a password is needed.
        raise UnusableIdentity(
            "ssl_keyfile",
            f"{path} is encrypted; gatewayd has no way to ask for its password. "
            f"Write it without one (openssl pkey -in {path} -out plain.pem)",
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        # Its text may quote what the file holds.
        raise UnusableIdentity("ssl_keyfile", f"{path} holds no PEM private key that can be used") from error


def _check_pair(certfile: str, chain: Sequence[x509.Certificate], keyfile: str, key: PrivateKeyTypes) -> None:
    own = _public_bytes(key.public_key())
    matching = [
        number
        for number, certificate in enumerate(chain, 1)
        if _public_bytes(certificate.public_key()) == own
    ]
    if matching and matching[0] == 1:
        return
    if matching:
        raise UnusableIdentity(
            "ssl_certfile",
            f"{certfile}: the key in {keyfile} belongs to certificate {matching[0]} "
            "of the file; the gateway's own certificate must be the first",
        )
    raise UnusableIdentity("ssl_keyfile", f"{keyfile} is not the key of the certificate in {certfile}")


def _unusual(key: PrivateKeyTypes) -> str | None:
    if isinstance(key, rsa.RSAPrivateKey):
        return None
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return None if key.curve.name in ("secp256r1", "secp384r1") else key.curve.name
    return type(key).__name__.removesuffix("PrivateKey").strip("_")


def _public_bytes(key: Any) -> bytes:
    found: bytes = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return found


def _context(identity: Identity) -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_CIPHER_SERVER_PREFERENCE)
    context.set_cipher_list(_CIPHERS_1_2)
    # Sessions are resumed with tickets, which cost the gateway no memory.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    # An idle connection keeps no buffers: 34 kB less for each.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    own, *others = x509.load_pem_x509_certificates(identity.chain_pem)
    key: Any = serialization.load_pem_private_key(identity.key_pem, password=None)
    try:
        context.use_certificate(own)
        for certificate in others:
            context.add_extra_chain_cert(certificate)
        context.use_privatekey(key)
        context.check_privatekey()
    except (SSL.Error, TypeError) as error:
        reasons = "; ".join(entry[-1] for entry in error.args[0]) if isinstance(error, SSL.Error) else error
        raise UnusableIdentity(
            "ssl_certfile", f"OpenSSL refuses {identity.certfile} with {identity.keyfile}: {reasons}"
        ) from error
    return context
