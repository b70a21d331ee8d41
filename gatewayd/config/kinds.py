"""
What a value may look like: each ``Kind`` says it in words, and turns what a file holds into what the
model holds, so that messages, documentation and behaviour have one source.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

from gatewayd.config.problems import KeyPath, suggestion
from gatewayd.messages.conditions import BadCondition, compile_condition

# "Wait for ever" of the reference's timeout_ready: a week, because timers refuse infinity.
FOREVER_S: Final = 7 * 24 * 3600.0


class Refused(Exception):
    """
    A value is not of the kind.

    ``inside`` leads to the part that is wrong, ``found`` is that part and ``accepted`` what it should
    have been; a ``message`` replaces both.
    """

    def __init__(
        self,
        *,
        inside: KeyPath = (),
        found: Any = ...,
        accepted: str | None = None,
        message: str | None = None,
    ) -> None:
        self.inside = inside
        self.found = found
        self.accepted = accepted
        self.message = message
        super().__init__(message or accepted or "refused")


@attrs.frozen
class Kind:
    """
    ``accepted`` completes "accepted: ..."; ``read`` gives the model's form or raises Refused.

    ``literal`` is for texts: what a variable held comes without a type. ``annotation`` is the type of what is
    accepted from Python code (see ``tools/keywords.py``).
    """

    accepted: str
    read: Callable[[Any], Any]
    literal: bool = False
    annotation: str = attrs.field(default="Any", kw_only=True)


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise Refused


def _origins(value: Any) -> tuple[str, ...]:
    if isinstance(value, bool) or (isinstance(value, str) and value.lower() in ("true", "false")):
        return ("*",) if _boolean(value) else ()
    origins = [value] if isinstance(value, str) else value
    if not isinstance(origins, list | tuple):
        raise Refused
    for index, origin in enumerate(origins):
        # As browsers send it: scheme, host and port, with nothing after them.
        if not isinstance(origin, str) or not re.fullmatch(r"\*|[a-z][a-z0-9+.-]*://[^\s/?#,]+", origin):
            raise Refused(inside=(index,) if origins is value else (), found=origin)
    return tuple(origins)


def _integer_of(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and re.fullmatch(r"[-+]?[0-9]{1,18}", value.strip()):
        return int(value)
    raise Refused


def _number_of(value: Any) -> float:
    if isinstance(value, str) and re.fullmatch(r"[-+]?[0-9]{1,15}(\.[0-9]{1,15})?", value.strip()):
        return float(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15:
        return float(value)
    raise Refused  # infinity and not-a-number come here too


def integer(least: int, most: int | None = None) -> Kind:
    def read(value: Any) -> int:
        number = _integer_of(value)
        if number < least or number > (most if most is not None else 1 << 62):
            raise Refused
        return number

    accepted = f"an integer from {least} to {most}" if most is not None else f"an integer from {least} up"
    return Kind(accepted, read, annotation="int")


def seconds(*, zero: bool) -> Kind:
    def read(value: Any) -> float:
        number = _number_of(value)
        if number < 0 or (number == 0 and not zero):
            raise Refused
        return number

    return Kind(f"a number of seconds, {'0 or more' if zero else 'more than 0'}", read, annotation="float")


def share() -> Kind:
    def read(value: Any) -> float:
        number = _number_of(value)
        if not 0 <= number <= 1:
            raise Refused
        return number

    return Kind("a number from 0 to 1", read, annotation="float")


def _limit_ms(value: Any) -> float | None:
    number = _number_of(value)
    return number / 1000 if number > 0 else None


def _ready_ms(value: Any) -> float:
    number = _number_of(value)
    if number == 0:
        raise Refused
    return number / 1000 if number > 0 else FOREVER_S


def _retries(value: Any) -> int:
    return max(-1, _integer_of(value))


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    # A name such as 7 or a version such as 1.0 is a number to YAML but a text to its author.
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise Refused


def choice(*words: str, also: Mapping[str, str] | None = None) -> Kind:
    """One of ``words`` in any case; ``also`` maps further lower-case spellings to one of them."""
    spellings = {word.lower(): word for word in words} | dict(also or {})
    spelt = (*words, *(also or {}))

    def read(value: Any) -> str:
        if isinstance(value, str):
            if value.lower() in spellings:
                return spellings[value.lower()]
            raise Refused(accepted=f"{', '.join(words)}{suggestion(value.lower(), spellings)}")
        raise Refused

    # Any case is read, but completion offers the words, so they are what is typed.
    return Kind(", ".join(words), read, annotation=f"Literal[{', '.join(map(json.dumps, spelt))}]")


def _map(value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return dict(value)
    raise Refused


def _from_json(value: Any) -> Any:
    """The value itself, or what it says if it is JSON text of a map."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError) as error:
            raise Refused(message=f"this is not JSON: {error}") from error
    return value


