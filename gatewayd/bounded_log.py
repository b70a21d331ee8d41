"""
Log lines that clients can cause: so many a second and no more.

A line's kind is its logger's name and its format. Of each kind a few lines are written in a second; before
the next one there is a line that says how many were left out. Texts in them are cut and have no control
characters, because they may be a client's.
"""

from __future__ import annotations

from typing import Any, Final

from twisted.logger import Logger

from gatewayd.allowance import Allowance

_LONGEST_TEXT: Final = 500


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
