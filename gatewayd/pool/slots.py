"""How many calls the whole gateway may have in flight."""

from __future__ import annotations

from collections.abc import Callable


class Slots:
    """A bounded number of calls in flight, and the callbacks of those who wait for a free slot."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._free = limit
        self._waiting: dict[Callable[[], None], None] = {}  # a set that keeps order

    @property
    def free(self) -> int:
        return self._free

    def take(self) -> bool:
        """Take a slot if one is free; the caller has to release it."""
        if self._free <= 0:
            return False
        self._free -= 1
        return True

    def release(self) -> None:
        self._free += 1
        # A callback may no longer need the slot: then it goes to the next one.
        while self._waiting and self._free > 0:
            callback = next(iter(self._waiting))
            del self._waiting[callback]
            callback()

    def when_free(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once when a slot is free. Registering it again changes nothing."""
        self._waiting[callback] = None
