"""
Reads the JSON object of a request in OpenAI's form, field by field.

A field that is null counts as one that is missing, as in OpenAI's API. Fields that nobody asks for are
ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

from gatewayd.errors import InvalidField
from gatewayd.messages.json_form.requests import parsed

Check = Callable[[Any, str], Any]

_LONGEST_NAME: Final = 256  # names of models have at most a hundred or so


def fields_of(body: bytes) -> Mapping[str, Any]:
    """The fields that are not null. Raises Unparsable, InvalidField."""
    value = parsed(body)
    if not isinstance(value, dict):
        raise InvalidField("the body is no JSON object")
    return {name: each for name, each in value.items() if each is not None}


def text(value: Any, param: str) -> str:
    """A string. Like all of these, raises InvalidField for other values."""
    if type(value) is not str:
        raise InvalidField("a string is wanted", param)
    return value


def model_name(value: Any, param: str) -> str:
    """A string that is not long, as each chunk of an answer repeats it."""
    name = text(value, param)
    if len(name) > _LONGEST_NAME:
        raise InvalidField(f"a string of at most {_LONGEST_NAME} characters is wanted", param)
    return name


def boolean(value: Any, param: str) -> bool:
    """True or false."""
    if type(value) is not bool:
        raise InvalidField("true or false is wanted", param)
    return value


def mapping(value: Any, param: str) -> Mapping[str, Any]:
    """An object."""
    if type(value) is not dict:
        raise InvalidField("an object is wanted", param)
    return value


def objects(value: Any, param: str) -> list[Any]:
    """A list of objects."""
    if type(value) is not list or not all(type(each) is dict for each in value):
        raise InvalidField("a list of objects is wanted", param)
    return value


def text_or_object(value: Any, param: str) -> Any:
    """Either of the two."""
    if type(value) not in (str, dict):
        raise InvalidField("a string or an object is wanted", param)
    return value


@attrs.frozen
class Integer:
    """An integer within bounds; ``most`` is None for none."""

    least: int
    most: int | None = None

    def __call__(self, value: Any, param: str) -> int:
        # A client may write 16.0, which JSON does not tell apart.
        whole = type(value) is int or (type(value) is float and value.is_integer())
        if not whole or value < self.least or (self.most is not None and value > self.most):
            most = "up" if self.most is None else f"to {self.most}"
            raise InvalidField(f"an integer from {self.least} {most} is wanted", param)
        return int(value)


@attrs.frozen
class Number:
    """A number within bounds."""

    least: float
    most: float

    def __call__(self, value: Any, param: str) -> float:
        if type(value) not in (int, float) or not self.least <= value <= self.most:
            raise InvalidField(f"a number from {self.least:g} to {self.most:g} is wanted", param)
        return float(value)


def stops(value: Any, param: str) -> list[str]:
    """One string or several, at which a text ends: always as a list."""
    found = [value] if type(value) is str else value
    if type(found) is not list or not all(type(each) is str for each in found):
        raise InvalidField("a string or a list of strings is wanted", param)
    return found


def checked(fields: Mapping[str, Any], checks: Mapping[str, Check]) -> dict[str, Any]:
    """Those of ``fields`` that there are ``checks`` for."""
    return {name: check(fields[name], name) for name, check in checks.items() if name in fields}