def _json_map(value: Any) -> dict[str, Any]:
    return _map(_from_json(value))


def map_of(each: Kind, of_what: str, *, check_key: Callable[[str], str] = str) -> Kind:
    """A map, or JSON text of one, whose values are all of the kind ``each``."""

    def read(value: Any) -> dict[str, Any]:
        result = {}
        for key, item in _json_map(value).items():
            try:
                result[check_key(key)] = each.read(item)
            except Refused as refused:
                raise Refused(
                    inside=(key, *refused.inside),
                    found=item if refused.found is ... else refused.found,
                    accepted=refused.accepted or each.accepted,
                    message=refused.message,
                ) from refused
        return result

    annotation = f"Mapping[str, {each.annotation}] | str"
    return Kind(f"a map of {of_what}", read, literal=each.literal, annotation=annotation)


def _metadata_key(key: str) -> str:
    # gRPC's HTTP/2 mapping, "Custom-Metadata": other keys make every call fail.
    if not re.fullmatch(r"[0-9a-z_.-]+", key.lower()) or key.lower().startswith("grpc-"):
        raise Refused(
            message=f"{key[:40]!r} cannot be a key of gRPC metadata; accepted: letters, digits, _ . -"
        )
    return key.lower()


def _metadata_value(value: Any) -> str:
    text = _scalar_text(value)
    if not re.fullmatch(r"[\x20-\x7e]*", text):
        raise Refused
    return text


def _scalar_text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    raise Refused


def _variable_name(key: str) -> str:
    if not key or "=" in key or "\0" in key:
        raise Refused(message=f"{key[:40]!r} cannot be the name of an environment variable")
    return key


def _variable_value(value: Any) -> str:
    text = "" if value is None else _scalar_text(value)
    if "\0" in text:
        raise Refused
    return text


def _option(value: Any) -> int | str:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int | str):
        return value
    raise Refused


def _texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list | tuple):
        for index, item in enumerate(value):
            if not isinstance(item, str):
                raise Refused(inside=(index,), found=item, accepted="text")
        return tuple(value)
    raise Refused


