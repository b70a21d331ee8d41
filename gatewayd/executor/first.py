"""Documents of the first generation, as methods get them: docarray 0.21's (see ``documents.py``)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf.message import DecodeError

from gatewayd.executor.forms import Form
from gatewayd.messages.document_arrays import ArrayType, Document, DocumentArray, data_of, documents_of
from gatewayd.messages.wire import HEADER, Malformed, field, split


class FirstDocuments:
    """``Documents`` without types."""

    array = "DocumentArray"
    document = "Document"
    has_array_types = True

    def read(self, data: bytes, form: Form) -> Any:
        return documents_of(data)

    def read_one(self, data: bytes, form: Form) -> Any:
        # As a DataContentProto with one document in it: its field has the number of a message's header.
        try:
            return documents_of(b"".join(field(HEADER, b"".join(field(HEADER, data)))))[0]
        except DecodeError as error:
            raise Malformed(f"the document is not a DocumentProto: {error}") from error

    def write(self, array: Any, array_type: ArrayType) -> bytes:
        return data_of(array, array_type)

    def write_one(self, document: Any) -> bytes:
        docs, _, _, _ = split(data_of(DocumentArray([document])))
        one, _, _, _ = split(docs)
        return one

    def array_of(self, documents: Iterable[Any], form: Form) -> Any:
        return DocumentArray(list(documents))

    def answers_of(self, documents: Iterable[Any]) -> Any:
        return DocumentArray(list(documents))

    def is_array(self, value: object) -> bool:
        return isinstance(value, DocumentArray)

    def is_document(self, value: object) -> bool:
        return isinstance(value, Document)

    def misfit(self, value: object, form: Form) -> str | None:
        if isinstance(value, Document):
            return None
        return f"a generator with doc must yield Document, but yields {value!r}"

    def parameters(self, form: Form, parameters: Mapping[str, Any]) -> Any:
        return parameters

    def schemas(self, forms: Mapping[str, Form]) -> dict[str, Any] | None:
        return None
