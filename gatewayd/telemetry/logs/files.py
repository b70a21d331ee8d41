"""
The log's file, which another program may move away: logrotate, or a person.

A signal then has it opened anew (``Logs.reopen``). By itself it starts a new file from a megabyte on, as
twistd does.
"""

from __future__ import annotations

import fcntl
import os
from typing import Any

from twisted.python import threadable
from twisted.python.logfile import LogFile


class MovableFile(LogFile):
    """twistd's log file; any thread may write. The older ones have numbers: ``twistd.log.1`` is the last."""

    synchronized = ["reopen", "start_anew"]  # noqa: RUF012

    _file: Any

    def start_anew(self) -> None:
        """
        Open the file again if it has been moved, and else move it oneself.

        Raises OSError if a new one cannot be opened; the old one is written on then.
        """
        if self._is_at_its_path():
            self.rotate()  # type: ignore[no-untyped-call]
        else:
            self.reopen()

    def reopen(self) -> None:
        """Open what is at its path now, or make it. Raises OSError; the old file is written on then."""
        old = self._file
        try:
            self._openFile()
        except OSError:
            self._file, self.closed = old, False
            raise
        old.close()

    def _openFile(self) -> None:
        super()._openFile()  # type: ignore[no-untyped-call]
        # Where it is truncated (logrotate's copytruncate), there would else be a hole before our next line.
        flags = fcntl.fcntl(self._file, fcntl.F_GETFL)
        fcntl.fcntl(self._file, fcntl.F_SETFL, flags | os.O_APPEND)

    def _is_at_its_path(self) -> bool:
        ours = os.fstat(self._file.fileno())
        try:
            there = os.stat(self.path)
        except FileNotFoundError:
            return False
        return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)


threadable.synchronize(MovableFile)
