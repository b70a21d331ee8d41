"""
Long work of the reactor, done in steps: others have their turns between them. Reactor thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeVar

from twisted.internet.defer import Deferred

from gatewayd.clocks import Clock, Timer

# So many replicas come or go in one step: some milliseconds.
AT_ONCE: Final = 100

T = TypeVar("T")


class Steps:
    """
    Does ``work`` in steps, each in a turn of its own: what it does up to its next ``yield``.

    ``done`` fires at the end, or fails as the work does; not after ``stop``.
    """

    def __init__(self, clock: Clock, work: Iterator[None]) -> None:
        self.done: Deferred[None] = Deferred()
        self._clock = clock
        self._work = work
        self._timer: Timer | None = None
        self._stopped = False

    def start(self) -> None:
        """Do the first step, now."""
        self._step()

    def stop(self) -> None:
        """Do no more of it."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _step(self) -> None:
        self._timer = None
        try:
            next(self._work)
        except StopIteration:
            if not self._stopped:
                self.done.callback(None)
        except Exception:
            self.done.errback()
        else:
            if not self._stopped:  # by what this step has done
                self._timer = self._clock.callLater(0, self._step)


def a_few_at_once(items: Iterable[T], do: Callable[[T], object]) -> Iterator[None]:
    """``do`` each of the items, ``AT_ONCE`` of them in a step."""
    for number, each in enumerate(items, 1):
        do(each)
        if number % AT_ONCE == 0:
            yield
