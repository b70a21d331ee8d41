"""
From ``gateway.uses`` to an instance of the user's gateway class.

Everything that can go wrong here is for the author of the class to mend, so every error names the key and the
file; one for a class that was written for Jina's gateways says how to port it.
"""

from __future__ import annotations

import sys
import traceback
from types import TracebackType
from typing import Final

from gatewayd.config.model import GatewayClass
from gatewayd.custom.gateway import Gateway
from gatewayd.errors import ConfigError
from gatewayd.executor.classes import LoadError, find_class, import_modules, where
from gatewayd.executor.loading import received

PORTING: Final = (
    "a gateway class written for Jina becomes one of gatewayd's in three steps: inherit from "
    "gatewayd.Gateway, keep the property app (a FastAPI app is served as it is) without setup_server and "
    "run_server, and call `await self.post(endpoint, docs)` in place of self.streamer and self.executor"
)
# What Jina's classes have, and calls here do not need.
_FOREIGN_METHODS: Final = ("setup_server", "run_server")


def load_class(config: GatewayClass, base_dir: str) -> type[Gateway]:
    """Import and find the class; modules are found in ``base_dir``, too. Raises ConfigError."""
    return _loaded(config, base_dir)[0]


def create(config: GatewayClass, base_dir: str) -> Gateway:
    """An instance of the class. Raises ConfigError."""
    cls, uses_with = _loaded(config, base_dir)
    try:
        return cls(**uses_with)
    except Exception as error:
        raise _refusal(
            config, f"uses: {where(cls)}: {cls.__name__} cannot be created: {error!r}", error
        ) from error


def _loaded(config: GatewayClass, base_dir: str) -> tuple[type[Gateway], dict[str, object]]:
    try:
        import_modules(config.py_modules, base_dir)
        sent = received(config.by_value, config.uses)
        cls: type[Gateway] = sent.cls or find_class(config.uses, Gateway, config.py_modules)
    except LoadError as error:
        if _is_foreign(config, error):
            raise _refusal(config, f"{error}; {PORTING}") from error
        raise _refusal(config, str(error), error.__cause__) from error
    try:
        check_class(cls)
    except ConfigError as error:
        raise _refusal(config, str(error)) from None
    return cls, {**config.uses_with, **sent.uses_with}


def check_class(cls: type) -> None:
    """Raises ConfigError, whose text begins with ``uses``, for a class that cannot be a gateway's."""
    if not issubclass(cls, Gateway):
        hint = PORTING if _is_of_jina(cls) else "does it inherit from gatewayd.Gateway?"
        raise ConfigError(f"uses: {cls.__qualname__} is not a gatewayd Gateway; {hint}")
    for name in _FOREIGN_METHODS:
        if hasattr(cls, name):
            text = (
                f"uses: {where(cls)}: {cls.__name__}.{name} would never be called: gatewayd serves by itself"
            )
            raise ConfigError(f"{text}; {PORTING}")


def _refusal(config: GatewayClass, text: str, cause: BaseException | None = None) -> ConfigError:
    """``text`` begins with the key; of what the user's own code raises, the traceback follows."""
    place = f"{config.place}: " if config.place else ""
    raised = ""
    if cause is not None:
        raised = "\n" + "".join(traceback.format_exception(type(cause), cause, _own_frames(cause))).rstrip()
    return ConfigError(f"{place}gateway.{text}{raised}")


def _own_frames(cause: BaseException) -> TracebackType | None:
    """The traceback from the user's own code on."""
    trace = cause.__traceback__
    while trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith(
        ("gatewayd.", "importlib")
    ):
        trace = trace.tb_next
    return trace


def _is_foreign(config: GatewayClass, error: LoadError) -> bool:
    """Whether the class is, or would be, one of Jina's."""
    cause = error.__cause__
    if isinstance(cause, ImportError):
        # Where Jina is not installed, or only its name was replaced by ours.
        return f"{cause.name}.".startswith(("jina.", "gatewayd.serve.")) or "FastAPIBaseGateway" in str(cause)
    name = config.uses.replace(":", ".").rpartition(".")[2]
    found = [vars(module).get(name) for module in list(sys.modules.values())]
    return any(isinstance(cls, type) and _is_of_jina(cls) for cls in found)


def _is_of_jina(cls: type) -> bool:
    return any(base.__module__.partition(".")[0] == "jina" for base in cls.__mro__)
