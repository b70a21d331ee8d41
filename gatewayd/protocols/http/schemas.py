"""
The JSON schemas of HTTP's bodies and answers, for OpenAPI.

Their names are the reference's, because clients are generated from its OpenAPI document. The fields of
documents and requests come from ``json_form.fields``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from gatewayd.messages.json_form.fields import (
    DATA,
    DOCUMENT,
    ENDPOINT,
    PARAMETERS,
    REQUEST_ID,
    SCORE,
    TARGET,
    FieldKind,
    FieldSpec,
    RequestField,
)

Schema = dict[str, Any]

_FLOAT32: Final = 3.4028234663852886e38
_BASE64: Final = r"^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"


def ref(name: str) -> Schema:
    """A reference to the schema ``name``."""
    return {"$ref": f"#/components/schemas/{name}"}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


_NUMBER: Final[Schema] = {"type": "number", "minimum": -_FLOAT32, "maximum": _FLOAT32}
_KINDS: Final[Mapping[FieldKind, Schema]] = {
    "text": {"type": ["string", "null"]},
    "unsigned": {"type": ["integer", "null"], "minimum": 0, "maximum": 0xFFFFFFFF},
    "number": {**_NUMBER, "type": ["number", "null"]},
    "numbers": {"type": ["array", "null"], "items": _NUMBER},
    "blob": {"type": ["string", "null"], "contentEncoding": "base64", "pattern": _BASE64},
    # In answers it can be a number: an executor's array without dimensions.
    "array": {
        "type": ["array", "number", "null"],
        "items": {"type": ["array", "number", "boolean", "string", "null"]},
    },
    "object": {"type": ["object", "null"]},
    "scores": {"type": ["object", "null"], "additionalProperties": ref("_NamedScore")},
    "documents": {"type": ["array", "null"], "items": ref("PydanticDocument")},
}


def _object(
    title: str, properties: Mapping[str, Schema], required: Iterable[str] = (), **more: Any
) -> Schema:
    schema: Schema = {"title": title, "type": "object", "properties": dict(properties), **more}
    if names := list(required):
        schema["required"] = names
    return schema


def _fields(title: str, fields: Iterable[FieldSpec], **more: Any) -> Schema:
    described = {field.name: {**_KINDS[field.kind], "description": field.doc} for field in fields}
    return _object(title, described, **more)


def _request(title: str, *fields: tuple[RequestField, Schema]) -> Schema:
    described = {}
    for field, schema in fields:
        doc = field.doc if field.alias is None else f"{field.doc} {field.alias} is also accepted."
        described[field.name] = {**schema, "description": doc}
    return _object(title, described)


_DOCUMENTS: Final[Schema] = {"type": "array", "items": ref("PydanticDocument")}
_DATA: Final[Schema] = {
    "anyOf": [
        _DOCUMENTS,
        {"type": "object", "properties": {"docs": _DOCUMENTS}, "required": ["docs"],
         "additionalProperties": _DOCUMENTS},
        {"type": "object", "maxProperties": 0},
        {"type": "null"},
    ],
    "examples": [[{"text": "hello"}]],
}  # fmt: skip
# Defaults change nothing: pages that fill a body in take them, and would make up values otherwise.
_TARGET: Final[Schema] = {"type": ["string", "null"], "format": "regex", "default": ""}
_PARAMETERS: Final[Schema] = {"type": ["object", "null"], "default": {}}
_REQUEST_ID: Final[Schema] = {"type": ["string", "null"], "default": ""}
_ENDPOINT: Final[Schema] = {"type": "string", "default": "/"}

_TEXT: Final[Schema] = {"type": "string"}
_TIME: Final[Schema] = {"type": "string", "format": "date-time"}

_COMMON: Final = ((DATA, _DATA), (TARGET, _TARGET), (PARAMETERS, _PARAMETERS), (REQUEST_ID, _REQUEST_ID))

SCHEMAS: Final[Mapping[str, Schema]] = {
    "ExceptionProto": _object(
        "ExceptionProto",
        {
            "name": _TEXT,
            "args": {"type": "array", "items": _TEXT},
            "stacks": {"type": "array", "items": _TEXT},
            "executor": _TEXT,
        },
        description="What an executor raised, and where.",
    ),
    "HTTPValidationError": _object(
        "HTTPValidationError", {"detail": {"type": "array", "items": ref("ValidationError")}}
    ),
    "HeaderProto": _object(
        "HeaderProto",
        {
            "requestId": _TEXT,
            "status": _or_null(ref("StatusProto")),
            "execEndpoint": _TEXT,
            "targetExecutor": _TEXT,
        },
        ["requestId"],
        description="status is null unless an executor failed.",
    ),
    "JinaEndpointRequestModel": _request("JinaEndpointRequestModel", *_COMMON),
    "JinaHealthModel": _object("JinaHealthModel", {}, description="An empty object: the gateway is there."),
    "JinaInfoModel": _object(
        "JinaInfoModel",
        {name: {"type": "object", "additionalProperties": _TEXT} for name in ("jina", "envs")},
        ["jina", "envs"],
    ),
    "JinaRequestModel": _request("JinaRequestModel", *_COMMON, (ENDPOINT, _ENDPOINT)),
    "JinaResponseModel": _object(
        "JinaResponseModel",
        {
            "header": ref("HeaderProto"),
            "parameters": {"type": ["object", "null"]},
            "routes": {"type": ["array", "null"], "items": ref("RouteProto")},
            "data": {"type": ["array", "null"], "items": ref("PydanticDocument")},
        },
        ["header", "parameters", "routes", "data"],
    ),
    "PydanticDocument": _fields("PydanticDocument", DOCUMENT, description="A document."),
    "RouteProto": _object(
        "RouteProto",
        {
            "executor": _TEXT,
            "startTime": _TIME,
            "endTime": _or_null(_TIME),
            "status": _or_null(ref("StatusProto")),
        },
        ["executor", "startTime", "endTime", "status"],
        description="When an executor worked on the request. endTime is null for one that was skipped.",
    ),
    "StatusCode": {
        "title": "StatusCode",
        "type": "integer",
        "enum": [0, 1],
        "description": "0 is success, 1 an error.",
    },
    "StatusProto": _object(
        "StatusProto",
        {
            "code": ref("StatusCode"),
            "description": {"type": ["string", "null"]},
            "exception": _or_null(ref("ExceptionProto")),
        },
        ["code"],
    ),
    "ValidationError": _object(
        "ValidationError",
        {
            "loc": {"type": "array", "items": {"type": ["string", "integer"]}},
            "msg": _TEXT,
            "type": _TEXT,
        },
        ["loc", "msg", "type"],
        description="What is wrong with the field that loc leads to.",
    ),
    "_NamedScore": _fields("_NamedScore", SCORE),
}


def example(name: str, endpoint: str) -> dict[str, Any]:
    """A request of the model ``name``, to ``endpoint`` if it names one; the rest changes nothing."""
    properties = SCHEMAS[name]["properties"].items()
    filled = {
        key: schema["examples"][0] if "examples" in schema else schema["default"]
        for key, schema in properties
    }
    return {**filled, ENDPOINT.name: endpoint} if ENDPOINT.name in filled else filled


def with_references(names: Iterable[str]) -> dict[str, Schema]:
    """The schemas of these names and all schemas that they refer to, in alphabetical order."""
    found: dict[str, Schema] = {}
    left = list(names)
    while left:
        name = left.pop()
        if name not in found:
            found[name] = SCHEMAS[name]
            left += referred(found[name])
    return dict(sorted(found.items()))


def referred(value: Any) -> list[str]:
    """The names of the schemas that a part of an OpenAPI document refers to."""
    if isinstance(value, list):
        return [name for item in value for name in referred(item)]
    if not isinstance(value, dict):
        return []
    if isinstance(value.get("$ref"), str):
        return [value["$ref"].rpartition("/")[2]]
    return [name for item in value.values() for name in referred(item)]
