"""Sockets that are bound for ports which a reload adds, before anything of it takes effect."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from gatewayd.config.model import GatewayConfig
from gatewayd.protocols.binding import bound_sockets, check_ports


class Reserved:
    """The sockets of new listeners, by their index. What is not taken has to be released."""

    def __init__(self, sockets: dict[int, list[socket.socket]]) -> None:
        self._sockets = sockets

    def take(self, index: int) -> list[socket.socket]:
        """Those of one listener, which are the caller's from now on; none where it binds by itself."""
        return self._sockets.pop(index, [])

    def release(self) -> None:
        """Close what was not taken. Harmless when repeated."""
        for found in self._sockets.values():
            for each in found:
                each.close()
        self._sockets = {}


def reserve(gateway: GatewayConfig, sources: Sequence[int | None]) -> Reserved:
    """
    Bind the listeners without a source (``changes.sources_of``).

    grpcio's server binds by itself; that it could is all that is found here. Blocks. Raises PortTaken.
    """
    reserved = Reserved({})
    try:
        for index, source in enumerate(sources):
            listener = gateway.listeners[index]
            if source is not None:
                continue
            if gateway.grpc_server == "grpcio" and "grpc" in listener.protocols:
                check_ports(gateway.host, [listener])
            else:
                reserved._sockets[index] = bound_sockets(gateway.host, listener)
    except BaseException:
        reserved.release()
        raise
    return reserved
