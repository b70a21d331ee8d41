"""
How many replicas are wanted: decided from what is under way, and for how long it has been so (pure).

    needed = what is under way / target_in_flight, rounded up, from min to max

    needed > wanted for up_after_s      ──> the least that was needed meanwhile, at most twice as many
    needed < wanted for down_after_s    ──> the most that was needed meanwhile, at least half as many
    wanted = 0 and something is waiting ──> one, at once

What is needed has to stay on one side for the whole time, so that a load that swings around a step changes
nothing. While replicas start, no more are added, and while some end, no more are given up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Final

import attrs

from gatewayd.config.scaling import ScalingConfig

# How often the load is looked at: several times within the shortest ``up_after``, by feel.
_LOOKS_PER_SPELL: Final = 4
_OFTENEST_S: Final = 0.05
_RAREST_S: Final = 1.0

# A Deployment and its shard.
PartKey = tuple[str, int]


@attrs.frozen
class Load:
    """What is under way at an executor, or a shard of it: at its replicas, and in its queue."""

    in_flight: int = 0
    queued: int = 0

    @property
    def total(self) -> int:
        return self.in_flight + self.queued

    def __add__(self, other: Load) -> Load:
        return Load(self.in_flight + other.in_flight, self.queued + other.queued)

    def __str__(self) -> str:
        return f"{self.in_flight} in flight" + (f" and {self.queued} queued" if self.queued else "")


@attrs.frozen
class Decision:
    """From now on ``wanted`` replicas are, where ``before`` were; ``why`` is for people."""

    before: int
    wanted: int
    why: str

    def __str__(self) -> str:
        return f"{self.before} -> {self.wanted} replicas: {self.why}"


def pause_s(settings: Iterable[ScalingConfig]) -> float:
    """How long after one look at the load the next one is taken, for executors of these ``settings``."""
    shortest_s = min(min(each.up_after_s, each.down_after_s) for each in settings)
    return min(_RAREST_S, max(_OFTENEST_S, shortest_s / _LOOKS_PER_SPELL))


@attrs.define
class _Spell:
    """Since when another number has been needed than there is, and the one that is nearest to it."""

    since_s: float
    nearest: int


class Policy:
    """Decides for one executor, or one shard. ``wanted`` is how many replicas are wanted now."""

    def __init__(self, settings: ScalingConfig, wanted: int) -> None:
        self.settings = settings
        self.wanted = wanted
        self._above: _Spell | None = None
        self._below: _Spell | None = None

    def needed(self, load: Load) -> int:
        """How many replicas are needed for ``load``, within the limits."""
        return self._within(math.ceil(load.total / self.settings.target_in_flight))

    def judge(
        self, now_s: float, load: Load, *, starting: bool = False, ending: bool = False
    ) -> Decision | None:
        """
        What is to change now, if anything; it counts as done.

        ``starting`` says that replicas which are wanted have neither served nor failed yet, ``ending`` that
        some which are not wanted any more still work.
        """
        settings, wanted = self.settings, self.wanted
        limited = self._within(wanted)
        if limited != wanted:
            return self._decide(limited, f"from {settings.least} to {settings.most} are allowed")
        needed = self.needed(load)
        above = self._above = None if starting else _spell(self._above, now_s, needed, needed > wanted, min)
        below = self._below = None if ending else _spell(self._below, now_s, needed, needed < wanted, max)
        if wanted == 0 and needed:
            return self._decide(1, f"{load}")
        if above is not None and now_s - above.since_s >= settings.up_after_s:
            return self._decide(min(above.nearest, wanted * 2), self._because(load))
        if below is not None and now_s - below.since_s >= settings.down_after_s:
            return self._decide(max(below.nearest, wanted // 2), self._because(load))
        return None

    def _because(self, load: Load) -> str:
        return f"{load}, {self.settings.target_in_flight:g} wanted for each"

    def _within(self, number: int) -> int:
        return min(self.settings.most, max(self.settings.least, number))

    def _decide(self, wanted: int, why: str) -> Decision:
        self._above = self._below = None
        before, self.wanted = self.wanted, wanted
        return Decision(before, wanted, why)


def _spell(
    before: _Spell | None, now_s: float, needed: int, goes_on: bool, nearer: Callable[[int, int], int]
) -> _Spell | None:
    if not goes_on:
        return None
    return _Spell(now_s, needed) if before is None else _Spell(before.since_s, nearer(before.nearest, needed))
