"""
The kinds of values that only Flow files have: ports, protocols, conditions, what ``uses`` may say, and so on.

Each reader stands before the kind that it belongs to; ``kinds`` has the general ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from gatewayd.config.kinds import (
    BOOLEAN,
    TEXT,
    TEXTS,
    Refused,
    ValueKind,
    boolean_of,
    choice,
    integer,
    integer_of,
    map_from,
    map_of,
    number_of,
    scalar_text,
)
from gatewayd.config.problems import KeyPath, suggestion
from gatewayd.messages.conditions import BadCondition
from gatewayd.messages.formats import check_condition
from gatewayd.messages.generations import Generation
from gatewayd.messages.headers import check_entry
from gatewayd.redaction import without_passwords
from gatewayd.tls.credentials import PairFiles

# -- where a Flow listens -------------------------------------------------------------------------------


def _parts(value: Any) -> list[Any]:
    """A list as it is, a text at its commas, anything else as the only part."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    return list(value) if isinstance(value, list | tuple) else [value]


PORT: Final = integer(0, 65535)


def _ports(value: Any) -> tuple[int, ...]:
    ports = []
    for index, part in enumerate(_parts(value)):
        try:
            ports.append(PORT.read(part))
        except Refused:
            inside: KeyPath = (index,) if isinstance(value, list | tuple) else ()
            raise Refused(
                inside=inside, found=part, accepted="a port from 0 (any free one) to 65535"
            ) from None
    return tuple(ports)


PORTS: Final = ValueKind(
    "a port, a list of ports, or several separated by commas", _ports, annotation="int | str | Sequence[int]"
)


_PAIR_KEYS: Final = ("certfile", "keyfile", "names")


def _certificates(value: Any) -> tuple[PairFiles, ...]:
    if not isinstance(value, list | tuple):
        raise Refused
    return tuple(_certificate(index, item) for index, item in enumerate(value))


def _certificate(index: int, item: Any) -> PairFiles:
    if not isinstance(item, Mapping):
        raise Refused(inside=(index,), found=item)
    for key in item:
        if key not in _PAIR_KEYS:
            known = f"accepted: {', '.join(_PAIR_KEYS)}{suggestion(str(key), _PAIR_KEYS)}"
            raise Refused(inside=(index, str(key)), message=f"unknown key; {known}")
    files = {}
    for key in ("certfile", "keyfile"):
        if not item.get(key):
            raise Refused(inside=(index,), message=f"{key} is missing; a certificate and its key are wanted")
        try:
            files[key] = TEXT.read(item[key])
        except Refused:
            raise Refused(inside=(index, key), found=item[key], accepted="the path of a file") from None
    try:
        names = TEXTS.read(item.get("names") or ())
    except Refused as refused:
        inside = (index, "names", *refused.inside)
        found = item["names"] if refused.found is ... else refused.found
        raise Refused(inside=inside, found=found, accepted=refused.accepted or TEXTS.accepted) from None
    at = ("ssl_certificates", index)
    return PairFiles(**files, names=names, certfile_at=(*at, "certfile"), keyfile_at=(*at, "keyfile"))


def _hsts(value: Any) -> int:
    return 0 if value is False else integer(0).read(value)


HSTS: Final = ValueKind("a number of seconds, or false", _hsts, annotation="int | Literal[False]")

CERTIFICATES: Final = ValueKind(
    "a list of maps such as {certfile: a.pem, keyfile: a.key, names: [a.example.org]}",
    _certificates,
    annotation="Sequence[Mapping[str, Any]]",
)


_PROTOCOL_NAMES: Final = ("grpc", "http", "websocket")


def _protocols(value: Any) -> tuple[tuple[str, ...], ...]:
    listeners: list[tuple[str, ...]] = []
    for index, part in enumerate(_parts(value)):
        inside: KeyPath = (index,) if isinstance(value, list | tuple) else ()
        names = tuple(part.lower().replace(" ", "").split("+")) if isinstance(part, str) else ()
        if len(names) == 1 and names[0] in _PROTOCOL_NAMES:
            listeners.append(names)
        elif sorted(names) == ["http", "websocket"]:
            listeners.append(("http", "websocket"))
        else:
            near = suggestion(names[0], _PROTOCOL_NAMES) if names else ""
            accepted = f"grpc, http, websocket, or http+websocket on one port{near}"
            raise Refused(inside=inside, found=part, accepted=accepted)
    return tuple(listeners)


PROTOCOLS: Final = ValueKind(
    "grpc, http, websocket, http+websocket, or a list of these", _protocols, annotation="str | Sequence[str]"
)


