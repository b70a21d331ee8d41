"""OpenSSL's contexts of credentials, for the ports of HTTP and WebSocket."""

from __future__ import annotations

import os
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from zope.interface import implementer

from gatewayd.tls.credentials import Authorities, KeyPair, TlsCredentials, UnusableTlsFile

# Of TLS 1.2 only what has forward secrecy and authenticated encryption (RFC 9325 section 4.2); all ciphers of
# TLS 1.3 have both.
CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL:!eNULL"

# The groups of Mozilla's intermediate profile; OpenSSL has X448 and P-521 besides. The first is for secrets
# that quantum computers must not read later, and needs OpenSSL 3.5.
_GROUPS: Final = (b"X25519MLKEM768:X25519:P-256:P-384", b"X25519:P-256:P-384")


@implementer(IOpenSSLServerConnectionCreator)
class WebTls:
    """Makes the TLS of each connection to a port, for ``TLSMemoryBIOFactory``. Reactor only."""

    def __init__(self, credentials: TlsCredentials) -> None:
        """Raises UnusableTlsFile if OpenSSL refuses a certificate or key."""
        self._context = _default_context(credentials)

    def renew(self, credentials: TlsCredentials) -> None:
        """Connections from now on have these; those there are keep theirs. Raises UnusableTlsFile."""
        self._context = _default_context(credentials)

    def serverConnectionForTLS(self, protocol: object) -> SSL.Connection:
        """The TLS of one connection."""
        return SSL.Connection(self._context, None)


def _default_context(credentials: TlsCredentials) -> SSL.Context:
    """The context of the first pair, which hands clients that name another pair's server to that one's."""
    contexts = [context_of(each, credentials) for each in credentials.pairs]
    # One for all: OpenSSL looks it up before it knows which pair is asked for, and then compares the names.
    session_id = os.urandom(16)
    for context in contexts:
        context.set_session_id(session_id)
    # The callback must not hold the context that holds it.
    default, *others = contexts
    pairs = credentials.pairs

    def choose(connection: SSL.Connection) -> None:
        name = (connection.get_servername() or b"").decode("ascii", "replace").lower().rstrip(".")
        index = next((index for index, pair in enumerate(pairs) if pair.serves(name)), 0)
        if index:
            connection.set_context(others[index - 1])

    if others:
        default.set_tlsext_servername_callback(choose)
    return default


def context_of(key_pair: KeyPair, credentials: TlsCredentials | None = None) -> SSL.Context:
    """
    Twisted's settings, for TLS 1.2 and newer; what is added to them says why.

    Clients' certificates are treated as ``credentials`` say. Raises UnusableTlsFile.
    """
    # A quarter of what reading a Flow file would import, and most Flows have no certificate.
    from twisted.internet.ssl import AcceptableCiphers, CertificateOptions, TLSVersion

    # Any: Twisted hands them on to pyOpenSSL, which prefers cryptography's classes to its own by now.
    chain: list[Any] = list(x509.load_pem_x509_certificates(key_pair.chain_pem))
    # Its arithmetic was checked when it was read, which takes a second for a large RSA key.
    key: Any = serialization.load_pem_private_key(
        key_pair.key_pem, password=None, unsafe_skip_rsa_key_validation=True
    )
    try:
        context = CertificateOptions(
            privateKey=key,
            certificate=chain[0],
            extraCertChain=chain[1:],
            raiseMinimumTo=TLSVersion.TLSv1_2,
            acceptableCiphers=AcceptableCiphers.fromOpenSSLCipherString(CIPHERS),
            # Sessions are resumed with tickets, which cost the gateway no memory.
            enableSessionTickets=True,
        ).getContext()
    except (SSL.Error, TypeError) as error:
        reasons = "; ".join(entry[-1] for entry in error.args[0]) if isinstance(error, SSL.Error) else error
        files = key_pair.files
        raise UnusableTlsFile(
            files.certfile_at, f"OpenSSL refuses {files.certfile} with {files.keyfile}: {reasons}"
        ) from error
    # A client could make the gateway do handshakes without end on one connection of TLS 1.2.
    context.set_options(SSL.OP_NO_RENEGOTIATION)
    context.set_alpn_select_callback(_choose_protocol)
    _limit_groups(context)
    if credentials is not None and credentials.authorities is not None:
        _ask_clients(context, credentials.authorities, required=credentials.client_auth == "required")
    return context


def _limit_groups(context: SSL.Context) -> None:
    # pyOpenSSL has no method for it, but the function, whose absence would leave OpenSSL's own groups.
    library: Any = vars(SSL)["_lib"]
    set_groups = getattr(library, "SSL_CTX_set1_curves_list", None)
    if set_groups is not None and not any(set_groups(context._context, names) for names in _GROUPS):
        raise AssertionError("OpenSSL refuses the groups of Mozilla's profile")
    # What a list that was refused has left behind would be shown by the next call that fails.
    library.ERR_clear_error()


def _ask_clients(context: SSL.Context, authorities: Authorities, *, required: bool) -> None:
    store = context.get_cert_store()
    assert store is not None
    # As in gRPC, an authority that is named is trusted even if another one has signed it.
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
    for certificate in x509.load_pem_x509_certificates(authorities.pem):
        store.add_cert(crypto.X509.from_cryptography(certificate))
        # Clients with several certificates choose by these names. Any: it takes cryptography's class by now.
        authority: Any = certificate
        context.add_client_ca(authority)
    context.set_verify(SSL.VERIFY_PEER | (SSL.VERIFY_FAIL_IF_NO_PEER_CERT if required else 0))


def _choose_protocol(_connection: SSL.Connection, offered: list[bytes]) -> Any:
    # Twisted would end the handshake of a client that offers only other protocols. It may speak HTTP/1.1
    # all the same, so the connection goes on without a protocol agreed on.
    return b"http/1.1" if b"http/1.1" in offered else SSL.NO_OVERLAPPING_PROTOCOLS
