"""
What Python's ``logging`` is told in a process that serves, by gateway classes and libraries, in its log.

Each record becomes one event: its logger's name is the namespace, and its traceback comes along.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from twisted.logger import Logger, LogLevel

from gatewayd.telemetry.logs.forms import TRACEBACK
from gatewayd.telemetry.logs.levels import Levels

_LEVELS: Final = (
    (logging.CRITICAL, LogLevel.critical),
    (logging.ERROR, LogLevel.error),
    (logging.WARNING, LogLevel.warn),
    (logging.INFO, LogLevel.info),
)
_PYTHONS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}
_formatter: Final = logging.Formatter()


class ToTheLog(logging.Handler):
    """Passes records on to Twisted's logger. Any thread."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            details: dict[str, Any] = {}
            if record.exc_info and record.exc_info[0] is not None:
                details[TRACEBACK] = _formatter.formatException(record.exc_info)
            Logger(namespace=record.name).emit(
                level_of(record.levelno), "{text}", text=record.getMessage(), **details
            )
        except Exception:
            self.handleError(record)


def level_of(number: int) -> Any:
    """Twisted's level for one of Python's."""
    return next((level for least, level in _LEVELS if number >= least), LogLevel.debug)


def take_over(levels: Levels) -> None:
    """Have what is logged from now on in the log, as ``levels`` say; once for a process."""
    root = logging.getLogger()
    root.addHandler(ToTheLog())
    let_through(levels)


def let_through(levels: Levels) -> None:
    """Again after the levels have changed: what none of them admits is not even made."""
    logging.getLogger().setLevel(_PYTHONS[levels.least])
