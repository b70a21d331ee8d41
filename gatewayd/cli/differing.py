"""
What differs between two answers to the same request, field by field (pure).

    data.docs[0].text             'a red apple' → 'a green apple'
    parameters.limit              10 → 20
    routes                        encoder, indexer → encoder

What comes with each run anew does not count: when executors worked, the lines of tracebacks, headers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import attrs
import numpy as np

from gatewayd.pb import DataRequestProto

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

    What is below an ignored field is ignored, too.
    """

    def __init__(self, fields: Iterable[str]) -> None:
        self._fields = tuple(re.sub(r"\[\d*\]", "[]", field) for field in fields)

    def __contains__(self, field: str) -> bool:
        plain = re.sub(r"\[\d+\]", "[]", field)
        return any(plain == each or plain.startswith((f"{each}.", f"{each}[")) for each in self._fields)


# What a run says of itself.
_NEVER: Final = Ignored(("header.request_id", "header.headers", "header.timeout"))


def differences(before: bytes, now: bytes, *, ignored: Ignored, tolerance: float = 0.0) -> list[Difference]:
    """
    Of two DataRequestProtos, at most a hundred. Raises DecodeError.

    Numbers are the same within the relative ``tolerance``.
    """
    found: list[Difference] = []
    for each in _differing(DataRequestProto.FromString(before), DataRequestProto.FromString(now), tolerance):
        if each.field not in ignored and each.field not in _NEVER:
            found.append(each)
            if len(found) == _MOST:
                break
    return found


def _differing(before: Any, now: Any, tolerance: float) -> Iterator[Difference]:
    yield from _fields(before.header, now.header, "header", tolerance)
    yield from _fields(before.parameters, now.parameters, "parameters", tolerance)
    yield from _routes(before.routes, now.routes)
    yield from _repeated(before.data.docs.docs, now.data.docs.docs, "data.docs", tolerance)
    if before.data.docs_bytes != now.data.docs_bytes:
        yield Difference("data.docs_bytes", _shown(before.data.docs_bytes), _shown(now.data.docs_bytes))


def _routes(before: Sequence[Any], now: Sequence[Any]) -> Iterator[Difference]:
    """Who worked on it. Executors that work side by side end in any order."""
    names = [sorted(route.executor for route in routes) for routes in (before, now)]
    if names[0] != names[1]:
        yield Difference("routes", *(", ".join(each) for each in names))


def _fields(before: Any, now: Any, path: str, tolerance: float) -> Iterator[Difference]:
    if before == now:
        return
    kind = before.DESCRIPTOR.full_name
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
            yield Difference(inside, _shown(one), _shown(other))


def _is_repeated(field: Any) -> bool:
    # Newer releases of protobuf have the property alone.
    return bool(field.is_repeated) if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED


def _maps(before: Any, now: Any, path: str, tolerance: float) -> Iterator[Difference]:
    for key in sorted({*before, *now}):
        inside = f"{path}.{key}"
        if key not in now or key not in before:
            yield Difference(
                inside, _shown(before[key]) if key in before else "", _shown(now[key]) if key in now else ""
            )
        elif hasattr(before[key], "DESCRIPTOR"):
            yield from _fields(before[key], now[key], inside, tolerance)
        elif not _same(before[key], now[key], tolerance):
            yield Difference(inside, _shown(before[key]), _shown(now[key]))


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
            yield Difference(inside, _shown(one), _shown(other))


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
    if not all(np.issubdtype(each.dtype, np.number) for each in arrays if each is not None):
        return False
    return bool(np.allclose(arrays[0], arrays[1], rtol=tolerance, atol=tolerance, equal_nan=True))


def _array(proto: Any) -> np.ndarray[Any, Any] | None:
    """A dense array; None for one that is of another kind, or damaged."""
    if proto.WhichOneof("content") != "dense":
        return None
    try:
        return np.frombuffer(proto.dense.buffer, proto.dense.dtype).reshape(tuple(proto.dense.shape))
    except (TypeError, ValueError):
        return None


def _shown_array(proto: Any) -> str:
    found = _array(proto)
    if found is None:
        return proto.WhichOneof("content") or ""
    head = ", ".join(f"{number:.4g}" for number in found.ravel()[:3].tolist())
    return f"{found.dtype}{list(found.shape)} [{head}{', ...' if found.size > 3 else ''}]"


def _shown_value(value: Any) -> str:
    if value is None:
        return ""
    kind = value.WhichOneof("kind")
    if kind in ("struct_value", "list_value"):
        return _cut(" ".join(str(value).split()))
    return _shown(getattr(value, kind)) if kind and kind != "null_value" else "null"


def _shown(value: Any) -> str:
    if hasattr(value, "DESCRIPTOR"):
        return _cut(" ".join(str(value).split()))
    return _cut(repr(value))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
