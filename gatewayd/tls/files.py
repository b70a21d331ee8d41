"""
Reads the files of TLS, and checks them.

They are checked when they are loaded, before anything listens: clients would see a mistake only as a
handshake that fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from gatewayd.tls.key_pair import PAIR, KeyPair, UnusableKeyPair
from gatewayd.tls.web import context_of


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
    context_of(key_pair)
    return key_pair


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
