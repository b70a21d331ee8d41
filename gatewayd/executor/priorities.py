"""
How an executor's process writes to gatewayd's log: lines on standard error, with their priority before them.

This is the form of sd-daemon(3), ``<4>`` for a warning, which the supervisor takes off again. A line without
one, such as what a library prints, is information.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Final

from gatewayd.executor.logger import SUCCESS

# Python's level from which on a record has this priority of syslog(3).
_PRIORITIES: Final = (
    (logging.CRITICAL, 2),
    (logging.ERROR, 3),
    (logging.WARNING, 4),
    (SUCCESS, 5),
    (logging.INFO, 6),
)
_DEBUG: Final = 7
_LEVELS: Final[Mapping[str, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "success": SUCCESS,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}


class PriorityFormatter(logging.Formatter):
    """A formatter that begins each line of a record, those of its traceback included, with the priority."""

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{priority_of(record.levelno)}>"
        return "\n".join(prefix + line for line in super().format(record).split("\n"))


def priority_of(level: int) -> int:
    """The priority of a level of Python's ``logging``."""
    return next((priority for least, priority in _PRIORITIES if level >= least), _DEBUG)


def begin_logging() -> None:
    """Write what this process logs to standard error, from ``info`` on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PriorityFormatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def set_level(name: str) -> None:
    """Write from this level on, a name of the reference's or of ours; what is none changes nothing."""
    level = _LEVELS.get(name.strip().lower())
    if level is not None:
        logging.getLogger().setLevel(level)
