"""The TLS of connections that the gateway makes: to executors that run elsewhere, and to others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from twisted.internet import ssl

from gatewayd.tls.credentials import TlsCredentials


class CallTls:
    """
    Whom connections trust, and what they show of themselves. Reactor thread only.

    ``roots`` is an IOpenSSLTrustRoot, None for the platform's; authorities in ``credentials`` are trusted
    instead, and its key pair, if there is one, is shown to servers that ask. ``protocols`` are those that are
    offered by ALPN: HTTP/2 for gRPC.
    """

    def __init__(
        self,
        roots: Any = None,
        credentials: TlsCredentials | None = None,
        protocols: Sequence[bytes] = (b"h2",),
    ) -> None:
        self._roots = roots
        self._protocols = list(protocols)
        self._credentials = credentials or TlsCredentials(())
        self._made: dict[str, Any] = {}

    def renew(self, credentials: TlsCredentials) -> None:
        """Connections from now on have these; those there are keep theirs."""
        self._credentials = credentials
        self._made.clear()

    def connection_to(self, name: str) -> Any:
        """
        An IOpenSSLClientConnectionCreator for a server whose certificate must have ``name``.

        Raises UnicodeError for what no certificate can have.
        """
        made = self._made.get(name)
        if made is None:
            made = self._made[name] = ssl.optionsForClientTLS(
                name,
                trustRoot=self._trusted(),
                acceptableProtocols=self._protocols or None,
                extraCertificateOptions=self._own(),
            )
        return made

    def _trusted(self) -> Any:
        authorities = self._credentials.authorities
        if authorities is None:
            return self._roots
        found = x509.load_pem_x509_certificates(authorities.pem)
        pems = [each.public_bytes(serialization.Encoding.PEM) for each in found]
        return ssl.trustRootFromCertificates([ssl.Certificate.loadPEM(pem) for pem in pems])

    def _own(self) -> dict[str, Any]:
        if not self._credentials.pairs:
            return {}
        (pair,) = self._credentials.pairs
        own, *chain = x509.load_pem_x509_certificates(pair.chain_pem)
        # It was checked when it was read.
        key = serialization.load_pem_private_key(
            pair.key_pem, password=None, unsafe_skip_rsa_key_validation=True
        )
        return {"certificate": own, "privateKey": key, "extraCertChain": chain}
