"""
``target_executor``: a client's regular expression over the names of Deployments.

Any client can send a pattern, and one that backtracks keeps Python's own ``re`` busy for hours on a name of
twenty letters, with the reactor blocked meanwhile. The ``regex`` package reads the same language and takes a
timeout.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from gatewayd.errors import BadRequest

if TYPE_CHECKING:
    import regex

# Names are short: a pattern that does not backtrack takes microseconds.
_TIMEOUT_S = 0.02
_LONGEST = 1000


class TargetPattern:
    """A compiled pattern. It matches from the start of a name, but not to its end (spec dispatch.md)."""

    __slots__ = ("_known", "_pattern")

    def __init__(self, pattern: regex.Pattern[str]) -> None:
        self._pattern = pattern
        self._known: dict[str, bool] = {}

    def matches(self, name: str) -> bool:
        """Raises BadRequest for a pattern that takes too long."""
        known = self._known.get(name)
        if known is None:
            try:
                known = self._pattern.match(name, timeout=_TIMEOUT_S) is not None
            except TimeoutError:
                raise _refused("takes too long to match") from None
            self._known[name] = known
        return known


@lru_cache(maxsize=256)
def compile_target_pattern(pattern: str) -> TargetPattern:
    """Raises BadRequest for a pattern that is not a regular expression, or longer than any name needs."""
    if len(pattern) > _LONGEST:
        raise _refused(f"is longer than {_LONGEST} characters")
    import regex  # few requests have a pattern, and it costs milliseconds of every start

    try:
        return TargetPattern(regex.compile(pattern, cache_pattern=False))
    except (regex.error, OverflowError, RecursionError) as error:
        raise _refused(f"is not a regular expression: {error}") from error


def _refused(why: str) -> BadRequest:
    problem = {"loc": ["body", "targetExecutor"], "msg": why, "type": "value_error.regex"}
    return BadRequest(f"targetExecutor {why}", [problem])
