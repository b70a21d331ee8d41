"""
Which replica gets the next call, and which ones rest for a while.

Pure: what is known about a replica is in ``Load``; the caller brings time and dice.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol, TypeVar

import attrs


class Load(Protocol):
    """What balancing has to know of a replica."""

    @property
    def in_flight(self) -> int:
        """Calls that it has not answered yet."""


R = TypeVar("R", bound=Load)


class Balancer(Protocol):
    """Picks one of several replicas that are all fit to be used."""

    def pick(self, candidates: Sequence[R]) -> R:
        """``candidates`` is not empty, and always in the same order."""


class RoundRobin:
    """Each in turn."""

    def __init__(self) -> None:
        self._turn = 0

    def pick(self, candidates: Sequence[R]) -> R:
        """The next in turn, counted over whatever candidates there are."""
        # Advance even when the call then fails, or one dead replica would be every request's first choice.
        self._turn += 1
        return candidates[self._turn % len(candidates)]


class LeastInFlight:
    """
    The less busy of two drawn by chance.

    Two random choices are nearly as even as looking at all, and don't send everyone to the one that
    just came back (Mitzenmacher, The Power of Two Choices in Randomized Load Balancing).
    """

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice

    def pick(self, candidates: Sequence[R]) -> R:
        """Either of the two when they are equally busy."""
        count = len(candidates)
        if count == 1:
            return candidates[0]
        first = int(self._dice.random() * count)
        second = int(self._dice.random() * (count - 1))
        if second >= first:
            second += 1
        one, other = candidates[first], candidates[second]
        return other if other.in_flight < one.in_flight else one


@attrs.define
class Health:
    """
    One replica's recent failures, and whether it is ejected for them.

    As Envoy's outlier detection: ``threshold`` failures in a row eject for ``base_s``, doubled with
    each ejection up to 32 times. After that time a probe decides whether it returns, on probation:
    the next failure ejects it again, the next success makes up for everything.
    """

    threshold: int
    base_s: float
    failures: int = 0
    ejections: int = 0
    ejected: bool = False

    @property
    def spotless(self) -> bool:
        """Whether there is nothing to forgive."""
        return not self.failures and not self.ejected

    def forgive(self) -> None:
        """An answer, or a new process behind the address: nothing is held against the replica."""
        self.failures = 0
        self.ejections = 0
        self.ejected = False

    def failed(self) -> bool:
        """A failure; True when it is one too many."""
        self.failures += 1
        return not self.ejected and self.failures >= self.threshold

    def eject(self) -> float:
        """Leave it out, or leave it out longer. Returns the seconds until the probe."""
        self.ejected = True
        pause_s = self.base_s * float(2 ** min(self.ejections, 5))
        self.ejections += 1
        return pause_s

    def returned(self) -> None:
        """The probe was answered."""
        self.ejected = False
        self.failures = self.threshold - 1
