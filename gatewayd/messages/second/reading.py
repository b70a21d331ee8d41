"""
Requests of the second generation from JSON (spec 34/http.md).

A body is ``{"data": documents or one document, "parameters": ..., "header": ...}``. What is known of the
endpoint says what the documents have to be; without it they are taken as they are, each value by its own
kind.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs
import orjson

from gatewayd.errors import BadRequest
from gatewayd.messages.discovery import TypedEndpoint
from gatewayd.messages.json_form.documents import MAX_DOCUMENTS, Allowance
from gatewayd.messages.json_form.requests import is_json_type
from gatewayd.messages.json_form.values import MAX_LEVEL, struct_of
from gatewayd.messages.json_form.values import Problems as StructProblems
from gatewayd.messages.request import LONGEST_NAME, Request, check_names
from gatewayd.messages.second.kinds import Document, Documents, Failed, Reading
from gatewayd.messages.second.problems import Place, Problems, not_json, place_of
from gatewayd.messages.second.schemas import UNTYPED, input_of, output_of, parameters_of
from gatewayd.pb.second import DataContentProto

# The nesting levels of a request's documents, and of its parameters: request, content, list, document, and
# one more for the list of requests that a join without reduce sends.
_DOCUMENT_LEVEL: Final = 5
_PARAMETERS_LEVEL: Final = 3

_BODY: Final = place_of("body")
_DATA: Final = place_of("body", "data")
_PARAMETERS: Final = place_of("body", "parameters")
_HEADER: Final = place_of("body", "header")
_QUERY: Final = place_of("query")


def _any_document() -> Document:
    return Document(UNTYPED, is_open=True, has_id=False)


@attrs.frozen(eq=False)
class Model:
    """
    What is known of the JSON of an endpoint: documents in, documents out, parameters.

    Made once for each endpoint. ``parameters`` is None where they are free.
    """

    name: str
    documents: Document
    answers: Document
    parameters: Document | None = None

    @classmethod
    def of(cls, endpoint: TypedEndpoint) -> Model:
        return cls(endpoint.input_name, input_of(endpoint), output_of(endpoint), parameters_of(endpoint))


# For an endpoint of which nothing is known.
UNKNOWN: Final = Model("Document", _any_document(), _any_document())


def decode_body(
    body: bytes,
    model: Model,
    endpoint: str | None,
    *,
    content_type: str | None = None,
    request_id: str | None = None,
    max_documents: int = MAX_DOCUMENTS,
    models: Mapping[str, Model] | None = None,
) -> Request:
    """
    The body of a POST as a Request; ``content_type`` is the header's value, None without it.

    ``endpoint`` None means that the body names it, as ``exec_endpoint``, and may have no documents; then its
    model is among ``models``. Both spellings of the header's keys are taken. A ``request_id`` from outside
    counts before the body's own, and that before the id of a single document, as in the reference.

    Raises BadRequest, whose ``problems`` are the ``detail`` of a 422 answer, or TooManyDocuments.
    """
    return request_of(
        body_value(body, content_type),
        model,
        endpoint,
        request_id=request_id,
        max_documents=max_documents,
        models=models,
    )


def request_of(
    value: object,
    model: Model,
    endpoint: str | None,
    *,
    request_id: str | None = None,
    max_documents: int = MAX_DOCUMENTS,
    models: Mapping[str, Model] | None = None,
    single: bool = False,
) -> Request:
    """As ``decode_body``, from a body's JSON value. With ``single``, ``data`` is one document."""
    problems = Problems()
    reading = Reading(problems, Allowance(max_documents))
    if not isinstance(value, dict):
        problems.not_an_object(_BODY, value)
        problems.check()
        raise AssertionError("unreachable")
    header = value.get("header")
    if header is not None and not isinstance(header, dict):
        problems.not_an_object(_HEADER, header)
    header = header if isinstance(header, dict) else {}
    by_path = endpoint is not None
    if endpoint is None:
        endpoint = _text(value, ("exec_endpoint", "execEndpoint"), _BODY, problems)
        endpoint = endpoint or _text(header, ("exec_endpoint", "execEndpoint"), _HEADER, problems) or "/"
        model = (models or {}).get(endpoint, UNKNOWN)
    target = _text(header, ("target_executor", "targetExecutor"), _HEADER, problems)
    documents = b""
    if "data" in value:
        documents = _documents(value["data"], model, reading, single=single)
    elif by_path:
        problems.missing(_DATA, value)
    parameters = _parameters(value, model, reading)
    if request_id is None:
        request_id = _text(header, ("request_id", "requestId"), _HEADER, problems)
        if (
            not request_id
            and isinstance(value.get("data"), dict)
            and isinstance(given := value["data"].get("id"), str)
            and len(given) <= LONGEST_NAME
        ):
            request_id = given
    problems.check()
    if len(request_id) + len(endpoint) + len(target) > LONGEST_NAME:
        check_names(request_id, endpoint, target)
    return Request(
        request_id=request_id or os.urandom(16).hex(),
        endpoint=endpoint,
        target=target,
        parameters=parameters,
        documents=documents,
    )


