"""How many calls the whole gateway may have under way."""

from __future__ import annotations

from collections.abc import Callable


class Room:
    """Places for calls; those who found none are told, in turn, when there are some again."""

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._waiting: dict[Callable[[], None], None] = {}  # a set that keeps order

    @property
    def free(self) -> int:
        return self._free

    def take(self) -> bool:
        """Take a place, if there is one; whoever took it gives it back."""
        if self._free <= 0:
            return False
        self._free -= 1
        return True

    def give(self) -> None:
        self._free += 1
        # Whoever is told may have no use for the place any more: then the next one hears of it.
        while self._waiting and self._free > 0:
            tell = next(iter(self._waiting))
            del self._waiting[tell]
            tell()

    def when_free(self, tell: Callable[[], None]) -> None:
        """Call ``tell`` once when there is a place. Asking again changes nothing."""
        self._waiting[tell] = None
