"""How many lines of each kind may be logged in a second."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable
from typing import Final

LINES_PER_S: Final = 10
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


class Bounded(logging.Filter):
    """Bounds a logger of the standard library: ``logger.addFilter(Bounded())``."""

    def __init__(self, allowance: Allowance | None = None) -> None:
        super().__init__()
        self._allowance = allowance or Allowance()

    def filter(self, record: logging.LogRecord) -> bool:
        left_out = self._allowance.take((record.name, record.msg))
        if left_out:
            record.msg = f"({left_out} more lines like this one were left out) {record.msg}"
        return left_out is not None
