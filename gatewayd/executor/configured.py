"""
An executor's own configuration, read and written from Python: ``Executor.load_config`` and ``save_config``.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, TypeVar

import attrs
import yaml

from gatewayd.config.executors import read_executor
from gatewayd.config.files import FILE_ENDINGS
from gatewayd.config.model import ExecutorConfig
from gatewayd.config.substitution import Variables
from gatewayd.executor.by_value import importable_name
from gatewayd.executor.classes import find_class, import_modules

T = TypeVar("T")
Content = str | Path | IO[str] | Mapping[str, Any]

# Keywords of __init__ that are not in ``with``: a configuration has sections for them, or the runtime sets
# them.
_RUNTIME = ("metas", "requests", "runtime_args", "dynamic_batching")
_NAME = re.compile(r"!?([^\W\d][\w.]*(:[^\W\d][\w.]*)?)")


@attrs.frozen
class Loading:
    """What ``load_config`` takes besides its source. ``folders`` are looked into for files, in this order."""

    folders: tuple[Path, ...]
    context: Mapping[str, Any] = attrs.field(repr=False)
    substitute: bool
    allow_py_modules: bool
    overrides: Mapping[str, Any] = attrs.field(repr=False)


def read_config(source: Content, loading: Loading) -> ExecutorConfig:
    """Raises FileNotFoundError, or ConfigError with every problem."""
    config = read_executor(
        _content(source, loading.folders),
        {key: value for key, value in loading.overrides.items() if value is not None},
        folders=loading.folders,
        variables=Variables(os.environ, loading.context) if loading.substitute else None,
        name=str(getattr(source, "name", None) or "<text>"),
    )
    return config if loading.allow_py_modules else attrs.evolve(config, py_modules=())


def class_of(config: ExecutorConfig, base: type[T], folders: tuple[Path, ...], otherwise: type[T]) -> type[T]:
    """Import what ``config`` needs, and find its class; ``otherwise`` if it names none. Raises LoadError."""
    import_modules(config.py_modules, str(folders[0]))
    return otherwise if config.uses is None else find_class(config.uses, base, config.py_modules)


def arguments(init: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of an ``__init__`` by keyword, without those of the runtime."""
    signature = inspect.signature(init)
    try:
        bound = signature.bind(None, *args, **kwargs).arguments
    except TypeError:  # which the call itself is about to raise
        return {}
    found: dict[str, Any] = {}
    for name, value in list(bound.items())[1:]:
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_KEYWORD:
            found |= value
        elif kind is not inspect.Parameter.VAR_POSITIONAL:
            found[name] = value
    return {name: value for name, value in found.items() if name not in _RUNTIME}


def to_yaml(cls: type, with_: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """
    A configuration for ``load_config``. Raises TypeError for arguments that YAML does not have.
    """
    name, modules = importable_name(cls), []
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    if name is None and cls.__module__ == "__main__" and script is not None:
        modules = [str(Path(script).absolute())]
    sections = {
        "with": dict(with_),
        "metas": {key: value for key, value in given.get("metas", {}).items() if value is not None},
        "py_modules": modules,
        "requests": dict(given.get("requests", {})),
        "dynamic_batching": {key: dict(value) for key, value in given.get("dynamic_batching", {}).items()},
    }
    for key, value in with_.items():
        try:
            yaml.safe_dump(value)
        except yaml.YAMLError as error:
            raise TypeError(f"save_config: {key}={value!r} of {cls.__name__} cannot be written") from error
    whole = {"jtype": name or cls.__name__, **{key: value for key, value in sections.items() if value}}
    return yaml.safe_dump(whole, sort_keys=False, allow_unicode=True)


def _content(source: Content, folders: tuple[Path, ...]) -> str | Path | Mapping[str, Any]:
    if isinstance(source, Mapping):
        return source
    if not isinstance(source, str | Path):
        return source.read()
    text = str(source).strip()
    if "\n" not in text and text.endswith(FILE_ENDINGS):
        for folder in folders:
            path = (folder / Path(text).expanduser()).absolute()
            if path.is_file():
                return path
        raise FileNotFoundError(f"can not find {source}, looked in {', '.join(map(str, folders))}")
    if (name := _NAME.fullmatch(text)) is not None:
        return {"jtype": name[1]}
    return str(source)
