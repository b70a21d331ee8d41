"""
A request's data field to and from docarray's ``DocumentArray``.

docarray has message classes of its own, in protobuf's default pool (see ``gatewayd.pb``), so the
field is split by hand and its content passed to docarray as bytes. One document costs about 60 us
there and back, a thousand with embeddings 45 ms.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import attrs
from google.protobuf.message import DecodeError

from gatewayd.extras import require_docarray
from gatewayd.messages.generations import check_generation
from gatewayd.messages.structs import read_struct
from gatewayd.messages.wire import Malformed, field, split

try:
    from docarray import Document, DocumentArray
    from docarray.proto.docarray_pb2 import DocumentArrayProto
except ImportError:
    require_docarray("documents in Python need", "executor")
    raise

__all__ = ["ArrayType", "Document", "DocumentArray", "data_of", "documents_of"]

_DOCS: Final = 0x0A  # DataContentProto.docs
_DOCS_BYTES: Final = 0x12  # DataContentProto.docs_bytes

ArrayType = Literal["numpy", "list"] | None


@attrs.frozen
class _Taken:
    """The Structs of a document by their fields, and those of its chunks and matches."""

    own: dict[str, Any]
    below: list[_Taken]


def documents_of(data: bytes) -> Any:
    """
    The DocumentArray in a DataContentProto; no bytes are an empty one.

    ``docs_bytes`` is read only where it is protobuf, never where it is a pickle. Raises Malformed,
    or ForeignDocuments for those of docarray 0.30 and later.
    """
    if not data:
        return DocumentArray()
    check_generation(data)
    # A DataContentProto has fields 1 and 2, both bytes, so the splitter of messages can read it: it
    # calls field 1 the header and field 2 the parameters.
    docs, docs_bytes, _, _ = split(data)
    if docs_bytes:
        docs = _unpickled(docs_bytes)
    try:
        message = DocumentArrayProto.FromString(docs)
    except DecodeError as error:
        raise Malformed(f"the documents are not a DocumentArrayProto: {error}") from error
    try:
        return DocumentArray.from_protobuf(message)
    except ValueError:
        # docarray reads tags with protobuf's JSON, which refuses NaN and infinities.
        return _read_by_hand(message)


def data_of(documents: Any, array_type: ArrayType = None) -> bytes:
    """The DataContentProto of a DocumentArray, its arrays as ``array_type``, unless that is None."""
    return b"".join(field(_DOCS, documents.to_protobuf(ndarray_type=array_type).SerializeToString()))


def _read_by_hand(message: Any) -> Any:
    """As docarray does, except for the Structs of documents, which are read here."""
    structs = [_taken_structs(document) for document in message.docs]
    documents = DocumentArray.from_protobuf(message)
    for document, taken in zip(documents, structs, strict=True):
        _put_back(document, taken)
    return documents


def _taken_structs(message: Any) -> _Taken:
    """The Structs of a document's message and of all documents in it, removed from the message."""
    own = {
        name: _whole_numbers(read_struct(getattr(message, name)))
        for name in ("tags", "_metadata")
        if message.HasField(name)
    }
    for name in own:
        message.ClearField(name)
    return _Taken(own, [_taken_structs(child) for child in (*message.chunks, *message.matches)])


def _put_back(document: Any, taken: _Taken) -> None:
    for name, value in taken.own.items():
        setattr(document, name, value)
    for child, below in zip((*document.chunks, *document.matches), taken.below, strict=True):
        _put_back(child, below)


def _whole_numbers(value: Any) -> Any:
    """Floats that are whole as integers, as protobuf's JSON has them."""
    if isinstance(value, dict):
        return {key: _whole_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole_numbers(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _unpickled(docs_bytes: bytes) -> bytes:
    # Every pickle since protocol 2 starts with 0x80; every DocumentArrayProto with documents with 0x0a.
    if docs_bytes[0] != _DOCS:
        raise Malformed(
            "docs_bytes holds documents in a form that is unsafe to read (docarray's default is pickle); "
            "send them as docs, or serialised with protocol='protobuf-array'"
        )
    return docs_bytes
