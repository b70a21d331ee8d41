"""
The sockets of a gateway's ports, and whether they can be bound.

That a port is taken is found before anything is started: gRPC's server does not say why it cannot bind, and
executors that have been started would have to be stopped again.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable

from gatewayd.binding import addresses_of, bind_error, listening_everywhere, reason_of
from gatewayd.config import Listener
from gatewayd.config.model import GatewayConfig
from gatewayd.errors import PortTaken


def check_ports(host: str, listeners: Iterable[Listener]) -> None:
    """Raises PortTaken for the first port that cannot be bound now. Blocks while a host name is looked up."""
    addresses = addresses_of(host)
    for listener in listeners:
        for address in addresses if listener.port else ():
            if (reason := bind_error(address, listener.port)) is not None:
                raise PortTaken("+".join(listener.protocols), host, listener.port, reason)


def check_operators_ports(gateway: GatewayConfig) -> None:
    """As ``check_ports``, for the ports of operators."""
    wanted = [("the admin site", gateway.admin_host, gateway.admin_port, "gateway.admin_port")]
    if gateway.monitoring:
        wanted.append(("metrics", gateway.host, gateway.port_monitoring, "gateway.port_monitoring"))
    for name, host, port, key in wanted:
        for address in addresses_of(host) if port else ():
            if port and (reason := bind_error(address, port)) is not None:
                raise PortTaken(name, host, port, reason, key=key)


def bound_sockets(host: str, listener: Listener) -> list[socket.socket]:
    """
    Listening sockets of one listener: one for each address of the host, all with the same port.

    Raises PortTaken. Blocks while a host name is looked up.
    """
    try:
        return listening_everywhere(addresses_of(host), listener.port)
    except OSError as error:
        raise PortTaken("+".join(listener.protocols), host, listener.port, reason_of(error)) from error
