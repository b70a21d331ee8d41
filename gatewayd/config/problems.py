"""
Where settings stand in their files, and what is wrong with them.

Loading does not stop at the first problem: each part reports at its ``Place`` and continues with a default,
and at the end the loader raises one ``ConfigError`` that lists every problem.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs

from gatewayd.errors import ConfigError
from gatewayd.redaction import without_passwords

KeyPath = tuple[str | int, ...]

# Long enough to recognise a value, short enough that a list of problems can be read.
_LONGEST_VALUE: Final = 80


@attrs.frozen(order=True)
class Position:
    """A line and column of a text, both counted from 1."""

    line: int
    column: int


@attrs.define
class Diagnostics:
    """
    What was found while one Flow was loaded.

    ``problems`` make it invalid, ``conflicts`` keep a valid Flow from being served, and ``warnings`` are for
    the caller's log. Each line maps to the file and position that it is sorted by. ``files`` have been read.
    """

    problems: dict[str, tuple[str, Position]] = attrs.field(factory=dict)
    warnings: dict[str, tuple[str, Position]] = attrs.field(factory=dict)
    conflicts: dict[str, tuple[str, Position]] = attrs.field(factory=dict)
    files: list[str] = attrs.field(factory=list)

    def raise_problems(self) -> None:
        """Raise one ConfigError with every problem on a line of its own, if there are any."""
        if self.problems:
            raise ConfigError("\n".join(self.ordered(self.problems)))

    def ordered(self, lines: Mapping[str, tuple[str, Position]]) -> list[str]:
        """Lines in the order of their places, file by file, the first reported file first."""
        files = {name: index for index, name in reversed(list(enumerate(name for name, _ in lines.values())))}
        return sorted(lines, key=lambda line: (files[lines[line][0]], lines[line][1]))


@attrs.frozen
class Source:
    """
    One text: its name for messages, and the positions of its values by path.

    ``texts`` keeps variables as they were before their type was guessed, because a key that wants text must
    get ``007`` and not 7; ``read_as_texts`` records where that happened. ``unset`` names the environment
    variables that values refer to but that are not set.
    """

    name: str
    diagnostics: Diagnostics
    positions: dict[KeyPath, Position] = attrs.field(factory=dict)
    texts: dict[KeyPath, str] = attrs.field(factory=dict, repr=False)
    read_as_texts: dict[KeyPath, Any] = attrs.field(factory=dict, repr=False)
    unset: dict[KeyPath, str] = attrs.field(factory=dict)

    def locate(self, path: KeyPath) -> Position | None:
        """The position of the value at ``path``, or of what contains it; None if it comes from no text."""
        for length in range(len(path), -1, -1):
            if position := self.positions.get(path[:length]):
                return position
        return None

    def literal(self, path: KeyPath, value: Any) -> Any:
        """``value``, found at ``path``, with variables as they were written, one level deep."""
        if isinstance(value, Mapping):
            literal: Any = {key: self.texts.get((*path, key), item) for key, item in value.items()}
        else:
            literal = self.texts.get(path, value)
        if literal != value:
            self.read_as_texts[path] = literal
        return literal


@attrs.frozen
class Place:
    """The place of one value in a source; problems with the value are reported here."""

    source: Source
    path: KeyPath = ()

    def inside(self, *steps: str | int) -> Place:
        return Place(self.source, self.path + steps)

    def refuse(self, message: str) -> None:
        self._add(message, self.source.diagnostics.problems)

    def refuse_value(self, found: Any, accepted: str, *, secret: bool = False) -> None:
        """Report a value that is not accepted. For a ``secret`` one only the type is shown."""
        unset = [name for path, name in self.source.unset.items() if path[: len(self.path)] == self.path]
        if unset:
            self.refuse(f"the environment variable {unset[0]} is not set; accepted: {accepted}")
            return
        self.refuse(f"found {type_name(found) if secret else show(found)}; accepted: {accepted}")

    def conflict(self, message: str) -> None:
        self._add(message, self.source.diagnostics.conflicts)

    def warn(self, message: str) -> None:
        self._add(message, self.source.diagnostics.warnings)

    @property
    def where(self) -> str:
        """The source, and the line and column in it if it is a text."""
        position = self.source.locate(self.path)
        name = self.source.name
        return f"{name}:{position.line}:{position.column}" if position else name

    def _add(self, message: str, lines: dict[str, tuple[str, Position]]) -> None:
        position = self.source.locate(self.path)
        key, message = without_passwords(path_text(self.path)), without_passwords(message)
        line = f"{self.where}: {key}: {message}" if key else f"{self.where}: {message}"
        lines.setdefault(line, (self.source.name, position or Position(0, 0)))


def path_text(path: KeyPath) -> str:
    """``("executors", 0, "port")`` as ``executors[0].port``."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def type_name(value: Any) -> str:
    """The type of a value, in the words of a Flow file's author."""
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
    """A value as messages quote it: short scalars and lists in full, everything else by type."""
    if value is None or isinstance(value, Mapping) or not isinstance(value, str | int | float | list | tuple):
        return type_name(value)
    if isinstance(value, bool):
        return str(value).lower()
    try:
        text = without_passwords(repr(value))  # before it is cut: a part of a URL cannot be recognised
    except (RecursionError, ValueError):  # a list that holds itself; an integer too long to print
        return type_name(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."


def suggestion(word: str, known: Iterable[str]) -> str:
    """``; did you mean port?``, or an empty text if no known word is similar."""
    near = nearest(word, known, most=1)
    return f"; did you mean {near[0]}?" if near else ""


def nearest(word: str, known: Iterable[str], *, most: int) -> list[str]:
    """Up to ``most`` of the ``known`` words: first those that begin with ``word``, then similar ones."""
    words = sorted(known)
    begun = [each for each in words if len(word) > 2 and each.startswith(word)]
    like = difflib.get_close_matches(word, words, n=most, cutoff=0.6)
    ratios = [difflib.SequenceMatcher(None, each, word).ratio() for each in like]
    # Several words of about the same similarity may each be meant; a clearly closer one rules out the rest.
    like = [each for each, ratio in zip(like, ratios, strict=True) if ratio > max(ratios) - 0.1]
    return list(dict.fromkeys([*begun, *like]))[:most]
