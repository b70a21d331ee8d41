"""Lines that executors print, as entries of our log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from twisted.logger import Logger, LogLevel

from gatewayd.executor.priorities import Entry, entry_of

# The priorities of syslog(3), as Twisted's levels.
_LEVELS: Final[Mapping[int, Any]] = {
    **dict.fromkeys((0, 1, 2), LogLevel.critical),
    3: LogLevel.error,
    4: LogLevel.warn,
    **dict.fromkeys((5, 6), LogLevel.info),
    7: LogLevel.debug,
}


def write_line(output: Logger, replica: str, line: str, fields: Mapping[str, str]) -> None:
    """Log what ``replica`` has printed (executor/priorities.py)."""
    write_entry(output, replica, entry_of(line), fields)


def write_entry(output: Logger, replica: str, entry: Entry, fields: Mapping[str, str]) -> None:
    """The same, of a line that has been read."""
    more: dict[str, Any] = dict(fields)
    if entry.request_id:
        more["request_id"] = entry.request_id
    if entry.traceback:
        more["log_traceback"] = entry.traceback  # of telemetry/logs/forms.py
    level = LogLevel.info if entry.priority is None else _LEVELS[entry.priority]
    output.emit(level, "{replica}: {line}", replica=replica, line=entry.message, **more)
