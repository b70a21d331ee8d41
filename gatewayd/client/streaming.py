"""
One ``stream_doc`` under way: its request goes to the loop, its answers come back one by one.

    caller's thread      taken, cancel               arrivals in the caller's inbox
                              │                                  ▲
    loop thread             Room ── a transport reads ──────── arrive

A transport reads the next answer when there is room for it: what nobody takes stays with the gateway, through
the flow control of its protocol.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

import attrs

from gatewayd.client.delivery import IN_FLIGHT_BYTES
from gatewayd.client.errors import Unreachable
from gatewayd.client.exchange import Ended, Read
from gatewayd.client.loop import LoopThread

# Answers that wait for the caller, unless ``prefetch`` says another number.
WINDOW: Final = 16

# Takes one answer, which has so many bytes, and returns when there is room for the next.
Arrive = Callable[[Read, int], Awaitable[None]]
Work = Callable[[Arrive], Coroutine[Any, Any, None]]


@attrs.frozen
class Streamed:
    """An answer, which the caller's thread decodes with ``read``, of ``size`` bytes."""

    read: Read
    size: int


class Room:
    """How many answers wait for the caller: ``limit``, and IN_FLIGHT_BYTES. Loop thread only."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._answers = 0
        self._bytes = 0
        self._taken = asyncio.Event()

    def held(self, size: int) -> None:
        self._answers += 1
        self._bytes += size

    def taken(self, size: int) -> None:
        self._answers -= 1
        self._bytes -= size
        self._taken.set()

    async def free(self) -> None:
        """Returns when another answer may come."""
        while self._answers >= self._limit or self._bytes >= IN_FLIGHT_BYTES:
            self._taken.clear()
            await self._taken.wait()


class StreamExchange:
    """The caller's end. ``put`` is called on the loop thread, and must only pass on what it gets."""

    def __init__(
        self, loop: LoopThread, work: Work, put: Callable[[Streamed | Ended], None], limit: int
    ) -> None:
        self._loop = loop
        self._put = put
        # An Event of asyncio belongs to no loop until it is waited on, so this may be made here.
        self._room = Room(limit)
        self._running = loop.start(self._run(work))

    def taken(self, streamed: Streamed) -> None:
        self._loop.tell(self._room.taken, streamed.size)

    def cancel(self) -> None:
        """End the call. Without effect when it has ended."""
        self._running.cancel()

    async def _run(self, work: Work) -> None:
        error: Exception | None = None
        try:
            await work(self._arrive)
        except asyncio.CancelledError:
            error = Unreachable("the client was closed")
            raise
        except Exception as failure:
            error = failure
        finally:
            self._put(Ended(error))

    async def _arrive(self, read: Read, size: int) -> None:
        self._room.held(size)
        self._put(Streamed(read, size))
        await self._room.free()
