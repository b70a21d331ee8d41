"""
The fields that ``when`` can ask for in documents of the second generation.

Any name will do, because the classes of documents are not known when a Flow file is read; a document that
has no such field matches nothing but ``{$exists: false}``, as in the reference. With ``__`` a name leads into
documents, dicts and, by number, into lists: ``kids__0__name``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gatewayd.messages.conditions import ABSENT, BadCondition, Condition, Read
from gatewayd.pb.second import DocProto, NodeProto


class SecondFields:
    """The fields of a DocProto."""

    def reader(self, field: str, where: str) -> Read:
        path = _path(field, where)

        def read(document: DocProto) -> object:
            node = _found(document, field, path)
            return ABSENT if node is None else value_of(node)

        return read

    def exists(self, field: str, where: str) -> Condition:
        """A field exists when it is there, whatever its value, as in the reference."""
        path = _path(field, where)
        return lambda document: _found(document, field, path) is not None


class _Array:
    """An array can only be asked how long it is: it equals nothing, and has no order."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length


def value_of(node: NodeProto) -> Any:
    """What a node says as a plain value; documents are dicts, and sets are lists in their own order."""
    kind = node.WhichOneof("content")
    if kind in _SCALARS:
        return getattr(node, kind)
    if kind in _LISTS:
        return [value_of(item) for item in getattr(node, kind).data]
    if kind in _MAPS:
        return _values(getattr(node, kind).data)
    if kind == "doc_array":
        return [_values(document.data) for document in node.doc_array.docs]
    if kind == "ndarray":
        shape = node.ndarray.dense.shape
        return _Array(shape[0] if shape else 0)
    return None


_SCALARS: Final = frozenset({"text", "integer", "float", "boolean", "blob"})
_LISTS: Final = frozenset({"list", "set", "tuple"})
_MAPS: Final = frozenset({"doc", "dict"})


def _values(nodes: Mapping[str, NodeProto]) -> dict[str, Any]:
    return {name: value_of(node) for name, node in nodes.items()}


def _path(field: str, where: str) -> list[str]:
    path = field.split("__")
    if not field:
        raise BadCondition(where, "the name of a field is empty")
    return path


def _found(document: DocProto, field: str, path: list[str]) -> NodeProto | None:
    if field in document.data:  # a name may have two underscores of its own
        return document.data[field]
    place: Any = document.data
    node: NodeProto | None = None
    for step in path:
        if isinstance(place, Mapping):
            # Looked at before it is read: reading a missing key of a protobuf map would add it.
            if step not in place:
                return None
            node = place[step]
        elif step.isdecimal() and place is not None and int(step) < len(place):
            node = place[int(step)]
        else:
            return None
        place = _inside(node)
    return node


def _inside(node: Any) -> Any:
    """What a further step leads into, None if nowhere. A document in a list stands for its fields."""
    if isinstance(node, DocProto):
        return node.data
    kind = node.WhichOneof("content")
    if kind in _MAPS or kind in _LISTS:
        return getattr(node, kind).data
    return node.doc_array.docs if kind == "doc_array" else None
