"""
Requests, responses and errors to and from JSON, with no document objects in between.

Inwards one JSON body becomes a Request, or a BadRequest that names every mistake in it, in the words
of the reference (spec http.md). Outwards there are two forms of a Response: HTTP's (camelCase, every
key present) and WebSocket's (snake_case, unset keys left out). JSON is orjson's; Python's json is
asked only when orjson refuses a body, because clients know its messages.

Non-finite numbers in arrays, tags and parameters are written as null: JSON has no other word for them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, NoReturn

import orjson
from google.protobuf.message import DecodeError

from gatewayd.errors import BadRequest, GatewayError
from gatewayd.messages.documents import parse
from gatewayd.messages.json_form.documents import fill_documents, read_document
from gatewayd.messages.json_form.values import Loc, Problems, as_dict, as_text, fill_struct, read_struct
from gatewayd.messages.request import Request, Response, Route
from gatewayd.pb import DataContentProto, StatusProto, Struct

_BODY: Final = ("body",)
_DATA: Final = ("body", "data")

# A Struct in a request: the list of requests that a join may get, the request, the Struct.
_PARAMETERS_LEVEL: Final = 3

# How much of a body that is no JSON is shown to its sender.
_MAX_SHOWN: Final = 10_000


class Unwritable(GatewayError):
    """An answer cannot be shown as JSON; the text says why."""


def decode_request(
    body: bytes, *, content_type: str | None, endpoint: str | None, request_id: str
) -> Request:
    """
    A JSON body as a Request with ``request_id``.

    ``endpoint`` is the exec endpoint of the route; None (for /post and WebSocket) takes it from the
    body. ``content_type`` is the header's value, None where there is none.

    Raises BadRequest, whose ``problems`` are the ``detail`` of a 422 answer.
    """
    return build_request(_fields(body, content_type), endpoint=endpoint, request_id=request_id)


def build_request(fields: Mapping[str, Any], *, endpoint: str | None, request_id: str) -> Request:
    """As ``decode_request``, of a body's fields as JSON values. Raises BadRequest."""
    problems = Problems()
    documents = _data(fields["data"], problems) if fields.get("data") is not None else b""

    target = fields["targetExecutor"] if "targetExecutor" in fields else fields.get("target_executor")
    pattern = as_text(target, ("body", "targetExecutor"), problems) if target is not None else ""

    struct = Struct()
    if fields.get("parameters") is not None:
        fill_struct(struct, fields["parameters"], _PARAMETERS_LEVEL, ("body", "parameters"), problems)

    if endpoint is None:
        endpoint = fields["execEndpoint"] if "execEndpoint" in fields else fields.get("exec_endpoint", "/")
        if endpoint is None:
            problems.null(("body", "execEndpoint"))
            endpoint = ""
        endpoint = as_text(endpoint, ("body", "execEndpoint"), problems)
    if problems.entries:
        raise _bad_request(problems)
    return Request(
        request_id=request_id,
        endpoint=endpoint,
        target=pattern,
        parameters=struct.SerializeToString(),
        documents=documents,
    )


def _fields(body: bytes, content_type: str | None) -> dict[str, Any]:
    problems = Problems()
    value = None
    if body:
        # A body of another type is bytes to the reference, and bytes are no object.
        value = _loads(body) if content_type is None or _is_json(content_type) else body
    if value is None:
        problems.add(_BODY, "field required", "value_error.missing")
        raise _bad_request(problems)
    fields = as_dict(value)
    if fields is None:
        problems.not_a_dict(_BODY)
        raise _bad_request(problems)
    return fields


