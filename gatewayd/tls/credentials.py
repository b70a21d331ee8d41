"""What a gateway's ports prove themselves with, and whose clients they accept: files and their content."""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal

import attrs

from gatewayd.errors import ConfigError

ClientAuth = Literal["required", "optional"]

# A key of the config, in its section: ``("ssl_certificates", 0, "certfile")``.
Setting = tuple[str | int, ...]

# What the reference says of one file without the other.
PAIR: Final = "you can't pass a ssl_keyfile without a ssl_certfile and vice versa"


@attrs.frozen
class PairFiles:
    """
    The files of one key pair. ``names`` replace those in the certificate, where a client names its server.

    ``certfile_at`` and ``keyfile_at`` are the keys of the config that name the files.
    """

    certfile: str | None
    keyfile: str | None
    names: tuple[str, ...] = ()
    certfile_at: Setting = ("ssl_certfile",)
    keyfile_at: Setting = ("ssl_keyfile",)


@attrs.frozen
class TlsFiles:
    """
    All files of a gateway's TLS; the first pair serves clients that name no server, or an unknown one.

    ``client_ca`` has the authorities of clients' certificates, None for not asking for any. ``grpc`` says
    whether grpcio's server has a port, whose TLS library knows fewer kinds of keys. Of calls to an executor,
    ``client_ca`` are the authorities of its certificate.
    """

    pairs: tuple[PairFiles, ...]
    client_ca: str | None = None
    client_auth: ClientAuth = "required"
    grpc: bool = False
    client_ca_at: Setting = ("ssl_client_ca",)


@attrs.frozen
class KeyPair:
    """
    A certificate chain, the gateway's own certificate first, and its key: both PEM, checked, and a pair.

    ``subject`` is whose certificate it is, ``names`` are the DNS names it serves, in lower case, and
    ``begins`` and ``expires`` the time in which the whole chain is valid. ``key_kind`` names a kind of key
    that gRPC's clients in Python and C++ refuse in the handshake (BoringSSL offers neither Ed25519 nor
    P-521); None for kinds that every client takes.
    """

    files: PairFiles
    chain_pem: bytes
    key_pem: bytes = attrs.field(repr=False)
    subject: str
    names: tuple[str, ...]
    begins: datetime
    expires: datetime
    key_kind: str | None = None

    def serves(self, name: str) -> bool:
        """Whether it is for a server of this name, in lower case; ``*.example.org`` has any one label."""
        return name in self.names or f"*.{name.partition('.')[2]}" in self.names


@attrs.frozen
class Authorities:
    """Certificates in PEM, at least one, of those who sign clients' certificates."""

    path: str
    pem: bytes
    count: int


@attrs.frozen
class TlsCredentials:
    """What was in ``TlsFiles`` at one moment, checked. It never changes: renewed files make another one."""

    pairs: tuple[KeyPair, ...]
    authorities: Authorities | None = None
    client_auth: ClientAuth = "required"


class UnusableTlsFile(ConfigError):
    """A file cannot serve TLS: ``reason`` says why; ``setting`` is the key to look at, in ``section``."""

    def __init__(self, setting: Setting, reason: str, section: str = "gateway") -> None:
        self.setting = setting
        self.reason = reason
        path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in setting)
        super().__init__(f"{section}{path}: {reason}")
