"""
Many callers that wait for one event: a Deferred for each, fired together.

A Deferred that is shared between callers lets the first one that loses patience cancel it for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred

T = TypeVar("T")


class Waiters(Generic[T]):
    """The callers that wait for one event, which may happen again. Reactor thread only."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: dict[Deferred[T], None] = {}

    def __len__(self) -> int:
        """How many wait now."""
        return len(self._waiting)

    def wait(self) -> Deferred[T]:
        """A Deferred that fires at the next ``fire`` or ``fail``. Cancelling it affects no other."""
        waiting: Deferred[T] = Deferred(self._waiting.pop)
        self._waiting[waiting] = None
        return waiting

    def fire(self, result: T) -> None:
        """Give ``result`` to all that wait now, in their order."""
        for waiting in self._take_each():
            waiting.callback(result)

    def fail(self, error: BaseException) -> None:
        """Fail all that wait now with ``error``, in their order."""
        for waiting in self._take_each():
            waiting.errback(error)

    def _take_each(self) -> Iterator[Deferred[T]]:
        # One at a time: the callbacks of one may cancel another, or wait for the next event.
        for waiting in tuple(self._waiting):
            if waiting in self._waiting:
                del self._waiting[waiting]
                yield waiting
