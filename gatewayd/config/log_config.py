"""
The reference's ``log_config``: the name of one of its presets, a YAML file of the same form, or its content.

Taken from it are the level, and whether lines are JSON. Handlers, their files and formats are not: where the
log goes is decided by how the gateway is started, and each such setting is named in a warning.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import attrs
import yaml

# What the reference calls its levels, by ours; its SUCCESS is between info and warning.
LEVELS: Final[Mapping[str, str]] = {
    "debug": "debug",
    "info": "info",
    "success": "info",
    "warning": "warn",
    "warn": "warn",
    "error": "error",
    "critical": "critical",
}
# Its presets, and those of them that differ from the default.
_PRESETS: Final = ("default", "json", "quiet", "docker", "profile", "remote")
_LARGEST_FILE_BYTES: Final = 1 << 20


class LogConfigError(ValueError):
    """A ``log_config`` that cannot be used; ``str(error)`` says why."""


@attrs.frozen
class LogConfig:
    """
    What is taken of it; None for what it does not say. ``ignored`` are texts on what is not.

    ``level`` is a name of Twisted's, ``log_format`` is ``text`` or ``json``.
    """

    level: str | None = None
    log_format: str | None = None
    ignored: tuple[str, ...] = ()


def level_named(text: str) -> str | None:
    """Twisted's name for a level of the reference's or ours, in any case; None for what is none."""
    return LEVELS.get(text.strip().lower())


def read_log_config(named: str | Mapping[str, Any], folder: Path = Path()) -> LogConfig:
    """
    ``named`` is a preset, a path that starts at ``folder``, or a file's content.

    Raises LogConfigError.
    """
    if isinstance(named, Mapping):
        return _content(named)
    preset = named.removeprefix("logging.").removesuffix(".yml").lower()
    path = folder / named
    if preset in _PRESETS and not path.is_file():
        return _preset(preset)
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a path that no system takes, with a zero byte
        accepted = ", ".join(_PRESETS)
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise LogConfigError(
            f"{str(path)!r} cannot be read ({reason}); accepted: {accepted}, or a YAML file"
        ) from error
    if len(text) > _LARGEST_FILE_BYTES:
        raise LogConfigError(f"{str(path)!r} has more than {_LARGEST_FILE_BYTES} bytes")
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise LogConfigError(f"{str(path)!r} is not YAML: {error}") from error
    if not isinstance(content, Mapping):
        raise LogConfigError(f"{str(path)!r} holds no map with handlers, level and configs")
    return _content(content)


def _preset(name: str) -> LogConfig:
    match name:
        case "json":
            return LogConfig(log_format="json")
        case "quiet":
            # It has no handlers there; here the reason of a start that failed remains.
            return LogConfig(level="critical")
    return LogConfig()


def _content(content: Mapping[str, Any]) -> LogConfig:
    handlers = content.get("handlers", ())
    configs = content.get("configs", {})
    if not isinstance(handlers, list | tuple) or not isinstance(configs, Mapping):
        raise LogConfigError("handlers has to be a list of names, and configs a map of them")
    level: str | None = None
    if (found := content.get("level")) is not None:
        level = level_named(str(found))
        if level is None:
            raise LogConfigError(f"level: {str(found)!r} is no level; accepted: {', '.join(LEVELS)}")
    json = False
    ignored = []
    for name in map(str, handlers):
        settings = configs.get(name) or {}
        if not isinstance(settings, Mapping):
            raise LogConfigError(f"configs.{name} has to be a map")
        json |= settings.get("formatter") == "JsonFormatter"
        if name not in ("StreamHandler", "RichHandler"):
            ignored.append(
                f"{name} is ignored: the log goes where the start says (twistd's --logfile, --syslog)"
            )
    if not handlers:
        level = "critical"
    return LogConfig(level, "json" if json else None, tuple(ignored))
