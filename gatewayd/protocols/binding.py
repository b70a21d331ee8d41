"""
Whether a port can be bound, asked of the system before anything is started.

gRPC's own server does not say why it cannot bind, and logs a line of its own; executors that have been
started would have to be stopped again.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable

from gatewayd.config import Listener
from gatewayd.errors import PortTaken


def check_ports(host: str, listeners: Iterable[Listener]) -> None:
    """Raises PortTaken for the first port that cannot be bound now. Blocks while a host name is looked up."""
    for listener in listeners:
        if listener.port and (reason := bind_error(host, listener.port)) is not None:
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
