"""
Many timeouts, one timer.

Almost every call ends long before its deadline, so what counts is the cost of setting a timeout and removing
it: an entry in a dict, where a timer of its own would be an object and two operations on the reactor's heap.
Timeouts come up to ``TICK_S`` late, and never early.
"""

from __future__ import annotations

import heapq
from typing import Final, Protocol

from gatewayd.clocks import Clock, Timer

TICK_S: Final = 0.005


class TimedCall(Protocol):
    """A call with a deadline."""

    def too_late(self) -> None: ...


class Timeouts:
    """Reactor thread only."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiters: dict[int, dict[TimedCall, None]] = {}
        # A heap of every tick that has waiters, and some whose waiters have left.
        self._ticks: list[int] = []
        self._timer: Timer | None = None
        self._timer_tick = 0

    def add(self, waiter: TimedCall, deadline_s: float) -> int:
        """Call ``too_late`` once the clock passes ``deadline_s``. Returns the tick that ``remove`` needs."""
        tick = int(deadline_s / TICK_S) + 1
        waiters = self._waiters.get(tick)
        if waiters is None:
            if not self._waiters:
                self._ticks.clear()
            waiters = self._waiters[tick] = {}
            heapq.heappush(self._ticks, tick)
            if self._timer is None or tick < self._timer_tick:
                self._set_timer()
        waiters[waiter] = None
        return tick

    def remove(self, waiter: TimedCall, tick: int) -> None:
        """Harmless when repeated, or after ``too_late``."""
        waiters = self._waiters.get(tick)
        if waiters is not None:
            waiters.pop(waiter, None)
            if not waiters:
                del self._waiters[tick]

    def close(self) -> None:
        """Drop every timeout."""
        self._waiters.clear()
        self._ticks.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        tick = self._timer_tick = self._ticks[0]
        self._timer = self._clock.callLater(max(0.0, tick * TICK_S - self._clock.seconds()), self._now)

    def _now(self) -> None:
        self._timer = None
        # The timer's tick has come, whatever the rounding of two floats says.
        now = max(self._timer_tick, int(self._clock.seconds() / TICK_S))
        late: list[TimedCall] = []
        ticks = self._ticks
        while ticks and (ticks[0] <= now or ticks[0] not in self._waiters):
            late += self._waiters.pop(heapq.heappop(ticks), ())
        if ticks:
            self._set_timer()
        for waiter in late:
            waiter.too_late()
