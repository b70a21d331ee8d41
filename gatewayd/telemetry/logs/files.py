"""
The log's file, which another program may move away: logrotate, or a person.

A signal then has it opened anew (``Logs.reopen``). By itself it starts a new file from a megabyte on, as
twistd does.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from typing import Any

from twisted.python import threadable
from twisted.python.logfile import LogFile


class MovableFile(LogFile):
    """
    twistd's log file; any thread may write. The older ones have numbers: ``twistd.log.1`` is the last.

    A new one has the mode of the one before, whatever the umask; one that somebody else made keeps its own.
    """

    synchronized = ["reopen", "rotate", "start_anew"]  # noqa: RUF012

    _file: Any
    _mode: int | None = None

    def start_anew(self) -> None:
        """
        Open the file again if it has been moved, and else move it oneself.

        Raises OSError if a new one cannot be opened; the old one is written on then.
        """
        if self._is_at_its_path():
            self.rotate()
        else:
            self.reopen()

    def rotate(self) -> None:
        """As twistd does. Any thread."""
        self._mode = self._mode_now()
        super().rotate()  # type: ignore[no-untyped-call]

    def reopen(self) -> None:
        """Open what is at its path now, or make it. Raises OSError; the old file is written on then."""
        old = self._file
        self._mode = self._mode_now()
        try:
            self._openFile()
        except OSError:
            self._file, self.closed = old, False
            raise
        old.close()

    def _openFile(self) -> None:
        self.defaultMode = None  # of LogFile, which would change the mode of a file that is there
        if self._mode is not None:
            with contextlib.suppress(FileExistsError):
                _make(self.path, self._mode)
        super()._openFile()  # type: ignore[no-untyped-call]
        # Where it is truncated (logrotate's copytruncate), there would else be a hole before our next line.
        flags = fcntl.fcntl(self._file, fcntl.F_GETFL)
        fcntl.fcntl(self._file, fcntl.F_SETFL, flags | os.O_APPEND)

    def _mode_now(self) -> int:
        return stat.S_IMODE(os.fstat(self._file.fileno()).st_mode)

    def _is_at_its_path(self) -> bool:
        ours = os.fstat(self._file.fileno())
        try:
            there = os.stat(self.path)
        except FileNotFoundError:
            return False
        return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)


def _make(path: str, mode: int) -> None:
    """Raises FileExistsError and other OSErrors."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        os.fchmod(descriptor, mode)  # twistd's daemons have a umask that leaves nothing to others
    finally:
        os.close(descriptor)


threadable.synchronize(MovableFile)
