"""Schemas that no executor should tell: each is read, and described, and a body is taken or refused by it."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from gatewayd.config.model import GatewayConfig
from gatewayd.errors import BadRequest
from gatewayd.messages.discovery import Endpoints, TypedEndpoint
from gatewayd.messages.generations import Generation
from gatewayd.messages.second.reading import Model, decode_body
from gatewayd.protocols.http.openapi import openapi


def of(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "title": "D", "properties": properties}


def nested(depth: int) -> dict[str, Any]:
    return of(a=nested(depth - 1)) if depth else {"type": "string"}


ODD: dict[str, dict[str, Any]] = {
    "required is no text": {**of(a={"type": "string"}), "required": [["a"], {}]},
    "a shape that is deep": of(a={"type": "array", "tensor/array shape": "[" * 100_000}),
    "a shape of many digits": of(a={"type": "array", "tensor/array shape": "[" + "9" * 5000 + "]"}),
    "a negative shape": of(a={"type": "array", "tensor/array shape": "[-3]"}),
    "references in a circle": {
        "$ref": "#/$defs/A",
        "$defs": {"A": {"$ref": "#/$defs/B"}, "B": {"$ref": "#/$defs/A"}},
    },
    "a document in itself": {**of(a={"$ref": "#/$defs/A"}), "$defs": {"A": of(b={"$ref": "#/$defs/A"})}},
    "definitions are no map": {**of(a={"$ref": "#/$defs/A"}), "$defs": [1]},
    "a pattern without end": of(a={"type": "string", "pattern": "(a+)+$"}),
    "properties are a list": {"type": "object", "properties": [1]},
    "deep": nested(90),
    "an infinite default": of(a={"type": "integer", "default": float("inf")}),
    "alternatives of nothing": of(a={"anyOf": []}),
    "alternatives are no list": of(a={"anyOf": None}, b={"anyOf": 3}),
    "a type that is a map": of(a={"type": {"x": 1}}),
    "an infinite length": of(a={"type": "string", "minLength": float("inf")}),
    "names with line ends": of(**{"\r\n\x00": {"type": "string"}, "": {"type": "string"}}),
}


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("schema", ODD)
def test_an_odd_schema_stops_nobody(schema: str, streams: bool) -> None:
    endpoint = TypedEndpoint(ODD[schema], ODD[schema], "D", "D", streams=streams)
    endpoints = Endpoints(
        {"/x": ""},
        generation=Generation.SECOND,
        typed={"/x": endpoint},
        streaming=frozenset({"/x"} if streams else ()),
    )
    described = openapi(GatewayConfig(docarray=Generation.SECOND), full=True, endpoints=endpoints)
    assert "/x" in described["paths"]
    with contextlib.suppress(BadRequest):
        assert decode_body(b'{"data":[{"a":"text"}]}', Model.of(endpoint), "/x").documents
