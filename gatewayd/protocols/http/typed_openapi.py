"""
The routes of the second generation in OpenAPI, from the schemas that executors tell (spec 34/http.md).

Schemas go into the document's components, under the names of their classes: two that differ have two names,
and every reference resolves. What of OpenAPI is the reference's, such as operation ids and the names of
bodies, is so because clients are generated from it.

The document is made on the reactor thread, so that it has a bound: of schemas that are large, or too many, it
says no more than that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any, Final

import orjson

from gatewayd.errors import BadRequest, DeadlineExceeded, ExecutorRaised, ExecutorUnreachable, codes_of
from gatewayd.messages.discovery import Endpoints, TypedEndpoint
from gatewayd.messages.second.schemas import LARGEST_BYTES
from gatewayd.protocols.http.routes import EndpointRoute
from gatewayd.protocols.http.schemas import Schema, ref

_DEFINITIONS: Final = ("$defs", "definitions")
_SHAPE: Final = "tensor/array shape"
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9._-]")
_DETAIL: Final = {"type": "object", "properties": {"detail": {"type": "string"}}, "required": ["detail"]}
_SCALARS: Final = frozenset({"string", "integer", "number", "boolean"})
_DEEPEST: Final = 60
_NAME: Final = 200  # of characters of a class's name: more are for no reader
# Of all schemas of one document, each of them once. It takes a quarter of a second to describe so much.
MOST_BYTES: Final = 1024 * 1024

_HEADER: Final = {
    "anyOf": [
        {
            "type": "object",
            "properties": {
                "request_id": {"type": ["string", "null"], "description": "One is made up if it is missing."},
                "target_executor": {
                    "type": ["string", "null"],
                    "description": "A regular expression over the names of deployments.",
                },
            },
        },
        {"type": "null"},
    ],
}
_ANSWER_HEADER: Final = {
    "type": "object",
    "properties": {"request_id": {"type": "string"}, "target_executor": {"type": "string"}},
}
_STREAM: Final = (
    "The answers, one after the other: events `update`, each with a document, then `end`. If something fails "
    "on the way, `error` comes with a detail, and the transfer is broken off without its end."
)


class TypedOperations:
    """Describes the typed routes of one document; ``components`` are the schemas that they refer to."""

    def __init__(self, endpoints: Endpoints, reserved: Iterable[str]) -> None:
        """``reserved`` are names of components that have other schemas."""
        self._endpoints = endpoints
        self._taken = set(reserved)  # names of components
        self._names: dict[tuple[str, bytes], str] = {}
        self._numbers: dict[str, int] = {}  # the last one behind each name
        self.components: dict[str, Schema] = {}
        self._ids: set[str] = set()
        self._left_bytes = MOST_BYTES
        self._known: dict[tuple[bytes, str], Schema] = {}  # by the digest of a class's schema, and its name

    def of(self, route: EndpointRoute, method: str) -> dict[str, Any]:
        """The operation of a route whose endpoint has schemas, or is unknown."""
        endpoint = route.endpoint or ""
        typed = self._endpoints.typed.get(endpoint)
        name = _NOT_IN_NAMES.sub("_", endpoint.strip("/")) or "root"
        taken = self._document(
            None if typed is None else typed.input, "" if typed is None else typed.input_name
        )
        given = self._document(
            None if typed is None else typed.output, "" if typed is None else typed.output_name
        )
        parameters, needed = self._parameters(typed)
        body = self._added(f"{name}_input_model", _body(taken, parameters, needed=needed))
        options = route.options
        docstring = self._endpoints.bound.get(endpoint, "")
        kind = "Streaming Endpoint" if route.streams else "Endpoint"
        shown = endpoint or "that the body names"
        operation: dict[str, Any] = {
            "summary": options.get("summary") or f"{kind} {shown}",
            "operationId": self._id(
                str(options.get("operation_id") or f"{method.lower()}_{name}_{method.lower()}")
            ),
        }
        if route.tags:
            operation["tags"] = list(route.tags)
        if description := options.get("description") or docstring:
            operation["description"] = description
        if method == "GET":
            operation["parameters"] = _query(typed)
            operation["requestBody"] = {"required": False, "content": _json(taken)}
        elif route.streams:
            operation["requestBody"] = {"required": True, "content": _json({"anyOf": [body, taken]})}
        else:
            operation["requestBody"] = {"required": True, "content": _json(body)}
        answered = options.get("response_description") or "What the Flow answers."
        if route.streams:
            content = {
                "text/event-stream": {"schema": {"type": "string"}},
                "application/x-ndjson": {"schema": given},
            }
            succeeded = {"description": _STREAM, "content": content}
        else:
            answer = self._added(f"{name}_output_model", _answer(given))
            succeeded = {"description": answered, "content": _json(answer)}
        operation["responses"] = {str(route.status): succeeded, **self._failures(given)}
        if options.get("deprecated"):
            operation["deprecated"] = True
        return operation

    def _failures(self, given: Schema) -> dict[str, Any]:
        failure = self._added("unreachable_output_model", _FAILURE)
        wrong = {
            "description": "The body is not what it should be.",
            "content": _json(ref("HTTPValidationError")),
        }
        raised = {"description": "An executor failed.", "content": _json(_DETAIL)}
        unreachable = {"description": "An executor could not be reached.", "content": _json(failure)}
        late = {"description": "An executor was too slow.", "content": _json(failure)}
        return {
            str(codes_of(BadRequest).http): wrong,
            str(codes_of(ExecutorRaised).http): raised,
            str(codes_of(ExecutorUnreachable).http): unreachable,
            str(codes_of(DeadlineExceeded).http): late,
        }

    def _parameters(self, typed: TypedEndpoint | None) -> tuple[Schema, bool]:
        """The schema of parameters, and whether they have to be there."""
        if typed is None or typed.parameters is None:
            return {"type": ["object", "null"]}, False
        schema = self._document(typed.parameters, typed.parameters_name)
        if _required(typed.parameters):
            return schema, True
        return {"anyOf": [schema, {"type": "null"}]}, False

    # -- components -----------------------------------------------------------------------------------

    def _document(self, schema: Mapping[str, Any] | None, name: str) -> Schema:
        """A reference to the component that a class's schema becomes."""
        if not schema:
            return {"type": "object"}
        text = orjson.dumps(schema)
        known = (sha256(text).digest(), name)
        if (found := self._known.get(known)) is None:
            found = self._known[known] = self._described(schema, name, len(text))
        return found

    def _described(self, schema: Mapping[str, Any], name: str, size: int) -> Schema:
        own_name = (name or str(schema.get("title") or "Document"))[:_NAME]
        if size > min(LARGEST_BYTES, self._left_bytes):
            bound = f"{MOST_BYTES} are described of all together"
            if size > LARGEST_BYTES:
                bound = f"{LARGEST_BYTES} are described of one"
            text = (
                f"The schema of {own_name} is too large to show: it has {size} bytes of JSON, and {bound}. "
                "Executors check what they are sent."
            )
            return self._added(own_name, {"type": "object", "description": text})
        self._left_bytes -= size
        definitions: dict[str, Any] = {}
        for place in _DEFINITIONS:
            if isinstance(found := schema.get(place), dict):
                definitions |= {f"#/{place}/{each}": part for each, part in found.items()}
        whole = _key(definitions)
        names = {}
        for reference, part in definitions.items():
            names[reference] = self._name(reference.rpartition("/")[2], _key(part, whole))
        for reference, part in definitions.items():
            if names[reference] not in self.components:
                self.components[names[reference]] = _rewritten(part, names)
        bare = {key: value for key, value in schema.items() if key not in _DEFINITIONS}
        if bare.keys() == {"$ref"} and isinstance(target := bare["$ref"], str) and target in names:
            return ref(names[target])
        own = self._name(own_name, _key(bare, whole))
        if own not in self.components:
            self.components[own] = _rewritten(bare, names)
        return ref(own)

    def _added(self, name: str, schema: Schema) -> Schema:
        own = self._name(name, _key(schema))
        self.components.setdefault(own, {"title": own, **schema})
        return ref(own)

    def _name(self, wanted: str, key: bytes) -> str:
        """``wanted``, or like it where another schema has that name."""
        wanted = _NOT_IN_NAMES.sub("_", wanted) or "Document"
        name = self._names.get((wanted, key))
        if name is None:
            name = self._names[wanted, key] = self._free(wanted)
            self._taken.add(name)
        return name

    def _free(self, wanted: str) -> str:
        name, number = wanted, self._numbers.get(wanted, 1)
        while name in self._taken:
            number += 1
            name = f"{wanted}_{number}"
        self._numbers[wanted] = number
        return name

    def _id(self, wanted: str) -> str:
        candidate, number = wanted, 2
        while candidate in self._ids:
            candidate, number = f"{wanted}_{number}", number + 1
        self._ids.add(candidate)
        return candidate


