"""Certificates that tests make for themselves: an authority, what it signs, and files of them."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID

from gatewayd.tls.credentials import PairFiles, TlsCredentials, TlsFiles
from gatewayd.tls.files import load_credentials

_PEM = serialization.Encoding.PEM
LOCAL: Final = (x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
_DAY = datetime.timedelta(days=1)


@attrs.frozen
class Party:
    """A certificate with its key. ``issue`` makes it an authority."""

    certificate: x509.Certificate
    key: Any

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(_PEM)

    def key_pem(self, password: bytes | None = None) -> bytes:
        locked = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        return self.key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, locked)

    def issue(self, name: str = "localhost", **more: Any) -> Party:
        return make(name, issuer=self, **more)


def make(
    name: str | Sequence[str],
    *,
    issuer: Party | None = None,
    authority: bool = False,
    begin_days: float = -1,
    end_days: float = 1,
    key: Any = None,
    names: Sequence[x509.GeneralName] = LOCAL,
) -> Party:
    """
    A certificate valid from ``begin_days`` to ``end_days`` from now; self-signed without an issuer.

    ``name`` is its subject's common name, or several; ``names`` its alternative names.
    """
    key = key or ec.generate_private_key(ec.SECP256R1())
    common = [name] if isinstance(name, str) else name
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, each) for each in common])
    signer = issuer.key if issuer else key
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begin_days * _DAY)
        .not_valid_after(now + end_days * _DAY)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                key_cert_sign=authority,
                crl_sign=authority,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .sign(signer, None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256())
    )
    return Party(certificate, key)


@attrs.frozen
class Files:
    """What a gateway is given, ``chain`` and ``key``, and ``roots`` for its clients."""

    chain: Path
    key: Path
    roots: Path

    @property
    def settings(self) -> dict[str, str]:
        return {"ssl_certfile": str(self.chain), "ssl_keyfile": str(self.key)}

    @property
    def credentials(self) -> TlsCredentials:
        return load_credentials(TlsFiles((PairFiles(str(self.chain), str(self.key)),)))


def write_files(folder: Path) -> Files:
    """A certificate for localhost and 127.0.0.1, signed by an intermediate that the root has signed."""
    root = make("gatewayd test root", authority=True)
    middle = root.issue("gatewayd test intermediate", authority=True)
    own = middle.issue()
    files = Files(folder / "chain.pem", folder / "key.pem", folder / "roots.pem")
    files.chain.write_bytes(own.pem + middle.pem)
    files.key.write_bytes(own.key_pem())
    files.roots.write_bytes(root.pem)
    return files
