"""
A request's data field to and from docarray's ``DocumentArray``.

docarray has message classes of its own, in protobuf's default pool (see ``gatewayd.pb``), so the
field is split by hand and its content passed to docarray as bytes. One document costs about 60 us
there and back, a thousand with embeddings 45 ms.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from docarray import DocumentArray
from docarray.proto.docarray_pb2 import DocumentArrayProto
from google.protobuf.message import DecodeError

from gatewayd.messages.generations import check_generation
from gatewayd.messages.wire import Malformed, field, split

_DOCS: Final = 0x0A  # DataContentProto.docs
_DOCS_BYTES: Final = 0x12  # DataContentProto.docs_bytes

ArrayType = Literal["numpy", "list"] | None


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
        return DocumentArray.from_protobuf(DocumentArrayProto.FromString(docs))
    except DecodeError as error:
        raise Malformed(f"the documents are not a DocumentArrayProto: {error}") from error


def data_of(documents: Any, array_type: ArrayType = None) -> bytes:
    """The DataContentProto of a DocumentArray, its arrays as ``array_type``, unless that is None."""
    return b"".join(field(_DOCS, documents.to_protobuf(ndarray_type=array_type).SerializeToString()))


def _unpickled(docs_bytes: bytes) -> bytes:
    # Every pickle since protocol 2 starts with 0x80; every DocumentArrayProto with documents with 0x0a.
    if docs_bytes[0] != _DOCS:
        raise Malformed(
            "docs_bytes holds documents in a form that is unsafe to read (docarray's default is pickle); "
            "send them as docs, or serialised with protocol='protobuf-array'"
        )
    return docs_bytes
