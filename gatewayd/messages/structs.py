"""
Parameters and results: ``google.protobuf.Struct`` bytes to and from plain dicts.

Numbers become floats, as they do on the wire; NaN and infinity pass unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.message import DecodeError

from gatewayd.pb import ListValue, Struct, Value


def parameters_of(data: bytes) -> dict[str, Any]:
    """A dict of None, bool, float, str, list and dict. Raises ValueError if ``data`` is not a Struct."""
    if not data:
        return {}
    try:
        return read_struct(Struct.FromString(data))
    except DecodeError as error:
        raise ValueError(f"the parameters are not a google.protobuf.Struct: {error}") from error


def struct_of(parameters: Mapping[str, Any], where: str = "parameters") -> bytes:
    """
    A serialised Struct of a mapping of JSON values and arrays; ``where`` names it in errors.

    Raises TypeError naming the place of a value that has no JSON form.
    """
    return _struct(parameters, where).SerializeToString()


def with_result(data: bytes, runtime_name: str, result: Mapping[str, Any]) -> bytes:
    """
    The parameters ``data`` with ``result`` at ``__results__[runtime_name]``.

    Raises TypeError naming the place of a value that has no JSON form.
    """
    parameters = Struct.FromString(data)
    results = parameters.fields["__results__"].struct_value
    filled = _struct(result, f"result of {runtime_name}")
    results.fields[runtime_name].struct_value.CopyFrom(filled)
    return parameters.SerializeToString()


def read_struct(struct: Struct) -> dict[str, Any]:
    """A Struct as a dict; the parser that read it bounds its depth."""
    fields = struct.fields  # whose items() costs twice as much
    return {key: read_value(fields[key]) for key in fields}


def read_value(value: Value) -> Any:
    """A Struct's value as None, bool, float, str, list or dict; one that is not set is None."""
    kind = value.WhichOneof("kind")
    if kind == "number_value":
        return value.number_value
    if kind == "string_value":
        return value.string_value
    if kind == "bool_value":
        return value.bool_value
    if kind == "struct_value":
        return read_struct(value.struct_value)
    if kind == "list_value":
        return [read_value(item) for item in value.list_value.values]
    return None


def _struct(mapping: Mapping[str, Any], where: str) -> Struct:
    struct = Struct()
    for key, item in mapping.items():
        if not isinstance(key, str):
            raise TypeError(f"{where}: the key {key!r} is not a string")
        _fill(struct.fields[key], item, f"{where}.{key}")
    return struct


def _fill(value: Value, item: Any, where: str) -> None:
    if item is None:
        value.null_value = 0  # type: ignore[assignment]  # the enum's only member
    elif isinstance(item, bool):
        value.bool_value = item
    elif isinstance(item, int | float):
        value.number_value = item
    elif isinstance(item, str):
        value.string_value = item
    elif isinstance(item, Mapping):
        value.struct_value.CopyFrom(_struct(item, where))
    elif isinstance(item, list | tuple | set | frozenset):
        filled = ListValue()
        for index, part in enumerate(item):
            _fill(filled.values.add(), part, f"{where}[{index}]")
        value.list_value.CopyFrom(filled)
    elif hasattr(item, "tolist"):
        # numpy's scalars and arrays, without importing numpy for those who have none.
        _fill(value, item.tolist(), where)
    else:
        raise TypeError(f"{where}: a {type(item).__name__} cannot be sent; dicts hold JSON values only")
