"""
What differs between two answers to the same request, field by field (pure).

    data.docs[0].text             'a red apple' → 'a green apple'
    parameters.limit              10 → 20
    routes                        encoder, indexer → encoder

What comes with each run anew does not count: when executors worked, the lines of tracebacks, headers.
Documents are of either generation. Those of the second have the same values in any form that a protocol gives
them: JSON has lists for arrays, and one kind of numbers.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from typing import Any, Final

import attrs
import numpy as np
from google.protobuf.message import DecodeError

from gatewayd.messages.generations import NAMED, Generation, generation_of
from gatewayd.messages.wire import Malformed, split
from gatewayd.pb import DataRequestProto
from gatewayd.pb.second import DataRequestProto as SecondDataRequestProto

_LONGEST: Final = 60
# One answer may differ in every number of a million documents.
_MOST: Final = 100


@attrs.frozen
class Difference:
    """``field`` is its path; ``before`` and ``now`` are its values as short texts, empty for none."""

    field: str
    before: str
    now: str


class Ignored:
    """
    Fields that do not count: paths such as ``data.docs[].id``, where ``[]`` is any index.

    What is below an ignored field is ignored, too. ``names`` are ignored wherever they are in a document. A
    path in the answers of a stream may begin with ``answers[]``.
    """

    def __init__(self, fields: Iterable[str], names: Iterable[str] = ()) -> None:
        plain = (re.sub(r"\[\d*\]", "[]", field) for field in fields)
        self._fields = tuple(field.removeprefix("answers[].") for field in plain)
        self._names = tuple(f".{name}." for name in names)

    def __contains__(self, field: str) -> bool:
        plain = re.sub(r"\[\d+\]", "[]", field)
        if any(plain == each or plain.startswith((f"{each}.", f"{each}[")) for each in self._fields):
            return True
        if not self._names or not plain.startswith("data."):
            return False
        inside = f"{plain.replace('[]', '')}."
        return any(name in inside for name in self._names)


class Carried(Enum):
    """How much of an answer the protocol has brought: the rest cannot be compared."""

    ALL = "all"
    BODY = "documents and parameters"
    DOCUMENTS = "documents"


# What a run says of itself.
_NEVER: Final = Ignored(("header.request_id", "header.headers", "header.timeout"))


def differences(
    before: bytes, now: bytes, *, ignored: Ignored, tolerance: float = 0.0, carried: Carried = Carried.ALL
) -> list[Difference]:
    """
    Of two DataRequestProtos, at most a hundred. Raises DecodeError.

    Numbers are the same within the relative ``tolerance``.
    """
    kinds = [generation_of(documents_in(each)) for each in (before, now)]
    if None not in kinds and kinds[0] != kinds[1]:
        return [Difference("data", *(f"documents of {NAMED[kind]}" for kind in kinds if kind is not None))]
    one, other = (_parsed(each, Generation.SECOND in kinds) for each in (before, now))
    found: list[Difference] = []
    for each in _differing(one, other, tolerance, carried):
        if each.field not in ignored and each.field not in _NEVER:
            found.append(each)
            if len(found) == _MOST:
                break
    return found


def documents_in(message: bytes) -> bytes:
    """The DataContentProto of a DataRequestProto. Raises DecodeError."""
    try:
        return split(message)[3] or b""
    except Malformed as error:
        raise DecodeError(str(error)) from error


def parsed(message: bytes) -> Any:
    """A DataRequestProto of the generation of its documents. Raises DecodeError."""
    return _parsed(message, generation_of(documents_in(message)) is Generation.SECOND)


def shown(value: Any) -> str:
    """A message or a value as a short text."""
    if hasattr(value, "DESCRIPTOR"):
        return _cut(" ".join(str(value).split()))
    return _cut(repr(value))


def _parsed(message: bytes, is_second: bool) -> Any:
    return (SecondDataRequestProto if is_second else DataRequestProto).FromString(message)


def _differing(before: Any, now: Any, tolerance: float, carried: Carried) -> Iterator[Difference]:
    if carried is Carried.ALL:
        yield from _fields(before.header, now.header, "header", tolerance)
        yield from _routes(before.routes, now.routes)
    if carried is not Carried.DOCUMENTS:
        yield from _fields(before.parameters, now.parameters, "parameters", tolerance)
    yield from _repeated(before.data.docs.docs, now.data.docs.docs, "data.docs", tolerance)
    if before.data.docs_bytes != now.data.docs_bytes:
        yield Difference("data.docs_bytes", shown(before.data.docs_bytes), shown(now.data.docs_bytes))


def _routes(before: Sequence[Any], now: Sequence[Any]) -> Iterator[Difference]:
    """Who worked on it. Executors that work side by side end in any order."""
    names = [sorted(route.executor for route in routes) for routes in (before, now)]
    if names[0] != names[1]:
        yield Difference("routes", *(", ".join(each) for each in names))


def _fields(before: Any, now: Any, path: str, tolerance: float) -> Iterator[Difference]:
    if before == now:
        return
    kind = before.DESCRIPTOR.full_name
    if kind == "docarray.DocProto":
        yield from _nodes(before.data, now.data, path, tolerance)
        return
    if kind == "google.protobuf.Struct":
        yield from _struct(before, now, path, tolerance)
        return
    if kind == "docarray.NdArrayProto":
        if not _same_array(before, now, tolerance):
            yield Difference(path, _shown_array(before), _shown_array(now))
        return
    for field in before.DESCRIPTOR.fields:
        inside = f"{path}.{field.name}"
        if field.name == "stacks":  # lines of a program that may be another now
            continue
        one, other = getattr(before, field.name), getattr(now, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            yield from _maps(one, other, inside, tolerance)
        elif _is_repeated(field):
            yield from _repeated(one, other, inside, tolerance)
        elif field.message_type is not None:
            yield from _fields(one, other, inside, tolerance)
        elif not _same(one, other, tolerance):
            yield Difference(inside, shown(one), shown(other))


def _is_repeated(field: Any) -> bool:
    # Newer releases of protobuf have the property alone.
    return bool(field.is_repeated) if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED


def _maps(before: Any, now: Any, path: str, tolerance: float) -> Iterator[Difference]:
    for key in sorted({*before, *now}):
        inside = f"{path}.{key}"
        if key not in now or key not in before:
            yield Difference(
                inside, shown(before[key]) if key in before else "", shown(now[key]) if key in now else ""
            )
        elif hasattr(before[key], "DESCRIPTOR"):
            yield from _fields(before[key], now[key], inside, tolerance)
        elif not _same(before[key], now[key], tolerance):
            yield Difference(inside, shown(before[key]), shown(now[key]))


def _struct(before: Any, now: Any, path: str, tolerance: float) -> Iterator[Difference]:
    for key in sorted({*before.fields, *now.fields}):
        inside = f"{path}.{key}"
        yield from _values(before.fields.get(key), now.fields.get(key), inside, tolerance)


def _values(before: Any, now: Any, path: str, tolerance: float) -> Iterator[Difference]:
    if before is None or now is None:
        yield Difference(path, _shown_value(before), _shown_value(now))
        return
    kinds = before.WhichOneof("kind"), now.WhichOneof("kind")
    if kinds == ("struct_value", "struct_value"):
        yield from _struct(before.struct_value, now.struct_value, path, tolerance)
    elif kinds == ("list_value", "list_value"):
        ones, others = before.list_value.values, now.list_value.values
        for index in range(max(len(ones), len(others))):
            one = ones[index] if index < len(ones) else None
            other = others[index] if index < len(others) else None
            yield from _values(one, other, f"{path}[{index}]", tolerance)
    elif kinds == ("number_value", "number_value"):
        if not _same(before.number_value, now.number_value, tolerance):
            yield Difference(path, _shown_value(before), _shown_value(now))
    elif before != now:
        yield Difference(path, _shown_value(before), _shown_value(now))


def _repeated(before: Sequence[Any], now: Sequence[Any], path: str, tolerance: float) -> Iterator[Difference]:
    if len(before) != len(now):
        yield Difference(f"{path}.length", str(len(before)), str(len(now)))
    for index, (one, other) in enumerate(zip(before, now, strict=False)):
        inside = f"{path}[{index}]"
        if hasattr(one, "DESCRIPTOR"):
            yield from _fields(one, other, inside, tolerance)
        elif not _same(one, other, tolerance):
            yield Difference(inside, shown(one), shown(other))


# -- documents of the second generation -------------------------------------------------------------------

_LISTS: Final = ("list", "set", "tuple", "doc_array")
_MAPS: Final = ("dict", "doc")


def _nodes(before: Any, now: Any, path: str, tolerance: float) -> Iterator[Difference]:
    """Of two maps of NodeProtos. A value that is null is the same as none."""
    for key in sorted({*before, *now}):
        yield from _node(before.get(key), now.get(key), f"{path}.{key}", tolerance)


def _node(before: Any, now: Any, path: str, tolerance: float) -> Iterator[Difference]:
    kinds = [None if node is None else node.WhichOneof("content") for node in (before, now)]
    if kinds == [None, None]:
        return
    if all(kind in _MAPS for kind in kinds):
        yield from _nodes(_entries(before), _entries(now), path, tolerance)
    elif "ndarray" in kinds:
        arrays = [_array_of(node) for node in (before, now)]
        if arrays[0] is None or arrays[1] is None or arrays[0].shape != arrays[1].shape or not _close(
            arrays[0], arrays[1], tolerance
        ):  # fmt: skip
            yield Difference(path, _shown_node(before), _shown_node(now))
    elif all(kind in _LISTS for kind in kinds):
        ones, others = _items(before), _items(now)
        if len(ones) != len(others):
            yield Difference(f"{path}.length", str(len(ones)), str(len(others)))
        for index, (one, other) in enumerate(zip(ones, others, strict=False)):
            if one.DESCRIPTOR.name == other.DESCRIPTOR.name == "NodeProto":
                yield from _node(one, other, f"{path}[{index}]", tolerance)
            else:
                yield from _nodes(_entries(one), _entries(other), f"{path}[{index}]", tolerance)
    elif not _same_value(_value(before), _value(now), tolerance):
        yield Difference(path, _shown_node(before), _shown_node(now))
    elif before.type != now.type and before.type and now.type:
        yield Difference(f"{path}.type", shown(before.type), shown(now.type))


def _items(node: Any) -> Sequence[Any]:
    kind = node.WhichOneof("content")
    if kind == "doc_array":
        found: Sequence[Any] = node.doc_array.docs
        return found
    if kind == "set":  # it has no order
        return sorted(node.set.data, key=lambda each: each.SerializeToString(deterministic=True))
    found = getattr(node, kind).data
    return found


def _entries(item: Any) -> Any:
    """The values of a DocProto, or of a NodeProto that is a document or a dict; none of any other."""
    if item.DESCRIPTOR.name == "DocProto":
        return item.data
    kind = item.WhichOneof("content")
    return getattr(item, kind).data if kind in _MAPS else {}


def _value(node: Any) -> Any:
    kind = None if node is None else node.WhichOneof("content")
    return None if kind is None else getattr(node, kind)


def _same_value(before: Any, now: Any, tolerance: float) -> bool:
    if {type(before), type(now)} == {str, bytes}:  # JSON has no bytes
        text, blob = (before, now) if isinstance(before, str) else (now, before)
        return blob in (text.encode(), _from_base64(text))
    if isinstance(before, bool) is not isinstance(now, bool):
        return False
    if isinstance(before, int | float) and isinstance(now, int | float):
        return _same(float(before), float(now), tolerance)
    return type(before) is type(now) and bool(before == now)


def _from_base64(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return None


def _array_of(node: Any) -> np.ndarray[Any, Any] | None:
    """That of an ndarray, or of lists of numbers; None for anything else."""
    kind = None if node is None else node.WhichOneof("content")
    if kind == "ndarray":
        return _array(node.ndarray)
    if kind != "list":
        return None
    try:
        return np.array(_numbers(node), dtype=float)
    except (TypeError, ValueError):
        return None


def _numbers(node: Any) -> Any:
    if node.WhichOneof("content") == "list":
        return [_numbers(each) for each in node.list.data]
    return _value(node)


def _shown_node(node: Any) -> str:
    kind = None if node is None else node.WhichOneof("content")
    if kind is None:
        return "" if node is None else "null"
    return _shown_array(node.ndarray) if kind == "ndarray" else shown(getattr(node, kind))


# -- values -----------------------------------------------------------------------------------------------


def _same(before: Any, now: Any, tolerance: float) -> bool:
    if before == now:
        return True
    if isinstance(before, float) and isinstance(now, float):
        return bool(np.isclose(before, now, rtol=tolerance, atol=tolerance, equal_nan=True))
    return False


def _same_array(before: Any, now: Any, tolerance: float) -> bool:
    arrays = _array(before), _array(now)
    if arrays[0] is None or arrays[1] is None or arrays[0].shape != arrays[1].shape:
        return False
    return _close(arrays[0], arrays[1], tolerance)


def _close(before: np.ndarray[Any, Any], now: np.ndarray[Any, Any], tolerance: float) -> bool:
    """Whether two arrays of one shape have the same numbers: JSON brings narrow ones as wide ones."""
    if not all(np.issubdtype(each.dtype, np.number) for each in (before, now)):
        return before.dtype == now.dtype and bool((before == now).all())
    if before.dtype.kind == now.dtype.kind == "f" and before.dtype != now.dtype:
        narrow = min(before.dtype, now.dtype, key=lambda dtype: dtype.itemsize)
        before, now = before.astype(narrow), now.astype(narrow)
    return bool(np.allclose(before, now, rtol=tolerance, atol=tolerance, equal_nan=True))


def _array(proto: Any) -> np.ndarray[Any, Any] | None:
    """A dense array; None for one that is of another kind, or damaged."""
    if not proto.HasField("dense"):
        return None
    try:
        return np.frombuffer(proto.dense.buffer, proto.dense.dtype).reshape(tuple(proto.dense.shape))
    except (TypeError, ValueError):
        return None


def _shown_array(proto: Any) -> str:
    found = _array(proto)
    if found is None:
        return shown(proto)
    head = ", ".join(f"{number:.4g}" for number in found.ravel()[:3].tolist())
    return f"{found.dtype}{list(found.shape)} [{head}{', ...' if found.size > 3 else ''}]"


def _shown_value(value: Any) -> str:
    if value is None:
        return ""
    kind = value.WhichOneof("kind")
    if kind in ("struct_value", "list_value"):
        return _cut(" ".join(str(value).split()))
    return shown(getattr(value, kind)) if kind and kind != "null_value" else "null"


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
