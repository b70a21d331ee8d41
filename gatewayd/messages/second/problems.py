"""
What is wrong with JSON that a client sent, as entries of a 422 body in the form of pydantic 2 (spec
34/http.md).

``{"type": ..., "loc": [...], "msg": ..., "input": ..., "ctx": ...?}``: types and texts are pydantic's,
because clients of the reference may match them. The input is shown as far as it is short.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gatewayd.errors import BadRequest, Unparsable

# A place in JSON: the place around it, and the key or index there; None for the outermost. Pairs, because a
# tuple for each of a million values would have to be copied for each.
Place = tuple[Any, str | int] | None

_MAX_PROBLEMS: Final = 1000
_MAX_TEXT: Final = 500
_MAX_VALUES: Final = 50


class Problems:
    """The mistakes found so far; of a body with a million, the first thousand."""

    def __init__(self) -> None:
        self.entries: list[dict[str, object]] = []

    def add(
        self,
        place: Place,
        kind: str,
        message: str,
        value: object,
        context: Mapping[str, object] | None = None,
    ) -> None:
        """Note that ``value`` at ``place`` is wrong; ``kind`` is pydantic's name of the mistake."""
        if len(self.entries) >= _MAX_PROBLEMS:
            return
        entry: dict[str, object] = {
            "type": kind,
            "loc": list(steps(place)),
            "msg": message,
            "input": _shown(value),
        }
        if context is not None:
            entry["ctx"] = dict(context)
        self.entries.append(entry)

    def missing(self, place: Place, holder: object) -> None:
        self.add(place, "missing", "Field required", holder)

    def not_an_object(self, place: Place, value: object) -> None:
        text = "Input should be a valid dictionary or object to extract fields from"
        self.add(place, "model_attributes_type", text, value)

    def not_a_dict(self, place: Place, value: object) -> None:
        self.add(place, "dict_type", "Input should be a valid dictionary", value)

    def not_a_list(self, place: Place, value: object) -> None:
        self.add(place, "list_type", "Input should be a valid list", value)

    def too_deep(self, place: Place, limit: int) -> None:
        text = f"Input is nested too deeply: more than {limit} levels of messages"
        self.add(place, "recursion_loop", text, None)

    def check(self) -> None:
        """Raises BadRequest if there are any."""
        if not self.entries:
            return
        first = self.entries[0]
        where = ".".join(str(step) for step in first["loc"])  # type: ignore[attr-defined]
        more = len(self.entries) - 1
        text = f"{where}: {first['msg']}" + (f" (and {more} more problems)" if more else "")
        raise BadRequest(text, self.entries)


def not_json(reason: str, position: int) -> Unparsable:
    """The error for a body that is not JSON, from ``position`` on."""
    entry = {
        "type": "json_invalid",
        "loc": ["body", position],
        "msg": "JSON decode error",
        "input": {},
        "ctx": {"error": reason},
    }
    return Unparsable(f"the body is not JSON: {reason}, at character {position}", [entry])


def steps(place: Place) -> tuple[str | int, ...]:
    """The keys and indexes that lead to a place."""
    found: list[str | int] = []
    while place is not None:
        place, step = place
        found.append(step)
    return tuple(reversed(found))


def place_of(*path: str | int) -> Place:
    """The place that these keys and indexes lead to."""
    place: Place = None
    for step in path:
        place = (place, step)
    return place


def _shown(value: object) -> object:
    if isinstance(value, str):
        return value if len(value) <= _MAX_TEXT else value[:_MAX_TEXT] + "…"
    if isinstance(value, dict | list) and not _is_short(value):
        return "…"
    return value


def _is_short(value: object) -> bool:
    """Whether the texts and values within ``value`` are few."""
    left, room = [value], _MAX_VALUES
    text = 0
    while left:
        item = left.pop()
        room -= 1
        if isinstance(item, dict):
            room -= len(item)
            text += sum(len(key) for key in item) if room >= 0 else 0
            left += item.values() if room >= 0 else ()
        elif isinstance(item, list):
            room -= len(item)
            left += item if room >= 0 else ()
        elif isinstance(item, str):
            text += len(item)
        if room < 0 or text > _MAX_TEXT:
            return False
    return True
