"""
One certificate and its key, checked, and Twisted's TLS context of them; gRPC takes them as they are.

Both files are checked when they are loaded, before anything listens: clients would see a mistake only as a
handshake that fails.
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
from zope.interface import implementer

from gatewayd.errors import ConfigError

# What the reference says of one file without the other.
PAIR: Final = "you can't pass a ssl_keyfile without a ssl_certfile and vice versa"

# Of TLS 1.2 only what has forward secrecy and authenticated encryption (RFC 9325 section 4.2); all ciphers of
# TLS 1.3 have both.
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL:!eNULL"


@attrs.frozen
class KeyPair:
    """
    A certificate chain, the gateway's own certificate first, and its key: both PEM, checked, and a pair.

    ``certfile`` and ``keyfile`` are the files they were read from. ``key_kind`` names a kind of key that
    gRPC's clients in Python and C++ refuse in the handshake (BoringSSL offers neither Ed25519 nor P-521);
    None for kinds that every client takes.
    """

    certfile: str
    keyfile: str
    chain_pem: bytes
    key_pem: bytes = attrs.field(repr=False)
    key_kind: str | None = None


class UnusableKeyPair(ConfigError):
    """The files cannot serve TLS: ``reason`` says why; ``setting`` is the gateway's key to look at."""

    def __init__(self, setting: str, reason: str) -> None:
        self.setting = setting
        self.reason = reason
        super().__init__(f"gateway.{setting}: {reason}")


@implementer(IOpenSSLContextFactory)
class WebTls:
    """The context factory of a port of HTTP and WebSocket, for ``TLSMemoryBIOFactory``. Reactor only."""

    def __init__(self, key_pair: KeyPair) -> None:
        """Raises UnusableKeyPair if OpenSSL refuses the certificate or key."""
        self._context = _context(key_pair)

    def getContext(self) -> SSL.Context:
        """The context of each connection."""
        return self._context


def load_key_pair(certfile: str | None, keyfile: str | None, now: datetime | None = None) -> KeyPair | None:
    """
    Read and check a gateway's ``ssl_certfile`` and ``ssl_keyfile``; None if both are None.

    Reads files: call it before the reactor runs, or in a thread. The certificates must be valid at ``now``,
    by default the time of the call. Raises UnusableKeyPair, which names the file and its fault.
    """
    if certfile is None and keyfile is None:
        return None
    if keyfile is None:
        raise UnusableKeyPair("ssl_certfile", f"{certfile} is given without gateway.ssl_keyfile: {PAIR}")
    if certfile is None:
        raise UnusableKeyPair("ssl_keyfile", f"{keyfile} is given without gateway.ssl_certfile: {PAIR}")
    chain_pem = _read("ssl_certfile", certfile)
    key_pem = _read("ssl_keyfile", keyfile)
    chain = _certificates(certfile, chain_pem, now or datetime.now(UTC))
    key = _private_key(keyfile, key_pem)
    _check_pair(certfile, chain, keyfile, key)
    key_pair = KeyPair(certfile, keyfile, chain_pem, key_pem, _unusual(key))
    _context(key_pair)
    return key_pair


def _choose_protocol(_connection: SSL.Connection, offered: list[bytes]) -> Any:
    # Twisted would end the handshake of a client that offers only other protocols. It may speak HTTP/1.1
    # all the same, so the connection goes on without a protocol agreed on.
    return b"http/1.1" if b"http/1.1" in offered else SSL.NO_OVERLAPPING_PROTOCOLS


def _read(setting: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UnusableKeyPair(setting, f"{path} cannot be read: {error.strerror or error}") from error


def _certificates(path: str, pem: bytes, now: datetime) -> list[x509.Certificate]:
    try:
        chain = x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise UnusableKeyPair("ssl_certfile", f"{path} holds no PEM certificate: {error}") from error
    for certificate in chain:
        subject = certificate.subject.rfc4514_string() or "without a subject"
        begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if now > end:
            raise UnusableKeyPair("ssl_certfile", f"{path}: the certificate {subject} expired on {end}")
        if now < begin:
            raise UnusableKeyPair(
                "ssl_certfile", f"{path}: the certificate {subject} is not valid before {begin}"
            )
    return chain


def _private_key(path: str, pem: bytes) -> PrivateKeyTypes:
    try:
        return serialization.load_pem_private_key(pem, password=None)
    except TypeError as error:
        # What cryptography raises for a key that needs a password.
        raise UnusableKeyPair(
            "ssl_keyfile",
            f"{path} is encrypted; gatewayd has no way to ask for its password. "
            f"Write it without one (openssl pkey -in {path} -out plain.pem)",
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        # The error's text may quote the file.
        raise UnusableKeyPair("ssl_keyfile", f"{path} holds no PEM private key that can be used") from error


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
        raise UnusableKeyPair(
            "ssl_certfile",
            f"{certfile}: the key in {keyfile} belongs to certificate {matching[0]} "
            "of the file; the gateway's own certificate must be the first",
        )
    raise UnusableKeyPair("ssl_keyfile", f"{keyfile} is not the key of the certificate in {certfile}")


def _unusual(key: PrivateKeyTypes) -> str | None:
    """The kind of a key that BoringSSL doesn't offer; None for the others."""
    if isinstance(key, rsa.RSAPrivateKey):
        return None
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return None if key.curve.name in ("secp256r1", "secp384r1") else key.curve.name
    return type(key).__name__.removesuffix("PrivateKey").strip("_")


def _public_bytes(key: Any) -> bytes:
    der: bytes = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return der


def _context(key_pair: KeyPair) -> SSL.Context:
    """Twisted's settings, for TLS 1.2 and newer; what is added to them says why."""
    # A quarter of what reading a Flow file would import, and most Flows have no certificate.
    from twisted.internet.ssl import AcceptableCiphers, CertificateOptions, TLSVersion

    # Any: Twisted hands them on to pyOpenSSL, which prefers cryptography's classes to its own by now.
    chain: list[Any] = list(x509.load_pem_x509_certificates(key_pair.chain_pem))
    key: Any = serialization.load_pem_private_key(key_pair.key_pem, password=None)
    try:
        context = CertificateOptions(
            privateKey=key,
            certificate=chain[0],
            extraCertChain=chain[1:],
            raiseMinimumTo=TLSVersion.TLSv1_2,
            acceptableCiphers=AcceptableCiphers.fromOpenSSLCipherString(_CIPHERS),
            # Sessions are resumed with tickets, which cost the gateway no memory.
            enableSessionTickets=True,
        ).getContext()
    except (SSL.Error, TypeError) as error:
        reasons = "; ".join(entry[-1] for entry in error.args[0]) if isinstance(error, SSL.Error) else error
        raise UnusableKeyPair(
            "ssl_certfile", f"OpenSSL refuses {key_pair.certfile} with {key_pair.keyfile}: {reasons}"
        ) from error
    # A client could make the gateway do handshakes without end on one connection of TLS 1.2.
    context.set_options(SSL.OP_NO_RENEGOTIATION)
    context.set_alpn_select_callback(_choose_protocol)
    return context
