"""
Documents from and to bytes by hand, where nothing unusual is in them.

What is read here is what protobuf's own writers write: fields in the order of their numbers, each once. What
is written is the same. Anything else, and what is rare (sparse arrays, frameworks' tensors, evaluations,
subclasses), is ``documents_codec``'s work, one document at a time. Most arrays are of a few shapes and types:
what is around their content is read and made once for each.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, Final

import numpy as np
from docarray import Document, DocumentArray
from docarray.document.data import DocumentData
from docarray.proto.docarray_pb2 import DenseNdArrayProto, DocumentArrayProto, DocumentProto, NdArrayProto

from gatewayd.messages.documents_codec import (
    DERIVING,
    EMPTY,
    read_array,
    read_document,
    read_scores,
    write_document,
    write_scores,
)
from gatewayd.messages.struct_codec import (
    Unusual,
    length_of,
    long_length,
    read_struct_bytes,
    struct_bytes,
)

# What reading and writing by hand raise for what is unusual.
_UNUSUAL: Final = (
    Unusual,
    IndexError,
    KeyError,
    AttributeError,
    TypeError,
    UnicodeError,
    OverflowError,
    struct.error,
)

_new_document: Final = Document.__new__
_new_data: Final = DocumentData.__new__
_set: Final = object.__setattr__
_float: Final = struct.Struct("<f")
_read_float: Final = _float.unpack_from

# DocumentArrayProto.docs
_DOCUMENT: Final = 0x0A
_MAX_BYTES: Final = (1 << 31) - 1


# -- arrays of documents -----------------------------------------------------------------------------------

_State = dict[str, Any]
_COLLECTIONS: Final = ("_data", "_id_to_index", "_subindices")


def _state(documents: Iterable[Document]) -> _State:
    return {**vars(DocumentArray(documents))}


_EMPTY_ARRAY: Final = _state([])
_Array: Final = type(DocumentArray())


def array_layout_is_known() -> bool:
    """Whether ``array_of`` makes what the installed docarray makes."""
    documents = [Document(id="a"), Document(id="b")]
    expected = {**_EMPTY_ARRAY, "_data": documents, "_id_to_index": {"a": 0, "b": 1}}
    return (
        expected == _state(documents) == vars(array_of(documents, {"a": 0, "b": 1}))
        and not any(_EMPTY_ARRAY[name] for name in _COLLECTIONS)
        and all(
            value is _state([])[name] or value == ()
            for name, value in _EMPTY_ARRAY.items()
            if name not in _COLLECTIONS
        )
    )


def array_of(documents: list[Any], positions: dict[str, int]) -> Any:
    """A DocumentArray of ``documents``, whose ids are at these ``positions``."""
    array = object.__new__(_Array)
    state = _EMPTY_ARRAY.copy()
    state["_data"], state["_id_to_index"], state["_subindices"] = documents, positions, {}
    array.__dict__ = state
    return array


# -- reading -----------------------------------------------------------------------------------------------


def read_documents(data: bytes) -> Any:
    """The DocumentArray in a DocumentArrayProto. Raises DecodeError, or ValueError for unreadable arrays."""
    documents: list[Any] = []
    positions: dict[str, int] = {}
    at, end = 0, len(data)
    try:
        while at < end:
            size, start = data[at + 1], at + 2
            if size > 0x7F:
                size, start = long_length(data, at + 1)
            stop = start + size
            if data[at] != _DOCUMENT or stop > end:
                raise Unusual
            document = _read(data, start, stop)
            positions[document._data.id] = len(documents)
            documents.append(document)
            at = stop
    except (IndexError, Unusual):
        return DocumentArray(read_document(each) for each in DocumentArrayProto.FromString(data).docs)
    return array_of(documents, positions)


def _read(data: bytes, at: int, end: int) -> Any:
    try:
        return _read_by_hand(data, at, end, 0)
    except _UNUSUAL:
        return read_document(DocumentProto.FromString(data[at:end]))


def _read_by_hand(data: bytes, at: int, end: int, depth: int) -> Any:
    if depth > _DEPTH:
        raise Unusual  # protobuf bounds it
    document = _new_document(Document)
    fields = _new_data(DocumentData)
    fields.__dict__ = values = EMPTY.copy()
    values["_reference_doc"] = document
    _set(document, "_data", fields)
    later: dict[str, Any] = {}
    last = 0
    while at < end:
        tag = data[at]
        if tag > 0x7F:  # of two bytes
            at += 1
            tag += data[at] << 8
        if tag <= last and (tag != last or tag not in _REPEATED):
            raise Unusual
        last = tag
        if tag in _NUMBERS:
            at = _read_number(data, tag, at + 1, values)
            continue
        size, start = data[at + 1], at + 2
        if size > 0x7F:
            size, start = long_length(data, at + 1)
        at = start + size
        if at > end:
            raise Unusual
        _READERS[tag](data, start, at, values, later, depth)
    if at != end:
        raise Unusual
    if later:
        for name in DERIVING:
            if name in later:
                setattr(document, name, later[name])
    if values["id"] is None:
        values["id"] = os.urandom(16).hex()
    return document


_Read = Callable[[bytes, int, int, dict[str, Any], dict[str, Any], int], None]


def _text(name: str) -> _Read:
    def read(
        data: bytes, at: int, end: int, values: dict[str, Any], _later: dict[str, Any], _depth: int
    ) -> None:
        if at < end:
            values[name] = str(data[at:end], "utf-8")

    return read


def _derived(name: str) -> _Read:
    def read(
        data: bytes, at: int, end: int, _values: dict[str, Any], later: dict[str, Any], _depth: int
    ) -> None:
        if at < end:
            later[name] = str(data[at:end], "utf-8")

    return read


def _documents(name: str) -> _Read:
    def read(
        data: bytes, at: int, end: int, _values: dict[str, Any], later: dict[str, Any], depth: int
    ) -> None:
        later.setdefault(name, []).append(_read_by_hand(data, at, end, depth + 1))

    return read


def _struct(name: str) -> _Read:
    def read(
        data: bytes, at: int, end: int, values: dict[str, Any], _later: dict[str, Any], _depth: int
    ) -> None:
        values[name] = read_struct_bytes(data, at, end)

    return read


def _scores(name: str) -> _Read:
    def read(
        data: bytes, at: int, end: int, values: dict[str, Any], _later: dict[str, Any], _depth: int
    ) -> None:
        # An entry of the map, which is read by protobuf.
        entry = _SCORES[name] + length_of(end - at) + data[at:end]
        found = read_scores(getattr(DocumentProto.FromString(entry), name))
        if values[name] is None:
            values[name] = found
        else:
            values[name].update(found)

    return read


def _content_text(
    data: bytes, at: int, end: int, values: dict[str, Any], _later: dict[str, Any], _depth: int
) -> None:
    _check_content(values)
    values["text"] = str(data[at:end], "utf-8")


def _blob(
    data: bytes, at: int, end: int, values: dict[str, Any], _later: dict[str, Any], _depth: int
) -> None:
    values["blob"] = data[at:end]


def _tensor(
    data: bytes, at: int, end: int, values: dict[str, Any], _later: dict[str, Any], _depth: int
) -> None:
    _check_content(values)
    values["tensor"] = _read_array(data, at, end)


def _embedding(
    data: bytes, at: int, end: int, values: dict[str, Any], _later: dict[str, Any], _depth: int
) -> None:
    values["embedding"] = _read_array(data, at, end)


def _check_content(values: dict[str, Any]) -> None:
    if values["blob"] is not None or values["tensor"] is not None:
        raise Unusual  # the last of several is the one


_DEPTH: Final = 16
_SCORES: Final = {"scores": b"\x92\x01", "evaluations": b"\x9a\x01"}
_NUMBERS: Final = {0x28: "granularity", 0x30: "adjacency", 0x45: "weight", 0x65: "offset"}
_READERS: Final[dict[int, _Read]] = {
    0x0A: _text("id"),
    0x12: _blob,
    0x1A: _tensor,
    0x22: _content_text,
    0x3A: _text("parent_id"),
    0x4A: _derived("uri"),
    0x52: _text("modality"),
    0x5A: _derived("mime_type"),
    0x72: _documents("chunks"),
    0x7A: _documents("matches"),
    0x182: _embedding,
    0x18A: _struct("tags"),
    0x192: _scores("scores"),
    0x19A: _scores("evaluations"),
    0x1A2: _struct("_metadata"),
}
_REPEATED: Final = frozenset({0x72, 0x7A, 0x192, 0x19A})


def _read_number(data: bytes, tag: int, at: int, values: dict[str, Any]) -> int:
    """The position after the number."""
    if tag & 7:
        value, at = _read_float(data, at)[0], at + 4
    else:
        value, at = data[at], at + 1
        if value > 0x7F:
            raise Unusual
    if not value:
        raise Unusual  # it may be -0.0
    values[_NUMBERS[tag]] = value
    return at


def _read_array(data: bytes, at: int, end: int) -> Any:
    """The array in an NdArrayProto: what is around the content says how it is read, and is looked at once."""
    start = at + 2 if data[at + 1] < 0x80 else long_length(data, at + 1)[1]
    size, begin = data[start + 1], start + 2
    if size > 0x7F:
        size, begin = long_length(data, start + 1)
    stop = begin + size
    content, around = data[begin:stop], (data[at:begin], data[stop:end])
    layout = _LAYOUTS.get(around)
    if layout is None:
        layout = _layout_of(data[at:end], content)
        if end - stop <= _COMMON_BYTES:
            if len(_LAYOUTS) >= _MAX_LAYOUTS:
                _LAYOUTS.clear()
            _LAYOUTS[around] = layout
    shape, dtype = layout
    return np.ndarray(shape, dtype, content)


# Shape and type of arrays that were read, by the bytes before and after their content. Read and written by
# several threads, which lose an entry at worst.
_LAYOUTS: Final[dict[tuple[bytes, bytes], tuple[tuple[int, ...], Any]]] = {}
_MAX_LAYOUTS: Final = 256
# Shape, type and library take 20 bytes or so.
_COMMON_BYTES: Final = 64


def _layout_of(array: bytes, content: bytes) -> tuple[tuple[int, ...], Any]:
    message = NdArrayProto.FromString(array)
    if message.cls_name != "numpy" or not content or message.dense.buffer != content:
        raise Unusual
    if message.HasField("parameters") or message.SerializeToString() != array:
        raise Unusual
    found = read_array(message)
    return found.shape, found.dtype


def _read_embedding(data: bytes, at: int, end: int, values: dict[str, Any]) -> None:
    values["embedding"] = _read_array(data, at, end)


def _read_tags(data: bytes, at: int, end: int, values: dict[str, Any]) -> None:
    values["tags"] = read_struct_bytes(data, at, end)


_OTHERS: Final[dict[int, Callable[[bytes, int, int, dict[str, Any]], None]]] = {
    0x182: _read_embedding,
    0x18A: _read_tags,
}


# -- writing -----------------------------------------------------------------------------------------------


def documents_bytes(documents: Any, array_type: str | None) -> bytes:
    """
    The DocumentArrayProto of ``documents``, whose arrays are ``array_type`` unless that is None.

    Raises one of several exceptions for what cannot be written.
    """
    parts: list[bytes] = []
    for document in documents._data if type(documents) is _Array else documents:
        _write(document, _DOCUMENT, parts, array_type)
    if sum(map(len, parts)) > _MAX_BYTES:
        raise ValueError("the documents are larger than protobuf's limit of 2 GiB")
    return b"".join(parts)


def _write(document: Any, tag: int, parts: list[bytes], array_type: str | None) -> None:
    """Append the document as a field called ``tag``."""
    written: list[bytes] = []
    try:
        if type(document) is not Document:
            raise Unusual
        values = document._data.__dict__
        for name, field, write in _WRITTEN:
            value = values[name]
            if value is not None:
                write(value, field, written, array_type)
    except _UNUSUAL:
        message = DocumentProto()
        write_document(document, message, array_type)
        written = [message.SerializeToString()]
    parts += bytes((tag,)), length_of(sum(map(len, written)))
    parts += written


def _write_text(value: Any, tag: bytes, parts: list[bytes], _type: str | None) -> None:
    if value:
        text = value.encode()
        parts += tag, length_of(len(text)), text


def _write_blob(value: Any, tag: bytes, parts: list[bytes], _type: str | None) -> None:
    if type(value) is not bytes:
        raise Unusual
    if value:
        parts += tag, length_of(len(value)), value


def _write_whole(value: Any, tag: bytes, parts: list[bytes], _type: str | None) -> None:
    if type(value) is not int or not 0 <= value <= 0xFFFFFFFF:
        raise Unusual
    if value:
        parts += tag, length_of(value)


def _write_float(value: Any, tag: bytes, parts: list[bytes], _type: str | None) -> None:
    if value:
        parts += tag, _float.pack(value)


def _write_floats(value: Any, tag: bytes, parts: list[bytes], _type: str | None) -> None:
    if value:
        parts += tag, length_of(4 * len(value)), struct.pack(f"<{len(value)}f", *value)


def _write_struct(value: Any, tag: bytes, parts: list[bytes], _type: str | None) -> None:
    if value:
        content = struct_bytes(value)
        parts += tag, length_of(len(content)), content


def _write_scores(value: Any, tag: bytes, parts: list[bytes], _type: str | None) -> None:
    if value:
        message = DocumentProto()
        write_scores(message, "scores" if tag == _SCORES["scores"] else "evaluations", value, None)
        parts.append(message.SerializeToString())


def _write_documents(value: Any, tag: bytes, parts: list[bytes], _type: str | None) -> None:
    # As docarray does: the arrays of chunks and matches stay what they are.
    for each in value:
        _write(each, tag[0], parts, None)


def _write_array(value: Any, tag: bytes, parts: list[bytes], array_type: str | None) -> None:
    if type(value) is not np.ndarray or array_type == "list":
        raise Unusual
    before, after = _around(value.shape, value.dtype)
    parts += tag, before, value.tobytes(), after


@lru_cache(maxsize=256)
def _around(shape: tuple[int, ...], dtype: Any) -> tuple[bytes, bytes]:
    """What is written before an array's content, the length of it all at first, and after it."""
    size = math.prod(shape) * dtype.itemsize
    if not size:
        raise Unusual
    content = b"\x0a" + length_of(size)
    after = DenseNdArrayProto(shape=shape, dtype=dtype.str).SerializeToString()
    dense = b"\x0a" + length_of(len(content) + size + len(after)) + content
    after += NdArrayProto(cls_name="numpy").SerializeToString()
    return length_of(len(dense) + size + len(after)) + dense, after


_Write = Callable[[Any, bytes, list[bytes], str | None], None]
# In the order of the fields' numbers.
_WRITTEN: Final[tuple[tuple[str, bytes, _Write], ...]] = (
    ("id", b"\x0a", _write_text),
    ("blob", b"\x12", _write_blob),
    ("tensor", b"\x1a", _write_array),
    ("text", b"\x22", _write_text),
    ("granularity", b"\x28", _write_whole),
    ("adjacency", b"\x30", _write_whole),
    ("parent_id", b"\x3a", _write_text),
    ("weight", b"\x45", _write_float),
    ("uri", b"\x4a", _write_text),
    ("modality", b"\x52", _write_text),
    ("mime_type", b"\x5a", _write_text),
    ("offset", b"\x65", _write_float),
    ("location", b"\x6a", _write_floats),
    ("chunks", b"\x72", _write_documents),
    ("matches", b"\x7a", _write_documents),
    ("embedding", b"\x82\x01", _write_array),
    ("tags", b"\x8a\x01", _write_struct),
    ("scores", b"\x92\x01", _write_scores),
    ("evaluations", b"\x9a\x01", _write_scores),
    ("_metadata", b"\xa2\x01", _write_struct),
)
