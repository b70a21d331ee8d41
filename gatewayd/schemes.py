"""
The schemes of addresses, such as ``grpcs://example.org``: what each says of protocol, TLS and port.

Between a gateway and executors on its own machine there is also ``unix:/path``, and in a cluster of
Kubernetes ``kubernetes://service.namespace:port``.
"""

from __future__ import annotations

from typing import Final, Literal

import attrs

Protocol = Literal["grpc", "http", "websocket"]

PROTOCOLS: Final[tuple[Protocol, ...]] = ("grpc", "http", "websocket")


@attrs.frozen
class Scheme:
    """``port`` is the registered one of the scheme, None for gRPC without TLS, which has none."""

    protocol: Protocol
    tls: bool
    port: int | None


SCHEMES: Final = {
    "grpc": Scheme("grpc", False, None),
    "grpcs": Scheme("grpc", True, 443),
    "http": Scheme("http", False, 80),
    "https": Scheme("http", True, 443),
    "ws": Scheme("websocket", False, 80),
    "wss": Scheme("websocket", True, 443),
}


# What stands before the path of a socket, where others have ``host:port``.
_UNIX: Final = "unix:"
# What stands before a Service of Kubernetes.
KUBERNETES: Final = "kubernetes://"
# The kernel's struct has room for 108 bytes on Linux and 104 elsewhere, with a zero at the end.
SOCKET_LIMIT_BYTES: Final = 103


def unix_address(path: str) -> str:
    """The address of a Unix socket, as gRPC writes it."""
    return f"{_UNIX}{path}"


def socket_path(address: str) -> str | None:
    """The path in the address of a Unix socket; None for ``host:port``."""
    return address.removeprefix(_UNIX) if address.startswith(_UNIX) else None


@attrs.frozen
class ServiceName:
    """
    A Service of Kubernetes whose pods are replicas: ``kubernetes://service.namespace:port``, with their port.

    Without a namespace it is in that of the gateway.
    """

    service: str
    namespace: str | None
    port: int

    @classmethod
    def of(cls, address: str) -> ServiceName | None:
        """None where ``address`` is of another kind."""
        if not address.startswith(KUBERNETES):
            return None
        name, _, port = address.removeprefix(KUBERNETES).rpartition(":")
        service, _, namespace = name.partition(".")
        return cls(service, namespace or None, int(port))

    @property
    def host(self) -> str:
        """Its name in the DNS of the cluster."""
        return self.service if self.namespace is None else f"{self.service}.{self.namespace}.svc"


def scheme_of(protocol: str, *, tls: bool) -> str:
    """The scheme under which a protocol is reached."""
    return next(name for name, each in SCHEMES.items() if (each.protocol, each.tls) == (protocol, tls))