def _body(document: Schema, parameters: Schema, *, needed: bool) -> Schema:
    properties = {
        "data": {"anyOf": [{"type": "array", "items": document}, document]},
        "parameters": parameters,
        "header": _HEADER,
    }
    return {
        "type": "object",
        "properties": properties,
        "required": ["data", *(["parameters"] if needed else [])],
    }


def _answer(document: Schema) -> Schema:
    properties = {
        "data": {"type": "array", "items": document},
        "parameters": {"type": ["object", "null"]},
        "header": _ANSWER_HEADER,
    }
    return {"type": "object", "properties": properties, "required": ["data", "parameters", "header"]}


_FAILURE: Final[Schema] = {
    "type": "object",
    "description": "The request as it was sent, and in header.status what failed.",
    "properties": {
        "data": {"type": "array", "items": {"type": "object"}},
        "parameters": {"type": ["object", "null"]},
        "header": {
            "type": "object",
            "properties": {"request_id": {"type": "string"}, "status": ref("StatusProto")},
        },
    },
}


def _query(typed: TypedEndpoint | None) -> list[dict[str, Any]]:
    """The fields of a document that a URL can say: texts, numbers, truth values."""
    if typed is None:
        return []
    schema = _resolved(typed.input)
    found = []
    required = _required(typed.input)
    properties = schema.get("properties")
    for name, part in (properties if isinstance(properties, dict) else {}).items():
        options = part.get("anyOf", [part]) if isinstance(part, dict) else []
        if not isinstance(options, list):
            continue
        kinds = [option.get("type") for option in options if isinstance(option, dict)]
        plain = [kind for kind in kinds if isinstance(kind, str) and kind in _SCALARS]
        if plain:
            described = {"name": name, "in": "query", "schema": {"type": plain[0]}}
            # Or in the body: a client that sends one has no query.
            described["description"] = "Needed without a body." if name in required else ""
            found.append({key: value for key, value in described.items() if value})
    return found


