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
_LONGEST_LINES: Final = 32_000


class Lines:
    """A text of several lines for a BoundedLogger, such as a traceback, without control characters."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __str__(self) -> str:
        shown = self._text[:_LONGEST_LINES]
        if len(self._text) > _LONGEST_LINES:
            shown += "..."
        return "".join(f"\n    {_printable(line)}" for line in shown.splitlines())


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
    value = _printable(value[:_LONGEST_TEXT]) + value[_LONGEST_TEXT:]
    return value if len(value) <= _LONGEST_TEXT else f"{value[:_LONGEST_TEXT]}..."


def _printable(text: str) -> str:
    return text if text.isprintable() else text.encode("unicode_escape").decode()
