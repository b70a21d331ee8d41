"""Rules of redaction that find nothing, as far as executors tell."""

from __future__ import annotations

from typing import Any

import pytest

from gatewayd.messages.discovery import DRY_RUN, Told, TypedEndpoint
from gatewayd.messages.generations import Generation
from gatewayd.messages.redactable import findless
from gatewayd.messages.second.schemas import UNTYPED

FIRST, SECOND = Generation.FIRST, Generation.SECOND
INNER = {
    "title": "Inner",
    "type": "object",
    "properties": {"street": {"type": "string"}, "like": {"$ref": "#/definitions/Inner"}},
}


def told(**fields: Any) -> Told:
    schema = {
        "title": "Order",
        "type": "object",
        "properties": {"id": {"type": "string"}, **fields},
        "definitions": {"Inner": INNER},
    }
    order = TypedEndpoint(schema, schema, "Order", "Order")
    return Told({"/go": ""}, SECOND, {DRY_RUN: TypedEndpoint({}, {}, UNTYPED, UNTYPED), "/go": order})


def wrong(*rules: str, generation: Generation | None = SECOND, **fields: Any) -> list[str]:
    return findless(rules, {"a": told(**fields)}, generation)


def test_a_field_that_no_document_has_is_told_with_what_it_may_be() -> None:
    assert wrong("fields.custmer", customer={"type": "string"}) == [
        "fields.custmer: no document of any executor has a field 'custmer'; did you mean customer?"
    ]
    assert wrong("blob", customer={"type": "string"}) == [
        "blob: no document of any executor has a field 'blob'; there are customer, id"
    ]
    assert len(wrong("tags.x", "tags", customer={"type": "string"})) == 2


def test_fields_of_documents_within_documents_are_fields_too() -> None:
    inner = {"type": "array", "items": {"$ref": "#/definitions/Inner"}}
    assert wrong("fields.street", "id", inner=inner) == []
    assert len(wrong("fields.stret", inner=inner)) == 1


@pytest.mark.parametrize("kind", [{"type": "object"}, {}, {"anyOf": [{"type": "object"}, {"type": "null"}]}])
def test_where_any_field_may_be_nothing_is_said(kind: Any) -> None:
    assert wrong("fields.custmer", any=kind) == []


def test_nothing_is_said_of_executors_that_have_told_nothing_and_of_parameters() -> None:
    assert findless(["fields.x"], {"a": told(), "b": None}, SECOND) == []
    assert wrong("fields.x", generation=None) == []
    assert wrong("parameters", "parameters.token") == []


def test_documents_of_the_first_generation_have_the_fields_that_they_have() -> None:
    (text,) = findless(["text", "tags.x", "fields.customer"], {"a": Told({}, FIRST)}, FIRST)
    assert text.startswith("fields.customer: documents of docarray 0.21 have no field 'customer'")
