"""
One client stream: how many requests it may have under way, and which answer goes out next.

A request takes a place when it is admitted, and frees it when its answer has been *written*, not when it has
been answered: the gateway then stops reading from a client that sends but does not read, and the limit bounds
what it holds for that client.

    admit() ──► in flight ── answered() ──► held (ordered only) ──► going out ── written() ──► place free

Nothing here waits or does I/O, so the reactor and gRPC's loop can each use a Window of their own.
"""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class Window(Generic[T]):
    """
    The requests of one stream, bounded.

    ``limit`` is the number of places; 0 or less means no limit. With ``ordered`` answers go out in
    the order of admission, without it as they come.
    """

    def __init__(self, limit: int, ordered: bool = False) -> None:
        self._limit = limit
        self._ordered = ordered
        self._admitted = 0
        self._written = 0
        self._next_out = 0
        self._going_out = 0
        self._in_flight: set[int] = set()
        self._held: dict[int, T] = {}

    @property
    def has_room(self) -> bool:
        """Whether another request may be admitted."""
        return self._limit <= 0 or self._admitted - self._written < self._limit

    @property
    def idle(self) -> bool:
        """Whether everything admitted has been answered and written."""
        return self._admitted == self._written

    @property
    def occupied(self) -> int:
        """How many places are taken."""
        return self._admitted - self._written

    def admit(self) -> int:
        """
        Take a place; the ticket names the request when it is answered.

        Raises ValueError without room: check ``has_room`` before reading a request.
        """
        if not self.has_room:
            raise ValueError(f"all {self._limit} places of the window are taken")
        ticket = self._admitted
        self._admitted += 1
        self._in_flight.add(ticket)
        return ticket

    def answered(self, ticket: int, answer: T) -> list[T]:
        """
        Record one answer and return those that may go out now, in the order to write them.

        Raises ValueError for a ticket that is not in flight.
        """
        if ticket not in self._in_flight:
            raise ValueError(f"request {ticket} was not admitted, or was answered before")
        self._in_flight.remove(ticket)
        if not self._ordered:
            self._going_out += 1
            return [answer]
        self._held[ticket] = answer
        released: list[T] = []
        while self._next_out in self._held:
            released.append(self._held.pop(self._next_out))
            self._next_out += 1
        self._going_out += len(released)
        return released

    def written(self, count: int = 1) -> None:
        """
        Free the places of ``count`` answers that left for the client.

        Raises ValueError when fewer were going out.
        """
        if not 0 <= count <= self._going_out:
            raise ValueError(f"{count} answers written, but only {self._going_out} were going out")
        self._going_out -= count
        self._written += count
