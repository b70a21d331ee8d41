"""
The file of an access log, written in pool threads: a slow disk delays no request.

    add() ──> a few entries ──> their lines, up to a limit ── a fifth of a second ──> one write in a thread

What comes while too much waits is left out, and counted.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from gatewayd.clocks import Clock, Timer
from gatewayd.errors import ConfigError
from gatewayd.offload import Offload
from gatewayd.telemetry.access_log import Entry

log = Logger()

# Lines come late by so much at most; each write is a crossing of threads.
_DELAY_S: Final = 0.2
# Entries become lines so many at once: what a loop does is quicker than the same between requests. Thousands
# of entries would be work for the garbage collector, and a pause for the requests.
_AT_ONCE: Final = 32
# A few megabytes: some seconds of what one process serves.
MOST_WAITING: Final = 10_000
_MODE: Final = 0o640
# After an error the next one is told no sooner.
_SILENCE_S: Final = 60.0
# What a stop waits for the last lines.
_LAST_WRITE_S: Final = 1.0


class AccessFile:
    """
    Entries on their way to a file. Reactor thread only, but for what ``offload`` runs.

    Lines are appended in whole, so that several processes may write to one file.
    """

    def __init__(self, path: str, form: Callable[[Entry], str], clock: Clock, offload: Offload) -> None:
        """Opens the file; blocks for a moment. Raises ConfigError."""
        self.dropped = 0  # since the start
        self._path = path
        self._form = form
        self._clock = clock
        self._offload = offload
        self._entries: list[Entry] = []
        self._waiting: list[str] = []  # the lines of those that came before
        self._timer: Timer | None = None
        self._is_writing = False
        self._reopens = False
        self._ended: Deferred[None] | None = None  # of a stop
        self._told_dropped = 0
        self._silent_until_s = 0.0
        try:
            self._descriptor = _opened(path)
        except OSError as error:
            raise ConfigError(
                f"gateway.access_log.path: {path!r} cannot be opened: {error.strerror or error}"
            ) from error

    def add(self, entry: Entry) -> None:
        """Have it written soon."""
        entries = self._entries
        if len(self._waiting) + len(entries) >= MOST_WAITING or self._ended is not None:
            self.dropped += 1
            return
        entries.append(entry)
        if len(entries) >= _AT_ONCE:
            self._put_into_words()
        if self._timer is None and not self._is_writing:
            self._timer = self._clock.callLater(_DELAY_S, self._write)

    def reopen(self) -> None:
        """Somebody has moved the file: what comes from now on goes into a new one."""
        if self._ended is None:
            self._reopens = True
            self._write_now()

    def discard(self) -> None:
        """Close the file, for which there were no entries. Any thread."""
        os.close(self._descriptor)

    def stop(self) -> Deferred[None]:
        """Fires when all is written and the file is closed, or that takes too long."""
        done = self._ended = Deferred()
        limit = self._clock.callLater(_LAST_WRITE_S, done.callback, None)
        done.addBoth(lambda _: limit.cancel() if limit.active() else None)
        self._write_now()
        return done

    def _write_now(self) -> None:
        """At once, or after what is being written."""
        if self._timer is not None:
            self._timer.cancel()
        if not self._is_writing:
            self._write()

    def _put_into_words(self) -> None:
        entries, self._entries = self._entries, []
        self._waiting += map(self._form, entries)

    def _write(self) -> None:
        self._timer = None
        self._put_into_words()
        self._is_writing = True
        lines, self._waiting = self._waiting, []
        reopens, self._reopens = self._reopens, False
        closes = self._ended is not None
        work = self._offload(self._write_in_thread, lines, reopens, closes)
        work.addErrback(self._failed, len(lines)).addCallback(self._written, closes).addErrback(
            lambda failure: log.failure("the access log cannot be written", failure=failure)
        )

    def _write_in_thread(self, lines: list[str], reopens: bool, closes: bool) -> None:
        """Any thread, but one at a time. Raises OSError."""
        if reopens:
            opened = _opened(self._path)
            os.close(self._descriptor)
            self._descriptor = opened
        data = "\n".join([*lines, ""]).encode()
        try:
            _write_all(self._descriptor, data)
        finally:
            if closes:
                os.close(self._descriptor)

    def _written(self, _: object, was_closed: bool) -> None:
        self._is_writing = False
        self._tell_dropped()
        if self._ended is not None:
            if not was_closed:
                self._write()
            elif not self._ended.called:
                self._ended.callback(None)
        elif self._reopens:
            self._write()
        elif self._waiting or self._entries:
            self._timer = self._clock.callLater(_DELAY_S, self._write)

    def _tell_dropped(self) -> None:
        now_s = self._clock.seconds()
        if self.dropped == self._told_dropped or now_s < self._silent_until_s:
            return
        log.warn(
            "{count} lines of the access log were left out: they come faster than {path} can be written",
            count=self.dropped - self._told_dropped,
            path=self._path,
        )
        self._silent_until_s = now_s + _SILENCE_S
        self._told_dropped = self.dropped

    def _failed(self, failure: Failure, count: int) -> None:
        self.dropped += count
        self._told_dropped += count
        if failure.check(CancelledError):
            return  # the gateway's threads have ended
        if not failure.check(OSError):
            # A bug: these lines are lost, and the next ones are written.
            log.failure("the access log cannot be written", failure=failure)
            return
        now_s = self._clock.seconds()
        if now_s >= self._silent_until_s:
            self._silent_until_s = now_s + _SILENCE_S
            log.error(
                "the access log cannot be written to {path}, and {count} lines are lost: {error}",
                path=self._path,
                count=count,
                error=str(failure.value),
            )


def _opened(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _MODE)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
