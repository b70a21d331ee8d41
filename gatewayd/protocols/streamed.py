"""
Requests of one client stream that are answered by several messages each: which of them goes out next.

    arrived() ──► held (ordered only, until its turn) ──► going out
    ended()   ──► the place in the window goes with the last message

Nothing here waits or does I/O, as in ``window.py``, with which it shares tickets and order.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from gatewayd.protocols.window import Window

T = TypeVar("T")


class _Held(Generic[T]):
    """What has come for one request and may not go out yet; ``end`` has at most one."""

    __slots__ = ("end", "messages")

    def __init__(self) -> None:
        self.messages: list[T] = []
        self.end: list[T] = []


class Streamed(Generic[T]):
    """
    The requests under way in ``window`` that stream: ``held`` has them by their tickets.

    What may go out is appended to ``outgoing``, in the order to write it. Whoever writes the messages of
    ``arrived`` gives their bytes back with ``left``; that of ``ended`` is written as any answer is.
    """

    def __init__(self, window: Window[T], outgoing: deque[T]) -> None:
        self._window = window
        self._outgoing = outgoing
        self.held: dict[int, _Held[T]] = {}

    def begin(self, ticket: int) -> None:
        """The request ``ticket``, which is in flight, is answered by a stream."""
        self.held[ticket] = _Held()

    def arrived(self, ticket: int, message: T, size_bytes: int) -> None:
        """One more message for ``ticket``."""
        self._window.streamed_bytes += size_bytes
        self.held[ticket].messages.append(message)
        self._go_on(ticket)

    def left(self, size_bytes: int) -> None:
        """A message of ``arrived`` is being written."""
        self._window.streamed_bytes -= size_bytes

    def ended(self, ticket: int, end: T) -> None:
        """Nothing more comes for ``ticket``; ``end`` takes the place of its answer in the window."""
        self.held[ticket].end.append(end)
        self._go_on(ticket)

    def advance(self) -> None:
        """Another request has been answered: the next one may be a stream, whose turn it is now."""
        turn = self._window.turn
        if turn is not None:
            self._go_on(turn)

    def _go_on(self, ticket: int | None) -> None:
        window = self._window
        while ticket in self.held and window.turn in (None, ticket):
            held = self.held[ticket]
            self._outgoing.extend(held.messages)
            held.messages.clear()
            if not held.end:
                return
            del self.held[ticket]
            self._outgoing.extend(window.answered(ticket, held.end.pop()))
            ticket = window.turn
