"""
How slowly a body or message may arrive.

Whatever has begun to arrive holds memory and a place among the connections until it is complete, so it has a
time for that: some seconds that any may take, one more for each so many bytes that have come, and a limit on
the whole. A slow network passes, a client that sends a byte now and then does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import attrs

from gatewayd.clocks import Clock, Timer
from gatewayd.config.model import GatewayConfig


def _nothing() -> None:
    """Of a connection that is closed, nothing is late."""


@attrs.frozen
class ArrivalLimits:
    """
    ``grace_s`` is what any body may take; ``min_rate`` bytes give a second more, 0 no limit but ``most_s``,
    which bounds the whole. A ``most_s`` of 0 is no bound.
    """

    grace_s: float
    min_rate: int
    most_s: float

    @classmethod
    def of(cls, gateway: GatewayConfig) -> ArrivalLimits:
        """The limits in a gateway's settings."""
        return cls(gateway.receive_timeout_s, gateway.min_receive_rate, gateway.max_receive_time_s)

    def allowed_s(self, received_bytes: int) -> float:
        """How long after its first byte something may be incomplete of which so much has come."""
        allowed_s = self.grace_s + received_bytes / self.min_rate if self.min_rate else math.inf
        return min(allowed_s, self.most_s) if self.most_s else allowed_s


class Arrival:
    """
    What is arriving on one connection, and ``late()`` when that takes too long. Reactor thread only.

    There is one timer at most. It is not touched when bytes come, but sets itself again for as long as they
    allow.
    """

    __slots__ = ("_began_s", "_bytes", "_clock", "_late", "_limits", "_paused_s", "_timer")

    def __init__(self, limits: ArrivalLimits, clock: Clock, late: Callable[[], None]) -> None:
        self._limits = limits
        self._clock = clock
        self._late = late
        self._timer: Timer | None = None
        self._began_s: float | None = None
        self._paused_s: float | None = None
        self._bytes = 0

    def received(self, count: int) -> None:
        """``count`` more bytes have come of what is under way; it begins with the first of them."""
        if self._began_s is None:
            self._began_s = self._clock.seconds()
            self._bytes = 0
            if self._timer is None:
                self._set(self._limits.allowed_s(count))
        self._bytes += count

    def ended(self) -> None:
        """It is complete, or has been given up."""
        self._began_s = None

    def pause(self) -> None:
        """The connection is not read from now on: that time is not the client's."""
        if self._paused_s is None:
            self._paused_s = self._clock.seconds()

    def resume(self) -> None:
        """The connection is read again."""
        if self._paused_s is not None:
            if self._began_s is not None:
                self._began_s += self._clock.seconds() - max(self._began_s, self._paused_s)
            self._paused_s = None

    def close(self) -> None:
        """Nothing will arrive any more; ``late`` is forgotten, as it refers to the connection."""
        self.ended()
        self._late = _nothing
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self, delay_s: float) -> None:
        if delay_s < math.inf:
            self._timer = self._clock.callLater(delay_s, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._began_s is None:
            return
        if self._paused_s is not None:
            self._set(self._limits.grace_s)
            return
        left_s = self._began_s + self._limits.allowed_s(self._bytes) - self._clock.seconds()
        if left_s > 0:
            self._set(left_s)
        else:
            self.ended()
            self._late()
