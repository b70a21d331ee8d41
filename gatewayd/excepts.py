"""
The exceptions that ``except`` clauses written for the reference name, in one module.

They are loaded when they are asked for, from the modules that raise them.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gatewayd.client.errors import (
        AccessRefused,
        BadClient,
        BadClientCallback,
        BadClientInput,
        BadServer,
        BadServerFlow,
        ExecutorError,
        NetworkError,
        NoSuchEndpoint,
        RequestRefused,
        TimedOut,
        TryLater,
        Unreachable,
    )
    from gatewayd.errors import BaseJinaException, ConfigError
    from gatewayd.errors import PortTaken as PortAlreadyUsed
    from gatewayd.flow.description import FlowBuildLevelError, FlowError, FlowTopologyError
    from gatewayd.flow.process import RuntimeFailToStart

__all__ = [
    "AccessRefused",
    "BadClient",
    "BadClientCallback",
    "BadClientInput",
    "BadServer",
    "BadServerFlow",
    "BaseJinaException",
    "ConfigError",
    "ExecutorError",
    "FlowBuildLevelError",
    "FlowError",
    "FlowTopologyError",
    "NetworkError",
    "NoSuchEndpoint",
    "PortAlreadyUsed",
    "RequestRefused",
    "RuntimeFailToStart",
    "TimedOut",
    "TryLater",
    "Unreachable",
]

_HOMES = {
    "BaseJinaException": ("gatewayd.errors", "BaseJinaException"),
    "ConfigError": ("gatewayd.errors", "ConfigError"),
    "FlowBuildLevelError": ("gatewayd.flow.description", "FlowBuildLevelError"),
    "FlowError": ("gatewayd.flow.description", "FlowError"),
    "FlowTopologyError": ("gatewayd.flow.description", "FlowTopologyError"),
    "PortAlreadyUsed": ("gatewayd.errors", "PortTaken"),
    "RuntimeFailToStart": ("gatewayd.flow.process", "RuntimeFailToStart"),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(
            f"module 'gatewayd.excepts' has no attribute '{name}'; it has {', '.join(__all__)}"
        )
    module, own_name = _HOMES.get(name, ("gatewayd.client.errors", name))
    return getattr(importlib.import_module(module), own_name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
