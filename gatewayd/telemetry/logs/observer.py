"""
The observer of Twisted's logger that writes a process's log.

``Logs`` decides what is written, and in what form; a ``Sink`` takes the lines.
"""

from __future__ import annotations

import os
import syslog
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Protocol

from twisted.logger import ILogObserver, LogEvent, Logger
from zope.interface import implementer

from gatewayd.telemetry.logs.files import MovableFile
from gatewayd.telemetry.logs.forms import Form, form_of, level_of, namespace_of
from gatewayd.telemetry.logs.from_logging import let_through, take_over
from gatewayd.telemetry.logs.levels import Levels
from gatewayd.telemetry.logs.settings import LogSettings

log = Logger()


class Sink(Protocol):
    """Where the lines of a log go. Any thread may write."""

    def write(self, text: str) -> None:
        """``text`` is what the form has made of an event, with a newline."""
        ...

    def reopen(self) -> None:
        """Somebody has moved the file, or wants a new one. Raises OSError; the old one is written on then."""
        ...


@implementer(ILogObserver)
class Logs:
    """
    The log of one process: events that the ``levels`` admit, in a ``form``, for a ``sink``.

    ``problems`` are texts on settings of the log that could not be used, which it tells when it begins.
    """

    def __init__(self, levels: Levels, form: Form, sink: Sink, problems: tuple[str, ...] = ()) -> None:
        self.levels = levels
        self.form = form
        self._sink = sink
        self._problems = problems

    def __call__(self, event: LogEvent) -> None:
        if self.levels.admits(namespace_of(event), level_of(event)):
            text = self.form(event)
            if text:
                self._sink.write(text)

    def begin(self) -> None:
        """The log is written from now on: say what was wrong with its settings."""
        take_over(self.levels)
        for problem in self._problems:
            log.warn("{problem}", problem=problem)

    def set_level(self, level: str, namespace: str) -> None:
        """As ``Levels.set``."""
        self.levels.set(level, namespace)
        let_through(self.levels)

    def replace_levels(self, levels: Levels) -> None:
        """Those of other settings, in place of all that were set. Reactor thread."""
        self.levels = levels
        let_through(levels)

    def reopen(self) -> None:
        """Open the log's file anew, if it has one. Reactor thread."""
        try:
            self._sink.reopen()
        except OSError as error:
            log.error("the log's file cannot be opened anew, and the old one is written on: {error}",
                      error=str(error))  # fmt: skip


class StreamSink:
    """Standard output or standard error, as it was when the process began."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        try:
            self._stream.write(text)
        except UnicodeEncodeError:  # a terminal or pipe of another encoding
            self._stream.write(text.encode("ascii", "backslashreplace").decode("ascii"))
        self._stream.flush()

    def reopen(self) -> None:
        """There is no file of ours."""


class FileSink:
    """A file, which is opened at once. Raises OSError."""

    def __init__(self, path: str | Path) -> None:
        self._file: Any = MovableFile.fromFullPath(str(path))  # type: ignore[no-untyped-call]

    def write(self, text: str) -> None:
        self._file.write(text.encode("utf-8", "backslashreplace"))

    def reopen(self) -> None:
        self._file.start_anew()


class SyslogSink:
    """The system's log, for twistd's ``--syslog``, of lines as the journal gets them, each after ``name``."""

    def __init__(self, name: str) -> None:
        syslog.openlog(name, syslog.LOG_PID)

    def write(self, text: str) -> None:
        for line in text.splitlines():
            # A NUL ends a text of C's.
            syslog.syslog(int(line[1]), line[3:].replace("\0", "\\x00"))

    def reopen(self) -> None:
        """There is no file of ours."""


def stream_logs(stream: IO[str], settings: LogSettings, environ: Mapping[str, str]) -> Logs:
    """A log on a stream, with priorities where that is connected to systemd's journal."""
    form = form_of(settings.log_format, journal=is_journal(stream, environ))
    return Logs(settings.levels(), form, StreamSink(stream), settings.problems)


def is_journal(stream: IO[str], environ: Mapping[str, str]) -> bool:
    """Whether the stream is the one that JOURNAL_STREAM names (systemd.exec(5))."""
    named = environ.get("JOURNAL_STREAM", "")
    if not named:
        return False
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return named == f"{found.st_dev}:{found.st_ino}"
