"""Chained executors that do not take each other's documents (golden34, spec 34/schemas.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from gatewayd.messages.chaining import check_chains
from gatewayd.messages.discovery import DRY_RUN, Told, TypedEndpoint
from gatewayd.messages.generations import Generation
from tests.paths import GOLDEN34

LOGS = {
    flow["flow"]: (flow["started"], " ".join(flow["log"]))
    for flow in json.loads((GOLDEN34 / "topologies.json").read_text())["pydantic 2"]
}

TEXT, INTEGER, NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}
ID = {"anyOf": [TEXT, {"type": "null"}]}
NESTED = {"type": "array", "items": {"$ref": "#/$defs/Nested"}}

IN = {"id": ID, "text": TEXT, "num": INTEGER, "price": NUMBER, "flag": {"type": "boolean"}, "note": ID}
MID = {"id": ID, "text": TEXT, "mid": INTEGER}
FINAL = {"id": ID, "text": TEXT, "final": NUMBER, "kids": NESTED}
OUT = {"id": ID, "text": TEXT, "length": INTEGER, "tags": {"type": "object"}}
FREE = {"id": ID, "text": ID}


def schema(**properties: Any) -> Mapping[str, Any]:
    return {"type": "object", "properties": properties}


NAMES = {id(IN): "In", id(MID): "Mid", id(FINAL): "Final", id(OUT): "Out", id(FREE): "LegacyDocumentJina"}


def told(**endpoints: tuple[Any, Any]) -> Told:
    typed = {
        "/" + name: TypedEndpoint(schema(**one), schema(**other), NAMES[id(one)], NAMES[id(other)])
        for name, (one, other) in endpoints.items()
    }
    typed[DRY_RUN] = TypedEndpoint(schema(**FREE), schema(**FREE), "LegacyDocumentJina", "LegacyDocumentJina")
    return Told(dict.fromkeys(typed, ""), Generation.SECOND, typed)


EXECUTORS = {
    "c1": told(go=(IN, MID)),
    "c2": told(go=(MID, FINAL)),
    "a": told(echo=(IN, IN), sleep=(IN, IN), len=(IN, OUT)),
    "b": told(echo=(IN, IN), len=(OUT, OUT)),
    "def": told(default=(FREE, FREE)),
    "g1": told(gen=(IN, MID)),
    "first": Told({"/go": ""}, Generation.FIRST),
    "unknown": None,
}


@pytest.mark.parametrize(
    ("flow", "edge"),
    [
        ("C1 then C2, different types", ("c1", "c2")),
        ("C1 then Def (untyped default)", ("c1", "def")),
        ("Def then C1", ("def", "c1")),
    ],
)
def test_what_starts_in_the_reference_is_fit(flow: str, edge: tuple[str, str]) -> None:
    assert LOGS[flow][0] is True
    assert not check_chains(EXECUTORS, [edge]).misfits


@pytest.mark.parametrize(
    ("flow", "edge", "endpoint"),
    [
        ("C2 then C1, incompatible types", ("c2", "c1"), "/go"),
        ("B then A", ("b", "a"), "/len"),
    ],
)
def test_what_the_reference_refuses_for_its_schemas_is_refused(
    flow: str, edge: tuple[str, str], endpoint: str
) -> None:
    before, after = edge
    said = f"The output schema of {before} at {endpoint} endpoint is incompatible with the input schema of"
    assert f"{said} {after}" in LOGS[flow][1]
    (misfit,) = check_chains(EXECUTORS, [edge]).misfits
    assert misfit.startswith(
        f"the output schema of {before} at {endpoint} is incompatible with the input schema of {after}: "
    )


def test_both_schemas_are_shown() -> None:
    (misfit,) = check_chains(EXECUTORS, [("c2", "c1")]).misfits
    assert (
        "c2 answers with Final(final: number, id: string or null, kids: array of Nested, text: string)"
        in (misfit)
    )
    assert "c1 takes In(flag: boolean, id: string or null, note: string or null, num: integer, " in misfit
    assert misfit.endswith("or do not let c1 need c2")


def test_of_a_class_with_very_many_fields_some_are_shown() -> None:
    many = {f"f{index:02}": TEXT for index in range(25)}
    one = TypedEndpoint(schema(**many), schema(**many), "Many", "Many")
    other = TypedEndpoint(schema(), schema(), "None", "None")
    executors = {
        name: Told({"/x": ""}, Generation.SECOND, {"/x": each})
        for name, each in (("many", one), ("none", other))
    }
    (misfit,) = check_chains(executors, [("many", "none")]).misfits
    assert "f19: string, and 5 more)" in misfit
    assert "f20" not in misfit


@pytest.mark.parametrize(
    ("flow", "edge", "text"),
    [
        ("A then B, B lacks endpoints of A", ("a", "b"), "b binds neither /sleep, which a before it does"),
        ("C1 then G1 (unrelated endpoints)", ("c1", "g1"), "g1 binds neither /go, which c1 before it does"),
    ],
)
def test_an_executor_that_lacks_endpoints_is_only_warned_of(
    flow: str, edge: tuple[str, str], text: str
) -> None:
    assert "does not expose /default" in LOGS[flow][1]
    found = check_chains(EXECUTORS, [edge])
    assert not found.misfits
    (warning,) = found.passed_over
    assert text in warning


@pytest.mark.parametrize("edge", [("c1", "first"), ("first", "c1"), ("c1", "unknown"), ("unknown", "c1")])
def test_of_what_is_not_known_nothing_is_said(edge: tuple[str, str]) -> None:
    found = check_chains(EXECUTORS, [edge])
    assert (found.misfits, found.passed_over) == ((), ())


@pytest.mark.parametrize(
    ("given", "taken", "fit"),
    [
        ({"i": INTEGER}, {"i": INTEGER}, True),
        ({"i": INTEGER}, {"i": NUMBER}, False),
        ({"i": INTEGER}, {"j": INTEGER}, False),
        ({"i": INTEGER}, {}, False),
        # pydantic 2 writes what may be missing without a type, pydantic 1 with one.
        ({"i": ID}, {"i": TEXT}, True),
        ({"i": {"$ref": "#/x"}}, {"i": TEXT}, True),
    ],
)
def test_fields_are_compared_by_name_and_type(
    given: dict[str, Any], taken: dict[str, Any], fit: bool
) -> None:
    one = TypedEndpoint(schema(), schema(**given), "A", "A")
    other = TypedEndpoint(schema(**taken), schema(), "B", "B")
    executors = {
        name: Told({"/x": ""}, Generation.SECOND, {"/x": each}) for name, each in (("a", one), ("b", other))
    }
    assert (check_chains(executors, [("a", "b")]).misfits == ()) is fit


def test_an_untyped_method_takes_and_answers_anything() -> None:
    executors = {**EXECUTORS, "free": told(go=(FREE, FREE))}
    assert not check_chains(executors, [("c1", "free"), ("free", "c2")]).misfits
