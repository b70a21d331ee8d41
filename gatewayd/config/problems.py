"""
Where a setting stands and everything that is wrong with it.

A load does not stop at its first problem: each part reports to its ``Place`` and goes on with a
default, and the loader raises one ``ConfigError`` with all of them at the end.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs

from gatewayd.errors import ConfigError

Path = tuple[str | int, ...]

# Long enough to recognise a value, short enough that a list of problems can be read.
_LONGEST_VALUE: Final = 80


@attrs.frozen
class Position:
    """A line and column of a text, both counted from 1."""

    line: int
    column: int


@attrs.define
class Report:
    """What one load found: ``problems`` refuse it, ``warnings`` go to the log of who asked for it."""

    problems: dict[str, None] = attrs.field(factory=dict)
    warnings: dict[str, None] = attrs.field(factory=dict)

    def raise_problems(self) -> None:
        """Raise one ConfigError that names every problem, one a line, if there is any."""
        if self.problems:
            raise ConfigError("\n".join(self.problems))


@attrs.frozen
class Source:
    """One text: its name for messages, and where its values stand, by path."""

    name: str
    report: Report
    positions: dict[Path, Position] = attrs.field(factory=dict)

    def locate(self, path: Path) -> str:
        """``file:line:column: `` of the value at ``path`` or of what it is in; the file alone if unknown."""
        for length in range(len(path), -1, -1):
            if position := self.positions.get(path[:length]):
                return f"{self.name}:{position.line}:{position.column}: "
        return f"{self.name}: "


@attrs.frozen
class Place:
    """One value of a source, to which reports about it are addressed."""

    source: Source
    path: Path = ()

    def inside(self, *steps: str | int) -> Place:
        return Place(self.source, self.path + steps)

    def refuse(self, message: str) -> None:
        self.source.report.problems[self._line(message)] = None

    def refuse_value(self, found: Any, accepted: str, *, secret: bool = False) -> None:
        """Report a value that is not accepted; of a ``secret`` one only the type is told."""
        self.refuse(f"found {type_name(found) if secret else show(found)}; accepted: {accepted}")

    def warn(self, message: str) -> None:
        self.source.report.warnings[self._line(message)] = None

    def _line(self, message: str) -> str:
        key = path_text(self.path)
        return self.source.locate(self.path) + (f"{key}: {message}" if key else message)


def path_text(path: Path) -> str:
    """``("executors", 0, "port")`` as ``executors[0].port``."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def type_name(value: Any) -> str:
    """What a user calls the type of a value in a file."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case Mapping():
            return "a map"
        case list() | tuple():
            return "a list"
    return f"an object of type {type(value).__name__}"


def show(value: Any) -> str:
    """A value as messages quote it: scalars in full up to a length, all else by type."""
    if value is None or isinstance(value, Mapping) or not isinstance(value, str | int | float | list | tuple):
        return type_name(value)
    if isinstance(value, bool):
        return str(value).lower()
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # a list that holds itself; an integer too long to print
        return type_name(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."


def suggestion(word: str, known: Iterable[str]) -> str:
    """``; did you mean port?``, or nothing if no known word is near."""
    near = difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""
