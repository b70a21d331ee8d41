"""
Documents of the second generation, as a Client takes and gives them: docarray 0.40's and later (see
``documents.py``).

docarray reads and writes them. The classes of answers are those of ``return_type`` (spec 34/client.md).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from docarray import BaseDoc, DocList
from docarray.base_doc import AnyDoc
from docarray.proto import DocListProto
from google.protobuf.message import DecodeError

from gatewayd.client.errors import BadClientInput, BadServerFlow, WrongReturnType
from gatewayd.messages.generations import Generation, generation_of
from gatewayd.messages.wire import HEADER, Malformed, field, split

# Both field 1: a DataContentProto's list, and a list's documents.
_LIST: Final = HEADER
_DOCUMENT: Final = HEADER


class SecondDocuments:
    """``Documents`` of classes."""

    def is_document(self, value: object) -> bool:
        return isinstance(value, BaseDoc)

    def is_one(self, inputs: object) -> bool:
        return isinstance(inputs, BaseDoc)

    def document(self, item: Any) -> Any:
        if isinstance(item, BaseDoc):
            return item
        raise BadClientInput(
            f"no document can be made of a {type(item).__name__}; give an instance of a class that is "
            "derived from docarray's BaseDoc, or an iterable of them, such as a DocList"
        )

    def encoded(self, documents: list[Any]) -> bytes:
        listed = b"".join(part for one in documents for part in field(_DOCUMENT, self.encoded_one(one)))
        return b"".join(field(_LIST, listed))

    def encoded_one(self, document: Any) -> bytes:
        try:
            written: bytes = document.to_protobuf().SerializeToString()
        except (TypeError, ValueError, AttributeError) as error:  # docarray's and protobuf's
            reason = f"{error}: {error.__cause__}" if error.__cause__ else error
            raise BadClientInput(f"a {type(document).__name__} cannot be sent: {reason}") from error
        return written

    def decoded(self, data: bytes, return_type: Any) -> Any:
        kind = _class_of(return_type)
        if not data:
            return DocList[kind]()
        if generation_of(data) is Generation.FIRST:
            raise BadServerFlow(
                "the answer's documents are of docarray 0.21, and this Client has docarray 0.40 or later: "
                "to call this Flow, pip install 'gatewayd[client]'"
            )
        try:
            # A DataContentProto's fields have the numbers of a message's header and parameters. What docarray
            # writes as docs_bytes are a DocListProto's bytes; its other forms are no protobuf.
            docs, docs_bytes, _, _ = split(data)
            listed = DocListProto.FromString(docs_bytes or docs)
        except (Malformed, DecodeError) as error:
            raise BadServerFlow(f"the answer's documents cannot be read: {error}") from error
        try:
            return DocList[kind].from_protobuf(listed)
        except (TypeError, ValueError) as error:  # pydantic's, and docarray's for arrays
            raise WrongReturnType(kind.__name__, error) from error

    def check_return_type(self, return_type: Any) -> None:
        _class_of(return_type)

    def joined(self, arrays: Iterable[Any], return_type: Any) -> Any:
        kind = _class_of(return_type)
        return self.shown(DocList[kind]([document for array in arrays for document in array]), return_type)

    def shown(self, array: Any, return_type: Any) -> Any:
        return array[0] if _is_document_class(return_type) and len(array) == 1 else array

    def probe(self) -> Any:
        return None


def _is_document_class(return_type: Any) -> bool:
    return isinstance(return_type, type) and issubclass(return_type, BaseDoc)


def _class_of(return_type: Any) -> Any:
    """The class of documents that ``return_type`` names. Raises TypeError."""
    if return_type is None or return_type is DocList:
        return AnyDoc
    if _is_document_class(return_type):
        return return_type
    listed = getattr(return_type, "__origin__", return_type)
    if isinstance(listed, type) and issubclass(listed, DocList):
        return return_type.doc_type
    raise TypeError(
        f"return_type: {return_type!r} is neither DocList[X] nor X, for a class X that is derived from "
        "docarray's BaseDoc"
    )