def _resolved(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """A schema that is no more than a reference, as what it refers to."""
    reference = schema.get("$ref")
    for place in _DEFINITIONS:
        definitions = schema.get(place)
        if isinstance(reference, str) and isinstance(definitions, dict):
            found = definitions.get(reference.rpartition("/")[2])
            if isinstance(found, dict):
                return found
    return schema


def _required(schema: Mapping[str, Any]) -> list[str]:
    found = _resolved(schema).get("required")
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []


def _key(part: Any, whole: bytes = b"") -> bytes:
    """
    Two schemas with the same key are those of one class.

    ``whole`` is the key of what references may mean, and counts where there are any. Examples do not count:
    that of a document's id is made up by each process, and two executors with one class would have two
    components.
    """
    text = orjson.dumps(_without_examples(part), option=orjson.OPT_SORT_KEYS)
    return sha256(text + whole if b'"$ref"' in text else text).digest()


def _without_examples(part: Any, depth: int = 0, *, names: bool = False) -> Any:
    """``names`` says that the keys of ``part`` are those of fields or definitions, and not of a schema."""
    if depth > _DEEPEST:
        return None
    if isinstance(part, dict):
        return {
            key: _without_examples(value, depth + 1, names=not names and key == "properties")
            for key, value in part.items()
            if names or key not in ("example", "examples")
        }
    if isinstance(part, list):
        return [_without_examples(item, depth + 1) for item in part]
    return part


def _rewritten(part: Any, names: Mapping[str, str], depth: int = 0) -> Any:
    """A part of a schema as one of OpenAPI: with references to components, and whole numbers as such."""
    if depth > _DEEPEST:
        return {}
    if isinstance(part, dict):
        if isinstance(reference := part.get("$ref"), str):
            # Whatever leads nowhere may be anything.
            others = {
                key: _rewritten(value, names, depth + 1)
                for key, value in part.items()
                if key not in ("$ref", "default")
            }
            return {**others, **(ref(names[reference]) if reference in names else {})}
        found = {
            key: _rewritten(value, names, depth + 1) for key, value in part.items() if key not in _DEFINITIONS
        }
        if _SHAPE in found:
            found["items"] = {"type": ["array", "number", "boolean", "string", "null"]}
        return found
    if isinstance(part, list):
        return [_rewritten(item, names, depth + 1) for item in part]
    if isinstance(part, float) and part.is_integer() and abs(part) < 2**53:
        return int(part)
    return part


def _json(schema: Schema) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
