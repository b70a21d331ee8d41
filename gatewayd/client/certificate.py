"""The name to expect in a gateway's own certificate, which may not name the machine it runs on."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.x509.oid import NameOID


def server_name(certfile: str, host: str) -> str | None:
    """
    The name under which the first certificate of a PEM file is valid; None where ``host`` is such itself.

    localhost is preferred; for a wildcard it is a name that the wildcard covers. Also None for a certificate
    without names: the handshake's own error says what is wrong. Raises OSError and ValueError.
    """
    certificate = x509.load_pem_x509_certificates(Path(certfile).read_bytes())[0]
    names, addresses = _names(certificate)
    if host in addresses or host in names:
        return None
    if "localhost" in names:
        return "localhost"
    candidates = (*names, *addresses)
    return candidates[0].replace("*", "gateway", 1) if candidates else None


def _names(certificate: x509.Certificate) -> tuple[list[str], list[str]]:
    """Names, and addresses as text."""
    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        # RFC 6125 section 6.4.4: the common name counts where there are no others.
        common: list[Any] = [
            each.value for each in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        ]
        return [name for name in common if not _is_address(name)], []
    names = alternatives.get_values_for_type(x509.DNSName)
    addresses = [str(address) for address in alternatives.get_values_for_type(x509.IPAddress)]
    return names, addresses


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
