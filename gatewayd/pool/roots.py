"""
Which certificate authorities are trusted for executors that are called over TLS.

The system's, as Twisted finds them; or those of a file that a variable names, under OpenSSL's name for it or
gRPC's, which users of the reference know.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from OpenSSL import SSL
from twisted.internet import ssl
from twisted.logger import Logger

log = Logger()

_VARIABLES: Final = ("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "SSL_CERT_FILE")
_END: Final = b"-----END CERTIFICATE-----"


def trusted_roots(environment: Mapping[str, str] = os.environ) -> Any:
    """
    An IOpenSSLTrustRoot.

    A file that is named but cannot be read is an error for the log, and then no authority is trusted:
    trusting the system's instead would go unnoticed.
    """
    for variable in _VARIABLES:
        if name := environment.get(variable):
            try:
                return trust_in(Path(name).read_bytes())
            except OSError as error:
                log.error(
                    "{variable}: {path} cannot be read ({error}); no executor can be called over TLS",
                    variable=variable,
                    path=name,
                    error=error,
                )
                return ssl.trustRootFromCertificates([])
    return ssl.platformTrust()


def trust_in(pem: bytes) -> Any:
    """An IOpenSSLTrustRoot of certificates in PEM; those that cannot be read are logged and left out."""
    return ssl.trustRootFromCertificates(_certificates(pem))


def _certificates(pem: bytes) -> Sequence[ssl.Certificate]:
    found = []
    for part in pem.split(_END)[:-1]:
        begin = part.find(b"-----BEGIN CERTIFICATE-----")
        if begin < 0:
            continue
        try:
            found.append(ssl.Certificate.loadPEM(part[begin:] + _END))
        except (ValueError, SSL.Error) as error:
            log.warn("a certificate among those to be trusted cannot be read: {error}", error=error)
    return found
