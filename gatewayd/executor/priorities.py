"""
How an executor's process writes to gatewayd's log: lines on standard error, with their priority before them.

This is the form of sd-daemon(3), ``<4>`` for a warning, which the supervisor takes off again. A line without
one, such as what a library prints, is information. A record with several lines, such as a traceback, is one
line here, with characters of its own for their ends, so that it is one entry of the log.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import sys
from collections.abc import Mapping
from typing import Final

import attrs

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

# Of ASCII, the separators of records and groups: the first stands for the end of a line within a record, the
# second is followed by the id of the request that it is about, in JSON.
_NEW_LINE: Final = "\x1e"
_ABOUT: Final = "\x1d"
_ESCAPED: Final = str.maketrans({"\n": _NEW_LINE, _NEW_LINE: r"\x1e", _ABOUT: r"\x1d"})
# The supervisor takes no longer line as one, and this is in bytes of four for each character.
_LONGEST: Final = 15_000
_LONGEST_ID: Final = 200
_begins_traceback: Final = re.compile(
    r"\n(?=(?:  \+ Exception Group )?Traceback \(most recent call last\):)"
).search
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
    """
    A formatter that makes one line of each record, for ``entry_of``. A very long one becomes several.
    """

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{priority_of(record.levelno)}>"
        text = super().format(record)
        if len(text) > _LONGEST:
            return "\n".join(prefix + line for line in text.split("\n"))
        request_id = getattr(record, "request_id", None)
        text = text.translate(_ESCAPED)
        about = "" if request_id is None else _ABOUT + json.dumps(str(request_id)[:_LONGEST_ID])
        return prefix + text + about


@attrs.frozen
class Entry:
    """
    What a process has written as one: a record, or a line that it printed.

    ``priority`` is syslog(3)'s, None for a line without one.
    """

    priority: int | None
    message: str
    traceback: str | None = None
    request_id: str | None = None


def entry_of(line: str) -> Entry:
    """The entry in a line of a process's output."""
    if len(line) < 3 or line[0] != "<" or line[2] != ">" or line[1] not in "01234567":
        return Entry(None, line)
    text, request_id = line[3:], None
    before, mark, about = text.rpartition(_ABOUT)
    if mark:
        with contextlib.suppress(ValueError):
            text, request_id = before, str(json.loads(about))
    text = text.replace(_NEW_LINE, "\n")
    if found := _begins_traceback(text):
        return Entry(int(line[1]), text[: found.start()], text[found.start() + 1 :], request_id)
    return Entry(int(line[1]), text, None, request_id)


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
