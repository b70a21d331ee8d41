"""Requests made of batches of documents: what every request of one ``post`` has in common is kept here."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from gatewayd.client.errors import BadClient, BadClientInput
from gatewayd.messages.request import Request


@attrs.frozen
class Message:
    """A request in the form of its protocol, ready to be sent."""

    request_id: str
    payload: bytes


@attrs.frozen
class RequestMaker:
    """``encode`` gives a Request the form of its protocol; ``parameters`` are a serialised Struct."""

    endpoint: str
    target: str
    parameters: bytes
    encode: Callable[[Request], bytes]

    def message(self, documents: list[Any]) -> Message:
        """Raises BadClientInput for documents that cannot be sent."""
        request = Request(
            request_id=uuid.uuid4().hex,
            endpoint=self.endpoint,
            target=self.target,
            parameters=self.parameters,
            documents=_serialised(documents) if documents else b"",
        )
        return Message(request.request_id, self.encode(request))


def request_maker(
    on: str,
    target: str | None,
    parameters: Mapping[str, Any] | None,
    encode: Callable[[Request], bytes],
) -> RequestMaker:
    """Raises BadClient where ``parameters`` hold what has no JSON form, or are no mapping."""
    from gatewayd.messages.structs import struct_of

    if parameters is not None and not isinstance(parameters, Mapping):
        raise BadClientInput(f"parameters: give a dict; found a value of type {type(parameters).__name__}")
    try:
        # Executors of the reference look for __results__ and take a request without it for a
        # malformed one, so the reference's client sends it where there is nothing else.
        struct = struct_of({"__results__": {}} if parameters is None else parameters)
    except TypeError as error:
        raise BadClient(str(error)) from error
    return RequestMaker(on, target or "", struct, encode)


def _serialised(documents: list[Any]) -> bytes:
    from docarray import DocumentArray

    from gatewayd.messages.document_arrays import data_of

    try:
        return data_of(DocumentArray(documents))
    except (TypeError, ValueError, AttributeError) as error:  # docarray's, for fields of a wrong type
        raise BadClientInput(f"the documents cannot be sent: {error}") from error