def document_body(
    value: object,
    model: Model,
    endpoint: str,
    *,
    request_id: str | None = None,
    max_documents: int = MAX_DOCUMENTS,
) -> Request:
    """
    The Request of one bare document, as the reference's client sends it to an endpoint that streams.

    Raises BadRequest, TooManyDocuments.
    """
    return _single(value, model, endpoint, _BODY, request_id, max_documents)


def query_body(
    query: Mapping[str, str],
    model: Model,
    endpoint: str,
    *,
    request_id: str | None = None,
    max_documents: int = MAX_DOCUMENTS,
) -> Request:
    """
    As ``document_body``, from the fields of a URL's query.

    Texts are converted by the schema; a field that is a list, an object or a document is JSON. Names that
    the schema does not have are passed over. Raises BadRequest.
    """
    fields = model.documents.fields
    values: dict[str, Any] = {}
    problems = Problems()
    for name, text in query.items():
        if name not in fields:
            if model.documents.is_open:
                values[name] = text
            continue
        kind = fields[name].kind
        if kind.is_like(text):
            values[name] = text
        elif text.lstrip()[:1] in ("[", "{") or text == "null":
            try:
                values[name] = orjson.loads(text)
            except orjson.JSONDecodeError as error:
                reason = {"error": str(error)}
                problems.add((_QUERY, name), "json_invalid", f"Invalid JSON: {error}", text, reason)
        else:
            values[name] = text
    problems.check()
    return _single(values, model, endpoint, _QUERY, request_id, max_documents)


def _single(
    value: object,
    model: Model,
    endpoint: str,
    place: Place,
    request_id: str | None,
    max_documents: int,
) -> Request:
    problems = Problems()
    content = DataContentProto()
    allowance = Allowance(max_documents)
    allowance.take(1)
    document = content.docs.docs.add()
    model.documents.fill_document(document, value, place, _DOCUMENT_LEVEL, Reading(problems, allowance))
    problems.check()
    given = value.get("id") if isinstance(value, dict) else None
    if not request_id and isinstance(given, str) and len(given) <= LONGEST_NAME:
        request_id = given
    return Request(
        request_id=request_id or os.urandom(16).hex(),
        endpoint=endpoint,
        documents=content.SerializeToString(),
    )


def _documents(value: object, model: Model, reading: Reading, *, single: bool) -> bytes:
    content = DataContentProto()
    if isinstance(value, list) and not single:
        if value:
            place = (_DATA, f"list[{model.name}]")
            listed = Documents(model.documents)
            listed.fill_documents(content.docs.docs, value, place, _DOCUMENT_LEVEL, reading)
    elif isinstance(value, list) and len(value) == 1:
        reading.allowance.take(1)
        model.documents.fill_document(content.docs.docs.add(), value[0], (_DATA, 0), _DOCUMENT_LEVEL, reading)
    elif isinstance(value, dict):
        reading.allowance.take(1)
        model.documents.fill_document(
            content.docs.docs.add(), value, (_DATA, model.name), _DOCUMENT_LEVEL, reading
        )
    elif single:
        reading.problems.not_an_object(_DATA, value)
    else:
        reading.problems.not_a_list((_DATA, f"list[{model.name}]"), value)
    return b"" if reading.problems.entries else content.SerializeToString()


