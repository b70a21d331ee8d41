"""
The requests of one Deployment that wait for a replica: bounded, first come, first served.

Pure: the queue calls the requests that wait in it, and knows neither replicas nor time. How long a request
waits is its own business (``attempts.py``).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar


class Waiter(Protocol):
    """A request that waits."""

    def reserve(self) -> bool:
        """Take a slot at a replica, if one is free."""

    def start_call(self) -> None:
        """Make the call that ``reserve`` took a slot for. It may end at once and come back to the queue."""


W = TypeVar("W", bound=Waiter)


class Queue(Generic[W]):
    """
    At most ``limit`` requests, in two lines.

    Most take any replica: where the first of them finds no slot, those behind it find none either. Requests
    that have failed somewhere want another replica than before, so that each has to be asked for itself.

    ``size`` is how many wait now.
    """

    __slots__ = ("_limit", "_retries", "_serving", "_waiting", "size")

    def __init__(self, limit: int) -> None:
        self.size = 0  # a plain number, because every request looks at it
        self._limit = limit
        self._waiting: OrderedDict[W, None] = OrderedDict()
        self._retries: dict[W, None] = {}
        self._serving = False

    def __iter__(self) -> Iterator[W]:
        """All that wait now; they may leave meanwhile."""
        return iter((*self._retries, *self._waiting))

    @property
    def full(self) -> bool:
        return self.size >= self._limit

    def add(self, waiter: W, *, retry: bool) -> None:
        """``retry`` says that the request has been at some replica before. Not when the queue is ``full``."""
        line = self._retries if retry else self._waiting
        line[waiter] = None
        self.size += 1

    def discard(self, waiter: W) -> None:
        """Remove a request that no longer waits. Harmless if it has left already."""
        for line in (self._retries, self._waiting):
            if waiter in line:
                del line[waiter]
                self.size -= 1

    def serve(self) -> None:
        """Start every request that finds a slot now."""
        # A call can fail at once and bring us back here; the loops below then simply go on.
        if self._serving:
            return
        self._serving = True
        try:
            for waiter in tuple(self._retries):
                if waiter in self._retries and waiter.reserve():
                    self.discard(waiter)
                    waiter.start_call()
            while self._waiting:
                waiter = next(iter(self._waiting))
                if not waiter.reserve():
                    break
                self.discard(waiter)
                waiter.start_call()
        finally:
            self._serving = False
