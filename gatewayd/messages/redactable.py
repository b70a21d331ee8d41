"""
Whether rules of redaction can find anything in the documents that executors tell of (pure).

A rule with a typing error leaves nothing out, and what it was to keep secret is recorded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Final

from gatewayd.messages.discovery import DRY_RUN, Told
from gatewayd.messages.generations import Generation
from gatewayd.messages.redacting import why_none
from gatewayd.messages.second.kinds import (
    Anything,
    Dict,
    Document,
    Documents,
    Items,
    Kind,
    Nullable,
    OneOf,
    Tuple,
)
from gatewayd.messages.second.schemas import input_of, output_of

_MOST_NAMES: Final = 20
_OF_PARAMETERS: Final = "parameters"


def findless(
    rules: Iterable[str], told: Mapping[str, Told | None], generation: Generation | None
) -> list[str]:
    """
    What is wrong with those rules that find nothing in any document, a sentence for each.

    ``rules`` are as ``check_rule`` returns them, ``told`` is what the executors of each Deployment tell.
    There is no sentence where it is not known: an executor has told nothing, or its documents may have any
    field.
    """
    rules = [rule for rule in rules if rule.partition(".")[0] != _OF_PARAMETERS]
    if generation is None:
        return []
    if generation is Generation.FIRST:
        return [f"{rule}: {why_none(rule)}" for rule in rules if why_none(rule)]
    names = _names(told.values()) if rules else None
    if names is None:
        return []
    return [_of_second(rule, names) for rule in rules if _field_of(rule) not in names]


def _field_of(rule: str) -> str:
    """The field of a document that a rule is about."""
    return rule.removeprefix("fields.") if rule.startswith("fields.") else rule.partition(".")[0]


def _of_second(rule: str, names: frozenset[str]) -> str:
    name = _field_of(rule)
    if close := get_close_matches(name, sorted(names), 1):
        there = f"did you mean {close[0]}?"
    else:
        shown = sorted(names)
        more = f" and {len(shown) - _MOST_NAMES} more" if len(shown) > _MOST_NAMES else ""
        there = f"there are {', '.join(shown[:_MOST_NAMES])}{more}"
    return f"{rule}: no document of any executor has a field {name!r}; {there}"


def _names(several: Iterable[Told | None]) -> frozenset[str] | None:
    """The fields of all documents, and of documents in them; None where there may be any."""
    ahead: list[Kind | Document] = []
    for told in several:
        if told is None or not told.typed:
            return None
        for name, endpoint in told.typed.items():
            if name != DRY_RUN:  # a question of health, whose documents may be any
                ahead += [input_of(endpoint), output_of(endpoint)]
    names: set[str] = set()
    seen: set[int] = set()
    while ahead:
        kind = ahead.pop()
        if isinstance(kind, Anything | Dict):
            return None
        if isinstance(kind, Documents):
            kind = kind.of
        if isinstance(kind, Document):
            if kind.is_open:
                return None
            if id(kind) not in seen:  # documents may hold their like
                seen.add(id(kind))
                names.update(kind.fields)
                ahead += (field.kind for field in kind.fields.values())
        elif isinstance(kind, Items | Nullable):
            ahead.append(kind.kind)
        elif isinstance(kind, OneOf | Tuple):
            ahead += kind.kinds
    return frozenset(names)