def _hosts(value: Any) -> tuple[str, ...]:
    hosts = []
    for index, part in enumerate(_parts(value)):
        if not isinstance(part, str) or not re.fullmatch(r"[^\s,]+", part):
            raise Refused(inside=(index,) if isinstance(value, list | tuple) else (), found=part)
        hosts.append(part)
    return tuple(hosts)


HOSTS: Final = ValueKind(
    "a host, a list of hosts, or several separated by commas", _hosts, annotation="str | Sequence[str]"
)


def _host(value: Any) -> str:
    # Letters, digits and what addresses, names and IPv6 zones use; no scheme and no port.
    if isinstance(value, str) and re.fullmatch(
        r"[A-Za-z0-9._-]+|\[?[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(%[\w.-]+)?\]?", value
    ):
        return value.strip("[]")
    raise Refused


HOST: Final = ValueKind("a host name or an IP address, without scheme and port", _host, annotation="str")


def _collector(value: Any) -> str:
    scheme, separator, host = value.rpartition("://") if isinstance(value, str) else ("", "", value)
    if separator and scheme.lower() not in ("http", "https"):
        raise Refused
    return f"{scheme.lower()}{separator}{_host(host)}"


COLLECTOR: Final = ValueKind(
    "a host name or an IP address, which http:// or https:// may stand before", _collector, annotation="str"
)


# -- calls to executors ---------------------------------------------------------------------------------


def _limit_ms(value: Any) -> float | None:
    number = number_of(value)
    return number / 1000 if number > 0 else None


CALL_LIMIT: Final = ValueKind(
    "a number of milliseconds; 0 or less for no limit", _limit_ms, annotation="float"
)


def _retries(value: Any) -> int:
    return max(-1, integer_of(value))


RETRIES: Final = ValueKind("a number of further tries; less than 0 for automatic", _retries, annotation="int")


COMPRESSION: Final = choice("none", "gzip", "deflate", also={"nocompression": "none"})


def _metadata_key(key: str) -> str:
    # gRPC's HTTP/2 mapping, "Custom-Metadata": other keys make every call fail.
    if not re.fullmatch(r"[0-9a-z_.-]+", key.lower()) or key.lower().startswith("grpc-"):
        raise Refused(
            message=f"{key[:40]!r} cannot be a key of gRPC metadata; accepted: letters, digits, _ . -"
        )
    return key.lower()


def _metadata_value(value: Any) -> str:
    text = scalar_text(value)
    if not re.fullmatch(r"[\x20-\x7e]*", text):
        raise Refused
    return text


def _header_names(value: Any) -> tuple[str, ...]:
    names: list[str] = []
    for index, part in enumerate(_parts(value)):
        inside: KeyPath = (index,) if isinstance(value, list | tuple) else ()
        if not isinstance(part, str):
            raise Refused(inside=inside, found=part, accepted="a header's name, or a pattern such as x-*")
        try:
            names.append(check_entry(part))
        except ValueError as error:
            raise Refused(inside=inside, message=str(error)) from error
    return tuple(dict.fromkeys(names))


HEADER_NAMES: Final = ValueKind(
    "names of headers, or patterns such as x-*", _header_names, annotation="str | Sequence[str]"
)

METADATA: Final = map_of(
    ValueKind("printable ASCII", _metadata_value, literal=True, annotation="str | int | float"),
    "metadata keys to texts",
    check_key=_metadata_key,
)


def _option(value: Any) -> int | str:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int | str):
        return value
    raise Refused


OPTIONS: Final = map_of(
    ValueKind("an integer or text", _option, annotation="int | str"),
    "gRPC channel argument names to integers or texts",
)


_ANY_OR_ALL: Final = choice("any", "all")


def _polling(value: Any) -> dict[str, str]:
    if isinstance(value, str) and not value.lstrip().startswith("{"):
        return {"*": _ANY_OR_ALL.read(value)}
    return dict(map_of(_ANY_OR_ALL, "endpoints to any or all").read(value))


POLLING: Final = ValueKind(
    "any, all, or a map of endpoints to these",
    _polling,
    annotation=f"{_ANY_OR_ALL.annotation} | Mapping[str, {_ANY_OR_ALL.annotation}]",
)


def _idempotent(value: Any) -> dict[str, bool]:
    if isinstance(value, Mapping):
        return dict(map_of(BOOLEAN, "endpoints to booleans").read(value))
    return {"*": boolean_of(value)}


IDEMPOTENT: Final = ValueKind(
    "true, false, or a map of endpoints to these", _idempotent, annotation="bool | Mapping[str, bool]"
)


