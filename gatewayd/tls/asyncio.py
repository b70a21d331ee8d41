"""Python's own TLS contexts of credentials, for asyncio's transports."""

from __future__ import annotations

import os
import ssl
import tempfile

from gatewayd.tls.credentials import KeyPair, TlsCredentials, UnusableTlsFile
from gatewayd.tls.web import CIPHERS


def ssl_context_of(credentials: TlsCredentials, *protocols: str) -> ssl.SSLContext:
    """
    A server's context for TLS 1.2 and newer, which agrees on one of ``protocols`` by ALPN.

    It is the first pair's, and hands clients that name another pair's server to that one's. Raises
    UnusableTlsFile.
    """
    pairs = credentials.pairs
    default, *others = [_context_of(pair, credentials, protocols) for pair in pairs]

    def choose(connection: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
        asked = (name or "").lower().rstrip(".")
        index = next((index for index, pair in enumerate(pairs) if pair.serves(asked)), 0)
        if index:
            connection.context = others[index - 1]

    if others:
        default.sni_callback = choose
    return default


def _context_of(pair: KeyPair, credentials: TlsCredentials, protocols: tuple[str, ...]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    # A client could make the gateway do handshakes without end on one connection of TLS 1.2.
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(list(protocols))
    try:
        _load(context, pair)
    except (ssl.SSLError, OSError) as error:
        files = pair.files
        raise UnusableTlsFile(
            files.certfile_at, f"OpenSSL refuses {files.certfile} with {files.keyfile}: {error}"
        ) from error
    if credentials.authorities is not None:
        # As in gRPC, an authority that is named is trusted even if another one has signed it.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.load_verify_locations(cadata=credentials.authorities.pem.decode("latin-1"))
        required = credentials.client_auth == "required"
        context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
    return context


def _load(context: ssl.SSLContext, pair: KeyPair) -> None:
    # Python reads files only, and those of the pair may be others by now than the ones that were checked.
    handle, path = tempfile.mkstemp()  # for its owner alone
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(pair.key_pem.rstrip() + b"\n" + pair.chain_pem)
        context.load_cert_chain(path)
    finally:
        os.unlink(path)
