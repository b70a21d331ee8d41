"""TlsCredentials as gRPC's server takes them."""

from __future__ import annotations

from typing import Any

import grpc

from gatewayd.tls.credentials import TlsCredentials


class GrpcTls:
    """
    The TLS of one gRPC port: version 1.2 and 1.3, with ALPN for HTTP/2.

    gRPC asks for the credentials before every handshake, in a thread of its own. ``credentials`` is a frozen
    value that the reactor's thread replaces; nothing else is shared.
    """

    def __init__(self, credentials: TlsCredentials) -> None:
        self.credentials = credentials

    def server_credentials(self) -> grpc.ServerCredentials:
        """
        Those of one address.

        Each address has its own: gRPC keeps what it was given last for each one, and asks under its own lock.
        """
        given = self.credentials

        def changed() -> grpc.ServerCertificateConfiguration | None:
            nonlocal given
            if given is self.credentials:
                return None
            given = self.credentials
            return _configuration(given)

        # It cannot ask for a certificate without demanding one.
        demands = given.authorities is not None and given.client_auth == "required"
        fetch: Any = changed  # the types don't know that None is "as before"
        return grpc.dynamic_ssl_server_credentials(_configuration(given), fetch, demands)


def _configuration(credentials: TlsCredentials) -> grpc.ServerCertificateConfiguration:
    pairs = [(each.key_pem, each.chain_pem) for each in credentials.pairs]
    authorities = credentials.authorities
    return grpc.ssl_server_certificate_configuration(pairs, None if authorities is None else authorities.pem)
