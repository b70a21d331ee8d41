"""Twisted's TLS contexts of key pairs."""

from __future__ import annotations

from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLContextFactory
from zope.interface import implementer

from gatewayd.tls.key_pair import KeyPair, UnusableKeyPair

# Of TLS 1.2 only what has forward secrecy and authenticated encryption (RFC 9325 section 4.2); all ciphers of
# TLS 1.3 have both.
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL:!eNULL"


@implementer(IOpenSSLContextFactory)
class WebTls:
    """The context factory of a port of HTTP and WebSocket, for ``TLSMemoryBIOFactory``. Reactor only."""

    def __init__(self, key_pair: KeyPair) -> None:
        """Raises UnusableKeyPair if OpenSSL refuses the certificate or key."""
        self._context = context_of(key_pair)

    def getContext(self) -> SSL.Context:
        """The context of each connection."""
        return self._context


def context_of(key_pair: KeyPair) -> SSL.Context:
    """
    Twisted's settings, for TLS 1.2 and newer; what is added to them says why.

    Raises UnusableKeyPair.
    """
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


def _choose_protocol(_connection: SSL.Connection, offered: list[bytes]) -> Any:
    # Twisted would end the handshake of a client that offers only other protocols. It may speak HTTP/1.1
    # all the same, so the connection goes on without a protocol agreed on.
    return b"http/1.1" if b"http/1.1" in offered else SSL.NO_OVERLAPPING_PROTOCOLS
