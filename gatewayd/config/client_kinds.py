"""The kinds of values that say which clients and pages may use the gateway: origins and names of hosts."""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Final

from gatewayd.config.kinds import Refused, ValueKind, boolean_of
from gatewayd.config.problems import KeyPath

_ANY: Final = "*"

# As browsers send it: scheme, host and port, with nothing after them.
_ORIGIN: Final = re.compile(r"([a-z][a-z0-9+.-]*)://((?:\*\.)?[^\s/?#,*]+)", re.IGNORECASE)
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}

_HOST_NAME: Final = re.compile(r"(?:\*\.)?[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?")


def _items(value: Any) -> list[Any]:
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list | tuple):
        raise Refused
    return list(items)


def _inside(value: Any, index: int) -> KeyPath:
    return () if isinstance(value, str) else (index,)


def _origins(value: Any) -> tuple[str, ...]:
    """Origins in the form in which browsers send them: in lower case, without their scheme's own port."""
    found = []
    for index, origin in enumerate(_items(value)):
        match = _ORIGIN.fullmatch(origin) if isinstance(origin, str) else None
        if origin != _ANY and match is None:
            raise Refused(inside=_inside(value, index), found=origin)
        if match is None:
            found.append(_ANY)
        else:
            scheme, authority = match[1].lower(), match[2].lower()
            found.append(f"{scheme}://{authority.removesuffix(_DEFAULT_PORTS.get(scheme, '/'))}")
    return tuple(dict.fromkeys(found))


def _cors(value: Any) -> tuple[str, ...]:
    if isinstance(value, bool) or (isinstance(value, str) and value.lower() in ("true", "false")):
        return (_ANY,) if boolean_of(value) else ()
    return _origins(value)


CORS: Final = ValueKind(
    "true, false, or a list of origins such as https://example.org",
    _cors,
    annotation="bool | str | Sequence[str]",
)
ORIGINS: Final = ValueKind(
    "a list of origins such as https://example.org or https://*.example.org",
    _origins,
    annotation="str | Sequence[str]",
)


def _host_names(value: Any) -> tuple[str, ...]:
    """Names in lower case, and addresses as they are written in a Host header."""
    found = []
    for index, name in enumerate(_items(value)):
        if isinstance(name, str) and (name == _ANY or _HOST_NAME.fullmatch(name)):
            found.append(name.lower())
            continue
        try:
            found.append(str(ipaddress.IPv6Address(name.strip("[]"))))
        except (ValueError, AttributeError):
            raise Refused(inside=_inside(value, index), found=name) from None
    if not found:
        raise Refused
    return tuple(dict.fromkeys(found))


def _networks(value: Any) -> tuple[str, ...]:
    found = []
    for index, item in enumerate(_items(value)):
        try:
            found.append(str(ipaddress.ip_network(item)))
        except (ValueError, TypeError) as error:
            mixed = "host bits" in str(error)
            raise Refused(
                inside=_inside(value, index),
                found=item,
                message=f"found {item!r}; its address has bits beyond its prefix" if mixed else None,
            ) from None
    return tuple(dict.fromkeys(found))


NETWORKS: Final = ValueKind(
    "a list of addresses or networks such as 10.0.0.0/8 or 2001:db8::/32",
    _networks,
    annotation="str | Sequence[str]",
)


HOST_NAMES: Final = ValueKind(
    "a list of host names such as api.example.org or *.example.org, without scheme and port",
    _host_names,
    annotation="str | Sequence[str]",
)
