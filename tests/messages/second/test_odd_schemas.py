"""Schemas that no executor should tell: each is read, and described, and a body is taken or refused by it."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import orjson
import pytest

from gatewayd.config.model import GatewayConfig
from gatewayd.errors import BadRequest
from gatewayd.messages.discovery import Endpoints, TypedEndpoint
from gatewayd.messages.generations import Generation
from gatewayd.messages.second.reading import Model, decode_body
from gatewayd.protocols.http.openapi import openapi
from gatewayd.protocols.http.typed_openapi import MOST_BYTES


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
    "a reference that is a list": {"$ref": ["#/$defs/A"], "$defs": {"A": {}}},
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


def crossed(count: int) -> dict[str, Any]:
    """Classes each of which has a field of each of them."""
    fields = {f"f{one}": {"$ref": f"#/$defs/D{one}"} for one in range(count)}
    return {**of(**fields), "$defs": {f"D{one}": of(**fields) for one in range(count)}}


HUGE = {
    "classes that all refer to each other": crossed(300),
    "names of which OpenAPI allows no letter": {
        **of(),
        "$defs": {chr(0x4E00 + each): {"x": each} for each in range(9000)},
    },
}


@pytest.mark.parametrize("schema", HUGE)
def test_a_huge_schema_costs_neither_time_nor_room(schema: str) -> None:
    # Copies, as two executors tell them, and one of its own for each of many endpoints.
    told = [{**HUGE[schema], "title": f"D{number % 20}"} for number in range(30)]
    typed = {f"/{number}": TypedEndpoint(one, one, "D", "D") for number, one in enumerate(told)}
    endpoints = Endpoints(dict.fromkeys(typed, ""), generation=Generation.SECOND, typed=typed)
    began = time.process_time()
    described = openapi(GatewayConfig(docarray=Generation.SECOND), full=True, endpoints=endpoints)
    model = Model.of(typed["/0"])
    assert time.process_time() - began < 20  # it took half a minute for the first endpoint
    assert len(orjson.dumps(described)) < 4 * MOST_BYTES
    texts = [part.get("description", "") for part in described["components"]["schemas"].values()]
    assert any("is too large to show: it has " in text for text in texts)
    assert decode_body(b'{"data":[{"a":"text"}]}', model, "/0").documents


def test_an_endpoint_whose_schema_is_too_large_takes_any_document() -> None:
    endpoint = TypedEndpoint(crossed(300), crossed(300), "D", "D")
    assert decode_body(b'{"data":[{"f0":1}]}', Model.of(endpoint), "/x").documents
    small = TypedEndpoint(crossed(3), crossed(3), "D", "D")
    with pytest.raises(BadRequest):
        decode_body(b'{"data":[{"f0":1}]}', Model.of(small), "/x")
