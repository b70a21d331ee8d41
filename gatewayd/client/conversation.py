"""
Drives one ``post`` from the caller's side: requests are made when there is room, answers handed over.

Twice: for a thread that waits, and for a coroutine. The threaded one does everything in the caller's
own thread: while the user's generator works, nothing else does, and callbacks run between batches.
The asynchronous one takes input in a task of its own, so answers arrive while the input is waited for.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from queue import Empty, SimpleQueue

from gatewayd.client.delivery import Callbacks, Window
from gatewayd.client.errors import BadClient, BadServerFlow
from gatewayd.client.exchange import Arrived, Ended, Exchange
from gatewayd.client.requesting import Message
from gatewayd.client.response import Response

# Begins an exchange whose arrivals are put into an inbox.
Begin = Callable[[Callable[[Arrived | Ended], None]], Exchange]


def converse(
    messages: Iterator[Message], begin: Begin, window: Window, callbacks: Callbacks
) -> Iterator[Response]:
    """
    All answers, after their callbacks. Nothing is connected before there is a first request.

    Raises what the input raises, and errors.py's tree. Left early, it gives up on the rest.
    """
    inbox: SimpleQueue[Arrived | Ended] = SimpleQueue()
    exchange: Exchange | None = None
    try:
        for message in messages:
            if exchange is None:
                exchange = begin(inbox.put)
            window.sent(message)
            exchange.send(message)
            while True:
                try:
                    arrival = inbox.get(block=window.full)
                except Empty:
                    break
                for response in window.answered(*_answer(arrival)):
                    _tell(callbacks, response)
                    yield response
        if exchange is not None:
            exchange.finish()
        while len(window):
            for response in window.answered(*_answer(inbox.get())):
                _tell(callbacks, response)
                yield response
        exchange = None  # everything is answered: it ends by itself
    finally:
        if exchange is not None:
            exchange.cancel()


def _tell(callbacks: Callbacks, response: Response) -> None:
    for callback in callbacks.due(response):
        try:
            outcome = callback(response)
        except Exception as error:
            callbacks.raised(callback, error)
        else:
            if inspect.iscoroutine(outcome):
                outcome.close()
                raise BadClient("an asynchronous callback needs an asynchronous client: Client(asyncio=True)")
    callbacks.check(response)


async def converse_async(
    messages: AsyncGenerator[Message, None], begin: Begin, window: Window, callbacks: Callbacks
) -> AsyncGenerator[Response, None]:
    """As ``converse``; callbacks may be coroutine functions."""
    inbox = _Inbox()
    room = asyncio.Event()
    room.set()
    feeding = asyncio.create_task(_feed(messages, begin, window, room, inbox))
    # What the input raises comes in at the same door as answers, after those that came before.
    feeding.add_done_callback(inbox.fed)
    try:
        while len(window) or not feeding.done():
            arrival = await inbox.get()
            if arrival is None or (arrival == Ended(None) and not len(window)):
                continue  # the input or the exchange is at its end: look again whether all is done
            for response in window.answered(*_answer(arrival)):
                if not window.full:
                    room.set()
                await _tell_async(callbacks, response)
                yield response
        exchange = feeding.result()
        if exchange is not None:
            inbox.exchange = None
    finally:
        feeding.cancel()
        await asyncio.wait([feeding])
        await messages.aclose()
        if inbox.exchange is not None:
            inbox.exchange.cancel()


async def _feed(
    messages: AsyncIterator[Message], begin: Begin, window: Window, room: asyncio.Event, inbox: _Inbox
) -> Exchange | None:
    while True:
        await room.wait()
        try:
            message = await anext(messages)
        except StopAsyncIteration:
            break
        if inbox.exchange is None:
            inbox.exchange = begin(inbox.put)
        window.sent(message)
        if window.full:
            room.clear()
        inbox.exchange.send(message)
    if inbox.exchange is not None:
        inbox.exchange.finish()
    return inbox.exchange


async def _tell_async(callbacks: Callbacks, response: Response) -> None:
    for callback in callbacks.due(response):
        try:
            outcome = callback(response)
            if inspect.isawaitable(outcome):
                await outcome
        except Exception as error:
            callbacks.raised(callback, error)
    callbacks.check(response)


class _Inbox:
    """Arrivals for a coroutine. None among them says that the input is at its end."""

    def __init__(self) -> None:
        self.exchange: Exchange | None = None
        self._loop = asyncio.get_running_loop()
        self._arrivals: deque[Arrived | Ended | None] = deque()
        self._news = asyncio.Event()

    def put(self, arrival: Arrived | Ended) -> None:
        """Any thread."""
        self._arrivals.append(arrival)
        try:
            self._loop.call_soon_threadsafe(self._news.set)
        except RuntimeError:
            if not self._loop.is_closed():  # else nobody waits any more
                raise

    def fed(self, feeding: asyncio.Task[Exchange | None]) -> None:
        error = None if feeding.cancelled() else feeding.exception()
        if error is not None and not isinstance(error, Exception):
            error = None  # KeyboardInterrupt and SystemExit have ended the loop itself
        self._arrivals.append(Ended(error) if error is not None else None)
        self._news.set()

    async def get(self) -> Arrived | Ended | None:
        while not self._arrivals:
            self._news.clear()
            # Between looking and clearing another thread may have put something.
            if not self._arrivals:
                await self._news.wait()
        return self._arrivals.popleft()


def _answer(arrival: Arrived | Ended) -> tuple[str, Response]:
    if isinstance(arrival, Arrived):
        return arrival.request_id, arrival.read()
    raise arrival.error or BadServerFlow("the gateway ended the conversation without an answer")
