"""One value for all who look at about the same time: it is made once, and kept for a moment."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final, Generic, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from gatewayd.clocks import Clock
from gatewayd.waiters import Waiters

T = TypeVar("T")

# Pages and scrapers ask every second at most. By feel.
KEPT_S: Final = 0.5


class Kept(Generic[T]):
    """
    What ``make()`` makes, which must not be changed by whoever gets it. Reactor thread only.

    Who asks while it is made gets it as well; so do those who ask within KEPT_S of its beginning.
    """

    def __init__(self, make: Callable[[], Coroutine[Deferred[Any], Any, T]], clock: Clock) -> None:
        self._make = make
        self._clock = clock
        self._waiting: Waiters[T] = Waiters()
        self._is_being_made = False
        self._made: tuple[float, T] | None = None

    def get(self) -> Deferred[T]:
        """Cancelling it affects nobody else. Fails with what ``make`` raises, which is not kept."""
        now_s = self._clock.seconds()
        if self._made is not None and now_s - self._made[0] < KEPT_S:
            return succeed(self._made[1])
        waiting = self._waiting.wait()
        if not self._is_being_made:
            self._is_being_made = True
            Deferred.fromCoroutine(self._make()).addBoth(self._done, now_s)
        return waiting

    def _done(self, result: T | Failure, began_s: float) -> None:
        self._is_being_made = False
        if isinstance(result, Failure):
            assert result.value is not None
            self._waiting.fail(result.value)
        else:
            self._made = began_s, result
            self._waiting.fire(result)
