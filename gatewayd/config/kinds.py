"""
What a value may look like. Each ``ValueKind`` says it in words and converts a file's value to the model's, so
that messages, documentation and behaviour have one source.

The kinds here are general; those that only Flow files have are in ``flow_kinds``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

from gatewayd.config.problems import KeyPath, suggestion


class Refused(Exception):
    """
    A value is not of its kind.

    ``inside`` leads to the part that is wrong, ``found`` is that part, and ``accepted`` says what it should
    have been. A ``message`` replaces both.
    """

    def __init__(
        self,
        *,
        inside: KeyPath = (),
        found: Any = ...,
        accepted: str | None = None,
        message: str | None = None,
    ) -> None:
        self.inside = inside
        self.found = found
        self.accepted = accepted
        self.message = message
        super().__init__(message or accepted or "refused")


@attrs.frozen
class ValueKind:
    """
    ``accepted`` completes "accepted: ..."; ``read`` returns the model's value or raises Refused.

    ``literal`` is for texts: a variable's value is taken as it is written, without guessing its type.
    ``annotation`` is the type that Python code may pass (see ``tools/keywords.py``).
    """

    accepted: str
    read: Callable[[Any], Any]
    literal: bool = False
    annotation: str = attrs.field(default="Any", kw_only=True)


def boolean_of(value: Any) -> bool:
    """A boolean, or its YAML word as text. Raises Refused."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise Refused


def integer_of(value: Any) -> int:
    """An integer, or its decimal text. Raises Refused."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and re.fullmatch(r"[-+]?[0-9]{1,18}", value.strip()):
        return int(value)
    raise Refused


def number_of(value: Any) -> float:
    """A finite number, or its decimal text, as a float. Raises Refused."""
    if isinstance(value, str) and re.fullmatch(r"[-+]?[0-9]{1,15}(\.[0-9]{1,15})?", value.strip()):
        return float(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15:
        return float(value)
    raise Refused  # also for infinity and NaN


def integer(least: int, most: int | None = None) -> ValueKind:
    def read(value: Any) -> int:
        number = integer_of(value)
        if number < least or number > (most if most is not None else 1 << 62):
            raise Refused
        return number

    accepted = f"an integer from {least} to {most}" if most is not None else f"an integer from {least} up"
    return ValueKind(accepted, read, annotation="int")


def seconds(*, zero: bool) -> ValueKind:
    def read(value: Any) -> float:
        number = number_of(value)
        if number < 0 or (number == 0 and not zero):
            raise Refused
        return number

    return ValueKind(
        f"a number of seconds, {'0 or more' if zero else 'more than 0'}", read, annotation="float"
    )


def share() -> ValueKind:
    def read(value: Any) -> float:
        number = number_of(value)
        if not 0 <= number <= 1:
            raise Refused
        return number

    return ValueKind("a number from 0 to 1", read, annotation="float")


def choice(*words: str, also: Mapping[str, str] | None = None) -> ValueKind:
    """One of ``words`` in any case; ``also`` maps further lower-case spellings to one of them."""
    spellings = {word.lower(): word for word in words} | dict(also or {})
    spelt = (*words, *(also or {}))

    def read(value: Any) -> str:
        if isinstance(value, str):
            if value.lower() in spellings:
                return spellings[value.lower()]
            raise Refused(accepted=f"{', '.join(words)}{suggestion(value.lower(), spellings)}")
        raise Refused

    # Any case is accepted; the type lists the words as written, because editors complete them.
    return ValueKind(", ".join(words), read, annotation=f"Literal[{', '.join(map(json.dumps, spelt))}]")


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    # To YAML a name such as 7 or a version such as 1.0 is a number; its author means text.
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise Refused


def scalar_text(value: Any) -> str:
    """A text, number or boolean as text. Raises Refused."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    raise Refused


def _texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list | tuple):
        for index, item in enumerate(value):
            if not isinstance(item, str):
                raise Refused(inside=(index,), found=item, accepted="text")
        return tuple(value)
    raise Refused


def map_from(value: Any) -> dict[str, Any]:
    """A map whose keys are texts, as a dict. Raises Refused."""
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return dict(value)
    raise Refused


def read_map(value: Any, kinds: Mapping[str, ValueKind]) -> dict[str, Any]:
    """A map of settings, each of its kind; those without a value are left out. Raises Refused."""
    found: dict[str, Any] = {}
    for key, given in map_from(value).items():
        if key not in kinds:
            text = f"unknown key; accepted: {', '.join(kinds)}{suggestion(key, kinds)}"
            raise Refused(inside=(key,), message=text)
        if given is None:
            continue
        try:
            found[key] = kinds[key].read(given)
        except Refused as refused:
            raise Refused(
                inside=(key, *refused.inside),
                found=given if refused.found is ... else refused.found,
                accepted=refused.accepted or kinds[key].accepted,
                message=refused.message,
            ) from None
    return found


def _from_json(value: Any) -> Any:
    """``value``, parsed if it is the JSON text of a map."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError) as error:
            raise Refused(message=f"this is not JSON: {error}") from error
    return value


def _json_map(value: Any) -> dict[str, Any]:
    return map_from(_from_json(value))


def map_of(each: ValueKind, of_what: str, *, check_key: Callable[[str], str] = str) -> ValueKind:
    """A map, or JSON text of one, whose values are all of the kind ``each``."""

    def read(value: Any) -> dict[str, Any]:
        result = {}
        for key, item in _json_map(value).items():
            try:
                result[check_key(key)] = each.read(item)
            except Refused as refused:
                raise Refused(
                    inside=(key, *refused.inside),
                    found=item if refused.found is ... else refused.found,
                    accepted=refused.accepted or each.accepted,
                    message=refused.message,
                ) from refused
        return result

    annotation = f"Mapping[str, {each.annotation}] | str"
    return ValueKind(f"a map of {of_what}", read, literal=each.literal, annotation=annotation)


def _anything(value: Any) -> Any:
    return value


BOOLEAN: Final = ValueKind("true or false", boolean_of, annotation="bool")
TEXT: Final = ValueKind("text", _text, literal=True, annotation="str | Path")
TEXTS: Final = ValueKind("a text or a list of texts", _texts, literal=True, annotation="Texts")
MAP: Final = ValueKind("a map", map_from, annotation="Mapping[str, Any]")
JSON_MAP: Final = ValueKind("a map, or JSON text of one", _json_map, annotation="Mapping[str, Any] | str")
ANYTHING: Final = ValueKind("anything", _anything)
