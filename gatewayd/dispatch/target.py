"""
``target_executor``: a client's regular expression over the names of Deployments.

The pattern comes from whoever can reach the gateway, and Python's own ``re`` can be made to work on a
twenty-letter name for hours while it holds up everybody else. The ``regex`` package reads the same
language and gives up in time.
"""

from __future__ import annotations

from functools import lru_cache

import regex

from gatewayd.errors import BadRequest

# Names are short: an honest pattern takes microseconds.
_TIMEOUT_S = 0.02
_LONGEST = 1000


class Target:
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
def compile_target(pattern: str) -> Target:
    """Raises BadRequest for what is no regular expression, or far too long for one."""
    if len(pattern) > _LONGEST:
        raise _refused(f"is longer than {_LONGEST} characters")
    try:
        return Target(regex.compile(pattern, cache_pattern=False))
    except (regex.error, OverflowError, RecursionError) as error:
        raise _refused(f"is not a regular expression: {error}") from error


def _refused(why: str) -> BadRequest:
    problem = {"loc": ["body", "targetExecutor"], "msg": why, "type": "value_error.regex"}
    return BadRequest(f"targetExecutor {why}", [problem])
