"""
Converts JSON values to protobuf: scalars with the reference's coercions, and Structs.

Mistakes are collected in ``Problems`` instead of raised, so that a client sees all of them at once. The
wording is that of the reference's validator (spec http.md, Errors), which clients may show or match; where
the reference fails with a 500, the wording is ours.
"""

from __future__ import annotations

import binascii
import math
from typing import Any, Final

from gatewayd.messages.struct_codec import Unusual, struct_bytes
from gatewayd.pb import ListValue, Struct, Value

Loc = tuple[str | int, ...]

# protobuf's parsers refuse messages nested more deeply (upb's and C++'s default): an executor could not read
# such a document.
MAX_LEVEL: Final = 100

_MAX_PROBLEMS: Final = 1000
_URL_SAFE: Final = str.maketrans("-_", "+/")
_MAX_UINT32: Final = 0xFFFFFFFF
_MAX_FLOAT32: Final = 3.4028234663852886e38


class Problems:
    """
    The mistakes found so far, as entries of a 422 body: ``{"loc": [...], "msg": ..., "type": ...}``.

    Only the first thousand are kept, so that a body with a million mistakes does not cause a huge answer.
    """

    def __init__(self) -> None:
        self.entries: list[dict[str, object]] = []

    def add(self, loc: Loc, message: str, kind: str) -> None:
        if len(self.entries) < _MAX_PROBLEMS:
            self.entries.append({"loc": list(loc), "msg": message, "type": kind})

    def not_a_dict(self, loc: Loc) -> None:
        self.add(loc, "value is not a valid dict", "type_error.dict")

    def not_a_list(self, loc: Loc) -> None:
        self.add(loc, "value is not a valid list", "type_error.list")

    def null(self, loc: Loc) -> None:
        self.add(loc, "none is not an allowed value", "type_error.none.not_allowed")

    def too_deep(self, loc: Loc) -> None:
        self.add(loc, f"nested too deeply: more than {MAX_LEVEL} levels of messages", "value_error")


class _TooDeep(Exception):
    """A value would be nested more deeply than MAX_LEVEL."""


def as_dict(value: object) -> dict[str, Any] | None:
    """
    ``value`` as an object, or None if it cannot be read as one.

    The reference accepts whatever Python's ``dict()`` does: an object, a list of pairs, an empty
    list, an empty string.
    """
    if type(value) is dict:
        return value
    if type(value) is list or value == "":
        pairs: Any = value
        try:
            fields = dict(pairs)
        except (TypeError, ValueError):
            return None
        return fields if all(type(key) is str for key in fields) else None
    return None


def as_text(value: object, loc: Loc, problems: Problems) -> str:
    """A string. Numbers and booleans are converted as Python's ``str`` does."""
    if type(value) is str:
        return value
    if type(value) in (int, float, bool):
        return str(value)
    problems.add(loc, "str type expected", "type_error.str")
    return ""


def as_unsigned(value: object, loc: Loc, problems: Problems) -> int:
    """An integer that fits uint32. Fractions are truncated, strings of digits converted."""
    try:
        number = int(value)  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError):
        problems.add(loc, "value is not a valid integer", "type_error.integer")
        return 0
    if not 0 <= number <= _MAX_UINT32:
        problems.add(loc, f"ensure this value is from 0 to {_MAX_UINT32}", "value_error.number.not_in_range")
        return 0
    return int(number)


def as_float(value: object, loc: Loc, problems: Problems) -> float:
    """A number that a 32-bit float can hold. Texts are converted, as are NaN, Infinity and -Infinity."""
    try:
        found = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        problems.add(loc, "value is not a valid float", "type_error.float")
        return 0.0
    if math.isfinite(found) and not -_MAX_FLOAT32 <= found <= _MAX_FLOAT32:
        problems.add(loc, "ensure this value is a finite 32-bit float", "value_error.number.not_in_range")
        return 0.0
    return found


def write_float(value: float) -> float | str | None:
    """A field's number: None for 0, its default; text for what JSON lacks, as in protobuf's own JSON."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value or None


def as_blob(value: object, loc: Loc, problems: Problems) -> bytes:
    """
    The bytes of a base64 string, in the standard or the URL-safe alphabet (RFC 4648); the latter may lack its
    padding. White space is skipped. The reference skips all other characters as well, and so loses data.
    """
    text = "".join(as_text(value, loc, problems).split())
    if "-" in text or "_" in text:
        text = text.translate(_URL_SAFE) + "=" * (-len(text) % 4)
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError as error:  # binascii.Error, or the error for non-ASCII text
        problems.add(loc, f"value is not valid base64: {error}", "value_error")
        return b""


def fill_struct(target: Struct, value: object, level: int, loc: Loc, problems: Problems) -> None:
    """
    Write a JSON object into ``target``, a message at nesting ``level`` (1 is the whole request).

    Integers become doubles, the only numbers that a Struct has.
    """
    fields = as_dict(value)
    if fields is None:
        problems.not_a_dict(loc)
        return
    try:
        _fill_fields(target, fields, level)
    except _TooDeep:
        problems.too_deep(loc)


def struct_of(value: object, level: int, loc: Loc, problems: Problems) -> bytes:
    """As ``fill_struct``, serialised; several times as fast for what is nested a few levels deep."""
    if type(value) is dict:
        try:
            return struct_bytes(value)
        except (Unusual, UnicodeError, OverflowError):
            pass  # protobuf's to write, or to refuse
    struct = Struct()
    fill_struct(struct, value, level, loc, problems)
    return struct.SerializeToString()


def _fill_fields(target: Struct, fields: dict[str, Any], level: int) -> None:
    # Each object is three messages deep: the Struct, its map's entry, the Value in it.
    if fields and level + 2 > MAX_LEVEL:
        raise _TooDeep
    into = target.fields
    for key, value in fields.items():
        _fill_value(into[key], value, level + 2)


def _fill_value(target: Value, value: object, level: int) -> None:
    kind = type(value)
    if kind is str:
        target.string_value = value  # type: ignore[assignment]
    elif kind is bool:
        target.bool_value = value  # type: ignore[assignment]
    elif kind is float or kind is int:
        target.number_value = value  # type: ignore[assignment]
    elif value is None:
        target.null_value = 0  # type: ignore[assignment]
    elif level + 1 > MAX_LEVEL:
        raise _TooDeep
    elif kind is dict:
        # Without SetInParent an empty object would leave the value unset.
        target.struct_value.SetInParent()
        _fill_fields(target.struct_value, value, level + 1)  # type: ignore[arg-type]
    else:
        target.list_value.SetInParent()
        _fill_list(target.list_value, value, level + 1)  # type: ignore[arg-type]


def _fill_list(target: ListValue, values: list[object], level: int) -> None:
    if values and level + 1 > MAX_LEVEL:
        raise _TooDeep
    for value in values:
        _fill_value(target.values.add(), value, level + 1)
