"""Who can reach the admin site."""

from __future__ import annotations

from gatewayd.access.operators import warning_for
from gatewayd.config.model import GatewayConfig

KEYS = {"alice": ("0" * 64,)}


def test_the_start_warns_of_such_a_site() -> None:
    warning = warning_for(GatewayConfig(admin_port=0, admin_host="0.0.0.0"))

    assert warning is not None
    assert "gateway.admin_host" in warning
    assert "admin_keys" in warning
    assert warning_for(GatewayConfig(admin_port=0)) is None
    assert warning_for(GatewayConfig(admin_host="0.0.0.0")) is None
    assert warning_for(GatewayConfig(admin_port=0, admin_host="0.0.0.0", admin_keys=KEYS)) is None
