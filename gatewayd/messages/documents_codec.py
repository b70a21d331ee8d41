"""
One ``Document`` from and to its protobuf message, with docarray's results at a third of its cost.

docarray looks at every field that a document could have, several times; here only those that it has are
touched. What is rare (sparse arrays, frameworks' tensors, scores, subclasses) is docarray's own work. The
``Document`` is filled in by its layout, which ``layout_is_known`` compares with the installed docarray: with
another one ``document_arrays`` uses docarray alone.
"""

from __future__ import annotations

import dataclasses
import os
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from docarray import Document
from docarray.document.data import DocumentData
from docarray.proto.io.ndarray import flush_ndarray, read_ndarray
from docarray.score import NamedScore

from gatewayd.messages.structs import read_struct

_FIELDS: Final = (
    "_reference_doc", "id", "parent_id", "granularity", "adjacency", "blob", "tensor", "mime_type", "text",
    "content", "weight", "uri", "tags", "_metadata", "offset", "location", "embedding", "modality",
    "evaluations", "scores", "chunks", "matches",
)  # fmt: skip
EMPTY: Final = dict.fromkeys(_FIELDS)

_new_document: Final = Document.__new__
_new_data: Final = DocumentData.__new__
_set: Final = object.__setattr__


def layout_is_known() -> bool:
    """Whether this module can read and write the installed docarray's documents."""
    fields = tuple(each.name for each in dataclasses.fields(DocumentData))
    made = Document(text="x")
    return fields == _FIELDS and [*vars(made)] == ["_data"] and vars(made._data).keys() == EMPTY.keys()


def read_document(message: Any) -> Any:
    """The Document in docarray's DocumentProto. Raises ValueError for arrays that cannot be read."""
    document = _new_document(Document)
    data = _new_data(DocumentData)
    data.__dict__ = values = EMPTY.copy()
    values["_reference_doc"] = document
    _set(document, "_data", data)
    later: dict[str, Any] | None = None
    for field, value in message.ListFields():
        name = field.name
        read = _READERS.get(name)
        if read is not None:
            value = read(value)
        if name in DERIVING:
            later = {} if later is None else later
            later[name] = value
        else:
            values[name] = value
    if later is not None:
        for name in DERIVING:
            if name in later:
                setattr(document, name, later[name])
    if values["id"] is None:
        values["id"] = os.urandom(16).hex()
    return document


def write_document(document: Any, message: Any, array_type: str | None) -> None:
    """
    Fill docarray's DocumentProto, whose arrays are ``array_type`` unless that is None.

    Raises one of several exceptions for what cannot be written.
    """
    if type(document) is not Document:
        message.CopyFrom(document.to_protobuf(ndarray_type=array_type))
        return
    for name, value in document._data.__dict__.items():
        if value is None or name in _UNWRITTEN:
            continue
        write = _WRITERS.get(name)
        if write is not None:
            write(message, name, value, array_type)
        elif value:  # a default is not on the wire
            setattr(message, name, value)


# What docarray's own setters derive something from, in their order.
DERIVING: Final = ("uri", "mime_type", "chunks", "matches")
_UNWRITTEN: Final = frozenset({"_reference_doc", "content"})


def read_array(message: Any) -> Any:
    """The array in docarray's NdArrayProto. Raises ValueError or TypeError for one that cannot be read."""
    if message.cls_name == "numpy" and message.HasField("dense"):
        dense = message.dense
        if dense.buffer:
            array = np.frombuffer(dense.buffer, dense.dtype)
            shape = dense.shape
            return array if len(shape) == 1 and shape[0] == len(array) else array.reshape(shape)
    return read_ndarray(message)


def read_scores(message: Any) -> Any:
    """The ``scores`` or ``evaluations`` of docarray's DocumentProto."""
    scores: defaultdict[str, Any] = defaultdict(NamedScore)
    for key, score in message.items():
        scores[key] = NamedScore({field.name: value for field, value in score.ListFields()})
    return scores


def _read_documents(messages: Any) -> list[Any]:
    return [read_document(each) for each in messages]


_READERS: Final[dict[str, Callable[[Any], Any]]] = {
    "tensor": read_array,
    "embedding": read_array,
    "tags": read_struct,
    "_metadata": read_struct,
    "location": list,
    "scores": read_scores,
    "evaluations": read_scores,
    "chunks": _read_documents,
    "matches": _read_documents,
}


def _write_named_array(message: Any, name: str, value: Any, array_type: str | None) -> None:
    write_array(getattr(message, name), value, array_type)


def write_array(into: Any, value: Any, array_type: str | None) -> None:
    """Fill docarray's NdArrayProto."""
    if type(value) is not np.ndarray or array_type == "list":
        flush_ndarray(into, value, ndarray_type=array_type)
        return
    into.cls_name = "numpy"
    dense = into.dense
    dense.buffer = value.tobytes()
    dense.shape.extend(value.shape)
    dense.dtype = value.dtype.str


def _write_struct(message: Any, name: str, value: Any, _: str | None) -> None:
    if not value:
        return
    struct = getattr(message, name)
    fields = struct.fields
    for key, item in value.items():
        kind = type(item)
        if kind is str:
            fields[key].string_value = item
        elif kind is float or kind is int:
            fields[key].number_value = item
        elif kind is bool:
            fields[key].bool_value = item
        else:
            struct[key] = item


def _write_list(message: Any, name: str, value: Any, _: str | None) -> None:
    if value:
        getattr(message, name).extend(value)


def write_scores(message: Any, name: str, value: Any, _: str | None) -> None:
    """Fill ``scores`` or ``evaluations`` of docarray's DocumentProto."""
    scores = getattr(message, name)
    for key, score in value.items():
        for field in score.non_empty_fields:
            setattr(scores[key], field, getattr(score, field))


def _write_documents(message: Any, name: str, value: Any, _: str | None) -> None:
    # As docarray does: the arrays of chunks and matches stay what they are.
    if value:
        documents = getattr(message, name)
        for each in value:
            write_document(each, documents.add(), None)


_WRITERS: Final[dict[str, Callable[[Any, str, Any, str | None], None]]] = {
    "tensor": _write_named_array,
    "embedding": _write_named_array,
    "tags": _write_struct,
    "_metadata": _write_struct,
    "location": _write_list,
    "scores": write_scores,
    "evaluations": write_scores,
    "chunks": _write_documents,
    "matches": _write_documents,
}
