"""
Parses YAML text into plain values and records the position of each.

The dialect is the reference's: YAML 1.1 scalars, except that ``on``, ``off``, dates and sexagesimal numbers
such as ``1:30`` are text. The result has maps, lists and scalars only: no tag creates an object. A local tag
on a map, such as ``!Flow``, is read as ``jtype: Flow``.
"""

from __future__ import annotations

import re
from typing import Any, Final

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from gatewayd.config.problems import KeyPath, Place, Position, Source

# With aliases a small text can expand to very many values; a Flow with this many is a mistake or an attack.
MOST_VALUES: Final = 100_000
_LONGEST_TEXT: Final = 4 * 1024 * 1024

_BOOLEANS: Final = {"true": True, "yes": True, "false": False, "no": False}
_STANDARD: Final = "tag:yaml.org,2002:"


class _Composer(yaml.SafeLoader):
    """SafeLoader with this dialect's scalars. Only its composer is used, which makes the node graph."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 PyYAML's attribute


def _resolves(tag: str, pattern: str, first: str) -> None:
    _Composer.add_implicit_resolver(_STANDARD + tag, re.compile(pattern), list(first))


_resolves("bool", r"^(?:yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE)$", "yYnNtTfF")
_resolves("int", r"^[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0o[0-7_]+|[0-9][0-9_]*)$", "-+0123456789")
_resolves(
    "float",
    r"^[-+]?(?:(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+"
    r"|\.(?:inf|Inf|INF))$|^\.(?:nan|NaN|NAN)$",
    "-+0123456789.",
)
_Composer.add_implicit_resolver(
    _STANDARD + "null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]
)
_Composer.add_implicit_resolver(_STANDARD + "merge", re.compile(r"^<<$"), ["<"])


def parse(text: str, source: Source) -> Any:
    """
    The value of ``text``; ``source`` gets the positions.

    Returns None for an empty text, and for one that cannot be read, which is reported in ``source``.
    """
    place = Place(source)
    if len(text) > _LONGEST_TEXT:
        place.refuse(f"the text is longer than {_LONGEST_TEXT} characters")
        return None
    try:
        root = _Composer(text).get_single_node()
        return None if root is None else _Reader(source).value(root, ())
    except yaml.MarkedYAMLError as error:
        if mark := error.problem_mark or error.context_mark:
            source.positions[()] = Position(mark.line + 1, mark.column + 1)
        place.refuse(f"this is not YAML: {error.problem or error.context}")
    except yaml.YAMLError as error:
        place.refuse(f"this is not YAML: {str(error).splitlines()[0]}")
    except RecursionError:
        place.refuse("the values are nested too deeply")
    except _TooMany:
        place.refuse(f"there are more than {MOST_VALUES} values; are anchors repeated?")
    return None


class _TooMany(Exception):
    """More values than MOST_VALUES."""


class _Reader:
    """Turns one node graph into plain values; each use of an alias becomes a separate value."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._count = 0
        self._open: set[int] = set()

    def value(self, node: Node, path: KeyPath) -> Any:
        self._count += 1
        if self._count > MOST_VALUES:
            raise _TooMany
        mark = node.start_mark
        self._source.positions.setdefault(path, Position(mark.line + 1, mark.column + 1))
        if isinstance(node, ScalarNode):
            return self._scalar(node, path)
        if id(node) in self._open:
            Place(self._source, path).refuse("an anchor is used inside itself")
            return None
        self._open.add(id(node))
        try:
            if isinstance(node, SequenceNode):
                self._check_tag(node, path, "seq")
                return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
            return self._map(node, path) if isinstance(node, MappingNode) else None
        finally:
            self._open.remove(id(node))

    def _check_tag(self, node: Node, path: KeyPath, expected: str) -> None:
        if node.tag not in (_STANDARD + expected, "!"):
            Place(self._source, path).refuse(f"the tag {_shown_tag(node.tag)} is not accepted here")

    def _map(self, node: MappingNode, path: KeyPath) -> dict[str, Any]:
        entries: dict[str, Any] = {}
        if re.fullmatch(r"![A-Za-z_][\w.:]*", node.tag):
            entries["jtype"] = node.tag[1:]
        else:
            self._check_tag(node, path, "map")
        merged: list[Node] = []
        seen: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag == _STANDARD + "merge":
                merged.append(value_node)
                continue
            if not isinstance(key_node, ScalarNode):
                Place(self._source, path).refuse(f"a key of line {line} is not text")
                continue
            key = key_node.value
            inside = (*path, key)
            if key in seen:
                Place(self._source, inside).refuse(f"given twice, in lines {seen[key]} and {line}")
                continue
            seen[key] = line
            self._source.positions[inside] = Position(line, key_node.start_mark.column + 1)
            entries[key] = self.value(value_node, inside)
        for value_node in merged:
            self._merge(value_node, path, entries)
        return entries

    def _merge(self, node: Node, path: KeyPath, entries: dict[str, Any]) -> None:
        maps = node.value if isinstance(node, SequenceNode) else [node]
        for each in maps:
            if not isinstance(each, MappingNode):
                Place(self._source, path).refuse("<< takes a map or a list of maps")
            elif id(each) in self._open:
                Place(self._source, path).refuse("an anchor is used inside itself")
            else:
                self._open.add(id(each))
                for key, value in self._map(each, path).items():
                    entries.setdefault(key, value)
                self._open.remove(id(each))

    def _scalar(self, node: ScalarNode, path: KeyPath) -> Any:
        text: str = node.value
        match node.tag.removeprefix(_STANDARD):
            case "str" | "!":
                return text
            case "null":
                return None
            case "bool" if text.lower() in _BOOLEANS:
                return _BOOLEANS[text.lower()]
            case "int" | "float":
                number = as_number(text)
                if number is not None:
                    return number
        Place(self._source, path).refuse(f"this text is not accepted with the tag {_shown_tag(node.tag)}")
        return None


def _shown_tag(tag: str) -> str:
    return tag.replace(_STANDARD, "!!", 1)


def as_number(text: str) -> int | float | None:
    """``text`` as a number of YAML or Python, or None if it is not one."""
    plain = text.replace("_", "")
    try:
        return int(plain, 0) if re.match(r"[-+]?0[xob]", plain) else int(plain, 10)
    except ValueError:
        pass
    try:
        return float(re.sub(r"^([-+]?)\.(?=inf|nan)", r"\1", plain.lower()))
    except ValueError:
        return None
