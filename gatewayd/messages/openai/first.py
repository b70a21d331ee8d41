"""
The first generation: a conversation's document has the last words of the user as ``text``, and all
``messages`` in its tags.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from gatewayd.errors import BadRequest, GatewayError
from gatewayd.messages.documents import is_empty, parse
from gatewayd.messages.json_form.documents import Allowance
from gatewayd.messages.json_form.requests import build_request
from gatewayd.messages.openai.forms import Answered, UnfitDocuments, as_vector, field_at_fault
from gatewayd.messages.request import Request
from gatewayd.messages.rope import Content
from gatewayd.messages.structs import read_struct
from gatewayd.pb import DocumentProto


@attrs.frozen
class FirstForm:
    """Documents as docarray 0.21 has them, for the endpoint ``name``."""

    name: str

    def of_chat(
        self, text: str, messages: Sequence[Mapping[str, Any]], parameters: Mapping[str, Any], request_id: str
    ) -> Request:
        document = {"text": text, "tags": {"messages": list(messages)}}
        return self._request([document], parameters, request_id, "messages")

    def of_texts(self, texts: Sequence[str], parameters: Mapping[str, Any], request_id: str) -> Request:
        return self._request([{"text": text} for text in texts], parameters, request_id, "input")

    def _request(
        self, documents: list[dict[str, Any]], parameters: Mapping[str, Any], request_id: str, param: str
    ) -> Request:
        fields = {"data": documents, "parameters": dict(parameters)}
        allowance = Allowance(len(documents))
        try:
            return build_request(fields, endpoint=self.name, request_id=request_id, allowance=allowance)
        except BadRequest as error:
            # Of documents only what is nested too deeply can be wrong by now, and of parameters as well.
            raise field_at_fault(error, {"text": param, "tags": param}) from error

    def read(self, documents: Content) -> list[Answered]:
        return [] if is_empty(documents) else [_read(each) for each in parse(documents).docs.docs]


def _read(document: DocumentProto) -> Answered:
    embedding = None
    if document.HasField("embedding"):
        try:
            array = _array(document.embedding)
        except GatewayError as error:
            raise UnfitDocuments(f"embedding: {error}") from error
        embedding = None if array is None else as_vector(array)
    tags = read_struct(document.tags) if document.HasField("tags") else {}
    return Answered(document.text, embedding, tags)


def _array(message: Any) -> Any:
    # Imported here, because it brings numpy: 18 MiB and 0.1 s, once, where an array is seen.
    from gatewayd.messages.json_form.arrays import read_array

    return read_array(message)
