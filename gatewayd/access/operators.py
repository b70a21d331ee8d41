"""Who can reach the admin site of a gateway, by its settings."""

from __future__ import annotations

from gatewayd.binding import addresses_of
from gatewayd.config.model import GatewayConfig
from gatewayd.networks import is_loopback


def is_for_this_machine(gateway: GatewayConfig) -> bool:
    """Whether only this machine can reach the site. Blocks while a host name is looked up."""
    return all(map(is_loopback, addresses_of(gateway.admin_host)))


def warning_for(gateway: GatewayConfig) -> str | None:
    """The warning for a site that other machines can reach and that knows no keys, None otherwise."""
    if gateway.admin_port is None or gateway.admin_keys or is_for_this_machine(gateway):
        return None
    return (
        f"gateway.admin_host: {gateway.admin_host} lets other machines reach the admin site, and there are "
        "no gateway.admin_keys: it shows them health and metrics, and nothing else. Set admin_keys "
        "(`gatewayd api-key NAME`), or admin_host: 127.0.0.1"
    )
