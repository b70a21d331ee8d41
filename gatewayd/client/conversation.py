"""
Drives one ``post`` from the caller's side: makes requests while there is room, hands over responses.

There are two forms, for a thread that waits and for a coroutine. The first does everything in the caller's
thread: it reads inputs and runs callbacks in turn. The second reads inputs in a task of its own, so that
responses arrive while it waits for input.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from gatewayd.client.delivery import Callbacks, InFlightLimit
from gatewayd.client.errors import BadClient, BadServer, BadServerFlow
from gatewayd.client.exchange import STREAMS, Arrived, Ended, Exchange
from gatewayd.client.inputs import Message
from gatewayd.client.response import Response
from gatewayd.client.streaming import Streamed, StreamExchange

# Begins an exchange whose arrivals are put into an inbox.
Begin = Callable[[Callable[[Arrived | Ended], None]], Exchange]
BeginStream = Callable[[Callable[[Streamed | Ended], None]], StreamExchange]

A = TypeVar("A")


def converse(
    messages: Iterator[Message], begin: Begin, in_flight: InFlightLimit, callbacks: Callbacks
) -> Iterator[Response]:
    """
    All responses, after their callbacks. Nothing is connected before the first request.

    Raises what the input raises, and the tree of errors.py. Closing it early cancels the rest.
    """
    inbox: SimpleQueue[Arrived | Ended] = SimpleQueue()
    exchange: Exchange | None = None
    try:
        for message in messages:
            if exchange is None:
                exchange = begin(inbox.put)
            in_flight.sent(message)
            exchange.send(message)
            while True:
                try:
                    arrival = inbox.get(block=in_flight.full)
                except Empty:
                    break
                for response in in_flight.answered(*_response(arrival)):
                    _call_back(callbacks, response)
                    yield response
        if exchange is not None:
            exchange.finish()
        while len(in_flight):
            for response in in_flight.answered(*_response(inbox.get())):
                _call_back(callbacks, response)
                yield response
        exchange = None  # it ends by itself, as everything is answered
    finally:
        if exchange is not None:
            exchange.cancel()


def _call_back(callbacks: Callbacks, response: Response) -> None:
    response.return_type = callbacks.post.return_type
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
    messages: AsyncGenerator[Message, None], begin: Begin, in_flight: InFlightLimit, callbacks: Callbacks
) -> AsyncGenerator[Response, None]:
    """As ``converse``; callbacks may be coroutine functions."""
    inbox = _Inbox()
    room = asyncio.Event()
    room.set()
    feeding = asyncio.create_task(_feed(messages, begin, in_flight, room, inbox))
    # What the input raises arrives like a response, after those that came before.
    feeding.add_done_callback(inbox.fed)
    try:
        while len(in_flight) or not feeding.done():
            arrival = await inbox.get()
            if arrival is None or (arrival == Ended(None) and not len(in_flight)):
                continue  # the input or the exchange has ended, and perhaps both
            for response in in_flight.answered(*_response(arrival)):
                if not in_flight.full:
                    room.set()
                await _call_back_async(callbacks, response)
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
    messages: AsyncIterator[Message],
    begin: Begin,
    in_flight: InFlightLimit,
    room: asyncio.Event,
    inbox: _Inbox,
) -> Exchange | None:
    while True:
        await room.wait()
        try:
            message = await anext(messages)
        except StopAsyncIteration:
            break
        if inbox.exchange is None:
            inbox.exchange = begin(inbox.put)
        in_flight.sent(message)
        if in_flight.full:
            room.clear()
        inbox.exchange.send(message)
    if inbox.exchange is not None:
        inbox.exchange.finish()
    return inbox.exchange


async def _call_back_async(callbacks: Callbacks, response: Response) -> None:
    response.return_type = callbacks.post.return_type
    for callback in callbacks.due(response):
        try:
            outcome = callback(response)
            if inspect.isawaitable(outcome):
                await outcome
        except Exception as error:
            callbacks.raised(callback, error)
    callbacks.check(response)


def pull(begin: BeginStream, return_type: Any) -> Generator[Response, None, None]:
    """
    The answers of one stream, as they come.

    Raises BadServer for one that tells of a failure, and the tree of errors.py. Closing it early cancels the
    call.
    """
    inbox: SimpleQueue[Streamed | Ended] = SimpleQueue()
    stream = begin(inbox.put)
    try:
        while isinstance(arrival := inbox.get(), Streamed):
            stream.taken(arrival)
            yield _checked(arrival.read(), return_type)
        if arrival.error is not None:
            raise arrival.error
    finally:
        stream.cancel()


async def pull_async(begin: BeginStream, return_type: Any) -> AsyncGenerator[Response, None]:
    """As ``pull``."""
    inbox: _Arrivals[Streamed | Ended] = _Arrivals()
    stream = begin(inbox.put)
    try:
        while isinstance(arrival := await inbox.get(), Streamed):
            stream.taken(arrival)
            yield _checked(arrival.read(), return_type)
        if arrival.error is not None:
            raise arrival.error
    finally:
        stream.cancel()


def _checked(response: Response, return_type: Any) -> Response:
    response.return_type = return_type
    if response.failed:
        raise BadServer(response.header, response)
    return response


class _Arrivals(Generic[A]):
    """Arrivals for a coroutine."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._arrivals: deque[A] = deque()
        self._arrived = asyncio.Event()

    def put(self, arrival: A) -> None:
        """Any thread."""
        self._arrivals.append(arrival)
        try:
            self._loop.call_soon_threadsafe(self._arrived.set)
        except RuntimeError:
            if not self._loop.is_closed():  # else nothing waits for it
                raise

    async def get(self) -> A:
        while not self._arrivals:
            self._arrived.clear()
            # Another thread may have put something before the event was cleared.
            if not self._arrivals:
                await self._arrived.wait()
        return self._arrivals.popleft()


class _Inbox(_Arrivals["Arrived | Ended | None"]):
    """Those of an exchange. None marks the end of the input."""

    exchange: Exchange | None = None

    def fed(self, feeding: asyncio.Task[Exchange | None]) -> None:
        error = None if feeding.cancelled() else feeding.exception()
        if error is not None and not isinstance(error, Exception):
            error = None  # KeyboardInterrupt and SystemExit have ended the loop itself
        self._arrivals.append(Ended(error) if error is not None else None)
        self._arrived.set()


def _response(arrival: Arrived | Ended) -> tuple[str, Response]:
    if isinstance(arrival, Arrived):
        response = arrival.read()
        if response.is_part:
            raise BadServerFlow(STREAMS)
        return arrival.request_id, response
    raise arrival.error or BadServerFlow("the gateway ended the conversation without an answer")
