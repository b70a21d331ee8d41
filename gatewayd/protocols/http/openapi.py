"""
The OpenAPI 3.1 document of an HTTP port, from the gateway's settings and what executors bind (golden:
openapi_paths.json).

Paths, tags, names of schemas and documented answers are the reference's. Their content comes from ``routes``,
which the port itself is built from, and from ``schemas``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from gatewayd import __version__
from gatewayd.config.model import GatewayConfig
from gatewayd.errors import (
    BadRequest,
    ContentTypeRequired,
    DeadlineExceeded,
    ExecutorUnreachable,
    Forbidden,
    GatewayError,
    InvalidQuery,
    Misdirected,
    OriginForbidden,
    PathNotFound,
    RateLimited,
    Unauthenticated,
    codes_of,
)
from gatewayd.messages.discovery import DEFAULT, NOTHING_KNOWN, Described, Endpoints, TypedEndpoint
from gatewayd.protocols.http.openai.described import TAG as OPENAI
from gatewayd.protocols.http.openai.described import described as described_openai
from gatewayd.protocols.http.routes import EndpointRoute, debug_paths, routes_of
from gatewayd.protocols.http.schemas import SCHEMAS, Schema, example, ref, referred, with_references
from gatewayd.protocols.http.typed_openapi import TypedOperations

_TITLE: Final = "gatewayd"
_DESCRIPTION: Final = (
    "The HTTP side of a Flow of executors. Title and description are set by the keys of the same names "
    "in the gateway's part of the Flow file."
)
_TAGS: Final = {
    "Debug": "For finding out what a Flow does; switched off by no_debug_endpoints.",
    OPENAI: "For clients of OpenAI's API, whose base URL is this port's with /v1.",
    "CRUD": "For the usual endpoints of a search; switched off by no_crud_endpoints.",
}
_SUMMARIES: Final = {
    "/post": "Send documents to an endpoint of the executors",
    "/index": "Index documents",
    "/search": "Search with documents",
    "/update": "Update documents",
    "/delete": "Delete documents",
}
# They may have one here, but pages and generated clients cannot send it.
_WITHOUT_BODY: Final = frozenset({"GET", "HEAD"})
_REFUSAL: Final = {"type": "object", "properties": {"detail": {"type": "string"}}, "required": ["detail"]}
_QUERY: Final = '{ docs(data: [{text: "hello"}], execEndpoint: "/") { id text } }'
_STREAMED: Final = "The answers, one after the other: events `update`, each with a document, then `end`."
_FAILURES: Final = (
    "An executor that fails still answers with this status: header.status then tells of it. Where an "
    f"executor cannot be reached the answer is {codes_of(ExecutorUnreachable).http}, where it is too slow "
    f"{codes_of(DeadlineExceeded).http}. Instead of JSON the body and "
    "the answer can be the messages of gRPC, as application/x-protobuf."
)


def title(gateway: GatewayConfig) -> str:
    """What the API is called."""
    return gateway.title or _TITLE


def openapi(gateway: GatewayConfig, *, full: bool, endpoints: Endpoints = NOTHING_KNOWN) -> dict[str, Any]:
    """
    The document as a JSON object.

    ``endpoints`` are those that executors are known to bind, with their docstrings, and their schemas where
    documents are of the second generation.
    ``full`` is False for a port of WebSocket alone, which has GET /, /status and /dry_run regardless of
    ``no_debug_endpoints``. Raises ConfigError if an exposed endpoint cannot be a path.
    """
    routes = routes_of(gateway, endpoints) if full else ()
    described = {"/dry_run": _dry_run, "/status": _status}
    paths: dict[str, dict[str, Any]] = {
        path: {"get": described[path]()} for path in debug_paths(gateway, full=full)
    }
    typed = TypedOperations(endpoints, SCHEMAS)
    operations = typed if endpoints.is_second else _Operations(endpoints.bound)
    for route in routes:
        if route.options.get("include_in_schema", True):
            item = paths.setdefault(_literal(route.path), {})
            for method in route.methods:
                item.setdefault(method.lower(), operations.of(route, method))
    if full and gateway.expose_graphql_endpoint:
        paths["/graphql"] = {**paths.get("/graphql", {}), **_graphql(_query_for(endpoints))}
    for path, item in paths.items():
        for operation in item.values():
            operation["responses"] = {**_refusals(gateway, path, operation), **operation["responses"]}
    if full and gateway.openai is not None:
        for path, item in described_openai(gateway.openai).items():
            paths[path] = {**item, **paths.get(path, {})}  # a route of the Flow's own stands before it
    # The settings that refuse others do not apply to it.
    paths["/"] = {**paths.get("/", {}), "get": _health()}

    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": title(gateway),
            "description": gateway.description or _DESCRIPTION,
            "version": __version__,
        },
        "paths": paths,
        "components": {"schemas": _components(paths, typed.components)},
    }
    used = {
        tag for item in paths.values() for operation in item.values() for tag in operation.get("tags", ())
    }
    if tags := [{"name": name, "description": text} for name, text in _TAGS.items() if name in used]:
        document["tags"] = tags
    return document


def _components(paths: dict[str, Any], typed: Mapping[str, Schema]) -> dict[str, Schema]:
    """The schemas that are referred to: those of executors, and our own."""
    names = {*referred(paths), *referred(dict(typed))}
    own = with_references(name for name in names if name not in typed)
    return dict(sorted({**own, **typed}.items()))


class _Operations:
    """Describes the routes of one document, each with a unique id."""

    def __init__(self, bound: Described) -> None:
        self._bound = bound
        self._ids: set[str] = set()
        # What is tried with the example ought to reach an executor.
        self._tried = "/" if not bound or {"/", DEFAULT} & bound.keys() else next(iter(bound))

    def of(self, route: EndpointRoute, method: str) -> dict[str, Any]:
        options = route.options
        model = "JinaRequestModel" if route.endpoint is None else "JinaEndpointRequestModel"
        description = options.get("response_description") or "What the Flow answers."
        operation = _operation(
            options.get("summary") or _SUMMARIES.get(route.path) or f"Send documents to {route.endpoint}",
            tags=route.tags,
            description=options.get("description") or self._docstring(route) + _FAILURES,
            operationId=self._id(options, route.path, method),
            responses={
                str(route.status): _answer(str(description), ref("JinaResponseModel")),
                str(codes_of(BadRequest).http): _answer(
                    "The body is not what it should be.", ref("HTTPValidationError")
                ),
            },
        )
        if route.streams:
            document = ref("PydanticDocument")
            content: dict[str, Any] = {
                "text/event-stream": {"schema": {"type": "string"}},
                "application/x-ndjson": {"schema": document},
            }
            operation["responses"][str(route.status)] = {"description": _STREAMED, "content": content}
        if method not in _WITHOUT_BODY:
            content = _json(ref(model), example(model, self._tried))
            operation["requestBody"] = {"required": True, "content": content}
        if options.get("deprecated"):
            operation["deprecated"] = True
        return operation

    def _docstring(self, route: EndpointRoute) -> str:
        text = "" if route.endpoint is None else self._bound.get(route.endpoint, "")
        return f"{text}\n\n" if text else ""

    def _id(self, options: Mapping[str, Any], path: str, method: str) -> str:
        plain = "".join(letter if letter.isalnum() else "_" for letter in path.strip("/"))
        name = str(options.get("operation_id") or options.get("name") or f"{plain}_{method.lower()}")
        candidate, number = name, 2
        while candidate in self._ids:
            candidate, number = f"{name}_{number}", number + 1
        self._ids.add(candidate)
        return candidate


def _refusals(gateway: GatewayConfig, path: str, operation: Mapping[str, Any]) -> dict[str, Any]:
    """The answers of an operation to callers that the gateway's settings refuse."""
    calls_executors = path not in ("/status", "/graphql")
    found: dict[type[GatewayError], str] = {}
    if gateway.allowed_origins is not None and path != "/status":
        found[OriginForbidden] = "A page asks that may not."
        if "requestBody" in operation:
            found[ContentTypeRequired] = "A page sends a body that is neither JSON nor protobuf."
    if gateway.auth is not None:
        found[Unauthenticated] = "It is not known who calls."
        found[Forbidden] = "Whoever calls may not, or a page may not."
    if gateway.allowed_hosts is not None:
        found[Misdirected] = "The request is for a host of another name."
    if gateway.rates and calls_executors:
        found[RateLimited] = "The caller asks too often; Retry-After says when to come back."
    return {str(codes_of(kind).http): _answer(text, _REFUSAL) for kind, text in found.items()}


