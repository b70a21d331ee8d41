"""
Log lines that clients can cause: so many a second and no more.

A line's kind is its logger's name and its format. Of each kind a few lines are written in a second; before
the next one there is a line that says how many were left out. Texts in them are cut and have no control
characters, because they may be a client's.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from typing import Any, Final

from twisted.logger import Logger

LINES_PER_S: Final = 10
_LONGEST_TEXT: Final = 500
# Formats are constants of the code; this is in case one is not.
_MOST_KINDS: Final = 1000


class Allowance:
    """How many lines of each kind may be written. For any thread."""

    def __init__(self, lines_per_s: int = LINES_PER_S, seconds: Callable[[], float] = time.monotonic) -> None:
        self._lines_per_s = lines_per_s
        self._seconds = seconds
        self._lock = threading.Lock()
        self._kinds: dict[Hashable, tuple[float, int]] = {}  # since when, and how many

    def take(self, kind: Hashable) -> int | None:
        """None for a line that is to be left out, or else how many were left out before it."""
        with self._lock:
            now_s = self._seconds()
            since_s, count = self._kinds.get(kind, (now_s, 0))
            left_out = 0
            if now_s - since_s >= 1.0:
                left_out = max(0, count - self._lines_per_s)
                since_s, count = now_s, 0
            elif not count and len(self._kinds) >= _MOST_KINDS:
                self._kinds.clear()
            self._kinds[kind] = since_s, count + 1
            return left_out if count < self._lines_per_s else None


class BoundedLogger(Logger):
    """Twisted's logger for lines that clients can cause."""

    allowance = Allowance()  # one for all loggers

    def emit(self, level: Any, format: str | None = None, **kwargs: object) -> None:
        left_out = self.allowance.take((self.namespace, format))
        if left_out is None:
            return
        if left_out:
            super().emit(
                level,
                "{count} more lines like the next one were left out of the log",
                count=left_out,
            )
        super().emit(level, format, **{name: _shown(value) for name, value in kwargs.items()})


def _shown(value: Any) -> Any:
    if isinstance(value, bytes):
        value = value[: _LONGEST_TEXT + 1].decode("utf-8", "backslashreplace")
    if not isinstance(value, str):
        return value
    if not value[:_LONGEST_TEXT].isprintable():
        value = value[:_LONGEST_TEXT].encode("unicode_escape").decode() + value[_LONGEST_TEXT:]
    return value if len(value) <= _LONGEST_TEXT else f"{value[:_LONGEST_TEXT]}..."
