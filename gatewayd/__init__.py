"""
gatewayd: the front door of a Flow of executors.

``from gatewayd import Executor, requests`` is what an executor's file starts with. These names are
loaded when they are asked for, so that ``import gatewayd`` by itself costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

from gatewayd._version import __version__

if TYPE_CHECKING:
    from gatewayd.client.client import Client
    from gatewayd.custom.gateway import Gateway
    from gatewayd.executor.binding import dynamic_batching, monitor, requests
    from gatewayd.executor.executor import Executor
    from gatewayd.flow.flow import Flow

_HOMES = {
    "Client": "gatewayd.client.client",
    "Executor": "gatewayd.executor.executor",
    "Flow": "gatewayd.flow.flow",
    "Gateway": "gatewayd.custom.gateway",
    "requests": "gatewayd.executor.binding",
    "dynamic_batching": "gatewayd.executor.binding",
    "monitor": "gatewayd.executor.binding",
}

__all__ = ["Client", "Executor", "Flow", "Gateway", "__version__", "dynamic_batching", "monitor", "requests"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'gatewayd' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    # What is loaded on demand is not in the module yet; completion in a shell is to offer it.
    return sorted({*globals(), *__all__})
