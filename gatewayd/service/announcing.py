"""What the log says of the ports of a gateway, whichever process serves them."""

from __future__ import annotations

from collections.abc import Iterable

from twisted.logger import Logger

from gatewayd.protocols.port import PortReport

# Under the name of the part that users know.
log = Logger("gatewayd.service.gateway")


def announce(ports: Iterable[PortReport]) -> None:
    """They listen."""
    for port in ports:
        log.info(
            "{protocols} on {address}{tls}",
            protocols="+".join(port.protocols),
            address=port.address,
            tls=" with TLS" if port.tls else "",
        )


def announce_ready(ports: Iterable[PortReport]) -> None:
    """All has started."""
    log.info("ready")
    for port in ports:
        if port.try_it is not None:
            log.info("try: {command}", command=port.try_it)
