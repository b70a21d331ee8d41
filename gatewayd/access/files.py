"""Files with keys: read at the start, and again when they have changed, in a pool thread."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from gatewayd.clocks import Clock, Timer
from gatewayd.errors import ConfigError
from gatewayd.offload import Offload

log = Logger()

_LOOK_EVERY_S: Final = 2.0
_MOST_BYTES: Final = 16 << 20

Stamp = tuple[int, int, int]


class Unusable(Exception):
    """The file cannot be read, or not be used; ``str(error)`` says why, and shows nothing of it."""


class KeyFile:
    """
    One file, the value of the setting ``key``. ``parse`` makes of its content what ``take`` then gets.

    ``parse`` runs in any thread; its exceptions of the kinds ``faults`` say what is wrong with the content.
    """

    def __init__(
        self,
        key: str,
        path: str,
        parse: Callable[[bytes], Any],
        take: Callable[[Any], None],
        faults: tuple[type[Exception], ...],
    ) -> None:
        self.key = key
        self.path = path
        self.take = take
        self.stamp: Stamp | None = None  # of what was read last, whether it could be used or not
        self._parse = parse
        self._faults = faults

    def stamp_now(self) -> Stamp | None:
        """What changes when the file does; None if it is not there. Any thread."""
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def parsed(self) -> Any:
        """What is in the file. Any thread. Raises Unusable."""
        try:
            with Path(self.path).open("rb") as file:
                content = file.read(_MOST_BYTES + 1)
        except OSError as error:
            raise Unusable(f"it cannot be read: {error.strerror or type(error).__name__}") from error
        if len(content) > _MOST_BYTES:
            raise Unusable(f"it is larger than {_MOST_BYTES} bytes")
        try:
            return self._parse(content)
        except self._faults as error:
            raise Unusable(str(error)) from error
        except Exception as error:
            # Of a library, for what is far from such a file; the next change has to be seen all the same.
            raise Unusable(f"it cannot be understood ({type(error).__name__})") from error

    def load(self) -> None:
        """Read it for the first time; blocks. Raises ConfigError."""
        self.stamp = self.stamp_now()
        try:
            self.take(self.parsed())
        except Unusable as error:
            raise ConfigError(f"{self.key}: {self.path}: {error}") from error


class Rereading:
    """Looks every few seconds whether ``files`` have changed. Reactor thread only."""

    def __init__(self, files: Sequence[KeyFile], clock: Clock, offload: Offload) -> None:
        self._files = tuple(files)
        self._clock = clock
        self._offload = offload
        self._timer: Timer | None = None
        self._looking: Deferred[Any] | None = None

    def start(self) -> None:
        if self._files:
            self._timer = self._clock.callLater(_LOOK_EVERY_S, self._look)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        looking, self._looking = self._looking, None
        if looking is not None:
            looking.cancel()

    def _look(self) -> None:
        self._timer = None
        stamps = [(file, file.stamp) for file in self._files]
        self._looking = looking = self._offload(_changed, stamps)
        looking.addCallback(self._take).addErrback(self._failed)

    def _take(self, found: list[tuple[KeyFile, Stamp | None, Any]]) -> None:
        self._looking = None
        for file, stamp, content in found:
            file.stamp = stamp
            if isinstance(content, Unusable):
                log.error(
                    "{key}: {path}: {reason}; what it said before stays valid",
                    key=file.key,
                    path=file.path,
                    reason=str(content),
                )
            else:
                file.take(content)
                log.info("{key}: {path} has changed and is in use", key=file.key, path=file.path)
        self.start()

    def _failed(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            return
        self._looking = None
        log.failure("the files of auth cannot be looked at; what they said before stays valid", failure)
        self.start()


def _changed(stamps: Sequence[tuple[KeyFile, Stamp | None]]) -> list[tuple[KeyFile, Stamp | None, Any]]:
    """The files that have changed, and what is in them; in a pool thread."""
    found: list[tuple[KeyFile, Stamp | None, Any]] = []
    for file, known in stamps:
        # Taken before the content: what is written meanwhile is then read at the next look.
        stamp = file.stamp_now()
        if stamp != known:
            try:
                content = file.parsed()
            except Unusable as error:
                content = error
            found.append((file, stamp, content))
    return found
