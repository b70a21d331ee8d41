"""
Answers of the second generation as JSON (spec 34/http.md).

Documents are written as they say themselves what they hold; what is known of the endpoint gives the order of
their fields, and the values of those that are missing. Arrays are nested lists, numbers that JSON does not
have are null, and bytes are their text in UTF-8, or base64 where they are none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson
from google.protobuf.message import DecodeError

from gatewayd.errors import GatewayError
from gatewayd.messages.json_form.groups import dumps, pieces_of_list
from gatewayd.messages.json_form.responses import Unwritable, encode_websocket, parameters_in
from gatewayd.messages.request import Request, Response
from gatewayd.messages.rope import Content
from gatewayd.messages.second.reading import UNKNOWN, Model
from gatewayd.pb import StatusProto
from gatewayd.pb.second import DataContentProto, DocListProto


def encode_answer(response: Response, model: Model = UNKNOWN) -> bytes:
    """
    The body of a successful answer: data, parameters, header, in the reference's order.

    Raises GatewayError if an executor's answer has no JSON form.
    """
    header = {"request_id": response.request_id, "target_executor": ""}
    return _whole(response.documents, model, response.parameters, header)


def encode_frame(response: Response, model: Model = UNKNOWN) -> bytes:
    """The text frame of an answer over WebSocket, with typed documents. Raises GatewayError."""
    return encode_websocket(response, lambda documents: _pieces(documents, model))


def encode_failure(request: Request, error: GatewayError, model: Model = UNKNOWN) -> bytes:
    """
    The body where an executor could not be reached: the request as it was sent, and the error.

    The reference's client makes a ConnectionError of its status (spec 34/client.md).
    """
    status = {
        "code": 1,
        "description": str(error),
        "exception": {"name": "InternalNetworkError", "args": [], "stacks": [], "executor": ""},
    }
    header = {"request_id": request.request_id, "status": status}
    return _whole(request.documents, model, request.parameters, header)


def encode_raised(status: bytes) -> bytes:
    """The body where an executor raised: what it says of that, as ``detail``."""
    return orjson.dumps({"detail": description_of(status)})


def description_of(status: bytes) -> str:
    """What a StatusProto says in words. Raises Unwritable."""
    try:
        said = StatusProto.FromString(status)
    except DecodeError as error:
        raise Unwritable(f"the answer's status is malformed: {error}") from error
    return said.description or said.exception.name or "an executor failed"


def write_document(documents: Content, model: Model = UNKNOWN) -> bytes:
    """
    The JSON of the first of these documents, in one line; null if there is none.

    Raises GatewayError if it has no JSON form.
    """
    found = documents_in(documents)
    return _dumps(model.answers.write_document(found[0])) if found else b"null"


def write_documents(documents: Content, model: Model = UNKNOWN) -> list[bytes]:
    """The JSON of each of these documents, in one line. Raises GatewayError if one has no JSON form."""
    return [_dumps(model.answers.write_document(each)) for each in documents_in(documents)]


def documents_in(content: Content) -> Sequence[Any]:
    """
    The DocProtos of a DataContentProto, which may hold a DocListProto's bytes in their place (spec
    34/wire.md).

    Raises Unwritable if they cannot be parsed.
    """
    if not content:
        return ()
    try:
        parsed = DataContentProto.FromString(bytes(content))
        if parsed.WhichOneof("documents") == "docs_bytes":
            found: Sequence[Any] = DocListProto.FromString(parsed.docs_bytes).docs
            return found
    except DecodeError as error:
        raise Unwritable(f"the answer's documents are malformed: {error}") from error
    return parsed.docs.docs


def _whole(documents: Content, model: Model, parameters: bytes | None, header: Mapping[str, object]) -> bytes:
    further = _dumps({"parameters": parameters_in(parameters or b""), "header": header})
    return b"".join((b'{"data":[', *_pieces(documents, model), b"],", further[1:]))


def _pieces(documents: Content, model: Model) -> Iterator[bytes]:
    try:
        yield from pieces_of_list(documents_in(documents), model.answers.write_document)
    except orjson.JSONEncodeError as error:
        raise Unwritable(f"the answer has no JSON form: {error}") from error


def _dumps(value: object) -> bytes:
    try:
        return dumps(value)
    except orjson.JSONEncodeError as error:
        raise Unwritable(f"the answer has no JSON form: {error}") from error
