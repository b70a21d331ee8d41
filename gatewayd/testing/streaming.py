"""A stream of an executor in this process, pulled as one over a connection is. Loop thread only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from google.protobuf.message import DecodeError
from twisted.internet.defer import CancelledError

from gatewayd.errors import BadRequest
from gatewayd.executor.handling import Handling, Metadata
from gatewayd.messages.headers import Headers
from gatewayd.messages.request import Answer
from gatewayd.messages.single import decode_single_answer
from gatewayd.messages.wire import Malformed
from gatewayd.rpc.channel import CallError


class LocalStream:
    """
    What the pool gets in place of ``rpc.channel.Channel.stream``; the generator runs when it is asked.

    ``gap_s`` bounds each answer, ``left_s`` all together.
    """

    def __init__(
        self,
        handling: Handling,
        message: bytes,
        metadata: Metadata,
        gap_s: float | None,
        left_s: float | None,
        on_answer: Callable[[Answer], object],
        on_end: Callable[[], object],
        on_failure: Callable[[Exception], object],
        on_closed: Callable[[], object],
    ) -> None:
        self._handling = handling
        self._message = message
        self._metadata = metadata
        self._gap_s = gap_s
        self._deadline_s = None if left_s is None else asyncio.get_running_loop().time() + left_s
        self._on_answer = on_answer
        self._on_end = on_end
        self._on_failure = on_failure
        self._on_closed = on_closed
        self._asked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting = False
        self._over = False
        self._outcome: tuple[Exception | None] | None = None  # until it is asked for
        self._timer: asyncio.TimerHandle | None = None
        self._close: Callable[[], object] = lambda: None

    # -- for the pool --------------------------------------------------------------------------------

    def begin(self) -> None:
        self.pull()
        try:
            self._close = self._handling.begin_stream(self._message, self._metadata, self)
        except (Malformed, DecodeError) as error:
            self._end(CallError("INVALID_ARGUMENT", str(error)))

    def pull(self) -> None:
        if self._outcome is not None:
            self._end(self._outcome[0])
            return
        self._waiting = True
        loop, waits_s = asyncio.get_running_loop(), [] if self._gap_s is None else [self._gap_s]
        if self._deadline_s is not None:
            waits_s.append(self._deadline_s - loop.time())
        if waits_s:
            self._timer = loop.call_later(max(0.0, min(waits_s)), self._too_late)
        if not self._asked.done():
            self._asked.set_result(None)

    def more(self, most: int) -> list[Answer]:
        return []  # the generator runs when it is asked

    def cancel(self) -> None:
        if not self._over:
            self._over = True
            self._stop_timer()
            self._close()
            if self._waiting:
                self._on_failure(CancelledError())

    # -- for the executor (an Outlet) ------------------------------------------------------------------

    async def send(self, message: bytes) -> None:
        await self._asked
        if self._over:
            return
        self._asked = asyncio.get_running_loop().create_future()
        self._waiting = False
        self._stop_timer()
        self._on_answer(decode_single_answer(message))

    def finished(self, failure: BaseException | None, headers: Headers) -> None:
        if self._over:
            return
        error = None if failure is None else _as_call_error(failure)
        if self._waiting:
            self._end(error)
        else:
            self._outcome = (error,)
            self._on_closed()

    # --------------------------------------------------------------------------------------------------

    def _too_late(self) -> None:
        if not self._over:
            self._close()
            self._end(CallError("DEADLINE_EXCEEDED", "Deadline Exceeded"))

    def _end(self, error: Exception | None) -> None:
        self._over = True
        self._stop_timer()
        if error is None:
            self._on_end()
        else:
            self._on_failure(error)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _as_call_error(failure: BaseException) -> CallError:
    """What a gateway would read of it over a connection (spec 34/streaming.md)."""
    if isinstance(failure, asyncio.CancelledError):
        return CallError("CANCELLED", "the method was cancelled")
    if isinstance(failure, BadRequest):
        return CallError("INVALID_ARGUMENT", str(failure))
    return CallError("UNKNOWN", f"Unexpected {type(failure)}: {failure}")
