"""
Loaded by schemathesis (SCHEMATHESIS_HOOKS), in its own environment.

Its own check of invalid bodies is left out for this one: as in the reference, numbers, booleans and texts are
taken for each other where that has a meaning (``1`` for ``"1"``, ``true`` for ``1``), and so are, for an
object, the lists and texts that Python's ``dict()`` takes: pairs, or nothing.
"""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import schemathesis

PAIRS = {
    "type": "array",
    "items": {
        "anyOf": [
            {"type": "array", "minItems": 2, "maxItems": 2},
            {"type": "string", "minLength": 2, "maxLength": 2},
            {"type": "object", "minProperties": 2, "maxProperties": 2},
        ]
    },
}


def relaxed(schema: Any) -> Any:
    """``schema``, in which every text and number may also be another scalar, and every object pairs."""
    if isinstance(schema, list):
        return [relaxed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: relaxed(value) for key, value in schema.items()}
    kinds = made.get("type", [])
    kinds = {kinds} if isinstance(kinds, str) else {*kinds}
    if kinds & {"string", "number", "integer"}:
        made["type"] = sorted(kinds | {"string", "number", "boolean"})
    return {"anyOf": [made, PAIRS, {"const": ""}]} if kinds == {"object"} else made


@schemathesis.check
def invalid_bodies_are_refused(_: Any, response: Any, case: Any) -> None:
    """No body that breaks the schema is answered with success."""
    document = case.operation.schema.raw_schema
    item = document["paths"][case.operation.path][case.operation.method.lower()]
    wanted = item.get("requestBody", {}).get("content", {}).get("application/json")
    if wanted is None or response.status_code >= 300 or case.method.lower() != case.operation.method.lower():
        return
    whole = relaxed({**wanted["schema"], "components": document["components"]})
    for error in jsonschema_rs.validator_for(whole).iter_errors(case.body):
        raise AssertionError(f"taken although it breaks the schema: {error}")
