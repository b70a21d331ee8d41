"""
Reads the files of TLS, and checks them.

They are checked when they are loaded, before anything listens: clients would see a mistake only as a
handshake that fails. Everything here reads files: call it before the reactor runs, or in a thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from gatewayd.tls.credentials import (
    PAIR,
    Authorities,
    KeyPair,
    PairFiles,
    Setting,
    TlsCredentials,
    TlsFiles,
    UnusableTlsFile,
)
from gatewayd.tls.web import context_of

# Of the kinds of keys that OpenSSL has, these are known to gRPC's library, BoringSSL.
_KNOWN_TO_GRPC: Final = (None, "secp521r1", "Ed25519")


def load_credentials(files: TlsFiles, now: datetime | None = None) -> TlsCredentials:
    """
    Read and check everything. Certificates must be valid at ``now``, by default the time of the call.

    Raises UnusableTlsFile, which names the file and its fault.
    """
    pairs = tuple(load_key_pair(each, now, grpc=files.grpc) for each in files.pairs)
    authorities = (
        None if files.client_ca is None else load_authorities(files.client_ca, now, files.client_ca_at)
    )
    return TlsCredentials(pairs, authorities, files.client_auth)


def load_key_pair(files: PairFiles, now: datetime | None = None, *, grpc: bool = False) -> KeyPair:
    """Read and check one pair, for gRPC too if it says so. Raises UnusableTlsFile."""
    certfile, keyfile = files.certfile, files.keyfile
    if keyfile is None:
        name = ".".join(map(str, files.keyfile_at))
        raise UnusableTlsFile(files.certfile_at, f"{certfile} is given without gateway.{name}: {PAIR}")
    if certfile is None:
        name = ".".join(map(str, files.certfile_at))
        raise UnusableTlsFile(files.keyfile_at, f"{keyfile} is given without gateway.{name}: {PAIR}")
    chain_pem = _read(files.certfile_at, certfile)
    key_pem = _read(files.keyfile_at, keyfile)
    chain = _certificates(files.certfile_at, certfile, chain_pem)
    _check_time(files.certfile_at, certfile, chain, now or datetime.now(UTC))
    key = _private_key(files.keyfile_at, keyfile, key_pem)
    _check_pair(files, chain, key)
    kind = _unusual(key)
    if grpc and kind not in _KNOWN_TO_GRPC:
        raise UnusableTlsFile(
            files.keyfile_at,
            f"gRPC knows no keys of the kind {kind}; RSA and the curves P-256 and P-384 are known to all",
        )
    key_pair = KeyPair(
        files,
        chain_pem,
        key_pem,
        chain[0].subject.rfc4514_string() or "without a subject",
        tuple(name.lower() for name in files.names or _dns_names(chain[0])),
        max(each.not_valid_before_utc for each in chain),
        min(each.not_valid_after_utc for each in chain),
        kind,
    )
    context_of(key_pair)
    return key_pair


def load_authorities(path: str, now: datetime | None, at: Setting) -> Authorities:
    """
    Read and check a bundle of authorities; those that have expired are of no use, but do no harm.

    Raises UnusableTlsFile, also if none of them is valid at ``now``.
    """
    found = _certificates(at, path, _read(at, path))
    now = now or datetime.now(UTC)
    if not any(each.not_valid_before_utc <= now <= each.not_valid_after_utc for each in found):
        _check_time(at, path, found, now)
    # Both TLS libraries get the same, without what else is in the file.
    unique = dict.fromkeys(each.public_bytes(serialization.Encoding.PEM) for each in found)
    return Authorities(path, b"".join(unique), len(unique))


def _read(at: Setting, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UnusableTlsFile(at, f"{path} cannot be read: {error.strerror or error}") from error


def _certificates(at: Setting, path: str, pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise UnusableTlsFile(at, f"{path} holds no PEM certificate: {error}") from error


def _check_time(at: Setting, path: str, chain: Sequence[x509.Certificate], now: datetime) -> None:
    for certificate in chain:
        subject = certificate.subject.rfc4514_string() or "without a subject"
        begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if now > end:
            raise UnusableTlsFile(at, f"{path}: the certificate {subject} expired on {end}")
        if now < begin:
            raise UnusableTlsFile(at, f"{path}: the certificate {subject} is not valid before {begin}")


def _private_key(at: Setting, path: str, pem: bytes) -> PrivateKeyTypes:
    try:
        return serialization.load_pem_private_key(pem, password=None)
    except TypeError as error:
        # What cryptography raises for a key that needs a password.
        raise UnusableTlsFile(
            at,
            f"{path} is encrypted; gatewayd has no way to ask for its password. "
            f"Write it without one (openssl pkey -in {path} -out plain.pem)",
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        # The error's text may quote the file.
        raise UnusableTlsFile(at, f"{path} holds no PEM private key that can be used") from error


def _check_pair(files: PairFiles, chain: Sequence[x509.Certificate], key: PrivateKeyTypes) -> None:
    own = _public_bytes(key.public_key())
    matching = [
        number
        for number, certificate in enumerate(chain, 1)
        if _public_bytes(certificate.public_key()) == own
    ]
    if matching and matching[0] == 1:
        return
    if matching:
        raise UnusableTlsFile(
            files.certfile_at,
            f"{files.certfile}: the key in {files.keyfile} belongs to certificate {matching[0]} "
            "of the file; the gateway's own certificate must be the first",
        )
    raise UnusableTlsFile(
        files.keyfile_at, f"{files.keyfile} is not the key of the certificate in {files.certfile}"
    )


def _dns_names(certificate: x509.Certificate) -> Sequence[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return ()
    return found.get_values_for_type(x509.DNSName)


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
