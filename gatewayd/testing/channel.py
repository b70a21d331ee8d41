"""One executor in this process, called as if it were at the other end of a connection. Loop thread only."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from google.protobuf.message import DecodeError
from twisted.internet.defer import CancelledError, Deferred, succeed

from gatewayd.executor.executor import Executor
from gatewayd.executor.handling import Handling
from gatewayd.executor.spec import ExecutorSpec
from gatewayd.messages.discovery import Told
from gatewayd.messages.endpoints_codec import read_endpoints
from gatewayd.messages.headers import AllowList
from gatewayd.messages.request import Answer, Call
from gatewayd.messages.wire import Malformed, decode_answer
from gatewayd.pool.replica import DeferredCall
from gatewayd.rpc.channel import CallError, ChannelSettings
from gatewayd.testing.streaming import LocalStream

T = TypeVar("T")

log = logging.getLogger(__name__)


class LocalChannel:
    """
    What the pool gets in place of ``gatewayd.rpc``'s Channel: a call goes straight to the handling.

    ``load`` makes the executor anew when ``exit_on_exceptions`` has ended it, where a supervisor would
    start another process.
    """

    def __init__(
        self, executor: Executor, spec: ExecutorSpec, load: Callable[[], Executor], forwarded: AllowList
    ) -> None:
        self.executor = executor
        self._spec = spec
        self._load = load
        self._handling = Handling(executor, spec, self._ended)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._restart: asyncio.Task[None] | None = None
        self._forwarded = forwarded
        self._metadata: tuple[tuple[str, str | bytes], ...] = ()

    # -- for the pool --------------------------------------------------------------------------------

    def prepare(
        self,
        call: Call,
        timeout_s: float | None,
        on_answer: Callable[[Answer], object],
        on_failure: Callable[[Exception], object],
    ) -> DeferredCall:
        """As ``rpc.channel.Channel.prepare``: fails with CallError, or Malformed for what is no message."""
        return DeferredCall(lambda: self._deferred(self._answer(call, timeout_s)), on_answer, on_failure)

    def stream(
        self,
        call: Call,
        gap_s: float | None,
        left_s: float | None,
        on_answer: Callable[[Answer], object],
        on_end: Callable[[], object],
        on_failure: Callable[[Exception], object],
        on_closed: Callable[[], object],
    ) -> LocalStream:
        """As ``rpc.channel.Channel.stream``."""
        return LocalStream(
            self._handling,
            bytes(call.messages[0]),
            lambda: (*self._metadata, *call.headers),
            gap_s,
            left_s,
            on_answer,
            on_end,
            on_failure,
            on_closed,
        )

    def endpoints(self, timeout_s: float) -> Deferred[Told]:
        return succeed(read_endpoints(self._handling.discovery))

    def close(self) -> Deferred[None]:
        """Calls under way are cancelled. The executor itself is closed by ``end``."""
        for task in tuple(self._tasks):
            task.cancel()
        return succeed(None)

    # -- for the Flow --------------------------------------------------------------------------------

    def connected(self, settings: ChannelSettings) -> None:
        """The pool has this channel, and calls it as ``settings`` say."""
        self._metadata = tuple(
            (name, value.encode() if name.endswith("-bin") else value) for name, value in settings.metadata
        )

    async def drain(self) -> None:
        """
        Handle batches that wait for more requests now, and from now on each request by itself.

        Raises what kept an executor from being made anew.
        """
        await self._handling.drain()
        if self._restart is not None:
            await self._restart

    async def end(self) -> None:
        """Close the executor, and let its thread go. Raises what its ``close`` raises."""
        await _closed(self.executor, self._handling, self._spec)

    # -------------------------------------------------------------------------------------------------

    async def _answer(self, call: Call, timeout_s: float | None) -> Answer:
        messages = [bytes(message) for message in call.messages]
        try:
            async with asyncio.timeout(timeout_s):
                handled = await self._handling.handle(messages, lambda: (*self._metadata, *call.headers))
        except TimeoutError as error:  # what a method raises is an answer, so this is ours
            raise CallError("DEADLINE_EXCEEDED", "Deadline Exceeded") from error
        except (Malformed, DecodeError) as error:
            raise CallError("INVALID_ARGUMENT", str(error)) from error
        headers = self._forwarded.of_answer(handled.headers) if handled.headers else ()
        return decode_answer(handled.message, is_error=handled.failed, headers=headers)

    def _deferred(self, work: Coroutine[Any, Any, T]) -> Deferred[T]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)

        def cancel(_: Deferred[T]) -> None:
            task.cancel()

        answer: Deferred[T] = Deferred(cancel)

        def done(task: asyncio.Task[T]) -> None:
            self._tasks.discard(task)
            error = CancelledError() if task.cancelled() else task.exception()
            if answer.called:  # cancelled by whoever waited
                return
            if error is not None:
                answer.errback(error)
            else:
                answer.callback(task.result())

        task.add_done_callback(done)
        return answer

    def _ended(self, reason: str) -> None:
        log.error("%s is made anew, as exit_on_exceptions says: %s", self._spec.runtime_name, reason)
        if self._restart is None or self._restart.done():
            self._restart = asyncio.get_running_loop().create_task(self._made_anew())

    async def _made_anew(self) -> None:
        executor, handling = self.executor, self._handling
        self.executor = self._load()
        self._handling = Handling(self.executor, self._spec, self._ended)
        await handling.drain()
        await _closed(executor, handling, self._spec)


async def close_executor(executor: Executor) -> None:
    """Call its ``close``, which may be a coroutine function, and raise what that raises."""
    returned = executor.close()
    if inspect.isawaitable(returned):
        await returned


async def _closed(executor: Executor, handling: Handling, spec: ExecutorSpec) -> None:
    try:
        await close_executor(executor)
    finally:
        if handling.busy:
            log.warning("%s: a method still runs; its thread ends when it returns", spec.runtime_name)
        handling.close(wait=not handling.busy)
