"""How late the reactor is: what each request waits for besides its own work."""

from __future__ import annotations

from typing import Final

from gatewayd.clocks import Clock, Timer
from gatewayd.telemetry.metrics import table
from gatewayd.telemetry.metrics.reading import Histogram

# Often enough that a pause of a quarter of a second is rarely missed; four timers a second cost nothing.
_EVERY_S: Final = 0.25


class ReactorLag:
    """Sets a timer again and again, and notes how late it is. Reactor thread only."""

    def __init__(self, clock: Clock) -> None:
        self.seen = Histogram(table.LAG)
        self._clock = clock
        self._due_s = 0.0
        self._timer: Timer | None = None

    def start(self) -> None:
        """Watch from now on."""
        self._due_s = self._clock.seconds() + _EVERY_S
        self._timer = self._clock.callLater(_EVERY_S, self._look)

    def stop(self) -> None:
        """Watch no longer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self.seen.observe(max(0.0, self._clock.seconds() - self._due_s))
        self.start()
