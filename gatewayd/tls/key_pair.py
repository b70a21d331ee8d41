"""What files of TLS hold, once they are read and checked."""

from __future__ import annotations

from typing import Final

import attrs

from gatewayd.errors import ConfigError

# What the reference says of one file without the other.
PAIR: Final = "you can't pass a ssl_keyfile without a ssl_certfile and vice versa"


@attrs.frozen
class KeyPair:
    """
    A certificate chain, the gateway's own certificate first, and its key: both PEM, checked, and a pair.

    ``certfile`` and ``keyfile`` are the files they were read from. ``key_kind`` names a kind of key that
    gRPC's clients in Python and C++ refuse in the handshake (BoringSSL offers neither Ed25519 nor P-521);
    None for kinds that every client takes.
    """

    certfile: str
    keyfile: str
    chain_pem: bytes
    key_pem: bytes = attrs.field(repr=False)
    key_kind: str | None = None


class UnusableKeyPair(ConfigError):
    """The files cannot serve TLS: ``reason`` says why; ``setting`` is the gateway's key to look at."""

    def __init__(self, setting: str, reason: str) -> None:
        self.setting = setting
        self.reason = reason
        super().__init__(f"gateway.{setting}: {reason}")
