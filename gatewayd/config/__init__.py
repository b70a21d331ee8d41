"""
Flow files, arguments and environment as frozen, typed objects.

Names are imported on first use: an executor's process needs the model but reads no files.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_HOMES = {
    "DeploymentConfig": "model",
    "ExecutorConfig": "model",
    "FlowConfig": "model",
    "GatewayConfig": "model",
    "Listener": "model",
    "PoolLimits": "model",
    "flow_from_mapping": "loader",
    "graph_description": "graph",
    "load_flow": "loader",
    "load_flow_text": "loader",
}

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


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'gatewayd.config' has no attribute '{name}'")
    return getattr(importlib.import_module(f"gatewayd.config.{_HOMES[name]}"), name)
