"""
Whether a gateway's ports can be bound.

That a port is taken is found before anything is started: gRPC's server does not say why it cannot bind, and
executors that have been started would have to be stopped again.
"""

from __future__ import annotations

from collections.abc import Iterable

from gatewayd.binding import addresses_of, bind_error
from gatewayd.config import Listener
from gatewayd.errors import PortTaken


def check_ports(host: str, listeners: Iterable[Listener]) -> None:
    """Raises PortTaken for the first port that cannot be bound now. Blocks while a host name is looked up."""
    addresses = addresses_of(host)
    for listener in listeners:
        for address in addresses if listener.port else ():
            if (reason := bind_error(address, listener.port)) is not None:
                raise PortTaken("+".join(listener.protocols), host, listener.port, reason)
