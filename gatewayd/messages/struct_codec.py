"""
``google.protobuf.Struct`` from and to bytes by hand, where nothing unusual is in it.

Tags and parameters are small and there are many of them; protobuf makes several objects of each of their
values. What protobuf's own writers would not write, or would refuse, raises Unusual: the caller asks protobuf
then. Pure; the field numbers are those of google/protobuf/struct.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, Final

# Deeper ones are protobuf's, which bounds them.
_DEPTH: Final = 16

_ENTRY: Final = 0x0A  # Struct.fields
_KEY: Final = 0x0A
_VALUE: Final = 0x12
_NULL: Final = 0x08
_NUMBER: Final = 0x11
_TEXT: Final = 0x1A
_BOOL: Final = 0x20
_STRUCT: Final = 0x2A
_LIST: Final = 0x32
_ITEM: Final = 0x0A  # ListValue.values

_DOUBLE: Final = struct.Struct("<d")
_read_double: Final = _DOUBLE.unpack_from
_double: Final = struct.Struct("<Bd").pack

# Every length below 128, as a varint.
_SHORT: Final = tuple(bytes((length,)) for length in range(0x80))


class Unusual(Exception):
    """This needs protobuf."""


def length_of(size: int) -> bytes:
    """``size`` as a varint."""
    if size < 0x80:
        return _SHORT[size]
    written = bytearray()
    while size >= 0x80:
        written.append(size & 0x7F | 0x80)
        size >>= 7
    written.append(size)
    return bytes(written)


def long_length(data: bytes, at: int) -> tuple[int, int]:
    """The varint at ``at``, which has several bytes, and the position after it."""
    value = shift = 0
    while shift < 35:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise Unusual


def read_struct_bytes(data: bytes, at: int, end: int, depth: int = 0) -> dict[str, Any]:
    """
    The Struct in ``data[at:end]`` as a dict of None, bool, float, str, list and dict.

    Raises Unusual, IndexError or UnicodeDecodeError for what is not read here.
    """
    found: dict[str, Any] = {}
    while at < end:
        size, start = data[at + 1], at + 2
        if size > 0x7F:
            size, start = long_length(data, at + 1)
        stop = start + size
        if data[at] != _ENTRY or data[start] != _KEY:
            raise Unusual
        size, start = data[start + 1], start + 2
        if size > 0x7F:
            size, start = long_length(data, start - 1)
        at = start + size
        key = str(data[start:at], "utf-8")
        if data[at] != _VALUE:
            raise Unusual
        size, start = data[at + 1], at + 2
        if size > 0x7F:
            size, start = long_length(data, at + 1)
        at = start + size
        if at != stop or at > end:
            raise Unusual
        found[key] = _read_value(data, start, at, depth)
    return found


def _read_value(data: bytes, at: int, end: int, depth: int) -> Any:
    if at == end:
        raise Unusual
    kind = data[at]
    if kind == _NUMBER:
        if end - at != 9:
            raise Unusual
        return _read_double(data, at + 1)[0]
    if kind in (_BOOL, _NULL):
        if end - at != 2 or data[at + 1] > (kind == _BOOL):
            raise Unusual
        return None if kind == _NULL else data[at + 1] == 1
    size, start = data[at + 1], at + 2
    if size > 0x7F:
        size, start = long_length(data, at + 1)
    if start + size != end or depth > _DEPTH:
        raise Unusual
    if kind == _TEXT:
        return str(data[start:end], "utf-8")
    if kind == _STRUCT:
        return read_struct_bytes(data, start, end, depth + 1)
    if kind != _LIST:
        raise Unusual
    items = []
    while start < end:
        size, begin = data[start + 1], start + 2
        if size > 0x7F:
            size, begin = long_length(data, start + 1)
        if data[start] != _ITEM or begin + size > end:
            raise Unusual
        start = begin + size
        items.append(_read_value(data, begin, start, depth + 1))
    return items


def struct_bytes(mapping: Mapping[str, Any], depth: int = 0) -> bytes:
    """The Struct of a dict. Raises Unusual, UnicodeError or OverflowError for what is not written here."""
    parts = []
    for key, item in mapping.items():
        if type(key) is not str:
            raise Unusual
        name, value = key.encode(), _value(item, depth)
        size = 4 + len(name) + len(value)
        if size < 0x80:
            parts.append(b"\x0a%c\x0a%c%b\x12%c%b" % (size, len(name), name, len(value), value))
        else:
            parts.append(_entry(name, value))
    return b"".join(parts)


def _entry(name: bytes, value: bytes) -> bytes:
    content = b"\x0a%b%b\x12%b%b" % (length_of(len(name)), name, length_of(len(value)), value)
    return b"\x0a%b%b" % (length_of(len(content)), content)


def _value(item: Any, depth: int) -> bytes:
    kind = type(item)
    if kind is str:
        text = item.encode()
        return b"\x1a%b%b" % (length_of(len(text)), text)
    if kind is float or kind is int:
        return _double(_NUMBER, item)
    if kind is bool:
        return b"\x20\x01" if item else b"\x20\x00"
    if item is None:
        return b"\x08\x00"
    if depth > _DEPTH:
        raise Unusual
    if kind is dict:
        inner = struct_bytes(item, depth + 1)
        return b"\x2a%b%b" % (length_of(len(inner)), inner)
    if kind is not list:
        raise Unusual
    # Not a list of parts: there may be millions of items, and each of its parts would be an object.
    items = bytearray()
    for each in item:
        value = _value(each, depth + 1)
        items += b"\x0a%b%b" % (length_of(len(value)), value)
    return b"".join((b"\x32", length_of(len(items)), items))
