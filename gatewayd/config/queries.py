"""
``when``: the shape of a query, so that a wrong one is refused with its line (spec dispatch.md, `when`).

What a query means is not decided here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gatewayd.config.kinds import Kind, Refused
from gatewayd.config.problems import Path, suggestion

# docarray's find (spec dispatch.md, `when`).
_OPERATORS: Final = ("$eq", "$neq", "$lt", "$lte", "$gt", "$gte", "$in", "$nin", "$regex", "$size", "$exists")


def _condition(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise Refused
    for key, part in value.items():
        if key in ("$and", "$or"):
            if not isinstance(part, list):
                raise Refused(inside=(key,), found=part, accepted="a list of conditions")
            for index, each in enumerate(part):
                _condition_inside(each, (key, index))
        elif key == "$not":
            _condition_inside(part, (key,))
        elif key.startswith("$"):
            raise Refused(inside=(key,), message=_unknown_operator(key, ("$and", "$or", "$not")))
        elif isinstance(part, Mapping):
            for operator in part:
                if operator == "$not":
                    continue
                if operator not in _OPERATORS:
                    raise Refused(inside=(key, operator), message=_unknown_operator(operator, _OPERATORS))
    return dict(value)


def _condition_inside(value: Any, inside: Path) -> None:
    try:
        _condition(value)
    except Refused as refused:
        raise Refused(
            inside=inside + refused.inside,
            found=value if refused.found is ... else refused.found,
            accepted=refused.accepted or CONDITION.accepted,
            message=refused.message,
        ) from refused


def _unknown_operator(word: str, known: tuple[str, ...]) -> str:
    return f"unknown operator; accepted: {', '.join(known)}{suggestion(word, known)}"


CONDITION: Final = Kind("a map such as {tags__k: {$eq: 1}}", _condition)