@lru_cache(maxsize=64)
def _is_json(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


def _loads(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return _loads_slowly(body)


def _loads_slowly(body: bytes) -> Any:
    """
    What Python's json makes of a body that orjson refuses.

    That is the reference's parser, so UTF-16 and byte order marks are fine, and syntax errors have
    the wording and position that clients know. What it accepts beyond JSON is refused here.
    """
    try:
        value = json.loads(body, parse_constant=_refuse, parse_float=_finite, parse_int=_integer)
        orjson.dumps(value)  # refuses lone surrogates, which no protobuf string can hold
    except json.JSONDecodeError as error:
        raise _syntax_error(str(error), error.msg, error.doc, error.pos, error.lineno, error.colno) from error
    except UnicodeDecodeError as error:
        raise _syntax_error(
            "the body is not UTF-8", "the body is not UTF-8", "", error.start, 1, 1
        ) from error
    except (ValueError, orjson.JSONEncodeError) as error:
        raise _syntax_error(str(error), str(error), "", 0, 1, 1) from error
    except RecursionError:
        raise _syntax_error("nested too deeply", "nested too deeply", "", 0, 1, 1) from None
    return value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError("a number is too large for 64 bits")
    return number


def _integer(digits: str) -> int | float:
    """As orjson does: what does not fit 64 bits is a float."""
    number = _finite(digits)
    return int(digits) if -(2.0**63) <= number < 2.0**63 else number


def _syntax_error(text: str, message: str, doc: str, position: int, line: int, column: int) -> BadRequest:
    # json decodes leniently, so the text may hold surrogates that cannot be sent back.
    shown = doc[:_MAX_SHOWN].encode("utf-8", "replace").decode("utf-8")
    context = {"msg": message, "doc": shown, "pos": position, "lineno": line, "colno": column}
    problem = {"loc": ["body", position], "msg": text, "type": "value_error.jsondecode", "ctx": context}
    return BadRequest(f"the body is not JSON: {text}", [problem])


def _bad_request(problems: Problems) -> BadRequest:
    first = problems.entries[0]
    where = ".".join(str(step) for step in first["loc"])  # type: ignore[attr-defined]
    more = len(problems.entries) - 1
    return BadRequest(
        f"{where}: {first['msg']}" + (f" (and {more} more problems)" if more else ""), problems.entries
    )


def _data(value: object, problems: Problems) -> bytes:
    """
    Serialised documents of ``data``: a list of them, or an object with such lists, whose ``docs`` count.

    The reference tries one form, then the other, and when both fail reports the problems of both.
    """
    mistakes = Problems()
    if type(value) is list:
        documents = _list_of_documents(value, _DATA, mistakes)
        if not mistakes.entries:
            return documents
    else:
        mistakes.not_a_list(_DATA)

    found = Problems()
    chosen = _object_of_documents(value, found)
    if found.entries:
        problems.entries += mistakes.entries + found.entries
    return chosen


def _object_of_documents(value: object, problems: Problems) -> bytes:
    lists = as_dict(value)
    if lists is None:
        problems.not_a_dict(_DATA)
        return b""
    chosen = b""
    for name, items in lists.items():
        loc = (*_DATA, name)
        if items is None:
            problems.null(loc)
        elif type(items) is not list:
            problems.not_a_list(loc)
        else:
            documents = _list_of_documents(items, loc, problems)
            if name == "docs":
                chosen = documents
    if lists and "docs" not in lists and not problems.entries:
        problems.add((*_DATA, "docs"), "field required", "value_error.missing")
    return chosen


def _list_of_documents(values: list[Any], loc: Loc, problems: Problems) -> bytes:
    if not values:
        return b""
    content = DataContentProto()
    fill_documents(content, values, loc, problems)
    return b"" if problems.entries else content.SerializeToString()


def encode_http(response: Response) -> bytes:
    """
    The body of a successful answer: every key present, camelCase around the documents.

    Raises GatewayError where an executor's answer has no JSON form.
    """
    return _dumps(
        {
            "header": {
                "requestId": response.request_id,
                "status": _status(response.status),
                "execEndpoint": response.endpoint,
                "targetExecutor": "",
            },
            "parameters": _parameters(response.parameters),
            "routes": [
                {
                    "executor": route.executor,
                    "startTime": _time(route.start_time),
                    "endTime": None if route.end_time is None else _time(route.end_time),
                    "status": _status(route.status),
                }
                for route in response.routes
            ],
            "data": read_documents(response.documents),
        }
    )


def encode_websocket(response: Response) -> bytes:
    """The text frame (UTF-8) of an answer: snake_case, and what is unset is left out. Raises GatewayError."""
    header: dict[str, object] = {"request_id": response.request_id}
    if response.status:
        header["status"] = _sparse_status(response.status)
    header["exec_endpoint"] = response.endpoint
    header["target_executor"] = ""
    frame: dict[str, object] = {"header": header}
    if response.parameters is not None:
        frame["parameters"] = _parameters(response.parameters)
    frame["routes"] = [_sparse_route(route) for route in response.routes]
    frame["data"] = read_documents(response.documents)
    return _dumps(frame, orjson.OPT_UTC_Z)


def encode_network_error(request: Request, error: GatewayError) -> bytes:
    """
    The body of a 503, 504 or 500 answer: the request as it came, and what went wrong.

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
    return _dumps(
        {
            "header": {
                "requestId": request.request_id,
                "status": status,
                "execEndpoint": "",
                "targetExecutor": "",
            },
            "parameters": _parameters(request.parameters) if request.parameters else None,
            "routes": None,
            "data": read_documents(request.documents),
        }
    )


def encode_bad_request(error: BadRequest) -> bytes:
    """The body of a 422 answer."""
    problems = error.problems or ({"loc": ["body"], "msg": str(error), "type": "value_error"},)
    return _dumps({"detail": list(problems)})


def encode_status(status: bytes) -> bytes:
    """The body of /dry_run; no bytes are success."""
    return _dumps(_status(status) or {"code": 0, "description": "", "exception": None})


def _dumps(value: object, option: int = 0) -> bytes:
    try:
        return orjson.dumps(value, option=option | orjson.OPT_SERIALIZE_NUMPY)
    except orjson.JSONEncodeError as error:
        raise Unwritable(f"the answer has no JSON form: {error}") from error


def read_documents(serialised: bytes) -> list[dict[str, object]]:
    """Serialised documents as JSON values, arrays as numpy's. Raises GatewayError where they have no form."""
    if not serialised:
        return []
    return [read_document(document) for document in parse(serialised).docs.docs]


def _parameters(serialised: bytes | None) -> dict[str, object] | None:
    if not serialised:
        return None if serialised is None else {}
    try:
        return read_struct(Struct.FromString(serialised))
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
    found = _status(serialised) or {}
    exception = found.get("exception")
    if isinstance(exception, dict):
        found["exception"] = {key: value for key, value in exception.items() if value}
    return {key: value for key, value in found.items() if value}


def _sparse_route(route: Route) -> dict[str, object]:
    found: dict[str, object] = {"executor": route.executor, "start_time": _time(route.start_time)}
    if route.end_time is not None:
        found["end_time"] = _time(route.end_time)
    if route.status:
        found["status"] = _sparse_status(route.status)
    return found


def _time(seconds: float) -> datetime:
    # orjson prints it as ISO 8601 with microseconds and +00:00, or Z with OPT_UTC_Z.
    return datetime.fromtimestamp(seconds, UTC)
