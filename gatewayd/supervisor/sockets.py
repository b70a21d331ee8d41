"""
A private folder for the sockets of the executors that one gateway starts: no other user can call them.

A file in it is locked for as long as its process lives. Folders whose lock is free were left behind by
processes that were killed, and are removed by the next start.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from twisted.logger import Logger

from gatewayd.errors import ConfigError
from gatewayd.schemes import SOCKET_LIMIT_BYTES

log = Logger()

_PREFIX: Final = "gatewayd-sockets-"
_LOCK: Final = "lock"
_NAME_LIMIT: Final = 20
# Room for a name, a dot and a number of seven digits after the folder's own path.
_FOLDER_LIMIT_BYTES: Final = SOCKET_LIMIT_BYTES - 1 - _NAME_LIMIT - 1 - 7
# A folder without a lock may belong to a process that is just making it.
_ABANDONED_S: Final = 60.0


class SocketFolder:
    """The folder at ``path``, which ``remove`` and the end of the process remove with its sockets."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock: int | None = lock
        self._count = 0
        atexit.register(self.remove)

    @classmethod
    def create(cls, environment: Mapping[str, str] = os.environ) -> SocketFolder:
        """Raises ConfigError if no folder is fit for it. Blocks for a moment."""
        refused = []
        for parent in _parents(environment):
            try:
                _check(parent)
                _remove_abandoned(parent)
                folder = _created(parent)
            except OSError as error:
                refused.append(f"{parent}: {error.strerror or error}")
            else:
                return folder
        raise ConfigError(
            "executors need a folder for their sockets that only this user can enter, and there is none "
            f"({'; '.join(refused)}); set TMPDIR to a folder of yours, or give each executor a port"
        )

    def socket_for(self, name: str) -> str:
        """A path for the socket of the replica ``name``, different at each call."""
        index, self._count = self._count, self._count + 1
        return str(self.path / f"{re.sub(r'[^A-Za-z0-9_-]', '_', name)[:_NAME_LIMIT]}.{index}")

    def remove(self) -> None:
        """Harmless when repeated."""
        if self._lock is not None:
            _remove(self.path)
            os.close(self._lock)
            self._lock = None
            atexit.unregister(self.remove)


def _parents(environment: Mapping[str, str]) -> Iterable[Path]:
    """Where such a folder may be made, the best place first: systemd's, the session's, any other."""
    names = [
        environment.get("RUNTIME_DIRECTORY", "").partition(":")[0],
        environment.get("XDG_RUNTIME_DIR", ""),
        environment.get("TMPDIR", ""),
        tempfile.gettempdir(),
        "/tmp",
        "/dev/shm",  # there even where nothing of the file system can be written
    ]
    return dict.fromkeys(Path(name) for name in names if name.startswith("/"))


def _check(parent: Path) -> None:
    """Raises OSError for a folder in which another user could put something in the place of ours."""
    found = parent.stat()
    if found.st_uid not in (0, os.geteuid()):
        raise PermissionError(f"it belongs to the user {found.st_uid}")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not found.st_mode & stat.S_ISVTX:
        raise PermissionError("other users may rename what is in it")
    if len(os.fsencode(parent)) + 1 + len(_PREFIX) + 8 > _FOLDER_LIMIT_BYTES:
        raise OSError("its path is too long for a socket")


def _created(parent: Path) -> SocketFolder:
    path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    try:
        lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not os.fstat(lock).st_nlink:
                raise OSError("another process removed it")
        except OSError:
            os.close(lock)
            raise
    except OSError:
        _remove(path)
        raise
    return SocketFolder(path, lock)


def _remove_abandoned(parent: Path) -> None:
    for path in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            found = path.lstat()
            if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and _is_abandoned(path, found):
                _remove(path)
                log.info("removed {path}, which a process that was killed left behind", path=str(path))


def _is_abandoned(path: Path, found: os.stat_result) -> bool:
    try:
        lock = os.open(path / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        return time.time() - found.st_mtime > _ABANDONED_S
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True


def _remove(path: Path) -> None:
    """Remove the folder with its sockets and its lock; one in which something else lies stays."""
    with contextlib.suppress(OSError):
        for each in path.iterdir():
            if each.name == _LOCK or stat.S_ISSOCK(each.lstat().st_mode):
                each.unlink()
        path.rmdir()
