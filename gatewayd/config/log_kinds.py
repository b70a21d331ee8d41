"""The kinds of values that say what the log is like."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import attrs

from gatewayd.config.kinds import (
    TEXT,
    Refused,
    ValueKind,
    boolean_of,
    choice,
    map_from,
    map_of,
    seconds,
    share,
)
from gatewayd.config.problems import suggestion

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


@attrs.frozen
class AccessLogConfig:
    """
    The access log: to the file ``path``, or to the log itself; ``form`` is ``text`` or ``json``.

    ``sample`` is the share of requests that have a line; so have all that do not succeed, or take longer than
    ``slower_than_s``.
    """

    path: str | None = None
    sample: float = 1.0
    form: str | None = None
    slower_than_s: float | None = None


_ACCESS_KEYS: Final = {
    "path": TEXT,
    "sample": share(),
    "format": choice("text", "json"),
    "slower_than": seconds(zero=False),
}
_ACCESS_FIELDS: Final = {"format": "form", "slower_than": "slower_than_s"}


def _access_log(value: Any) -> AccessLogConfig | None:
    if not isinstance(value, Mapping):
        return AccessLogConfig() if boolean_of(value) else None
    found: dict[str, Any] = {}
    for name, given in map_from(value).items():
        kind = _ACCESS_KEYS.get(name)
        if kind is None:
            near = suggestion(name, _ACCESS_KEYS)
            raise Refused(inside=(name,), message=f"unknown key of access_log{near}")
        if given is None:
            continue
        try:
            found[_ACCESS_FIELDS.get(name, name)] = kind.read(given)
        except Refused as refused:
            raise Refused(inside=(name,), found=given, accepted=refused.accepted or kind.accepted) from None
    return AccessLogConfig(**found)


ACCESS_LOG: Final = ValueKind(
    "true, false, or a map of path, sample, format and slower_than",
    _access_log,
    annotation="bool | Mapping[str, Any]",
)
