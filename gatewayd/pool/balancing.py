"""
Which replica gets the next call, and which ones are left out for a while.

Pure: what is known of a replica is in ``Load`` and ``Candidate``; the caller brings time and dice.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Sequence
from typing import Final, Protocol, TypeVar

import attrs

from gatewayd.backoff import Backoff

# Ranks of replicas, best first (see _rank): from here on nothing is called.
_NOT_CONNECTED_YET: Final = 8
_WORST: Final = 99


class Load(Protocol):
    """What balancing has to know of a replica."""

    @property
    def in_flight(self) -> int:
        """Calls that it has not answered yet."""


class Candidate(Load, Protocol):
    """What choosing has to know of a replica besides."""

    @property
    def address(self) -> str: ...
    @property
    def state(self) -> str:
        """``connecting``, ``ready`` or ``failed``."""

    @property
    def health(self) -> Health: ...


R = TypeVar("R", bound=Load)
C = TypeVar("C", bound=Candidate)


class Balancer(Protocol):
    """Picks one of several replicas that are equally good."""

    def pick(self, candidates: Sequence[R]) -> R:
        """``candidates`` is not empty, and always in the same order."""


class RoundRobin:
    """Each replica in turn."""

    def __init__(self) -> None:
        self._turn = 0

    def pick(self, candidates: Sequence[R]) -> R:
        """The next one, by a count that goes on whatever the candidates are."""
        # Advance even when the call then fails, or one dead replica would be every request's first choice.
        self._turn += 1
        return candidates[self._turn % len(candidates)]


class LeastInFlight:
    """
    The less busy of two drawn at random.

    Two random choices spread calls nearly as evenly as looking at all replicas, and do not send every
    call to the one that just came back (Mitzenmacher, The Power of Two Choices in Randomized Load Balancing).
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


def choose(replicas: Iterable[C], tried: Collection[str], max_in_flight: int, balancer: Balancer) -> C | None:
    """
    The best replica, or None if it has no free slot, or is not connected yet.

    The best one has not been tried yet, is connected, is not ejected, and is on no host of one that was
    tried: a machine that dies takes all of its replicas along. Where no replica is all of this, these wishes
    are dropped one by one, the last first.
    """
    best: list[C] = []
    best_rank = _WORST
    hosts = {_host(address) for address in tried}
    for replica in replicas:
        rank = _rank(replica, tried, hosts)
        if rank < best_rank:
            best_rank = rank
            best = [replica]
        elif rank == best_rank:
            best.append(replica)
    if best_rank == _NOT_CONNECTED_YET:
        return None
    free = [replica for replica in best if replica.in_flight < max_in_flight]
    if not free:
        return None
    return free[0] if len(free) == 1 else balancer.pick(free)


def _host(address: str) -> str:
    return address.rpartition(":")[0]


def _rank(replica: Candidate, tried: Collection[str], hosts: Collection[str]) -> int:
    was_tried = replica.address in tried
    if replica.state == "ready":
        beside = bool(hosts) and _host(replica.address) in hosts
        return 4 * was_tried + 2 * replica.health.ejected + beside
    if replica.state == "connecting":
        return _NOT_CONNECTED_YET
    return _NOT_CONNECTED_YET + 1 + was_tried


@attrs.define
class Health:
    """
    One replica's recent failures, and whether it is ejected for them.

    As Envoy's outlier detection: ``threshold`` failures in a row eject for ``base_s``, doubled with
    each ejection up to 32 times. After that time a probe decides whether it returns, on probation:
    the next failure ejects it again, the next success clears its record.
    """

    threshold: int
    base_s: float
    failures: int = 0
    ejections: int = 0
    ejected: bool = False

    @property
    def clean(self) -> bool:
        """Whether there is nothing to reset."""
        return not self.failures and not self.ejected

    def reset(self) -> None:
        """After an answer, or with a new process behind the address."""
        self.failures = 0
        self.ejections = 0
        self.ejected = False

    def failed(self) -> bool:
        """Count a failure; True when the replica should be ejected for it."""
        self.failures += 1
        return not self.ejected and self.failures >= self.threshold

    def eject(self) -> float:
        """Leave it out, or leave it out longer. Returns the seconds until the probe."""
        self.ejected = True
        self.ejections += 1
        return Backoff(self.base_s, ceiling_s=32 * self.base_s).delay_s(self.ejections)

    def returned(self) -> None:
        """The probe was answered."""
        self.ejected = False
        self.failures = self.threshold - 1