def _health() -> dict[str, Any]:
    return _operation(
        "Whether the gateway is there",
        operationId="health",
        responses={"200": _answer("It is.", ref("JinaHealthModel"))},
    )


def _status() -> dict[str, Any]:
    return _operation(
        "Versions and environment of the gateway",
        tags=("Debug",),
        operationId="status",
        responses={"200": _answer("Two maps of texts.", ref("JinaInfoModel"))},
    )


def _dry_run() -> dict[str, Any]:
    return _operation(
        "Whether a request gets through the whole Flow",
        operationId="dry_run",
        responses={"200": _answer("code is 0 if it does.", ref("StatusProto"))},
    )


def _query_for(endpoints: Endpoints) -> str:
    """A query to try. Documents of the second generation have no fields to choose (docs/guide/graphql.md)."""
    if not endpoints.is_second:
        return _QUERY
    whole = [name for name in endpoints.typed if name not in endpoints.streaming]
    # Where a document with a text fits none of them, the reader has to write another.
    named = next((name for name in whole if _takes_a_text(endpoints.typed[name])), next(iter(whole), "/"))
    return f'{{ docs(data: [{{text: "hello"}}], execEndpoint: {json.dumps(named)}) }}'


def _takes_a_text(endpoint: TypedEndpoint) -> bool:
    document, parameters = endpoint.input, endpoint.parameters or {}
    needed = {*document.get("required", ()), "text"}
    return needed == {"text"} <= document.get("properties", {}).keys() and not parameters.get("required")


