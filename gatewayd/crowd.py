"""
How many connections each worker has, in memory that all of them see, so that none takes too many.

A new connection wakes every worker that waits, and the first takes it: without more, that is often the same
one. A worker that has more than another leaves a connection alone for a moment, and takes it if none has.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from typing import Final

# What a worker that accepts nothing has.
NOBODY: Final = 0xFFFFFFFF
# How long one that has more than another waits: a few turns of a busy reactor.
YIELD_S: Final = 0.005
_SLOT_BYTES: Final = 4
# So many are taken at once, in the end, if the others do not take any: they may hang.
_MOST_AT_ONCE: Final = 64


def shared_memory(slots: int) -> int:
    """A descriptor of memory for so many workers, none of which accepts yet. Raises OSError."""
    descriptor = os.memfd_create("gatewayd-crowd")
    os.write(descriptor, NOBODY.to_bytes(_SLOT_BYTES, "little") * slots)
    return descriptor


class Crowd:
    """The counts of all workers. Each is written by one process; reading needs no lock."""

    def __init__(self, descriptor: int) -> None:
        """Of ``shared_memory``, which stays open."""
        self._memory = mmap.mmap(descriptor, 0)
        self._counts = memoryview(self._memory).cast("I")

    def place(self, slot: int) -> Place:
        """The place of the worker that has this slot."""
        return Place(self, slot)

    def set(self, slot: int, count: int) -> None:
        self._counts[slot] = count

    def leave(self, slot: int) -> None:
        """The worker accepts nothing any more."""
        self._counts[slot] = NOBODY

    def is_ahead(self, slot: int) -> bool:
        """Whether another worker that accepts has fewer connections."""
        return self._counts[slot] > min(self._counts)

    def counts(self) -> list[int | None]:
        """Those of all, None for one that accepts nothing."""
        return [None if count == NOBODY else count for count in self._counts]

    def close(self) -> None:
        self._counts.release()
        self._memory.close()


class Place:
    """One worker's place in a crowd, until it leaves."""

    def __init__(self, crowd: Crowd, slot: int) -> None:
        self._crowd = crowd
        self._slot = slot
        self._has_left = False
        self.set(0)

    @property
    def is_ahead(self) -> bool:
        """Whether another worker that accepts has fewer connections. On any thread."""
        return not self._has_left and self._crowd.is_ahead(self._slot)

    def set(self, count: int) -> None:
        """So many connections are open."""
        if not self._has_left:
            self._crowd.set(self._slot, count)

    def leave(self) -> None:
        """Nothing is accepted any more."""
        self._has_left = True
        self._crowd.leave(self._slot)


class Courtesy:
    """Whether one of several processes takes the next connection that waits, or leaves it to others first."""

    def __init__(self, should_yield: Callable[[], bool]) -> None:
        self._should_yield = should_yield
        self._left = 0  # those that may be taken although others have fewer
        self._next = 1

    def takes(self) -> bool:
        """Whether to take one now. If not, call ``waited`` after YIELD_S, and ask again."""
        if not self._should_yield():
            self._left, self._next = 0, 1
            return True
        self._left -= 1
        return self._left >= 0

    def waited(self) -> None:
        """What still waits was not taken by another: twice as many as the last time may be taken."""
        self._left, self._next = self._next, min(2 * self._next, _MOST_AT_ONCE)
