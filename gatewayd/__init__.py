"""
gatewayd: the front door of a Flow of executors.

``from gatewayd import Executor, requests`` is what an executor's file starts with. These names are
loaded when they are asked for, so that ``import gatewayd`` by itself costs nothing.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

from gatewayd._version import __version__

if TYPE_CHECKING:
    from docarray import BaseDoc as BaseDoc
    from docarray import DocList as DocList
    from docarray import Document, DocumentArray

    from gatewayd.client.client import Client
    from gatewayd.custom.gateway import Gateway
    from gatewayd.executor.binding import dynamic_batching, monitor, requests
    from gatewayd.executor.executor import Executor
    from gatewayd.flow.deployment import Deployment
    from gatewayd.flow.flow import Flow

_HOMES = {
    "BaseDoc": "docarray",
    "Client": "gatewayd.client.client",
    "Deployment": "gatewayd.flow.deployment",
    "DocList": "docarray",
    "Document": "docarray",
    "DocumentArray": "docarray",
    "Executor": "gatewayd.executor.executor",
    "Flow": "gatewayd.flow.flow",
    "Gateway": "gatewayd.custom.gateway",
    "requests": "gatewayd.executor.binding",
    "dynamic_batching": "gatewayd.executor.binding",
    "monitor": "gatewayd.executor.binding",
}

# Names that the reference or its earlier releases have, and what does their work here.
_ABSENT = {
    "AsyncClient": "use Client(asyncio=True)",
    "AsyncFlow": "use Flow(asyncio=True)",
    "BaseExecutor": "use Executor, which passes requests on as they are",
    "DataRequest": "post(return_responses=True) gives gatewayd.client.response.Response",
    "DocumentArrayMemmap": "use DocumentArray; with storage='sqlite' it is on disk",
    "DocumentSet": "use DocumentArray",
    "JinaLogger": "it is in gatewayd.logging.logger, and an executor's self.logger is one",
    "MultimodalDocument": "use Document, with chunks",
    "QueryLang": "use `when` of Flow.add(), or the parameters of a request",
    "Response": "post(return_responses=True) gives gatewayd.client.response.Response",
    "write": "leave it out: replicas do not agree on writes; keep state in one replica, or in a store",
    "random_port": "leave port out, or set it to 0: a free one is chosen",
}

# Without BaseDoc and DocList, which an installation has in place of Document and DocumentArray.
__all__ = [
    "Client",
    "Deployment",
    "Document",
    "DocumentArray",
    "Executor",
    "Flow",
    "Gateway",
    "__version__",
    "dynamic_batching",
    "monitor",
    "requests",
]


# What hands documents to Python code, and the extra that brings docarray for it: 0.21, or a later one.
_WITH_DOCUMENTS = {"Document": "client", "DocumentArray": "client"}
_WITH_TYPED_DOCUMENTS = {"BaseDoc", "DocList"}
# Where either will do.
_OF_EXECUTORS = {"Executor", "requests", "dynamic_batching", "monitor"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        _require(name)
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _ABSENT:
        message = f"gatewayd has no {name}: {_ABSENT[name]}"
        # Of an AttributeError, `from gatewayd import X` would show "cannot import name" alone. It asks
        # whether X is there first, from this module.
        importing = sys._getframe(1).f_globals.get("__name__") == "importlib._bootstrap"
        raise ImportError(message, name="gatewayd") if importing else AttributeError(message)
    raise AttributeError(f"module 'gatewayd' has no attribute '{name}'")


def _require(name: str) -> None:
    """Raises ImportError if the docarray that ``name`` needs is not there."""
    from gatewayd import extras

    what = f"gatewayd.{name} needs"
    if name in _OF_EXECUTORS:
        extras.require_executor_docarray(what)
    elif name == "Client":
        extras.require_client_docarray(what)
    elif name in _WITH_DOCUMENTS:
        extras.require_docarray(what, _WITH_DOCUMENTS[name])
    elif name in _WITH_TYPED_DOCUMENTS:
        extras.require_typed_docarray(what)


def __dir__() -> list[str]:
    # What is loaded on demand is not in the module yet; completion in a shell is to offer it.
    return sorted({*globals(), *__all__})
