"""The kinds of values that say what the log is like."""

from __future__ import annotations

import re
from typing import Any, Final

from gatewayd.config.kinds import Refused, ValueKind, choice, map_from, map_of

LEVEL: Final = choice(
    *("debug", "info", "warn", "error", "critical"), also={"warning": "warn", "success": "info"}
)


def _namespace(text: str) -> str:
    if not re.fullmatch(r"[^\s.]+(\.[^\s.]+)*", text):
        raise Refused(
            inside=(text,),
            message=f"{text[:80]!r} is no namespace; accepted: the name of a module, such as gatewayd.pool, "
            "or executor.NAME",
        )
    return text


_BY_NAMESPACE: Final = map_of(LEVEL, "namespaces to levels", check_key=_namespace)
LEVELS: Final = ValueKind(
    f"a map of namespaces, such as gatewayd.pool, to {LEVEL.accepted}",
    _BY_NAMESPACE.read,
    annotation="Mapping[str, str] | str",
)


def _config(value: Any) -> Any:
    return value if isinstance(value, str) else map_from(value)


CONFIG: Final = ValueKind(
    "default, json, quiet, the path of a YAML file, or what such a file holds",
    _config,
    annotation="str | Mapping[str, Any]",
)
