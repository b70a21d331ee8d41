"""
What a line of the log looks like: for people, as JSON for programs, or as systemd's journal wants it.

``Form``s turn an event of Twisted's logger into text that ends with a newline; None where there is nothing to
write.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final

from twisted.logger import LogEvent, LogLevel, formatEvent, formatTime

Form = Callable[[LogEvent], str | None]

# Of syslog(3), by the names of Twisted's levels.
PRIORITIES: Final[Mapping[str, int]] = {"critical": 2, "error": 3, "warn": 4, "info": 6, "debug": 7}

# Keys of an event: further fields, or what makes them if somebody looks; the traceback of a worker's, a text.
FIELDS: Final = "log_fields"
TRACEBACK: Final = "log_traceback"

# The format of an event whose message is one of its fields as it is. Each request may have such a line, and
# Twisted's formatting takes longer than all the rest of it.
ENTRY: Final = "{entry}"

# What is as long is part of the message.
_LONGEST_FIELD: Final = 256
_NO_FIELDS: Final = (
    "line",
    "text",
    "entry",
    "format",
    "isError",
    "message",
    "system",
    "time",
    "failure",
    "why",
)
_OWN_NAMES: Final = ("time", "level", "namespace", "message", "traceback")


def level_of(event: LogEvent) -> str:
    """The name of its level."""
    name: str = event.get("log_level", LogLevel.info).name
    return name


def namespace_of(event: LogEvent) -> str:
    """The part that wrote it; ``-`` if that is unknown."""
    return str(event.get("log_namespace") or "-")


def message_of(event: LogEvent) -> str:
    """Its text; empty if it has none."""
    if event.get("log_format") == ENTRY:
        return str(event["entry"])
    return formatEvent(event)


def traceback_of(event: LogEvent) -> str | None:
    """The traceback of its failure, None without."""
    found = event.get(TRACEBACK)
    if found is None and (failure := event.get("log_failure")) is not None:
        try:
            found = failure.getTraceback()
        except Exception as error:
            found = f"(the traceback cannot be shown: {error!r})"
    return None if found is None else str(found).rstrip("\n")


def fields_of(event: LogEvent) -> dict[str, Any]:
    """What an event says besides its message, as far as it is short and plain."""
    found = {
        name: value
        for name, value in event.items()
        if not name.startswith("log_")
        and name not in _NO_FIELDS
        and (value is None or isinstance(value, str | int | float | bool))
        and len(str(value)) <= _LONGEST_FIELD
    }
    further = event.get(FIELDS)
    if further is not None:
        found.update(further() if callable(further) else further)
    return found


def whole_text(event: LogEvent) -> str:
    """The message, and the traceback below it; empty if there is neither."""
    return "\n".join(part for part in (message_of(event), traceback_of(event)) if part)


def as_text(event: LogEvent) -> str | None:
    """A line for people, as twistd has always written it; further lines of the event are indented."""
    text = whole_text(event)
    if not text:
        return None
    system = event.get("log_system") or f"{namespace_of(event)}#{level_of(event)}"
    return f"{_local(event.get('log_time'))} [{system}] {text}".replace("\n", "\n\t") + "\n"


def as_json(event: LogEvent) -> str | None:
    """
    An object on one line: ``time`` (RFC 3339, UTC), ``level``, ``namespace``, ``message``, and ``traceback``.

    Its fields stand beside them; one whose name is among these gets an underscore.
    """
    message, traceback = message_of(event), traceback_of(event)
    if not message and not traceback:
        return None
    if (line := event.get("line")) is not None and "replica" in event:
        message = str(line)  # an executor's own; whose it is is a field
    found: dict[str, Any] = {
        "time": _rfc3339(event.get("log_time")),
        "level": level_of(event),
        "namespace": namespace_of(event),
        "message": message,
    }
    for name, value in fields_of(event).items():
        found[f"{name}_" if name in _OWN_NAMES else name] = value
    if traceback:
        found["traceback"] = traceback
    return json.dumps(found, default=str) + "\n"


def for_journal(event: LogEvent) -> str | None:
    """
    For systemd's journal: each line begins with its priority (sd-daemon(3)); the journal has the time.
    """
    text = whole_text(event)
    return prefixed(event, f"[{namespace_of(event)}] {text}") if text else None


def json_for_journal(event: LogEvent) -> str | None:
    """As ``as_json``, with the priority before it."""
    text = as_json(event)
    return prefixed(event, text.rstrip("\n")) if text else None


def prefixed(event: LogEvent, text: str) -> str:
    """``text`` with the event's priority before each line; indented further ones pass for no other event."""
    prefix = f"<{PRIORITIES.get(level_of(event), 3)}>"
    first, *others = text.splitlines()
    return f"{prefix}{first}\n" + "".join(f"{prefix}\t{line}\n" for line in others)


def form_of(log_format: str, *, journal: bool) -> Form:
    """The form of ``text`` or ``json``."""
    if log_format == "json":
        return json_for_journal if journal else as_json
    return for_journal if journal else as_text


def _local(time_s: float | None) -> str:
    return formatTime(None) if time_s is None else _local_second(int(time_s))


@lru_cache(maxsize=4)
def _local_second(time_s: int) -> str:
    return formatTime(time_s)


def _rfc3339(time_s: float | None) -> str:
    whole_s, micros = divmod(round((time_s or 0.0) * 1e6), 1_000_000)
    return f"{_utc_second(whole_s)}.{micros:06d}Z"


@lru_cache(maxsize=4)
def _utc_second(time_s: int) -> str:
    return datetime.datetime.fromtimestamp(time_s, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S")
