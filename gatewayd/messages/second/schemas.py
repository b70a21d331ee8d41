"""
Reads the JSON schemas that executors tell, in the forms of pydantic 1 and 2 (spec 34/schemas.md).

A schema becomes kinds (``kinds.py``), once for each schema, whatever its name: two classes of the same name
are two schemas. What is odd in one is taken for ``Anything``, and left to the executor: it made the schema,
and checks what it gets.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import orjson

from gatewayd.messages.discovery import Schema, TypedEndpoint
from gatewayd.messages.second.kinds import (
    Anything,
    Boolean,
    Dict,
    Document,
    Documents,
    Field,
    Integer,
    Items,
    Kind,
    Null,
    Nullable,
    Number,
    OneOf,
    Tensor,
    Text,
    Tuple,
)
from gatewayd.messages.second.limits import Limits

# The class that executors use where a method says nothing of its documents: any fields will do.
UNTYPED: Final = "LegacyDocumentJina"

# A schema with more JSON than this is not read: a class with a thousand fields has a third of it, and reading
# it takes a tenth of a second.
LARGEST_BYTES: Final = 256 * 1024

_SHAPE: Final = "tensor/array shape"
_DEEPEST: Final = 50  # schemas within a schema: what is deeper is taken for anything
_DEFINITIONS: Final = ("$defs", "definitions")
_ID: Final = "id"
# Of the text that says the shape of an array: more than any array has dimensions.
_SHAPE_TEXT: Final = 1000


def input_of(endpoint: TypedEndpoint) -> Document:
    """The documents that an endpoint takes."""
    return document_of(endpoint.input, endpoint.input_name)


def output_of(endpoint: TypedEndpoint) -> Document:
    """The documents that an endpoint answers with."""
    return document_of(endpoint.output, endpoint.output_name)


def parameters_of(endpoint: TypedEndpoint) -> Document | None:
    """The model of an endpoint's parameters; None where they are free."""
    if endpoint.parameters is None:
        return None
    return document_of(endpoint.parameters, endpoint.parameters_name, has_id=False)


def document_of(schema: Schema, name: str, *, has_id: bool = True) -> Document:
    """
    The kind of a whole document, or of a model of parameters, which ``has_id`` False says.

    Equal schemas have the same one. One of more than LARGEST_BYTES says nothing: executors check what they
    get.
    """
    if len(orjson.dumps(schema)) > LARGEST_BYTES:  # the fast one, which would lose infinite numbers
        schema = {}
    return _document(json.dumps(schema, sort_keys=True), name, has_id)


@lru_cache(maxsize=1024)
def _document(schema: str, name: str, has_id: bool) -> Document:
    reader = _Reader(json.loads(schema), has_id=has_id)
    found = reader.kind_of(reader.root, 0)
    if isinstance(found, Document):
        # The reference's executors drop what they do not know, but this class stands for any.
        found.is_open = found.is_open or name == UNTYPED
        return found
    return Document(name, is_open=True)


