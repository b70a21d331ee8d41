"""
Requests to and answers from HTTP's JSON, with a DataRequestProto at this end of it.

Only servers that don't take protobuf are spoken to in this form. JSON knows fewer types than documents have:
arrays come back with the widest type of their kind (float64, int64). NaN and infinities, which it lacks, are
refused by name in arrays, tags and parameters; other fields have them as text.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import orjson

from gatewayd.client.errors import BadClientInput, BadServerFlow
from gatewayd.errors import GatewayError
from gatewayd.messages.documents import parse
from gatewayd.messages.json_form.documents import Allowance, fill_documents, read_document
from gatewayd.messages.json_form.values import Problems
from gatewayd.messages.request import Request
from gatewayd.messages.structs import read_struct, struct_of
from gatewayd.messages.wire import DATA, HEADER, PARAMETERS, ROUTE, field
from gatewayd.pb import DataContentProto, HeaderProto, RouteProto, StatusProto, Struct

_UNIX: Final = datetime(1970, 1, 1, tzinfo=UTC)


def encode(request: Request) -> bytes:
    """The body of ``POST /post``. Raises BadClientInput for documents that have no JSON form."""
    body = beside_documents(request)
    try:
        if request.documents:
            body["data"] = [_sparse(read_document(one)) for one in parse(request.documents).docs.docs]
        check_finite(body)
        return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
    except (GatewayError, orjson.JSONEncodeError) as error:
        raise BadClientInput(f"the documents have no JSON form: {error}") from error


def beside_documents(request: Request) -> dict[str, Any]:
    """What the body says besides ``data``: some servers read the header, others the names beside it."""
    header = {"request_id": request.request_id, "exec_endpoint": request.endpoint}
    body: dict[str, Any] = {
        "header": header,
        "parameters": read_struct(Struct.FromString(request.parameters)),
        "exec_endpoint": request.endpoint,
    }
    if request.target:
        header["target_executor"] = body["target_executor"] = request.target
    return body


def decode(body: bytes, content_of: Callable[[list[Any]], bytes] | None = None) -> bytes:
    """
    The DataRequestProto that an answer's body means. Raises BadServerFlow.

    ``content_of`` makes a DataContentProto of its documents; those of the first generation without it.
    """
    try:
        return b"".join(_parts(_loads(body), content_of or documents_of))
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise BadServerFlow(f"the gateway's answer is not the JSON of a response: {error}") from error


def status_of(value: Mapping[str, Any] | None) -> StatusProto:
    """A status object, or null. Raises TypeError or ValueError if it is neither."""
    status = StatusProto()
    if value:
        code: Any = value.get("code") or 0
        status.code = StatusProto.StatusCode.Value(code) if isinstance(code, str) else int(code)  # type: ignore[assignment]
        status.description = value.get("description") or ""
        if exception := value.get("exception"):
            status.exception.name = exception.get("name") or ""
            status.exception.args.extend(exception.get("args") or ())
            status.exception.stacks.extend(exception.get("stacks") or ())
            status.exception.executor = exception.get("executor") or ""
    return status


def documents_of(documents: list[Any]) -> bytes:
    """The DataContentProto of documents of the first generation. Raises ValueError."""
    content = DataContentProto()
    problems = Problems()
    unbounded = Allowance(sys.maxsize)  # the server is one that its user chose
    fill_documents(content, documents, ("data",), problems, unbounded)
    if problems.entries:
        raise ValueError(str(problems.entries[0]))
    return content.SerializeToString()


def _parts(answer: dict[str, Any], content_of: Callable[[list[Any]], bytes]) -> list[bytes]:
    given = answer["header"]
    header = HeaderProto(
        request_id=_either(given, "requestId", "request_id") or "",
        exec_endpoint=_either(given, "execEndpoint", "exec_endpoint") or "",
        target_executor=_either(given, "targetExecutor", "target_executor") or "",
    )
    if given.get("status"):
        header.status.CopyFrom(status_of(given["status"]))
    parts = [*field(HEADER, header.SerializeToString())]
    if answer.get("parameters") is not None:
        parts += field(PARAMETERS, struct_of(answer["parameters"]))
    for route in answer.get("routes") or ():
        parts += field(ROUTE, _route(route).SerializeToString())
    parts += field(DATA, content_of(answer.get("data") or []))
    return parts


def _route(value: Mapping[str, Any]) -> RouteProto:
    route = RouteProto(executor=value.get("executor") or "")
    for target, camel, snake in (
        (route.start_time, "startTime", "start_time"),
        (route.end_time, "endTime", "end_time"),
    ):
        if text := _either(value, camel, snake):
            passed = datetime.fromisoformat(text) - _UNIX
            target.seconds = passed.days * 86400 + passed.seconds
            target.nanos = passed.microseconds * 1000
    if value.get("status"):
        route.status.CopyFrom(status_of(value["status"]))
    return route


def _either(value: Mapping[str, Any], camel: str, snake: str) -> Any:
    return value[camel] if camel in value else value.get(snake)


def _loads(body: bytes) -> Any:
    """JSON, and Python's extension of it: a server that writes NaN and Infinity means them."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            raise error from None


def check_finite(body: Mapping[str, Any]) -> None:
    """Raises BadClientInput where a number of a request's body has no form in JSON."""
    for name in ("data", "parameters"):
        if where := next(_non_finite(body.get(name), name), None):
            raise BadClientInput(
                f"{where} holds NaN or infinity, which JSON lacks, and this server takes nothing but JSON "
                "over HTTP: post over grpc or websocket"
            )


def _non_finite(value: Any, where: str) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _non_finite(item, f"{where}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _non_finite(item, f"{where}[{index}]")
    elif isinstance(value, np.ndarray):
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            yield where
    elif isinstance(value, float) and not math.isfinite(value):
        yield where


def _sparse(document: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in document.items() if value is not None}
