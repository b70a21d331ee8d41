"""
Records requests and their answers in a file (``gatewayd/recording.py``), for ``gatewayd replay``.

An ``Observer``. Lines are made and written by a pool thread, one job at a time; what has not been written yet
is bounded, and what finds no room is left out of the recording, never waited for.

Answers of a stream are held until it ends: of one stream, and of all that are under way, up to a bound. Those
behind it are counted alone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
from google.protobuf.message import DecodeError
from twisted.internet.defer import CancelledError, TimeoutError
from twisted.logger import Logger
from twisted.python.failure import Failure

from gatewayd.bounded_log import BoundedLogger
from gatewayd.clocks import Timer
from gatewayd.config.recording import RecordConfig
from gatewayd.messages.redacting import Redaction
from gatewayd.messages.request import Request, Response
from gatewayd.messages.wire import encode_request, encode_response
from gatewayd.offload import Offload
from gatewayd.recording import Answers, Heading, NotARecording, Recorded, heading_of
from gatewayd.redaction import beginning_of
from gatewayd.telemetry.metrics.outcomes import OK, ended_as
from gatewayd.telemetry.observed import Exchange
from gatewayd.waiters import Waiters

log = Logger()
bounded = BoundedLogger()

# Of requests and answers that wait to be written; a larger one is recorded when nothing waits.
_MOST_WAITING_BYTES: Final = 16 << 20
# What one job writes, so that a stop waits for no more.
_JOB_BYTES: Final = 1 << 20
# What a request counts for besides its content, and what an answer of a stream does.
_ENTRY_BYTES: Final = 1024
_ANSWER_BYTES: Final = 256
# Of the answers of streams that have not ended: those of one, and of all.
_MOST_OF_A_STREAM_BYTES: Final = 4 << 20
_MOST_HELD_BYTES: Final = 16 << 20
# Many requests share a trip to a pool thread.
_DELAY_S: Final = 0.1
_LONGEST_ERROR: Final = 500
_PIECE_BYTES: Final = 1 << 16
# A disk that is full, or a folder that has gone: it is tried again after so many seconds.
_LONGEST_HEADING: Final = 1 << 16
_PAUSE_S: Final = 10.0
# After so many requests, rules of redaction that have found nothing are told of.
_LOOKED_AT: Final = 100
# How long a stop waits for what has not been written.
_STOP_S: Final = 2.0


@attrs.frozen
class _Entry:
    """A request that has ended, not yet in the form of a file."""

    at: float
    took_s: float
    protocol: str
    request: Request
    response: Response | None
    outcome: str
    error: str | None
    size: int
    stream: _Held | None = None


class _Held:
    """The answers of one stream, as far as they are kept."""

    __slots__ = ("answers", "began_s", "drawn", "first_s", "left_out", "recorder", "size")

    def __init__(self, recorder: Recorder, began_s: float, drawn: bool) -> None:
        self.recorder = recorder
        self.began_s = began_s
        self.drawn = drawn
        self.answers: list[tuple[float, Response]] = []
        self.first_s: float | None = None
        self.left_out = 0
        self.size = 0

    def add(self, response: Response, now_s: float) -> None:
        """The next answer has come."""
        at_s = now_s - self.began_s
        if self.first_s is None:
            self.first_s = at_s
        size = _ANSWER_BYTES + len(response.documents) + len(response.parameters or b"")
        # What comes after one that was left out is left out, too: a record is a beginning without gaps.
        if self.left_out or not self.recorder.take(self, size):
            self.left_out += 1
        else:
            self.answers.append((at_s, _without_headers(response)))


class Recorder:
    """
    Writes to ``config.path``. Reactor thread only.

    ``dropped`` counts the requests that found no room, or could not be written; ``written`` the others.
    """

    def __init__(
        self,
        config: RecordConfig,
        flow: str | None,
        offload: Offload,
        clock: Any,
        *,
        wall_clock: Callable[[], float] = time.time,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self.written = 0
        self.dropped = 0
        self._config = config
        self._offload = offload
        self._clock = clock  # IReactorTime
        self._wall_clock = wall_clock
        self._dice = dice
        self._file = RecordFile(config, flow)
        self._waiting: deque[_Entry] = deque()
        self._waiting_bytes = 0
        self._streams: dict[Exchange, _Held] = {}  # those under way
        self._held_bytes = 0
        self._writing = False
        self._timer: Timer | None = None
        self._stopping = False
        self._resumes_s = 0.0
        self._idle: Waiters[None] = Waiters()

    def open(self) -> None:
        """Begin the file, at the start of the gateway. Raises OSError if it cannot be written."""
        self._file.open()

    def discard(self) -> None:
        """Close the file, in which nothing was recorded. Any thread; or after ``stop``."""
        self._file.close()

    def began(self, exchange: Exchange) -> None:
        """The answers of a stream that may be recorded are kept from its beginning on."""
        if exchange.answers is None:
            return
        config = self._config
        drawn = config.sample >= 1 or self._dice() < config.sample
        if drawn or config.keep == "errors" or config.slower_than_s is not None:
            held = self._streams[exchange] = _Held(self, exchange.began_s, drawn)
            exchange.answered = held.add

    def take(self, held: _Held, size: int) -> bool:
        """Whether there is room for an answer of ``size`` bytes, which is then taken."""
        most = min(_MOST_OF_A_STREAM_BYTES, self._config.max_bytes // 2)
        if held.size + size > most or self._held_bytes + size > _MOST_HELD_BYTES:
            return False
        held.size += size
        self._held_bytes += size
        return True

    def ended(self, exchange: Exchange) -> None:
        """It is recorded, if it is one of those that are."""
        config = self._config
        held: _Held | None = None
        if exchange.answers is not None:
            held = self._streams.pop(exchange, None)
            if held is None:
                return
            self._held_bytes -= held.size
            drawn = held.drawn
        else:
            drawn = config.sample >= 1 or self._dice() < config.sample
        if not drawn and not self._is_kept(exchange):
            return
        response, request = exchange.response if held is None else None, exchange.request
        size = _ENTRY_BYTES + len(request.endpoint) + len(request.documents) + len(request.parameters)
        if response is not None:
            size += len(response.documents) + len(response.parameters or b"")
        if held is not None:
            size += held.size
        if self._waiting_bytes and self._waiting_bytes + size > _MOST_WAITING_BYTES:
            self._drop(1, "they come faster than they can be written")
            return
        outcome, error = _outcome(exchange)
        took_s = exchange.ended_s - exchange.began_s
        self._waiting.append(
            _Entry(
                self._wall_clock() - took_s,
                took_s,
                exchange.protocol,
                attrs.evolve(request, headers=(), journey=None),
                None if response is None else _without_headers(response),
                outcome,
                error,
                size,
                held,
            )
        )
        self._waiting_bytes += size
        if not self._writing and self._timer is None:
            self._go_on()

    def _is_kept(self, exchange: Exchange) -> bool:
        """Whether it is recorded though it was not drawn."""
        config = self._config
        if config.keep == "errors" and ended_as(exchange.response, exchange.error) != OK:
            return True
        return config.slower_than_s is not None and exchange.ended_s - exchange.began_s > config.slower_than_s

    async def stop(self) -> None:
        """Returns when all that waits has been written, or after two seconds."""
        self._stopping = True
        idle = self._idle.wait()
        if self._timer is not None:
            self._timer.cancel()
            self._due()
        elif not self._writing:
            self._go_on()
        try:
            await idle.addTimeout(_STOP_S, self._clock)
        except TimeoutError:
            self._drop(len(self._waiting), "the gateway stops")

    def _go_on(self) -> None:
        """Write what waits: soon, with all that comes until then, or now if it is much."""
        if not self._waiting:
            self._idle.fire(None)
        elif self._stopping or self._waiting_bytes >= _JOB_BYTES:
            self._write()
        else:
            self._timer = self._clock.callLater(_DELAY_S, self._due)

    def _due(self) -> None:
        self._timer = None
        self._write()

    def _write(self) -> None:
        entries: list[_Entry] = []
        size = 0
        while self._waiting and (not entries or size + self._waiting[0].size <= _JOB_BYTES):
            entry = self._waiting.popleft()
            size += entry.size
            entries.append(entry)
        if self._clock.seconds() < self._resumes_s:
            self._waiting_bytes -= size
            self._drop(len(entries), "the file cannot be written")
            self._go_on()
            return
        self._writing = True
        self._offload(self._file.write, entries).addBoth(self._wrote, len(entries), size)

    def _wrote(self, result: object, count: int, size: int) -> None:
        self._writing = False
        self._waiting_bytes -= size
        if isinstance(result, Failure):
            self._failed(result, count)
        else:
            assert isinstance(result, Counter)
            self.written += count - result.total()
            for why, dropped in result.items():
                self._drop(dropped, why)
            for rule in self._file.take_unmet():
                log.warn(
                    "gateway.record.redact: {rule} has found nothing in the first {count} requests of "
                    "{path}; if its name is wrong, what it is to leave out is in the file",
                    rule=rule,
                    count=_LOOKED_AT,
                    path=self._config.path,
                )
        self._go_on()

    def _failed(self, failure: Failure, count: int) -> None:
        if failure.check(OSError):
            self._resumes_s = self._clock.seconds() + _PAUSE_S
            self._drop(count, f"{self._config.path} cannot be written: {failure.getErrorMessage()}")
        elif failure.check(CancelledError):  # the gateway has stopped
            self._drop(count, "the gateway stops")
        else:
            self.dropped += count
            log.failure("requests could not be recorded", failure=failure)

    def _drop(self, count: int, why: str) -> None:
        self.dropped += count
        bounded.warn(
            "{dropped} requests so far are not in the recording: {why}", dropped=self.dropped, why=why
        )


class RecordFile:
    """
    The file, which begins anew when it would become larger than it may; the one before is kept as ``.1``.

    One job at a time.
    """

    def __init__(self, config: RecordConfig, flow: str | None) -> None:
        self._config = config
        self._flow = flow
        self._redaction = Redaction.of(config.redact)
        self._met: set[str] = set()  # the rules that have found something
        self._recorded_count = 0
        self._has_told = False
        self._path = Path(config.path)
        self._descriptor: int | None = None
        self._size = 0

    def write(self, entries: Sequence[_Entry]) -> Counter[str]:
        """
        Append the entries, but for those that cannot be redacted, or are longer than the file may be.

        Returns how many were not written, by the reason why. Raises OSError.
        """
        left_out: Counter[str] = Counter()
        most = self._config.max_bytes - len(self._heading().to_line())
        lines = []
        for entry in entries:
            try:
                recorded = self._recorded(entry).fitted(most)
            except DecodeError:
                left_out["their documents cannot be read, and so not redacted"] += 1
            else:
                if recorded is None:
                    left_out[f"one alone is longer than max_bytes ({self._config.max_bytes})"] += 1
                else:
                    lines.append(recorded.to_line())
        self._recorded_count += len(lines)
        try:
            for line in lines:
                self._append(line)
        except OSError:
            self.close()
            raise
        return left_out

    def take_unmet(self) -> list[str]:
        """The rules that have found nothing in the first requests, once; none before there were enough."""
        if self._recorded_count < _LOOKED_AT or self._has_told:
            return []
        self._has_told = True
        return [rule for rule in self._config.redact if rule not in self._met]

    def _heading(self) -> Heading:
        return Heading(self._flow, time.time(), self._config.redact)

    def _append(self, line: bytes) -> None:
        if self._descriptor is not None and self._size + len(line) > self._config.max_bytes:
            self.close()
            os.replace(self._path, f"{self._path}.1")
        if self._descriptor is None:
            self.open()
            if self._size and self._size + len(line) > self._config.max_bytes:
                self.close()
                os.replace(self._path, f"{self._path}.1")
                self.open()
        assert self._descriptor is not None
        self._put(line)

    def open(self) -> None:
        """Open the file, and begin it if it is new. Raises OSError, also for a file that is no recording."""
        # It holds documents: for its owner alone.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(self._path, flags, 0o600)
        before = _heading_in(self._descriptor) if os.fstat(self._descriptor).st_size else None
        if before is None and os.fstat(self._descriptor).st_size:
            self.close()
            raise OSError(errno.EEXIST, "it is another file, and no recording")
        self._size = _end_of_lines(self._descriptor)
        os.ftruncate(self._descriptor, self._size)
        heading = self._heading()
        if before is not None and (before.version, before.redacted) != (heading.version, heading.redacted):
            # Its heading would be wrong for what is written now. It is kept, as a full one is.
            self.close()
            os.replace(self._path, f"{self._path}.1")
            self.open()
        elif not self._size:
            self._put(heading.to_line())

    def _put(self, line: bytes) -> None:
        assert self._descriptor is not None
        left = memoryview(line)
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
        except OSError:
            # Half a line would spoil the next one.
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
            raise
        self._size += len(line)

    def close(self) -> None:
        """Of a job, or when none runs. What is written later opens it again."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def _recorded(self, entry: _Entry) -> Recorded:
        answers: Answers | None = None
        if (held := entry.stream) is not None:
            kept = tuple((at_s, self._written(response)) for at_s, response in held.answers)
            answers = Answers(kept, held.left_out, held.first_s)
        request = encode_request(entry.request)
        error = entry.error
        if self._redaction:
            request = self._redaction.applied(request, self._met)
            error = None if error is None else error.partition(":")[0]
        return Recorded(
            entry.at,
            entry.took_s,
            entry.protocol,
            entry.request.endpoint,
            entry.request.request_id,
            entry.outcome,
            request,
            None if entry.response is None else self._written(entry.response),
            error,
            answers,
        )

    def _written(self, response: Response) -> bytes:
        """An answer as it is written. Raises DecodeError."""
        message = bytes(encode_response(response))
        return self._redaction.applied(message, self._met) if self._redaction else message


def _without_headers(response: Response) -> Response:
    return attrs.evolve(response, headers=()) if response.headers else response


def _heading_in(descriptor: int) -> Heading | None:
    """That of a recording; None for any other file."""
    line, end, _ = os.pread(descriptor, _LONGEST_HEADING, 0).partition(b"\n")
    try:
        return heading_of(line) if end else None
    except NotARecording:
        return None


def _end_of_lines(descriptor: int) -> int:
    """Where the last whole line of a file ends; a gateway that was killed leaves half of one."""
    end = os.fstat(descriptor).st_size
    while end:
        begin = max(0, end - _PIECE_BYTES)
        found = os.pread(descriptor, end - begin, begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return 0


def _outcome(exchange: Exchange) -> tuple[str, str | None]:
    error = exchange.error
    outcome = ended_as(exchange.response, error)
    if error is None or isinstance(error, CancelledError):
        return outcome, None
    return outcome, beginning_of(f"{type(error).__name__}: {error}", _LONGEST_ERROR)
