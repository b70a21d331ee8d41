"""
Which certificates vouch for an executor that is called over TLS.

gRPC for Python brings a list of its own and doesn't look at the system's, so an authority that an
operator has installed would be unknown to it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from twisted.logger import Logger

log = Logger()

_VARIABLES: Final = ("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "SSL_CERT_FILE")
# No certificate; empty bytes might be taken for "none given".
_NONE: Final = b"\n"
# Debian and Alpine, Fedora and RHEL, SUSE, FreeBSD and macOS: where Go's crypto/x509 looks.
_SYSTEM: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


def read_roots(environment: Mapping[str, str] = os.environ) -> bytes | None:
    """
    PEM certificates: of the file that a variable names, else of the system.

    None where there is nothing to be read, which leaves gRPC's own. A file that is named and cannot be
    read is an error for the log, and no certificate is trusted then: nobody would notice otherwise.
    """
    for variable in _VARIABLES:
        if name := environment.get(variable):
            try:
                return Path(name).read_bytes()
            except OSError as error:
                log.error(
                    "{variable}: {path} cannot be read ({error}); no executor can be called over TLS",
                    variable=variable,
                    path=name,
                    error=error,
                )
                return _NONE
    for name in _SYSTEM:
        try:
            return Path(name).read_bytes()
        except OSError:
            continue
    return None
