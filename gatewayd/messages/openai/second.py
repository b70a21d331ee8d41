"""
The second generation: the fields of an endpoint's documents that a request fills and an answer is read from,
by their names in its schemas.

A conversation fills ``messages`` and ``text``, whichever there are; where there is no field ``messages``,
they are in a dictionary ``tags``, as in the first generation. An answer is read from ``text``,
``embedding``, ``finish_reason``, ``usage`` and ``tool_calls``; what is not a field of its own may be in a
dictionary ``tags``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs
from google.protobuf.message import DecodeError

from gatewayd.errors import BadRequest, GatewayError
from gatewayd.messages.discovery import TypedEndpoint
from gatewayd.messages.openai.forms import Answered, UnfitDocuments, as_vector, field_at_fault, unfit
from gatewayd.messages.request import Request
from gatewayd.messages.rope import Content
from gatewayd.messages.second.reading import Model, request_of
from gatewayd.pb.second import DataContentProto, DocProto, NodeProto

_FACTS: Final = ("finish_reason", "usage", "tool_calls")


@attrs.frozen(eq=False)
class SecondForm:
    """Documents of the endpoint ``name``, of which executors tell ``typed``; that makes the ``model``."""

    name: str
    typed: TypedEndpoint
    model: Model

    @classmethod
    def of(cls, name: str, typed: TypedEndpoint) -> SecondForm:
        """The form of an endpoint."""
        return cls(name, typed, Model.of(typed))

    def of_chat(
        self, text: str, messages: Sequence[Mapping[str, Any]], parameters: Mapping[str, Any], request_id: str
    ) -> Request:
        values = {"messages": list(messages), "text": text, "tags": {"messages": list(messages)}}
        filled = self._filled("messages", "text", "tags")
        if "messages" in filled and "tags" in filled:
            filled.remove("tags")
        document = {name: values[name] for name in filled}
        return self._request([document], parameters, request_id, {"text": "messages"})

    def of_texts(self, texts: Sequence[str], parameters: Mapping[str, Any], request_id: str) -> Request:
        self._filled("text")
        return self._request([{"text": text} for text in texts], parameters, request_id, {"text": "input"})

    def read(self, documents: Content) -> list[Answered]:
        try:
            content = DataContentProto.FromString(bytes(documents))
        except DecodeError as error:
            raise UnfitDocuments(f"the documents of {self.name} are malformed: {error}") from error
        return [_read(each) for each in content.docs.docs]

    def _filled(self, *names: str) -> list[str]:
        """Those of the fields ``names`` that the endpoint's documents have. Raises UnfitDocuments."""
        documents = self.model.documents
        # A class of which nothing is known takes whatever it gets, and says itself what does not fit.
        anything = documents.is_open and not documents.fields
        found = [name for name in names if anything or name in documents.fields]
        if not found:
            raise UnfitDocuments(
                f"the documents of {self.name} ({self.typed.input_name}) have no field {' or '.join(names)}, "
                "which requests in OpenAI's form fill; its executor's class of documents has to have one"
            )
        return found

    def _request(
        self,
        documents: list[dict[str, Any]],
        parameters: Mapping[str, Any],
        request_id: str,
        known: Mapping[str, str],
    ) -> Request:
        fields = {"data": documents, "parameters": dict(parameters)}
        most = len(documents)
        try:
            return request_of(fields, self.model, self.name, request_id=request_id, max_documents=most)
        except BadRequest as error:
            raise field_at_fault(error, known) from error


def _read(document: DocProto) -> Answered:
    data = document.data
    facts = _field(document, "tags")
    facts = dict(facts) if isinstance(facts, dict) else {}
    facts.update({name: _field(document, name) for name in _FACTS if name in data})
    embedding, text = _field(document, "embedding"), _field(document, "text")
    if not isinstance(text, str | None):
        raise unfit("text", text, "a string")
    return Answered(
        text or "",
        None if embedding is None else as_vector(embedding),
        facts,
    )


def _field(document: DocProto, name: str) -> Any:
    """None if there is none. Raises UnfitDocuments."""
    if name not in document.data:
        return None
    try:
        return _value(document.data[name])
    except GatewayError as error:  # an array
        raise UnfitDocuments(f"{name}: {error}") from error


def _value(node: NodeProto) -> Any:
    kind = node.WhichOneof("content")
    if kind in ("text", "integer", "float", "boolean"):
        return getattr(node, kind)
    if kind in ("list", "tuple", "set"):
        return [_value(each) for each in getattr(node, kind).data]
    if kind == "dict":
        return {key: _value(each) for key, each in node.dict.data.items()}
    if kind == "doc":
        return {key: _value(each) for key, each in node.doc.data.items()}
    if kind == "doc_array":
        return [{key: _value(each) for key, each in doc.data.items()} for doc in node.doc_array.docs]
    if kind == "ndarray":
        # Imported here, because it brings numpy: 18 MiB and 0.1 s, once, where an array is seen.
        from gatewayd.messages.json_form.arrays import read_dense

        return read_dense(node.ndarray.dense)
    return None