def _graphql(shown: str) -> dict[str, Any]:
    answer = {
        "type": "object",
        "properties": {
            "data": {"type": ["object", "null"]},
            "errors": {"type": "array", "items": {"type": "object"}},
        },
    }
    query = {"type": "string", "description": "A GraphQL document."}
    variables = {"type": ["object", "null"]}
    name = {"type": ["string", "null"]}
    asked = {
        "type": "object",
        "properties": {"query": query, "variables": variables, "operationName": name},
        "required": ["query"],
    }
    no_query = {
        str(codes_of(InvalidQuery).http): {
            "description": "There is no query in it, or none that can be read.",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        }
    }
    return {
        "get": _operation(
            "A GraphQL query, or a page to write one",
            operationId="graphql_get",
            parameters=[{"name": "query", "in": "query", "schema": query, "example": shown}],
            responses={
                "200": {"description": "The answer, or the page for browsers."},
                str(codes_of(PathNotFound).http): {"description": "There is no GraphQL here."},
                **no_query,
            },
        ),
        "post": _operation(
            "A GraphQL query or mutation",
            operationId="graphql_post",
            requestBody={
                "required": True,
                "content": _json(asked, {"query": shown, "variables": {}, "operationName": None}),
            },
            responses={"200": _answer("The answer; errors are in it.", answer), **no_query},
        ),
    }


def _operation(summary: str, *, tags: Iterable[str] = (), **more: Any) -> dict[str, Any]:
    listed = {"tags": list(tags)} if tags else {}
    return {**listed, "summary": summary, **more}


def _answer(description: str, schema: Schema) -> dict[str, Any]:
    return {"description": description, "content": _json(schema)}


def _json(schema: Schema, shown: dict[str, Any] | None = None) -> dict[str, Any]:
    """``shown`` is what pages fill in before a reader tries the operation."""
    return {"application/json": {"schema": schema, **({} if shown is None else {"example": shown})}}


def _literal(path: str) -> str:
    """Escapes braces, which in OpenAPI's paths would name parameters."""
    return path.replace("{", "%7B").replace("}", "%7D")
