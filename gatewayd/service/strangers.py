"""Whether clients of other machines may use a gateway without further ado, and what its log says of that."""

from __future__ import annotations

from gatewayd.binding import addresses_of
from gatewayd.config.model import GatewayConfig
from gatewayd.networks import is_loopback


def warning_for(gateway: GatewayConfig, *, identifies: bool) -> str | None:
    """
    The warning for a gateway that other machines can reach, None where there is nothing to warn of.

    ``identifies``: callers have to show who they are. Blocks while a host name is looked up.
    """
    if gateway.production or identifies or all(map(is_loopback, addresses_of(gateway.host))):
        return None
    return (
        f"gateway.host: {gateway.host} lets every client that reaches this machine use the Flow and see its "
        "inside: errors, status, documentation. Set gateway.production: true to close that, "
        "gateway.auth to know who calls, or host: 127.0.0.1 for this machine alone (the guide's page "
        "Production)"
    )
