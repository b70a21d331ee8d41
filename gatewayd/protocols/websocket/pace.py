"""
How many frames of little use a client may send, decided without I/O.

Control frames and tiny pieces of messages cost time, but no window holds them back. Messages are not counted,
and so neither are their first and last pieces: the window is their limit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gatewayd.errors import TooManyFrames

# A piece of a message from this size on is no tiny one: what 64 kB hold of them is parsed in milliseconds.
_TINY_BYTES: Final = 256
_CLOSE: Final = 8
_PING: Final = 9


class Pace:
    """One connection's frames. ``most_per_s`` 0 is no limit."""

    __slots__ = ("_began_s", "_count", "_most_per_s", "_seconds")

    def __init__(self, most_per_s: int, seconds: Callable[[], float]) -> None:
        self._most_per_s = most_per_s
        self._seconds = seconds
        self._began_s = seconds()
        self._count = 0

    def frame(self, opcode: int, size: int, *, fin: bool) -> None:
        """
        A frame with a payload of ``size`` bytes begins. Raises TooManyFrames.

        A pong counts once it is known to answer no ping.
        """
        if opcode in (_CLOSE, _PING) or (opcode == 0 and not fin and size < _TINY_BYTES):
            self.count()

    def count(self) -> None:
        """A frame that is of no use. Raises TooManyFrames."""
        self._count += 1
        # The clock is read once in so many frames: they took a second, or the client is too fast.
        if self._count > self._most_per_s > 0:
            now_s = self._seconds()
            if now_s - self._began_s < 1.0:
                raise TooManyFrames(self._most_per_s)
            self._began_s, self._count = now_s, 1
