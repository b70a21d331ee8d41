"""
The Executor base class, and the checks made when a user's class is created.

    class Indexer(Executor):
        def __init__(self, limit: int = 10, **kwargs):
            super().__init__(**kwargs)
            self.limit = limit

        @requests(on="/search")
        def search(self, docs, parameters, **kwargs): ...

``uses_with`` are keyword arguments of ``__init__``; the others (metas, runtime_args, ...) reach the base
class through ``**kwargs``. The rules are the reference's (spec executor.md).
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

from gatewayd.executor.binding import (
    Batching,
    batching_mark,
    bindings,
)
from gatewayd.messages.discovery import DEFAULT, DRY_RUN

Handler = Callable[..., Any]


def nothing(self: Executor, **kwargs: Any) -> None:
    """The handler of ``_jina_dry_run_``, and of every endpoint if a Deployment names no class."""


class Executor:
    """
    Base class of all executors. Used by itself, it returns every request unchanged.

    ``requests`` maps an endpoint to the function that answers it; ``metas`` has name, description,
    workspace and py_modules; ``runtime_args`` has name (``<deployment>/rep-0``), workspace, shard_id,
    shards and replicas, and is empty outside a Flow. ``tracer``, ``meter`` and ``tracing_context`` are None:
    gatewayd does not trace yet.
    """

    _bound: ClassVar[Mapping[str, Handler]] = {DEFAULT: nothing}
    tracer: Any = None
    meter: Any = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _check_init(cls)
        inherited: dict[str, Handler] = {}
        for base in reversed(cls.__mro__[1:]):
            # Executor's own pass-through is not inherited: a class answers only the endpoints that it binds.
            if issubclass(base, Executor) and base is not Executor:
                inherited.update(base.__dict__["_bound"])
        cls._bound = {**inherited, **bindings(cls)}

    def __init__(
        self,
        metas: Mapping[str, Any] | None = None,
        requests: Mapping[str, str] | None = None,
        runtime_args: Mapping[str, Any] | None = None,
        workspace: str | None = None,
        dynamic_batching: Mapping[str, Mapping[str, Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        """
        ``requests`` maps an endpoint to a method's name, and replaces that method's own endpoints.
        ``dynamic_batching`` maps an endpoint or a method's name to settings.

        Raises TypeError or ValueError if these name something that does not exist.
        """
        self.metas = SimpleNamespace(
            **{
                "name": type(self).__name__,
                "description": None,
                "workspace": None,
                "py_modules": None,
                **{key: value for key, value in (metas or {}).items() if value is not None},
            }
        )
        self.runtime_args = SimpleNamespace(**(runtime_args or {}))
        self.logger = logging.getLogger(self.metas.name)
        self._init_workspace = workspace
        self.requests: dict[str, Handler] = self._rebound(requests or {})
        self.batching: dict[str, Batching] = self._batching(dynamic_batching or {})

    @property
    def workspace(self) -> str:
        """
        This executor's own folder, absolute: ``<base>/<metas.name>/<shard_id>``. Created on first use.

        The base is the first that is set of the runtime's workspace, the metas', the argument of
        ``__init__``, and a folder in the user's cache.
        """
        base = (
            getattr(self.runtime_args, "workspace", None)
            or self.metas.workspace
            or self._init_workspace
            or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gatewayd"
        )
        folder = Path(base).expanduser().absolute() / self.metas.name
        shard = getattr(self.runtime_args, "shard_id", None)
        if shard is not None and shard >= 0:
            folder /= str(shard)
        folder.mkdir(parents=True, exist_ok=True)
        return str(folder)

    def monitor(
        self, name: str | None = None, documentation: str | None = None
    ) -> contextlib.AbstractContextManager[None]:
        """``with self.monitor("x_seconds", "what is timed"):`` times a block where metrics are collected."""
        return contextlib.nullcontext()

    def close(self) -> Any:
        """Called once after the last request, before the process ends. May be a coroutine function."""

    def __enter__(self) -> Executor:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _rebound(self, overrides: Mapping[str, str]) -> dict[str, Handler]:
        """
        The class's endpoints with ``overrides`` applied, and the dry run last.

        An inherited endpoint keeps the decorated function, even if a subclass has an undecorated method of
        the same name [run].
        """
        moved: dict[str, Handler] = {}
        for endpoint, name in overrides.items():
            function = getattr(type(self), name, None)
            if not callable(function):
                raise TypeError(
                    f"uses_requests: {endpoint} is to be answered by {name}, "
                    f"but {type(self).__name__} has no such method"
                )
            moved[endpoint] = function
        former = set(moved.values())
        kept = {endpoint: function for endpoint, function in self._bound.items() if function not in former}
        return {**kept, **moved, DRY_RUN: nothing}

    def _batching(self, configured: Mapping[str, Mapping[str, Any]]) -> dict[str, Batching]:
        names = {function.__name__ for function in self.requests.values()}
        for key in configured:
            if key not in self.requests and key not in names:
                raise ValueError(
                    f"dynamic_batching: {key!r} is neither an endpoint nor a bound method of "
                    f"{type(self).__name__}; there are {', '.join([*self.requests][:-1])}"
                )
        found: dict[str, Batching] = {}
        for endpoint, function in self.requests.items():
            # Settings for the endpoint win over those for the method, and both over the decorator's.
            settings = configured.get(endpoint, configured.get(function.__name__, batching_mark(function)))
            if settings is not None:
                found[endpoint] = Batching.from_settings(settings, f"{type(self).__name__} {endpoint}")
        return found


def _check_init(cls: type) -> None:
    own = vars(cls).get("__init__")
    if own is None:
        return
    parameters = inspect.signature(own).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    if not takes_any and not {"metas", "requests", "runtime_args"} <= set(parameters):
        raise TypeError(
            f"{cls.__name__}.__init__ must accept **kwargs and hand it to super().__init__(**kwargs); "
            f"it accepts ({', '.join(parameters)})"
        )
