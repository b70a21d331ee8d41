"""
Reads requests from JSON, without document objects in between.

A body becomes a Request, or a BadRequest that lists every mistake in it, worded as in the reference (spec
http.md). orjson parses the body; if it fails, Python's json parses again, because clients know its messages.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, NoReturn

import orjson

from gatewayd.errors import BadRequest, Unparsable
from gatewayd.messages.json_form.documents import MAX_DOCUMENTS, Allowance, fill_documents
from gatewayd.messages.json_form.values import Loc, Problems, as_dict, as_text, struct_of
from gatewayd.messages.request import LONGEST_NAME, Request, check_names
from gatewayd.pb import DataContentProto

_BODY: Final = ("body",)
_DATA: Final = ("body", "data")

# The nesting level of the parameters: the list of requests that a join may get, the request, the Struct.
_PARAMETERS_LEVEL: Final = 3

# How much of a body that is not JSON is quoted to its sender.
_MAX_SHOWN: Final = 10_000


def decode_request(
    body: bytes,
    *,
    content_type: str | None,
    endpoint: str | None,
    request_id: str | None,
    max_documents: int = MAX_DOCUMENTS,
) -> Request:
    """
    A JSON body as a Request.

    ``endpoint`` is the route's endpoint; None (for /post and WebSocket) means that the body names it. With
    ``request_id`` None the body's id is used, or a new one if it has none.
    ``content_type`` is the header's value, None without that header.

    Raises BadRequest, whose ``problems`` are the ``detail`` of a 422 answer, or TooManyDocuments.
    """
    fields, allowance = fields_of(body, content_type), Allowance(max_documents)
    return build_request(fields, endpoint=endpoint, request_id=request_id, allowance=allowance)


def build_request(
    fields: Mapping[str, Any], *, endpoint: str | None, request_id: str | None, allowance: Allowance
) -> Request:
    """
    As ``decode_request``, from a body's fields as JSON values.

    Raises BadRequest, or TooManyDocuments for more than the ``allowance``.
    """
    problems = Problems()
    documents = _data(fields["data"], problems, allowance) if fields.get("data") is not None else b""

    target = fields["targetExecutor"] if "targetExecutor" in fields else fields.get("target_executor")
    pattern = as_text(target, ("body", "targetExecutor"), problems) if target is not None else ""

    parameters = b""
    if fields.get("parameters") is not None:
        parameters = struct_of(fields["parameters"], _PARAMETERS_LEVEL, ("body", "parameters"), problems)

    if endpoint is None:
        endpoint = fields["execEndpoint"] if "execEndpoint" in fields else fields.get("exec_endpoint", "/")
        if endpoint is None:
            problems.null(("body", "execEndpoint"))
            endpoint = ""
        if type(endpoint) is not str:
            endpoint = as_text(endpoint, ("body", "execEndpoint"), problems)
    if request_id is None:
        request_id = _own_id(fields, problems) or os.urandom(16).hex()
    if problems.entries:
        raise _bad_request(problems)
    if len(request_id) + len(endpoint) + len(pattern) > LONGEST_NAME:  # the hot path takes no call more
        check_names(request_id, endpoint, pattern)
    return Request(
        request_id=request_id,
        endpoint=endpoint,
        target=pattern,
        parameters=parameters,
        documents=documents,
    )


def _own_id(fields: Mapping[str, Any], problems: Problems) -> str:
    """The id in a body: at its top, or in a ``header``, where answers have it; empty where there is none."""
    header = fields.get("header")
    for holder, loc in ((fields, _BODY), (header if type(header) is dict else {}, (*_BODY, "header"))):
        for name in ("requestId", "request_id"):
            if (value := holder.get(name)) is not None and value != "":
                return as_text(value, (*loc, "requestId"), problems)
    return ""


def fields_of(body: bytes, content_type: str | None) -> dict[str, Any]:
    """The fields of a body. Raises BadRequest."""
    value = None
    if body:
        # In the reference a body of another type stays bytes, which are not an object.
        value = _loads(body) if content_type is None or is_json_type(content_type) else body
    if type(value) is dict:
        return value
    problems = Problems()
    if value is None:
        problems.add(_BODY, "field required", "value_error.missing")
        raise _bad_request(problems)
    fields = as_dict(value)
    if fields is None:
        problems.not_a_dict(_BODY)
        raise _bad_request(problems)
    return fields


@lru_cache(maxsize=64)
def is_json_type(content_type: str) -> bool:
    """Whether a Content-Type is that of JSON."""
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


def parsed(body: bytes) -> Any:
    """The value of a JSON text. Raises Unparsable."""
    return _loads(body)


def _loads(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return _loads_slowly(body)


def _loads_slowly(body: bytes) -> Any:
    """
    Parse a body that orjson refuses, with Python's json.

    It is the reference's parser: UTF-16 and byte order marks are accepted, and syntax errors have the wording
    and position that clients know. Its extensions of JSON are refused.
    """
    try:
        value = json.loads(body, parse_constant=_refuse, parse_float=_finite, parse_int=_integer)
        orjson.dumps(value)  # refuses lone surrogates, which protobuf strings cannot hold
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
    """As in orjson, an integer that does not fit 64 bits becomes a float."""
    number = _finite(digits)
    return int(digits) if -(2.0**63) <= number < 2.0**63 else number


def _syntax_error(text: str, message: str, doc: str, position: int, line: int, column: int) -> Unparsable:
    # json decodes leniently, so the text may have surrogates, which cannot be sent.
    shown = doc[:_MAX_SHOWN].encode("utf-8", "replace").decode("utf-8")
    context = {"msg": message, "doc": shown, "pos": position, "lineno": line, "colno": column}
    problem = {"loc": ["body", position], "msg": text, "type": "value_error.jsondecode", "ctx": context}
    return Unparsable(f"the body is not JSON: {text}", [problem])


def _bad_request(problems: Problems) -> BadRequest:
    first = problems.entries[0]
    where = ".".join(str(step) for step in first["loc"])  # type: ignore[attr-defined]
    more = len(problems.entries) - 1
    return BadRequest(
        f"{where}: {first['msg']}" + (f" (and {more} more problems)" if more else ""), problems.entries
    )


def _data(value: object, problems: Problems, allowance: Allowance) -> bytes:
    """
    The serialised documents of ``data``: a list, or an object of lists, of which ``docs`` is used.

    As in the reference, both forms are tried, and if both fail the problems of both are reported.
    """
    list_problems = Problems()
    if type(value) is list:
        documents = _list_of_documents(value, _DATA, list_problems, allowance)
        if not list_problems.entries:
            return documents
    else:
        list_problems.not_a_list(_DATA)

    object_problems = Problems()
    chosen = _object_of_documents(value, object_problems, allowance)
    if object_problems.entries:
        problems.entries += list_problems.entries + object_problems.entries
    return chosen


def _object_of_documents(value: object, problems: Problems, allowance: Allowance) -> bytes:
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
            documents = _list_of_documents(items, loc, problems, allowance)
            if name == "docs":
                chosen = documents
    if lists and "docs" not in lists and not problems.entries:
        problems.add((*_DATA, "docs"), "field required", "value_error.missing")
    return chosen


def _list_of_documents(values: list[Any], loc: Loc, problems: Problems, allowance: Allowance) -> bytes:
    if not values:
        return b""
    content = DataContentProto()
    fill_documents(content, values, loc, problems, allowance)
    return b"" if problems.entries else content.SerializeToString()
