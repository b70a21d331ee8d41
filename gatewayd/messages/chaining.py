"""
Whether executors that are chained understand each other, by the schemas that they tell (spec 34/schemas.md).

Two classes fit if their fields have the same names and, where both schemas say one, the same types; of
documents within documents no more is compared. The reference compares one edge of each executor, and refuses
a Flow whose next executor does not bind an endpoint; here all edges count, and such a one is passed over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs

from gatewayd.messages.discovery import DEFAULT, DRY_RUN, Schema, Told, TypedEndpoint
from gatewayd.messages.second.schemas import UNTYPED

_MOST_FIELDS: Final = 20


@attrs.frozen
class Chaining:
    """``misfits`` are edges that cannot work; ``passed_over`` those whose second executor lacks endpoints."""

    misfits: tuple[str, ...] = ()
    passed_over: tuple[str, ...] = ()


def check_chains(told: Mapping[str, Told | None], edges: Iterable[tuple[str, str]]) -> Chaining:
    """
    What is wrong with the ``edges``, each from one Deployment to the next, in words.

    Nothing is said of executors of the first generation, and of those that have told nothing.
    """
    misfits: list[str] = []
    passed_over: list[str] = []
    for before, after in edges:
        first, second = told.get(before), told.get(after)
        if first is None or second is None or not first.typed or not second.typed:
            continue
        lacking = []
        for endpoint, one in first.typed.items():
            if endpoint == DRY_RUN:
                continue
            other = second.typed.get(endpoint)
            if other is None:
                if DEFAULT not in second.typed:
                    lacking.append(endpoint)
            elif not fits(one, other):
                misfits.append(_misfit(before, after, endpoint, one, other))
        if lacking:
            passed_over.append(
                f"{after} binds neither {', '.join(lacking)}, which {before} before it does, nor {DEFAULT}: "
                f"it is passed over there"
            )
    return Chaining(tuple(misfits), tuple(passed_over))


def fits(before: TypedEndpoint, after: TypedEndpoint) -> bool:
    """Whether what ``before`` answers is what ``after`` takes. Untyped methods take and answer anything."""
    if UNTYPED in (before.output_name, after.input_name):
        return True
    given, taken = _properties(before.output), _properties(after.input)
    return given.keys() == taken.keys() and all(_same_type(given[name], taken[name]) for name in given)


def _same_type(given: Any, taken: Any) -> bool:
    types = [each.get("type") if isinstance(each, Mapping) else None for each in (given, taken)]
    return None in types or types[0] == types[1]


def _properties(schema: Schema) -> Mapping[str, Any]:
    found = schema.get("properties")
    return found if isinstance(found, Mapping) else {}


def _misfit(before: str, after: str, endpoint: str, one: TypedEndpoint, other: TypedEndpoint) -> str:
    return (
        f"the output schema of {before} at {endpoint} is incompatible with the input schema of {after}: "
        f"{before} answers with {_shown(one.output_name, one.output)}, and {after} takes "
        f"{_shown(other.input_name, other.input)}; give both classes the same fields and types, or do "
        f"not let {after} need {before}"
    )


def _shown(name: str, schema: Schema) -> str:
    """``Mid(id: string or null, mid: integer, text: string)``"""
    fields = [f"{field}: {_type_of(part)}" for field, part in sorted(_properties(schema).items())]
    if len(fields) > _MOST_FIELDS:
        fields = [*fields[:_MOST_FIELDS], f"and {len(fields) - _MOST_FIELDS} more"]
    return f"{name}({', '.join(fields)})"


def _type_of(part: Any) -> str:
    if not isinstance(part, Mapping):
        return "any"
    if isinstance(options := part.get("anyOf"), list):
        return " or ".join(_type_of(each) for each in options)
    if isinstance(reference := part.get("$ref"), str):
        return reference.rpartition("/")[2]
    if isinstance(items := part.get("items"), Mapping) and part.get("type") == "array":
        return f"array of {_type_of(items)}"
    found = part.get("type")
    return found if isinstance(found, str) else "any"
