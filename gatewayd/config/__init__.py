"""Flow files, arguments and environment, turned into frozen typed objects once."""

from gatewayd.config.graph import graph_description
from gatewayd.config.loader import flow_from_mapping, load_flow, load_flow_text
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
    "flow_from_mapping",
    "graph_description",
    "load_flow",
    "load_flow_text",
]
