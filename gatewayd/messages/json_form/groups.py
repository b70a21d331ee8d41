"""
Lists and maps of any length as JSON, written in groups.

A Python object for each of a million values takes a hundred times the memory of their text. So what is long
becomes text, group by group, and a Fragment, which orjson copies into what is around it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final

import orjson

from gatewayd.pb import Struct, Value

_GROUP: Final = 256


def write_list(items: Any, write: Callable[[Any], object]) -> object:
    """``items``, a repeated field, each as what ``write`` makes of it."""
    if len(items) <= _GROUP:
        return [write(item) for item in items]
    return orjson.Fragment(b"".join((b"[", *pieces_of_list(items, write), b"]")))


def pieces_of_list(items: Iterable[Any], write: Callable[[Any], object]) -> Iterator[bytes]:
    """The text of a list, without its brackets."""
    return _pieces(items, lambda group: [write(item) for item in group])


def write_map(items: Mapping[str, Any], write: Callable[[Any], object]) -> object:
    """``items``, a map of protobuf, each value as what ``write`` makes of it."""
    if len(items) <= _GROUP:
        return {key: write(value) for key, value in items.items()}
    pieces = _pieces(items, lambda keys: {key: write(items[key]) for key in keys})
    return orjson.Fragment(b"".join((b"{", *pieces, b"}")))


def _pieces(items: Iterable[Any], written: Callable[[list[Any]], object]) -> Iterator[bytes]:
    left, comma = iter(items), b""
    while group := list(islice(left, _GROUP)):
        yield comma + dumps(written(group))[1:-1]
        comma = b","


def dumps(value: object, option: int = 0) -> bytes:
    """JSON of values, arrays and fragments. Raises orjson.JSONEncodeError."""
    return orjson.dumps(value, option=option | orjson.OPT_SERIALIZE_NUMPY)


def write_struct(struct: Struct) -> object:
    """A Struct for ``dumps``."""
    return write_map(struct.fields, _write_value)


def _write_value(value: Value) -> object:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return write_struct(value.struct_value)
    if kind == "list_value":
        return write_list(value.list_value.values, _write_value)
    return None if kind is None or kind == "null_value" else getattr(value, kind)
