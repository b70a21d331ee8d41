"""
What a JSON schema says of values besides their type: enumerations, bounds, lengths, patterns.

The reference's gateway leaves them to the executor, whose error is a 500; here they are part of a 422.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Mapping
from typing import Any, Final

import attrs

from gatewayd.messages.second.problems import Place, Problems

# Patterns come from executors, and texts from clients: a pattern that takes long must not stop the gateway.
# Those of plain parts are checked, where a text of this length takes a millisecond or less; whatever else
# there is, groups and alternatives among it, is left to the executor.
_PATTERN_TEXT: Final = 256
_PART: Final = (
    r"(?:\[\^?(?:\\[dDwWsS.\-/\]\[^$+*?(){}|]|[^\]\\\[])+\]"
    r"|\\[dDwWsS.\-/^$+*?(){}|\[\]]|[^\\.^$*+?{}()\[\]|]|\.)"
)
_VARIABLE: Final = r"[*+]|\{\d{1,4},\d{0,4}\}"
_PLAIN: Final = re.compile(rf"\^?(?:{_PART}(?:{_VARIABLE}|\?|\{{\d{{1,4}}\}})?)*\$?")
_REPEATS: Final = re.compile(rf"{_PART}(?P<variable>{_VARIABLE}|\?)?(?:\{{\d{{1,4}}\}})?|[\^$]")


@attrs.frozen
class Limits:
    """None of these is None where it is set. ``some`` is whether any of them is."""

    enum: tuple[Any, ...] | None = None
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    multiple_of: float | None = None
    shortest: int | None = None
    longest: int | None = None
    pattern: re.Pattern[str] | None = None
    some: bool = attrs.field(init=False)

    @some.default
    def _any_of_them(self) -> bool:
        return any(
            limit is not None
            for limit in (
                *(self.enum, self.ge, self.gt, self.le, self.lt, self.multiple_of),
                *(self.shortest, self.longest, self.pattern),
            )
        )

    @classmethod
    def of(cls, schema: Mapping[str, Any]) -> Limits:
        """The limits in a JSON schema. Those that make no sense are passed over: executors check theirs."""
        enum = schema.get("enum")
        if enum is None and "const" in schema:
            enum = [schema["const"]]
        lengths = ("minLength", "maxLength") if schema.get("type") != "array" else ("minItems", "maxItems")
        shortest, longest = (_number(schema.get(name)) for name in lengths)
        return cls(
            enum=tuple(enum) if isinstance(enum, list) else None,
            ge=_number(schema.get("minimum")),
            gt=_number(schema.get("exclusiveMinimum")),
            le=_number(schema.get("maximum")),
            lt=_number(schema.get("exclusiveMaximum")),
            multiple_of=_number(schema.get("multipleOf")) or None,
            shortest=None if shortest is None else int(shortest),
            longest=None if longest is None else int(longest),
            pattern=harmless(schema.get("pattern")),
        )

    def admit(self, value: Any, place: Place, problems: Problems) -> bool:
        """Whether a converted value keeps to the limits; if not, that is noted."""
        before = len(problems.entries)
        if self.enum is not None and not any(_same(value, allowed) for allowed in self.enum):
            expected = _either(self.enum)
            problems.add(place, "literal_error", f"Input should be {expected}", value, {"expected": expected})
            return False
        if type(value) in (int, float):
            self._check_number(value, place, problems)
        elif type(value) is str:
            self._check_length("String", "character", value, place, problems)
            if (
                self.pattern is not None
                and len(value) <= _PATTERN_TEXT
                and self.pattern.search(value) is None
            ):
                shown = self.pattern.pattern
                text = f"String should match pattern '{shown}'"
                problems.add(place, "string_pattern_mismatch", text, value, {"pattern": shown})
        elif type(value) is list:
            self._check_length("List", "item", value, place, problems)
        return len(problems.entries) == before

    def _check_number(self, value: float, place: Place, problems: Problems) -> None:
        for kind, name, text, limit, kept in (
            ("greater_than_equal", "ge", "greater than or equal to", self.ge, operator.ge),
            ("greater_than", "gt", "greater than", self.gt, operator.gt),
            ("less_than_equal", "le", "less than or equal to", self.le, operator.le),
            ("less_than", "lt", "less than", self.lt, operator.lt),
            ("multiple_of", "multiple_of", "a multiple of", self.multiple_of, _is_multiple),
        ):
            if limit is not None and not kept(value, limit):
                problems.add(place, kind, f"Input should be {text} {_plain(limit)}", value, {name: limit})

    def _check_length(self, what: str, unit: str, value: Any, place: Place, problems: Problems) -> None:
        length = len(value)
        kinds = ("string_too_short", "string_too_long") if what == "String" else ("too_short", "too_long")
        for kind, name, words, limit, wrong in (
            (kinds[0], "min_length", "at least", self.shortest, -1),
            (kinds[1], "max_length", "at most", self.longest, 1),
        ):
            if limit is not None and (length - limit) * wrong > 0:
                units = unit if limit == 1 else unit + "s"
                text = f"{what} should have {words} {limit} {units}"
                problems.add(place, kind, text, value, {name: limit})


def harmless(pattern: object) -> re.Pattern[str] | None:
    """
    A pattern that takes no long time for any text; None for others, and for what is no pattern.

    Each part of it that may be of any length multiplies what a search takes with the length of the text, and
    so does a beginning that is not anchored.
    """
    if not isinstance(pattern, str) or len(pattern) > 1000 or not _PLAIN.fullmatch(pattern):
        return None
    variable = sum(1 for found in _REPEATS.finditer(pattern) if found["variable"])
    if variable + (not pattern.startswith("^")) > 2:
        return None
    try:
        return re.compile(pattern)
    except re.error:
        return None


def _number(value: object) -> float | None:
    if type(value) in (int, float) and math.isfinite(value):  # type: ignore[arg-type]
        return value  # type: ignore[return-value]
    return None


def _plain(limit: float) -> str:
    return f"{limit:g}" if abs(limit) >= 1e15 or limit != int(limit) else str(int(limit))


def _same(value: object, allowed: object) -> bool:
    """True is not 1 in JSON."""
    return value == allowed and isinstance(value, bool) == isinstance(allowed, bool)


def _either(values: tuple[Any, ...]) -> str:
    shown = [repr(value) for value in values[:20]] + (["..."] if len(values) > 20 else [])
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} or {shown[-1]}" if shown else "nothing"


def _is_multiple(value: float, limit: float) -> bool:
    if not math.isfinite(value):
        return False
    rest = abs(math.remainder(value, limit))
    return rest <= 1e-9 * max(abs(value), abs(limit))


NO_LIMITS: Final = Limits()
