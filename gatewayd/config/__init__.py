"""Flow files, arguments and environment, turned into frozen typed objects once."""

from gatewayd.config.model import (
    DeploymentConfig,
    ExecutorConfig,
    FlowConfig,
    GatewayConfig,
    Listener,
    PoolLimits,
)

__all__ = [
    "DeploymentConfig",
    "ExecutorConfig",
    "FlowConfig",
    "GatewayConfig",
    "Listener",
    "PoolLimits",
]
