"""
Writes responses and errors as JSON, without document objects in between.

A Response has two forms: HTTP's (camelCase, all keys present) and WebSocket's (snake_case, without unset
keys). Non-finite numbers in arrays, tags and parameters become null, because JSON cannot express them; those
of fields that are numbers become texts (``values.write_float``). Protobuf answers keep them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

import orjson
from google.protobuf.message import DecodeError

from gatewayd.errors import BadRequest, GatewayError
from gatewayd.messages.documents import parse
from gatewayd.messages.headers import joined
from gatewayd.messages.json_form.documents import read_document, write_documents
from gatewayd.messages.json_form.groups import dumps, write_struct
from gatewayd.messages.request import Request, Response, Route
from gatewayd.messages.rope import Content
from gatewayd.pb import DocumentProto, StatusProto, Struct

# The text of a list of documents, without its brackets.
Pieces = Callable[[Content], Iterable[bytes]]


# Of seconds since the epoch. orjson prints it as ISO 8601 with microseconds and +00:00, or Z with OPT_UTC_Z.
_time: Final = datetime.fromtimestamp


class Unwritable(GatewayError):
    """An answer has no JSON form; the text says why."""


def encode_http(response: Response) -> bytes:
    """
    The body of a successful answer: all keys present, camelCase around the documents.

    Raises GatewayError if an executor's answer has no JSON form.
    """
    return _with_data(
        {
            "header": {
                "requestId": response.request_id,
                "status": _status(response.status) if response.status else None,
                "execEndpoint": response.endpoint,
                "targetExecutor": "",
            },
            "parameters": parameters_in(response.parameters),
            "routes": [
                {
                    "executor": route.executor,
                    "startTime": _time(route.start_time, UTC),
                    "endTime": None if route.end_time is None else _time(route.end_time, UTC),
                    "status": _status(route.status) if route.status else None,
                }
                for route in response.routes
            ],
        },
        response.documents,
    )


def encode_websocket(response: Response, pieces: Pieces | None = None) -> bytes:
    """
    The text frame (UTF-8) of an answer: snake_case, without unset keys.

    ``pieces`` write its documents, if they are not of the first generation. Raises GatewayError.
    """
    header: dict[str, object] = {"request_id": response.request_id}
    if response.status:
        header["status"] = _sparse_status(response.status)
    header["exec_endpoint"] = response.endpoint
    header["target_executor"] = ""
    if response.headers:
        header["headers"] = joined(response.headers)
    frame: dict[str, object] = {"header": header}
    if response.parameters is not None:
        frame["parameters"] = parameters_in(response.parameters)
    frame["routes"] = [_sparse_route(route) for route in response.routes]
    return _with_data(frame, response.documents, orjson.OPT_UTC_Z, pieces)


def encode_network_error(request: Request, error: GatewayError) -> bytes:
    """
    The body of a 503, 504 or 500 answer: the request as it was sent, and the error.

    The exception has the name that clients of the reference look for.
    """
    status = {
        "code": 1,
        "description": str(error),
        "exception": {
            "name": "<class 'jina.excepts.InternalNetworkError'>",
            "args": [],
            "stacks": [],
            "executor": "",
        },
    }
    return _with_data(
        {
            "header": {
                "requestId": request.request_id,
                "status": status,
                "execEndpoint": "",
                "targetExecutor": "",
            },
            "parameters": parameters_in(request.parameters) if request.parameters else None,
            "routes": None,
        },
        request.documents,
    )


def encode_bad_request(error: BadRequest) -> bytes:
    """The body of a 422 answer."""
    problems = error.problems or ({"loc": ["body"], "msg": str(error), "type": "value_error"},)
    return _dumps({"detail": list(problems)})


def encode_status(status: bytes) -> bytes:
    """The body of /dry_run; empty bytes mean success."""
    return _dumps(_status(status) or {"code": 0, "description": "", "exception": None})


def _dumps(value: object, option: int = 0) -> bytes:
    try:
        return dumps(value, option)
    except orjson.JSONEncodeError as error:
        raise Unwritable(f"the answer has no JSON form: {error}") from error


def _with_data(
    fields: dict[str, object], documents: Content, option: int = 0, pieces: Pieces | None = None
) -> bytes:
    """The object of ``fields``, with the documents as its last key."""
    start = _dumps(fields, option)[:-1]
    if not documents:
        return start + b',"data":[]}'
    try:
        if pieces is not None:
            return b"".join((start, b',"data":[', *pieces(documents), b"]}"))
        return b"".join((start, b',"data":[', *write_documents(parse(documents).docs.docs), b"]}"))
    except orjson.JSONEncodeError as error:
        raise Unwritable(f"the answer has no JSON form: {error}") from error


def read_documents(serialised: bytes) -> list[dict[str, object]]:
    """Serialised documents as JSON values and numpy arrays. Raises GatewayError if they have no such form."""
    if not serialised:
        return []
    return [read_document(document) for document in parse(serialised).docs.docs]


def documents_in(serialised: Content) -> Sequence[DocumentProto]:
    """Serialised documents, for ``documents.read_field``. Raises GatewayError if they are malformed."""
    return parse(serialised).docs.docs if serialised else ()


def parameters_in(serialised: bytes | None) -> object:
    """Parameters for ``groups.dumps``; None for None. Raises Unwritable."""
    if not serialised:
        return None if serialised is None else {}
    try:
        return write_struct(Struct.FromString(serialised))
    except DecodeError as error:
        raise Unwritable(f"the answer's parameters are malformed: {error}") from error


def _parse_status(serialised: bytes) -> StatusProto:
    try:
        return StatusProto.FromString(serialised)
    except DecodeError as error:
        raise Unwritable(f"the answer's status is malformed: {error}") from error


def _status(serialised: bytes) -> dict[str, object] | None:
    if not serialised:
        return None
    status = _parse_status(serialised)
    exception = status.exception
    return {
        "code": status.code,
        "description": status.description,
        "exception": {
            "name": exception.name,
            "args": list(exception.args),
            "stacks": list(exception.stacks),
            "executor": exception.executor,
        }
        if status.HasField("exception")
        else None,
    }


def _sparse_status(serialised: bytes) -> dict[str, object]:
    fields = _status(serialised) or {}
    exception = fields.get("exception")
    if isinstance(exception, dict):
        fields["exception"] = {key: value for key, value in exception.items() if value}
    return {key: value for key, value in fields.items() if value}


def _sparse_route(route: Route) -> dict[str, object]:
    fields: dict[str, object] = {"executor": route.executor, "start_time": _time(route.start_time, UTC)}
    if route.end_time is not None:
        fields["end_time"] = _time(route.end_time, UTC)
    if route.status:
        fields["status"] = _sparse_status(route.status)
    return fields