def _parts(value: Any) -> list[Any]:
    """A list as it is, a text at its commas, anything else as the only part."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    return list(value) if isinstance(value, list | tuple) else [value]


_PORT: Final = integer(0, 65535)


def _ports(value: Any) -> tuple[int, ...]:
    ports = []
    for index, part in enumerate(_parts(value)):
        try:
            ports.append(_PORT.read(part))
        except Refused:
            inside: KeyPath = (index,) if isinstance(value, list | tuple) else ()
            raise Refused(
                inside=inside, found=part, accepted="a port from 0 (any free one) to 65535"
            ) from None
    return tuple(ports)


_PROTOCOLS: Final = ("grpc", "http", "websocket")


def _protocols(value: Any) -> tuple[tuple[str, ...], ...]:
    listeners: list[tuple[str, ...]] = []
    for index, part in enumerate(_parts(value)):
        inside: KeyPath = (index,) if isinstance(value, list | tuple) else ()
        names = tuple(part.lower().replace(" ", "").split("+")) if isinstance(part, str) else ()
        if len(names) == 1 and names[0] in _PROTOCOLS:
            listeners.append(names)
        elif sorted(names) == ["http", "websocket"]:
            listeners.append(("http", "websocket"))
        else:
            near = suggestion(names[0], _PROTOCOLS) if names else ""
            accepted = f"grpc, http, websocket, or http+websocket on one port{near}"
            raise Refused(inside=inside, found=part, accepted=accepted)
    return tuple(listeners)


def _hosts(value: Any) -> tuple[str, ...]:
    hosts = []
    for index, part in enumerate(_parts(value)):
        if not isinstance(part, str) or not re.fullmatch(r"[^\s,]+", part):
            raise Refused(inside=(index,) if isinstance(value, list | tuple) else (), found=part)
        hosts.append(part)
    return tuple(hosts)


def _host(value: Any) -> str:
    # Letters, digits and what addresses, names and IPv6 zones use; no scheme and no port.
    if isinstance(value, str) and re.fullmatch(
        r"[A-Za-z0-9._-]+|\[?[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(%[\w.-]+)?\]?", value
    ):
        return value.strip("[]")
    raise Refused


_POLLING: Final = choice("any", "all")


def _polling(value: Any) -> dict[str, str]:
    if isinstance(value, str) and not value.lstrip().startswith("{"):
        return {"*": _POLLING.read(value)}
    return dict(map_of(_POLLING, "endpoints to any or all").read(value))


def _idempotent(value: Any) -> dict[str, bool]:
    if isinstance(value, Mapping):
        return dict(map_of(BOOLEAN, "endpoints to booleans").read(value))
    return {"*": _boolean(value)}


def _condition(value: Any) -> dict[str, Any]:
    query = _map(value)
    try:
        compile_condition(query)
    except BadCondition as error:
        raise Refused(message=str(error)) from error
    return query


def _method_name(value: Any) -> str:
    if isinstance(value, str) and value.isidentifier():
        return value
    raise Refused


def _batching(value: Any) -> dict[str, Any]:
    settings = _map(value)
    known = ("preferred_batch_size", "timeout")
    for key in settings:
        if key not in known:
            raise Refused(
                inside=(key,), message=f"unknown key; accepted: {', '.join(known)}{suggestion(key, known)}"
            )
    if "preferred_batch_size" not in settings:
        raise Refused(message="preferred_batch_size is missing; accepted: an integer from 1 up")
    for key, kind in zip(known, (integer(1), integer(0)), strict=True):
        if key in settings:
            try:
                settings[key] = kind.read(settings[key])
            except Refused:
                raise Refused(inside=(key,), found=settings[key], accepted=kind.accepted) from None
    return settings


def _version(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise Refused
    if str(value) not in ("1", "1.0"):
        raise Refused(message=f"{value} is not a valid version number; accepted: 1")
    return "1"


def _uses(value: Any) -> Any:
    if isinstance(value, str) and (scheme := re.match(r"(docker|jinahub(\+\w+)?|jinaai(\+\w+)?)://", value)):
        raise Refused(message=f"found {value[:80]!r}; executors from {scheme.group()} are not supported yet")
    if isinstance(value, str | Mapping):
        return value
    raise Refused


def _anything(value: Any) -> Any:
    return value


BOOLEAN: Final = Kind("true or false", _boolean, annotation="bool")
ORIGINS: Final = Kind(
    "true, false, or a list of origins such as https://example.org",
    _origins,
    annotation="bool | str | Sequence[str]",
)
TEXT: Final = Kind("text", _text, literal=True, annotation="str | Path")
ANYTHING: Final = Kind("anything", _anything)
MAP: Final = Kind("a map", _map, annotation="Mapping[str, Any]")
JSON_MAP: Final = Kind("a map, or JSON text of one", _json_map, annotation="Mapping[str, Any] | str")
TEXTS: Final = Kind("a text or a list of texts", _texts, literal=True, annotation="Texts")
HOST: Final = Kind("a host name or an IP address, without scheme and port", _host, annotation="str")
HOSTS: Final = Kind(
    "a host, a list of hosts, or several separated by commas", _hosts, annotation="str | Sequence[str]"
)
PORT: Final = _PORT
PORTS: Final = Kind(
    "a port, a list of ports, or several separated by commas", _ports, annotation="int | str | Sequence[int]"
)
PROTOCOLS: Final = Kind(
    "grpc, http, websocket, http+websocket, or a list of these", _protocols, annotation="str | Sequence[str]"
)
COMPRESSION: Final = choice("none", "gzip", "deflate", also={"nocompression": "none"})
CALL_LIMIT: Final = Kind("a number of milliseconds; 0 or less for no limit", _limit_ms, annotation="float")
READY_LIMIT: Final = Kind(
    "a number of milliseconds; less than 0 to wait as long as it takes", _ready_ms, annotation="float"
)
RETRIES: Final = Kind("a number of further tries; less than 0 for automatic", _retries, annotation="int")
VARIABLES: Final = map_of(
    Kind("text", _variable_value, literal=True, annotation="str | int | float | None"),
    "environment variables",
    check_key=_variable_name,
)
METADATA: Final = map_of(
    Kind("printable ASCII", _metadata_value, literal=True, annotation="str | int | float"),
    "metadata keys to texts",
    check_key=_metadata_key,
)
OPTIONS: Final = map_of(
    Kind("an integer or text", _option, annotation="int | str"),
    "gRPC channel argument names to integers or texts",
)
CONDITION: Final = Kind("a map such as {tags__k: {$eq: 1}}", _condition, annotation="Mapping[str, Any]")
POLLING: Final = Kind(
    "any, all, or a map of endpoints to these",
    _polling,
    annotation=f"{_POLLING.annotation} | Mapping[str, {_POLLING.annotation}]",
)
IDEMPOTENT: Final = Kind(
    "true, false, or a map of endpoints to these", _idempotent, annotation="bool | Mapping[str, bool]"
)
METHODS: Final = map_of(
    Kind("the name of a method", _method_name, annotation="str"), "endpoints to method names"
)
BATCHING: Final = map_of(
    Kind("a map such as {preferred_batch_size: 4, timeout: 100}", _batching, annotation="Mapping[str, Any]"),
    "endpoints to {preferred_batch_size, timeout in milliseconds}",
)
VERSION: Final = Kind("1", _version, annotation="str")
USES: Final = Kind(
    "a class such as module.Class or module:Class, a .yml file, or a map with jtype",
    _uses,
    annotation="Uses",
)
