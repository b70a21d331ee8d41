"""
One client stream: how many requests it may have under way, and which answer goes out next.

A request takes a place when it is admitted, and frees it when its answer has been *written*, not when it has
been answered: the gateway then stops reading from a client that sends but does not read, and the limits bound
what it holds for that client.

    admit() ──► in flight ── answered() ──► held (ordered only) ──► going out ── written() ──► place free
                    └─ arrived() ──► being encoded ─┘

Nothing here waits or does I/O, so the reactor and gRPC's loop can each use a Window of their own.
"""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")

# What the client of a flooded stream is told.
UNREAD = "answers are not read as fast as they are asked for (gateway.max_unsent_bytes)"

# Requests that a new stream may have under way before its first answer shows how large answers are: enough
# for executors that gather a batch before they answer.
_FIRST_REQUESTS = 256
# So many times ``unsent_bytes`` may be unsent: answers may turn out larger than those before.
_EXCESS = 4


class Window(Generic[T]):
    """
    The requests of one stream, bounded.

    ``limit`` is the number of places; 0 or less means no limit. With ``ordered`` answers go out in
    the order of admission, without it as they come. ``unsent_bytes`` bounds the answers that wait to be
    written together with those that are expected, judging by the last ones; 0 is no bound. One request is
    admitted all the same.
    """

    def __init__(self, limit: int, ordered: bool = False, unsent_bytes: int = 0) -> None:
        self._limit = limit
        self._ordered = ordered
        self._bound_bytes = unsent_bytes
        self._expected_bytes = unsent_bytes // _FIRST_REQUESTS  # for each answer
        self._admitted = 0
        self._written = 0
        self._next_out = 0
        self._in_flight: set[int] = set()
        self._arrived: dict[int, int] = {}  # the sizes of answers that are being encoded, by ticket
        self._held: dict[int, tuple[T, int]] = {}
        # The sizes of answers, in the order in which they are written. An empty deque is ten times a list.
        self._going_out: list[int] = []
        self.unsent_bytes = 0
        self.streamed_bytes = 0  # of messages of streams, which come only as fast as they are written

    @property
    def has_room(self) -> bool:
        """Whether another request may be admitted."""
        occupied = self._admitted - self._written
        if self._limit > 0 and occupied >= self._limit:
            return False
        if not self._bound_bytes or not occupied:
            return True
        expected = (len(self._in_flight) + 1) * self._expected_bytes
        return self.unsent_bytes + self.streamed_bytes + expected <= self._bound_bytes

    @property
    def is_flooded(self) -> bool:
        """Whether far more waits to be written than expected: such a stream has to end."""
        several = len(self._going_out) + len(self._held) + len(self._arrived) > 1
        return several and 0 < self._bound_bytes * _EXCESS < self.unsent_bytes

    @property
    def turn(self) -> int | None:
        """The ticket whose answer goes out next; None if answers go out as they come."""
        return self._next_out if self._ordered else None

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

    def arrived(self, ticket: int, size_bytes: int) -> None:
        """
        An answer of ``size_bytes`` is here and counts, but is still to be encoded: ``answered`` follows.

        Raises ValueError for a ticket that is not in flight.
        """
        if ticket not in self._in_flight:
            raise ValueError(f"request {ticket} was not admitted, or was answered before")
        self._in_flight.remove(ticket)
        self.unsent_bytes += size_bytes
        self._expected_bytes = max(size_bytes, self._expected_bytes)
        self._arrived[ticket] = size_bytes

    def answered(self, ticket: int, answer: T, size_bytes: int = 0) -> list[T]:
        """
        Record one answer and return those that may go out now, in the order to write them.

        Raises ValueError for a ticket that is not in flight.
        """
        if ticket in self._arrived:
            self.unsent_bytes += size_bytes - self._arrived.pop(ticket)
        else:
            if ticket not in self._in_flight:
                raise ValueError(f"request {ticket} was not admitted, or was answered before")
            self._in_flight.remove(ticket)
            self.unsent_bytes += size_bytes
            # A large answer counts at once, and is forgotten slowly.
            self._expected_bytes = max(size_bytes, self._expected_bytes * 7 // 8)
        if not self._ordered:
            self._going_out.append(size_bytes)
            return [answer]
        self._held[ticket] = answer, size_bytes
        released: list[T] = []
        while self._next_out in self._held:
            following, size = self._held.pop(self._next_out)
            released.append(following)
            self._going_out.append(size)
            self._next_out += 1
        return released

    def written(self, count: int = 1) -> None:
        """
        Free the places of ``count`` answers that left for the client.

        Raises ValueError when fewer were going out.
        """
        if not 0 <= count <= len(self._going_out):
            raise ValueError(f"{count} answers written, but only {len(self._going_out)} were going out")
        self.unsent_bytes -= sum(self._going_out[:count])
        del self._going_out[:count]
        self._written += count
