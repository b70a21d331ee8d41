"""
Where a gateway listens for its ``host``, and whether a port can be bound there.

Every protocol asks here, so that all listen on the same addresses: gRPC's own server and Twisted read a host
differently. That a port is taken is found before anything is started: gRPC's server does not say why it
cannot bind, and executors that have been started would have to be stopped again.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterable
from typing import Final

from gatewayd.config import Listener
from gatewayd.errors import PortTaken

EVERYWHERE: Final = ("0.0.0.0", "::", "")
# A port that was free at one address of a host name may be taken at another.
FREE_PORT_TRIES: Final = 8


def addresses_of(host: str) -> tuple[str, ...]:
    """
    The IP addresses to listen on: at least one, each of which gets the same port.

    Both ``0.0.0.0`` and ``::`` stand for all interfaces, with IPv6 where the system has it: one socket then
    serves both families. A name stands for all its addresses on this machine. Blocks while it is looked up.
    """
    if host in EVERYWHERE:
        return _everywhere()
    try:
        ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        return (host,)
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        return (host,)  # binding it says why
    addresses = tuple(dict.fromkeys(str(address[0]) for *_, address in found))
    usable = tuple(address for address in addresses if bind_error(address, 0) is None)
    return usable or addresses


def _everywhere() -> tuple[str, ...]:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::", 0))
            ipv6_only = probe.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    except OSError:
        return ("0.0.0.0",)
    return ("::", "0.0.0.0") if ipv6_only else ("::",)


def check_ports(host: str, listeners: Iterable[Listener]) -> None:
    """Raises PortTaken for the first port that cannot be bound now. Blocks while a host name is looked up."""
    addresses = addresses_of(host)
    for listener in listeners:
        for address in addresses if listener.port else ():
            if (reason := bind_error(address, listener.port)) is not None:
                raise PortTaken("+".join(listener.protocols), host, listener.port, reason)


def bind_error(host: str, port: int) -> str | None:
    """What the system says to a socket that is bound there; None where it can be."""
    try:
        # As the servers do it: the address decides the family, and a port that was just left is free.
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            # With SO_REUSEADDR two sockets may be bound to one port, but only one may listen.
            probe.listen(1)
    except OSError as error:
        return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
    return None
