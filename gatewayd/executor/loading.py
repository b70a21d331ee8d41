"""
Creates the Executor of an ``ExecutorSpec``: imports its modules, finds its class, calls ``__init__``.

Errors name the file and what was looked for; ``__main__`` adds the traceback.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gatewayd.config.model import ExecutorConfig
from gatewayd.executor.by_value import ByValue, unpack
from gatewayd.executor.classes import LoadError, class_named, find_class, import_modules, where
from gatewayd.executor.executor import Executor, created
from gatewayd.executor.spec import ExecutorSpec

__all__ = ["LoadError", "load", "received"]


def load(spec: ExecutorSpec, sent: ByValue | None = None, tracer_provider: Any = None) -> Executor:
    """
    Import, find and create the executor of ``spec``. Raises LoadError, with the cause chained.

    ``sent`` has the objects of a caller in the same process, in place of those that the spec has by value.
    The ``tracer_provider`` is what the executor makes spans of its own with.
    """
    config = spec.executor
    base_dir = import_modules(config.py_modules, spec.base_dir)
    if sent is None:
        sent = received(config.by_value, config.uses)
    cls: type[Executor] = sent.cls or _by_name(config, sent.known)
    runtime_args = {
        "name": spec.runtime_name,
        "workspace": str(Path(base_dir, config.workspace)) if config.workspace else None,
        "shard_id": spec.shard,
        "shards": spec.shards,
        "replicas": spec.replicas,
        "metrics_registry": None if spec.monitoring_port is None else _registry(),
        "tracer_provider": tracer_provider,
        "meter_provider": None,
    }
    given = {
        "metas": dict(config.uses_metas),
        "requests": dict(config.uses_requests),
        "runtime_args": runtime_args,
        "dynamic_batching": dict(config.uses_dynamic_batching),
    }
    try:
        return created(cls, {**config.uses_with, **sent.uses_with}, given)
    except Exception as error:
        raise LoadError(f"{where(cls)}: {cls.__name__} cannot be created: {error!r}") from error


def _registry() -> Any:
    # Most executors are not measured, and start faster without the library.
    from gatewayd.executor.metrics import Registry

    return Registry()


def received(by_value: str | None, uses: str | None) -> ByValue:
    """What was sent by value, if anything. Raises LoadError."""
    if by_value is None:
        return ByValue()
    try:
        return unpack(by_value)
    except Exception as error:  # what it needs is imported now
        raise LoadError(f"uses: {uses or 'uses_with'} cannot be received: {error!r}") from error


def _by_name(config: ExecutorConfig, known: type | None) -> type[Executor]:
    if config.uses is None or config.uses in ("Executor", "BaseExecutor"):
        return Executor
    if known is not None:
        return class_named(config.uses, Executor, config.py_modules) or known
    return find_class(config.uses, Executor, config.py_modules)
