"""The paths of OpenAI's API in the port's OpenAPI document (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from gatewayd.config.openai import OpenAIConfig
from gatewayd.errors import (
    SUCCESS,
    DeadlineExceeded,
    ExecutorRaised,
    ExecutorUnreachable,
    GatewayError,
    InvalidField,
    RateLimited,
    Unauthenticated,
    UnknownModel,
    codes_of,
)
from gatewayd.protocols.http.openai.paths import CHAT, EMBEDDINGS, MODELS

Operation = dict[str, Any]

TAG: Final = "OpenAI"
_TEXT: Final = {"type": "string"}
_NUMBER: Final = {"type": "number"}
_COUNT: Final = {"type": "integer", "minimum": 1}
_OBJECT: Final = {"type": "object"}
_OBJECTS: Final = {"type": "array", "items": _OBJECT}
_TEXTS: Final = {"type": "array", "items": _TEXT}
_ERROR: Final = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": _TEXT,
                "type": _TEXT,
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
            "required": ["message", "type", "param", "code"],
        }
    },
    "required": ["error"],
}
_REFUSALS: Final[Mapping[type[GatewayError], str]] = {
    InvalidField: "A field is missing, or is not what it should be: `param` names it.",
    Unauthenticated: "It is not known who calls; the key goes into Authorization, after Bearer.",
    UnknownModel: "There is no such model.",
    RateLimited: "The caller asks too often; Retry-After says when to come back.",
    ExecutorRaised: "An executor failed.",
    ExecutorUnreachable: "An executor cannot be reached, or there is no room.",
    DeadlineExceeded: "An executor is too slow.",
}


def described(config: OpenAIConfig) -> dict[str, dict[str, Operation]]:
    """Operations by paths and methods, with all the schemas they need."""
    found = {}
    if config.chat is not None:
        found[CHAT] = {"post": _chat(config.chat)}
    if config.embeddings is not None:
        found[EMBEDDINGS] = {"post": _embeddings(config.embeddings)}
    found[MODELS] = {"get": _operation("The models that requests may name", "openai_models", _OBJECT)}
    return found


def _chat(endpoint: str) -> Operation:
    message = {
        "type": "object",
        "properties": {"role": _TEXT, "content": {"type": ["string", "array", "null"]}},
        "required": ["role"],
    }
    asked = {
        "model": _TEXT,
        "messages": {"type": "array", "items": message, "minItems": 1},
        "stream": {"type": "boolean"},
        "stream_options": {"type": "object", "properties": {"include_usage": {"type": "boolean"}}},
        "temperature": {**_NUMBER, "minimum": 0, "maximum": 2},
        "top_p": {**_NUMBER, "minimum": 0, "maximum": 1},
        "max_tokens": _COUNT,
        "max_completion_tokens": _COUNT,
        "stop": {"anyOf": [_TEXT, _TEXTS]},
        "seed": {"type": "integer"},
        "tools": _OBJECTS,
        "user": _TEXT,
    }
    example = {"model": "default", "messages": [{"role": "user", "content": "hello"}]}
    operation = _operation(
        f"A chat completion, by the executors' endpoint {endpoint}",
        "openai_chat",
        _OBJECT,
        _asks(asked, ("model", "messages"), example),
    )
    content = operation["responses"][str(SUCCESS.http)]["content"]
    content["text/event-stream"] = {"schema": _TEXT}
    return operation


def _embeddings(endpoint: str) -> Operation:
    asked = {
        "model": _TEXT,
        "input": {"anyOf": [_TEXT, {**_TEXTS, "minItems": 1}]},
        "encoding_format": {"type": "string", "enum": ["float", "base64"]},
        "dimensions": _COUNT,
        "user": _TEXT,
    }
    return _operation(
        f"Embeddings of texts, by the executors' endpoint {endpoint}",
        "openai_embeddings",
        _OBJECT,
        _asks(asked, ("model", "input"), {"model": "default", "input": ["hello"]}),
    )


def _asks(properties: Mapping[str, Any], required: Iterable[str], example: Mapping[str, Any]) -> Operation:
    schema = {"type": "object", "properties": dict(properties), "required": list(required)}
    content = {"application/json": {"schema": schema, "example": dict(example)}}
    return {"requestBody": {"required": True, "content": content}}


def _operation(summary: str, name: str, answer: Mapping[str, Any], more: Mapping[str, Any] = {}) -> Operation:
    refusals = {str(codes_of(kind).http): _answer(text, _ERROR) for kind, text in _REFUSALS.items()}
    return {
        "tags": [TAG],
        "summary": summary,
        "operationId": name,
        **more,
        "responses": {str(SUCCESS.http): _answer("As in OpenAI's API.", answer), **refusals},
    }


def _answer(description: str, schema: Mapping[str, Any]) -> Operation:
    return {"description": description, "content": {"application/json": {"schema": dict(schema)}}}
