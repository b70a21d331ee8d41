"""Which unary calls of a connection begin, and which wait because its client does not read its answers."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gatewayd.rpc.server.call import ServerCall

# So many times the limit may be unsent: answers may turn out larger than those before.
_EXCESS: Final = 4


class Backlog:
    """
    The unary calls of one connection, admitted by what of their answers is unsent and what is expected.

    ``limit_bytes`` 0 is no limit. A call is admitted all the same when nothing is under
    way or unsent, and all are before the first answer. ``waiting`` are those that were not.
    """

    __slots__ = ("_expected_bytes", "_in_flight", "_limit_bytes", "waiting")

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._expected_bytes = 0  # for each answer
        self._in_flight = 0
        self.waiting: deque[ServerCall] = deque()

    def admit(self, call: ServerCall, unsent_bytes: int) -> bool:
        """Whether the call may begin now; otherwise it waits until ``next`` returns it."""
        if self.waiting or not self._has_room(unsent_bytes):
            self.waiting.append(call)
            return False
        self._in_flight += 1
        return True

    def ended(self, size_bytes: int) -> None:
        """A call that was admitted is over, with an answer of this size."""
        self._in_flight -= 1
        # A large answer counts at once, and is forgotten slowly.
        self._expected_bytes = max(size_bytes, self._expected_bytes * 7 // 8)

    def is_flooded(self, unsent_bytes: int) -> bool:
        """Whether far more is unsent than was expected, as may be when many begin at once."""
        return 0 < self._limit_bytes * _EXCESS < unsent_bytes

    def next(self, unsent_bytes: int) -> ServerCall | None:
        """A call that waits and may begin now; it counts as admitted."""
        while self.waiting and (self.waiting[0].over or self._has_room(unsent_bytes)):
            call = self.waiting.popleft()
            if not call.over:
                self._in_flight += 1
                return call
        return None

    def clear(self) -> None:
        """Forget the calls that wait: their connection is lost."""
        self.waiting.clear()

    def _has_room(self, unsent_bytes: int) -> bool:
        if not self._limit_bytes or not (self._in_flight or unsent_bytes):
            return True
        return unsent_bytes + (self._in_flight + 1) * self._expected_bytes <= self._limit_bytes
