"""Who a client is by its certificate, the same for every protocol."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import attrs
from cryptography import x509
from cryptography.x509.oid import NameOID


@attrs.frozen
class PeerNames:
    """
    The names in the certificate of a client, as the authority in ``ssl_client_ca`` has signed them.

    ``common_name`` is that of the subject, None unless there is exactly one. The others are the certificate's
    alternative names: DNS names, URIs (SPIFFE's among them) and addresses of e-mail.
    """

    common_name: str | None = None
    dns: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()
    emails: tuple[str, ...] = ()


def names_of_transport(transport: Any) -> PeerNames | None:
    """
    The client of a connection of HTTP or WebSocket, None if it has shown no certificate.

    The handshake must be over, as it is when something has been received.
    """
    certificate = getattr(transport, "getPeerCertificate", lambda: None)()
    return None if certificate is None else _names(certificate.to_cryptography())


def names_of_auth_context(auth_context: Mapping[str, Iterable[bytes]]) -> PeerNames | None:
    """The client of a gRPC call by its ``context.auth_context()``, None if it has shown no certificate."""
    pem = next(iter(auth_context.get("x509_pem_cert", ())), None)
    return None if pem is None else _names_in(pem)


@lru_cache(maxsize=256)
def names_of_der(certificate: bytes | None) -> PeerNames | None:
    """The client with this certificate, in DER; None for none."""
    return None if certificate is None else _names(x509.load_der_x509_certificate(certificate))


@lru_cache(maxsize=256)
def _names_in(pem: bytes) -> PeerNames:
    # gRPC tells the certificate anew with each call.
    return _names(x509.load_pem_x509_certificate(pem))


def _names(certificate: x509.Certificate) -> PeerNames:
    common = [str(name.value) for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        # Extensions that can't be read have no names.
        found = x509.SubjectAlternativeName([])
    return PeerNames(
        common[0] if len(common) == 1 else None,
        tuple(found.get_values_for_type(x509.DNSName)),
        tuple(found.get_values_for_type(x509.UniformResourceIdentifier)),
        tuple(found.get_values_for_type(x509.RFC822Name)),
    )
