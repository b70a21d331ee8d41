"""
Documents of the first generation, as a Client takes and gives them: docarray 0.21's (see ``documents.py``).

A document is made of texts, bytes, arrays and dicts, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from docarray import Document, DocumentArray
from docarray.score import NamedScore

from gatewayd.client.errors import BadClientInput, BadServerFlow
from gatewayd.messages.generations import Generation, generation_of
from gatewayd.messages.wire import Malformed, split

_BLOBS: Final = (bytes, bytearray, memoryview)


class FirstDocuments:
    """``Documents`` without types."""

    def is_document(self, value: object) -> bool:
        return isinstance(value, Document)

    def is_one(self, inputs: Any) -> bool:
        if isinstance(inputs, Document | Mapping | str | bytes | bytearray | memoryview):
            return True
        # The rows of a matrix are documents, but the numbers of a vector are not.
        return _is_array(inputs) and len(inputs.shape) < 2

    def document(self, item: Any) -> Any:
        return _document(item)

    def encoded(self, documents: list[Any]) -> bytes:
        from gatewayd.messages.document_arrays import data_of

        try:
            return data_of(DocumentArray(documents))
        except (TypeError, ValueError, AttributeError) as error:  # docarray's, for fields of a wrong type
            raise BadClientInput(f"the documents cannot be sent: {error}") from error

    def encoded_one(self, document: Any) -> bytes:
        docs, _, _, _ = split(self.encoded([document]))
        one, _, _, _ = split(docs)
        return one

    def decoded(self, data: bytes, return_type: Any) -> Any:
        from gatewayd.messages.document_arrays import documents_of

        if generation_of(data) is Generation.SECOND:
            raise BadServerFlow(
                "the answer's documents are of docarray 0.40 and later, and this Client has docarray 0.21: "
                "to call this Flow, pip install 'gatewayd[docarray2]'"
            )
        try:
            return documents_of(data)
        except Malformed as error:
            raise BadServerFlow(f"the answer's documents cannot be read: {error}") from error

    def check_return_type(self, return_type: Any) -> None:
        pass

    def joined(self, arrays: Iterable[Any], return_type: Any) -> Any:
        return DocumentArray([document for array in arrays for document in array])

    def shown(self, array: Any, return_type: Any) -> Any:
        return array

    def probe(self) -> Any:
        return Document()


def _document(item: Any) -> Any:
    """A Document of ``item``: itself, its fields, or its content. Raises BadClientInput."""
    if isinstance(item, Document):
        return item
    try:
        if isinstance(item, Mapping):
            return Document(_fields(item))
        if isinstance(item, str):
            return Document(text=item)
        if isinstance(item, _BLOBS):
            return Document(blob=bytes(item))
        if _is_array(item) or (isinstance(item, list | tuple) and _is_numbers(item)):
            return Document(tensor=item)
    except (TypeError, ValueError) as error:
        raise BadClientInput(f"no Document can be made of this {type(item).__name__}: {error}") from error
    raise BadClientInput(
        f"no Document can be made of a {type(item).__name__}; "
        "give Documents, dicts, texts, bytes or arrays, one or an iterable of them"
    )


def _fields(item: Mapping[str, Any]) -> dict[str, Any]:
    """
    A document's fields, from a dict as ``Document.to_dict`` and JSON have them.

    Documents and scores in it become docarray's, what is None is left out.
    """
    fields = {name: value for name, value in item.items() if value is not None}
    for name in ("chunks", "matches"):
        if isinstance(fields.get(name), list | tuple):
            fields[name] = [_document(child) for child in fields[name]]
    for name in ("scores", "evaluations"):
        if isinstance(fields.get(name), Mapping):
            fields[name] = {
                key: NamedScore(**{part: found for part, found in score.items() if found is not None})
                if isinstance(score, Mapping)
                else score
                for key, score in fields[name].items()
            }
    return fields


def _is_array(item: Any) -> bool:
    """numpy's, or any other library's: nothing is imported to find out."""
    return hasattr(item, "shape") and hasattr(item, "dtype")


def _is_numbers(item: Any) -> bool:
    while isinstance(item, list | tuple) and item:
        item = item[0]
    return isinstance(item, int | float)
