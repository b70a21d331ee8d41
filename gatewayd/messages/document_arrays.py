"""
A request's data field to and from docarray's ``DocumentArray``.

docarray has message classes of its own, in protobuf's default pool (see ``gatewayd.pb``), so the
field is split by hand, and its content read by ``document_bytes``.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from google.protobuf.message import DecodeError

from gatewayd.extras import require_docarray
from gatewayd.messages.generations import check_generation
from gatewayd.messages.wire import Malformed, field, split

try:
    from docarray import Document, DocumentArray
    from docarray.proto.docarray_pb2 import DocumentArrayProto

    from gatewayd.messages.document_bytes import array_layout_is_known, documents_bytes, read_documents
    from gatewayd.messages.documents_codec import layout_is_known
except ImportError:
    require_docarray("documents in Python need", "executor")
    raise

__all__ = ["ArrayType", "Document", "DocumentArray", "data_of", "documents_of"]

_DOCS: Final = 0x0A  # DataContentProto.docs
_DOCS_BYTES: Final = 0x12  # DataContentProto.docs_bytes

ArrayType = Literal["numpy", "list"] | None


# Whether documents are read and written here; else docarray does it.
_KNOWN: Final = layout_is_known() and array_layout_is_known()


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
        if _KNOWN:
            return read_documents(docs)
        return DocumentArray.from_protobuf(DocumentArrayProto.FromString(docs))
    except DecodeError as error:
        raise Malformed(f"the documents are not a DocumentArrayProto: {error}") from error


def data_of(documents: Any, array_type: ArrayType = None) -> bytes:
    """The DataContentProto of a DocumentArray, its arrays as ``array_type``, unless that is None."""
    if _KNOWN:
        try:
            return b"".join(field(_DOCS, documents_bytes(documents, array_type)))
        except Exception:
            # What cannot be written fails in docarray, too, whose errors name the field.
            pass
    return b"".join(field(_DOCS, documents.to_protobuf(ndarray_type=array_type).SerializeToString()))


def _unpickled(docs_bytes: bytes) -> bytes:
    # Every pickle since protocol 2 starts with 0x80; every DocumentArrayProto with documents with 0x0a.
    if docs_bytes[0] != _DOCS:
        raise Malformed(
            "docs_bytes holds documents in a form that is unsafe to read (docarray's default is pickle); "
            "send them as docs, or serialised with protocol='protobuf-array'"
        )
    return docs_bytes