def _condition(value: Any) -> dict[str, Any]:
    query = map_from(value)
    try:
        check_condition(query)
    except BadCondition as error:
        raise Refused(message=str(error)) from error
    return query


CONDITION: Final = ValueKind("a map such as {tags__k: {$eq: 1}}", _condition, annotation="Mapping[str, Any]")


# -- executors ------------------------------------------------------------------------------------------


def _uses_of(what: str) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        scheme = (
            re.match(r"(docker|jinahub(\+\w+)?|jinaai(\+\w+)?)://", value) if isinstance(value, str) else None
        )
        if scheme is not None:
            found = without_passwords(value)[:80]
            raise Refused(message=f"found {found!r}; {what} from {scheme.group()} are not supported yet")
        if isinstance(value, str | Mapping):
            return value
        raise Refused

    return read


_CLASS: Final = "a class such as module.Class or module:Class, a .yml file, or a map with jtype"
USES: Final = ValueKind(_CLASS, _uses_of("executors"), annotation="Uses")
GATEWAY_USES: Final = ValueKind(_CLASS, _uses_of("gateways"), annotation="GatewayUses")


def _method_name(value: Any) -> str:
    if isinstance(value, str) and value.isidentifier():
        return value
    raise Refused


METHODS: Final = map_of(
    ValueKind("the name of a method", _method_name, annotation="str"), "endpoints to method names"
)


def _batching(value: Any) -> dict[str, Any]:
    settings = map_from(value)
    known = ("preferred_batch_size", "timeout", "flush_all", "use_custom_metric")
    for key in settings:
        if key not in known:
            raise Refused(
                inside=(key,), message=f"unknown key; accepted: {', '.join(known)}{suggestion(key, known)}"
            )
    if "preferred_batch_size" not in settings:
        raise Refused(message="preferred_batch_size is missing; accepted: an integer from 1 up")
    for key, kind in zip(known, (integer(1), integer(0), BOOLEAN, BOOLEAN), strict=True):
        if key in settings:
            try:
                settings[key] = kind.read(settings[key])
            except Refused:
                raise Refused(inside=(key,), found=settings[key], accepted=kind.accepted) from None
    return settings


BATCHING: Final = map_of(
    ValueKind(
        "a map such as {preferred_batch_size: 4, timeout: 100}", _batching, annotation="Mapping[str, Any]"
    ),
    "endpoints to {preferred_batch_size, timeout in milliseconds, flush_all, use_custom_metric}",
)


def _variable_name(key: str) -> str:
    if not key or "=" in key or "\0" in key:
        raise Refused(message=f"{key[:40]!r} cannot be the name of an environment variable")
    return key


def _variable_value(value: Any) -> str:
    text = "" if value is None else scalar_text(value)
    if "\0" in text:
        raise Refused
    return text


VARIABLES: Final = map_of(
    ValueKind("text", _variable_value, literal=True, annotation="str | int | float | None"),
    "environment variables",
    check_key=_variable_name,
)


def _variable_patterns(value: Any) -> tuple[str, ...]:
    names: list[str] = []
    for index, part in enumerate(_parts(value)):
        # A pattern has * for any characters; fnmatch's other signs have no use in names.
        if not isinstance(part, str) or not re.fullmatch(r"[^\s=?\[\]\0]+", part):
            inside: KeyPath = (index,) if isinstance(value, list | tuple) else ()
            raise Refused(inside=inside, found=part)
        names.append(part)
    return tuple(dict.fromkeys(names))


VARIABLE_NAMES: Final = ValueKind(
    "names of environment variables, or patterns such as AWS_*",
    _variable_patterns,
    annotation="str | Sequence[str]",
)


# For a negative timeout_ready, which means no limit: timers refuse infinity, and a week is as good.
FOREVER_S: Final = 7 * 24 * 3600.0


def _ready_ms(value: Any) -> float:
    number = number_of(value)
    if number == 0:
        raise Refused
    return number / 1000 if number > 0 else FOREVER_S


READY_LIMIT: Final = ValueKind(
    "a number of milliseconds; less than 0 to wait as long as it takes", _ready_ms, annotation="float"
)


def _version(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise Refused
    if str(value) not in ("1", "1.0"):
        raise Refused(message=f"{value} is not a valid version number; accepted: 1")
    return "1"


VERSION: Final = ValueKind("1", _version, annotation="str")


def _docarray(value: Any) -> Generation | None:
    if value == "auto":
        return None
    if isinstance(value, bool):
        raise Refused
    number = integer_of(value)
    if number not in (1, 2):
        raise Refused
    return Generation(number)


DOCARRAY: Final = ValueKind("auto, 1, or 2", _docarray, annotation='Literal["auto", 1, 2]')