def _parameters(body: Mapping[str, Any], model: Model, reading: Reading) -> bytes:
    """Free ones as they are; those with a model converted by it, with its defaults."""
    given = body.get("parameters")
    problems = reading.problems
    if model.parameters is not None:
        needed = any(field.required for field in model.parameters.fields.values())
        if given is None:
            if needed:
                problems.missing(_PARAMETERS, body)
            return b""
        try:
            given = model.parameters.plain(given, _PARAMETERS, reading)
        except Failed:
            return b""
    if given is None:
        return b""
    if not isinstance(given, dict):
        problems.not_a_dict(_PARAMETERS, given)
        return b""
    if unfit := _not_finite(given, _PARAMETERS):
        problems.add(unfit, "finite_number", "Input should be a finite number", None)
        return b""
    deep = StructProblems()
    written = struct_of(given, _PARAMETERS_LEVEL, ("body", "parameters"), deep)
    if deep.entries:
        problems.too_deep(_PARAMETERS, MAX_LEVEL)
        return b""
    return written


def _not_finite(value: Any, place: Place) -> Place:
    """
    The place of a number in ``value`` that is not finite, None if there is none.

    orjson refuses them: they come only by way of ``_loads_leniently``, which bounds how deep values are.
    """
    if type(value) is float:
        return None if math.isfinite(value) else place
    items: Iterable[tuple[Any, Any]]
    if type(value) is dict:
        items = value.items()
    elif type(value) is list:
        items = enumerate(value)
    else:
        return None
    for key, item in items:
        if type(item) in (float, dict, list) and (found := _not_finite(item, (place, key))):
            return found
    return None


def _text(holder: Mapping[str, Any], names: tuple[str, ...], place: Place, problems: Problems) -> str:
    """The first of the texts by these names that is there; empty if none is."""
    for name in names:
        value = holder.get(name)
        if value is not None and value != "":
            if not isinstance(value, str):
                problems.add((place, name), "string_type", "Input should be a valid string", value)
                return ""
            return value
    return ""


# -- JSON as text -----------------------------------------------------------------------------------------


def body_value(body: bytes, content_type: str | None) -> Any:
    """
    The JSON value of a body, never null; a body of another type is text, which is no object.

    Raises BadRequest.
    """
    value = None
    if body:
        is_json = content_type is None or is_json_type(content_type)
        value = loads(body) if is_json else body.decode("utf-8", "replace")
    if value is None:
        problems = Problems()
        problems.missing(_BODY, None)
        problems.check()
    return value


def loads(body: bytes) -> Any:
    """
    The value of a JSON text. Besides RFC 8259, NaN and Infinity are taken, as the reference does.

    Raises Unparsable, or BadRequest for texts that are no Unicode.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return _loads_leniently(body)


def _loads_leniently(body: bytes) -> Any:
    try:
        value = json.loads(body, parse_int=_integer)
        if lone := _lone_surrogate(value, _BODY):
            problems = Problems()
            text = "Input should be a valid string, unable to parse raw data as a unicode string"
            problems.add(lone, "string_unicode", text, None)
            problems.check()
    except json.JSONDecodeError as error:
        raise not_json(error.msg, error.pos) from error
    except UnicodeDecodeError as error:
        raise not_json("the body is not UTF-8", error.start) from error
    except RecursionError:
        raise not_json("nested too deeply", 0) from None
    except ValueError as error:
        if isinstance(error, BadRequest):
            raise
        raise not_json(str(error), 0) from error
    return value


def _integer(digits: str) -> int | float:
    """As in orjson, an integer that does not fit 64 bits becomes a float."""
    number = float(digits)
    return int(digits) if -(2.0**63) <= number < 2.0**63 else number


def _lone_surrogate(value: Any, place: Place) -> Place:
    """The place of a text that has a surrogate without the other, which no UTF-8 can say."""
    if type(value) is str:
        try:
            value.encode()
        except UnicodeEncodeError:
            return place
        return None
    if type(value) is dict:
        for key, item in value.items():
            if found := _lone_surrogate(key, place) or _lone_surrogate(item, (place, _safe(key))):
                return found
    elif type(value) is list:
        for index, item in enumerate(value):
            if found := _lone_surrogate(item, (place, index)):
                return found
    return None


def _safe(key: str) -> str:
    return key.encode("utf-8", "replace").decode()