class _Reader:
    """Reads one schema. Documents that are referred to are read once, so that they may hold their like."""

    def __init__(self, root: Mapping[str, Any], *, has_id: bool) -> None:
        self.root = root
        self._has_id = has_id
        self._by_reference: dict[str, Kind] = {}

    def kind_of(self, schema: object, depth: int) -> Kind:
        """The kind of what a part of the schema describes."""
        if not isinstance(schema, dict) or depth > _DEEPEST:
            return Anything()
        if isinstance(reference := schema.get("$ref"), str):
            return self._referred(reference, depth)
        for several in ("anyOf", "oneOf"):
            if isinstance(options := schema.get(several), list):
                return self._one_of(options, depth)
        if isinstance(parts := schema.get("allOf"), list) and "properties" not in schema:
            # pydantic's way to say more of a reference, which is the only one then.
            return self.kind_of(parts[0], depth + 1) if len(parts) == 1 else Anything()
        return self._typed(schema, depth)

    def _referred(self, reference: str, depth: int) -> Kind:
        if reference in self._by_reference:
            return self._by_reference[reference]
        name = reference.rpartition("/")[2]
        for place in _DEFINITIONS:
            if reference == f"#/{place}/{name}":
                definitions = self.root.get(place)
                target = definitions.get(name) if isinstance(definitions, dict) else None
                if isinstance(target, dict) and target.get("type") == "object" and "properties" in target:
                    document = Document(str(target.get("title") or name))
                    self._by_reference[reference] = document
                    self._fill(document, target, depth)
                    return document
                # One that leads to itself, without a document on the way, says nothing.
                self._by_reference[reference] = Anything()
                found = self._by_reference[reference] = self.kind_of(target, depth + 1)
                return found
        return Anything()

    def _one_of(self, options: list[Any], depth: int) -> Kind:
        kinds = [self.kind_of(option, depth + 1) for option in options]
        others = tuple(kind for kind in kinds if not isinstance(kind, Null))
        if not others:
            return Null()
        kind = others[0] if len(others) == 1 else OneOf(others)
        return kind if len(others) == len(kinds) else _or_null(kind)

    def _typed(self, schema: Mapping[str, Any], depth: int) -> Kind:
        kind = schema.get("type")
        if isinstance(kind, list):
            return self._one_of([{**schema, "type": each} for each in kind], depth)
        if kind == "string":
            return Text(Limits.of(schema), binary=schema.get("format") == "binary")
        if kind == "integer":
            return Integer(Limits.of(schema))
        if kind == "number":
            return Number(Limits.of(schema))
        if kind == "boolean":
            return Boolean(Limits.of(schema))
        if kind == "null":
            return Null()
        if kind == "array":
            return self._array(schema, depth)
        if kind == "object":
            return self._object(schema, depth)
        return Anything(Limits.of(schema))

    def _array(self, schema: Mapping[str, Any], depth: int) -> Kind:
        if _SHAPE in schema:
            return Tensor(_size(schema[_SHAPE]))
        parts = schema.get("prefixItems", schema.get("items"))
        if isinstance(parts, list):  # the second is pydantic 1's form
            return Tuple(tuple(self.kind_of(part, depth + 1) for part in parts))
        if "items" not in schema:
            return Items(Anything(), limits=Limits.of(schema))
        kind = self.kind_of(schema["items"], depth + 1)
        if schema.get("uniqueItems"):
            return Items(kind, "set", Limits.of(schema))
        return (
            Documents(kind, Limits.of(schema))
            if isinstance(kind, Document)
            else Items(kind, limits=Limits.of(schema))
        )

    def _object(self, schema: Mapping[str, Any], depth: int) -> Kind:
        if isinstance(schema.get("properties"), dict):
            document = Document(str(schema.get("title") or ""))
            self._fill(document, schema, depth)
            return document
        values = schema.get("additionalProperties")
        return Dict(self.kind_of(values, depth + 1) if isinstance(values, dict) else Anything())

    def _fill(self, document: Document, schema: Mapping[str, Any], depth: int) -> None:
        """Read the fields of a document: its id first, then in the order of their names' first mention."""
        document.is_open = bool(schema.get("additionalProperties"))
        required = schema.get("required")
        names = {name for name in required if isinstance(name, str)} if isinstance(required, list) else set()
        properties = schema["properties"]
        for name in sorted(properties, key=lambda name: name != _ID):
            part = properties[name]
            kind = self.kind_of(part, depth + 1)
            has_default = isinstance(part, dict) and "default" in part
            # pydantic 1 does not tell what may be null: what needs no value, and has no other, is.
            if name not in names and not has_default:
                kind = _or_null(kind)
            if self._has_id and name == _ID:
                kind, document.has_id = _id_of(kind), True
            default = _plain(part["default"], kind) if has_default else None
            document.fields[name] = Field(kind, name in names, has_default, default)
        if document.has_id:
            given = document.fields[_ID]
            document.has_id = not given.required and not given.has_default and _is_text(given.kind)


def _or_null(kind: Kind) -> Kind:
    return kind if isinstance(kind, Nullable | Null | Anything) else Nullable(kind)


def _is_text(kind: Kind) -> bool:
    return isinstance(kind.kind if isinstance(kind, Nullable) else kind, Text)


def _id_of(kind: Kind) -> Kind:
    """The same with docarray's name of the type, if it is text."""
    if isinstance(kind, Nullable):
        return Nullable(_id_of(kind.kind))
    return Text(kind.limits, type=_ID) if isinstance(kind, Text) else kind


def _plain(default: Any, kind: Kind) -> Any:
    """A default as JSON: the schema came in a Struct, where all numbers are doubles."""
    if isinstance(kind, Nullable):
        return _plain(default, kind.kind)
    if isinstance(kind, Integer) and isinstance(default, float) and default.is_integer():
        return int(default)
    if isinstance(kind, Items) and isinstance(default, list):
        return [_plain(item, kind.kind) for item in default]
    if isinstance(kind, Tuple) and isinstance(default, list) and len(default) == len(kind.kinds):
        return [_plain(item, each) for item, each in zip(default, kind.kinds, strict=True)]
    if isinstance(kind, Dict) and isinstance(default, dict):
        return {key: _plain(item, kind.kind) for key, item in default.items()}
    return default


def _size(shape: object) -> int | None:
    """How many elements an array of this shape has: ``[3, 224, 224]``; None if that is not fixed."""
    if not isinstance(shape, str) or len(shape) > _SHAPE_TEXT:
        return None
    try:
        sizes = json.loads(shape)
    except (ValueError, RecursionError):
        return None
    if not isinstance(sizes, list) or not sizes or not all(type(size) is int and size >= 0 for size in sizes):
        return None
    return math.prod(sizes)
