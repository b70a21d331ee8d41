"""
One ``post`` under way: its requests go to the loop, its answers come back.

    caller's thread      Exchange.send, finish, cancel            arrivals in the caller's inbox
                              │                                       ▲
    loop thread            Outbox ── a transport takes, sends ── deliver

A transport fails or ends with the whole exchange. What was not answered by then can be sent again:
the Outbox keeps it until it is answered.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

import attrs

from gatewayd.client.errors import BadServerFlow, TimedOut, Unreachable
from gatewayd.client.inputs import Message
from gatewayd.client.loop import LoopThread
from gatewayd.client.post import Retries
from gatewayd.client.response import Response

STREAMS: Final = (
    "the endpoint answers a document with a stream of them: call it with stream_doc, which takes one document"
)

Read = Callable[[], Response]
Deliver = Callable[[str, Read], None]


@attrs.frozen
class Arrived:
    """A response; the caller's thread decodes it with ``read``."""

    request_id: str
    read: Read


@attrs.frozen
class Ended:
    """Nothing more arrives. ``error`` says why, unless everything was answered."""

    error: Exception | None


def may_retry(retries: Retries, error: Exception, failures: int) -> bool:
    """Whether the same may be tried again after so many failures (the codes of spec client.md)."""
    passing = isinstance(error, Unreachable | TimedOut) or (
        isinstance(error, BadServerFlow) and error.code == "INTERNAL"
    )
    return passing and failures < retries.max_attempts


async def _back_off(retries: Retries, failures: int) -> None:
    await asyncio.sleep(retries.backoff.delay_s(failures, random.random()))


class Outbox:
    """What there is to send, and what was sent and not answered. Loop thread only."""

    def __init__(self) -> None:
        self._waiting: deque[Message] = deque()
        self._sent: dict[str, Message] = {}
        self._finished = False
        self._changed = asyncio.Event()
        self.answers = 0

    def put(self, message: Message) -> None:
        self._waiting.append(message)
        self._changed.set()

    def finish(self) -> None:
        self._finished = True
        self._changed.set()

    async def take(self) -> Message | None:
        """The next one to send, or None at the end."""
        while not self._waiting:
            if self._finished:
                return None
            self._changed.clear()
            await self._changed.wait()
        message = self._waiting.popleft()
        self._sent[message.request_id] = message
        return message

    def answered(self, request_id: str) -> bool:
        """False for a request that was not sent, or was answered already."""
        known = self._sent.pop(request_id, None) is not None
        self.answers += known
        return known

    def rewind(self) -> None:
        """Everything unanswered is to be sent again, in its order."""
        self._waiting.extendleft(reversed(self._sent.values()))
        self._sent.clear()

    def check_complete(self) -> None:
        """Raises Unreachable if the server has ended the conversation too early."""
        missing = len(self._sent) + len(self._waiting)
        if missing or not self._finished:
            raise Unreachable(f"the gateway ended the conversation; {missing} requests were not answered")


Work = Callable[[Outbox, Deliver], Coroutine[Any, Any, None]]


class Exchange:
    """The caller's end. ``put`` is called on the loop thread, and must only pass on what it gets."""

    def __init__(self, loop: LoopThread, work: Work, put: Callable[[Arrived | Ended], None]) -> None:
        self._loop = loop
        self._put = put
        # An Event of asyncio belongs to no loop until it is waited on, so this may be made here.
        self._outbox = Outbox()
        self._running = loop.start(self._run(work))

    def send(self, message: Message) -> None:
        self._loop.tell(self._outbox.put, message)

    def finish(self) -> None:
        self._loop.tell(self._outbox.finish)

    def cancel(self) -> None:
        """Drop what is not answered yet."""
        self._running.cancel()

    async def _run(self, work: Work) -> None:
        error: Exception | None = None
        try:
            await work(self._outbox, self._deliver)
        except asyncio.CancelledError:
            error = Unreachable("the client was closed")
            raise
        except Exception as failure:
            error = failure
        finally:
            self._put(Ended(error))

    def _deliver(self, request_id: str, read: Read) -> None:
        # Responses to unknown requests, and second ones after a lost connection, are dropped.
        if self._outbox.answered(request_id):
            self._put(Arrived(request_id, read))


async def run_stream(
    stream: Callable[[Outbox, Deliver], Awaitable[None]], outbox: Outbox, deliver: Deliver, retries: Retries
) -> None:
    """One conversation for all requests; a broken one is begun again with what was not answered."""
    failures = 0
    while True:
        before = outbox.answers
        try:
            return await stream(outbox, deliver)
        except Exception as error:
            failures = 1 if outbox.answers > before else failures + 1
            if not may_retry(retries, error, failures):
                raise
        await _back_off(retries, failures)
        outbox.rewind()


async def run_singles(
    single: Callable[[Message], Awaitable[Read]], outbox: Outbox, deliver: Deliver, retries: Retries
) -> None:
    """One call for each request, all at the same time; the first that fails for good ends the others."""

    async def send(message: Message) -> None:
        failures = 0
        while True:
            try:
                return deliver(message.request_id, await single(message))
            except Exception as error:
                failures += 1
                if not may_retry(retries, error, failures):
                    raise
            await _back_off(retries, failures)

    try:
        async with asyncio.TaskGroup() as group:
            while message := await outbox.take():
                group.create_task(send(message))
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from failed.exceptions[0].__cause__
