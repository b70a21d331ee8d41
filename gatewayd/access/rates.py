"""
How often callers may ask (pure): a token bucket for each rule and caller.

Of a bucket is kept what was missing in it when it was last taken from. One in which nothing is missing need
not be remembered.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from typing import Final, NamedTuple

import attrs

from gatewayd.access.rules import matches, named
from gatewayd.config.rates import RateRule
from gatewayd.errors import RateLimited, TooManyForRate
from gatewayd.messages.caller import Caller
from gatewayd.networks import network_of

# Of these a bucket takes about 300 bytes.
MOST_BUCKETS: Final = 100_000

_LONGEST_NAME: Final = 64

# How many documents a request has, if they are not more than this; any larger number otherwise.
Count = Callable[[int], int]
_Key = tuple[int, str, str]  # the rule's number, what is counted, and for whom


class Level(NamedTuple):
    """What was missing in a bucket at a moment."""

    missing: float
    at_s: float


_FULL: Final = Level(0.0, 0.0)


@attrs.frozen
class Bucket:
    """Holds ``size`` things, and gets ``amount`` of them back in ``per_s`` seconds."""

    amount: float
    per_s: float
    size: float

    def missing(self, level: Level, now_s: float) -> float:
        """How many things are missing now in one that had a ``level``."""
        return max(0.0, level.missing - (now_s - level.at_s) * self.amount / self.per_s)

    def wait_s(self, missing: float) -> float:
        """How long until so many can be missing; 0 for now."""
        # Sums of floats: a bucket of ten has to hold ten.
        beyond = missing - self.size
        return beyond * self.per_s / self.amount if beyond > 1e-9 * self.size else 0.0


class Taking(NamedTuple):
    """
    What one request takes from one bucket, which is that of a rule, of ``what`` is counted, and of ``who``
    shares it. ``number`` is that of the rule.
    """

    number: int
    rule: RateRule
    what: str
    who: str
    bucket: Bucket
    amount: float


def takings(rules: Sequence[RateRule], caller: Caller, endpoint: str, count: Count) -> list[Taking]:
    """
    All that one request takes; nothing where no rule names the endpoint.

    Raises TooManyForRate for one that has more documents than any rate allows at once.
    """
    name = named(endpoint)
    numbered = [
        (number, rule)
        for number, rule in enumerate(rules)
        if any(matches(pattern, name) for pattern in rule.endpoints)
    ]
    documents = _documents([rule for _, rule in numbered], count)
    return [
        Taking(number, rule, what, _who(rule, caller), bucket, amount)
        for number, rule in numbered
        for what, bucket, amount in _buckets(rule, documents)
    ]


def refusal_of(taking: Taking, wait_s: float) -> RateLimited:
    """The error of a request for which a bucket has no room for so long."""
    return RateLimited(f"{rate_text(taking.bucket, taking.what)}{_WHOSE[taking.rule.by]}", wait_s)


class Rates:
    """What every caller may still ask by ``rules``, of whom so many are remembered. Not for threads."""

    def __init__(self, rules: Iterable[RateRule], most_buckets: int = MOST_BUCKETS) -> None:
        self._rules = tuple(rules)
        self._most_buckets = most_buckets
        self._levels: OrderedDict[_Key, Level] = OrderedDict()
        self._now_s = float("-inf")  # the latest moment in them

    def __len__(self) -> int:
        return len(self._levels)

    def take(self, caller: Caller, endpoint: str, count: Count, now_s: float) -> None:
        """
        Count one request of a caller, which all rules that are for it must have room for.

        Raises RateLimited, and nothing is counted, or TooManyForRate for one that has more documents than any
        rate allows at once.
        """
        wanted = takings(self._rules, caller, endpoint, count)
        if not wanted:
            return
        self._follow_clock(now_s)
        levels: list[tuple[_Key, Level]] = []
        longest_s, refusing = 0.0, wanted[0]
        for each in wanted:
            key = (each.number, each.what, each.who)
            missing = each.bucket.missing(self._levels.get(key, _FULL), now_s) + each.amount
            levels.append((key, Level(missing, now_s)))
            wait_s = each.bucket.wait_s(missing)
            if wait_s > longest_s:
                longest_s, refusing = wait_s, each
        if longest_s > 0:
            raise refusal_of(refusing, longest_s)
        self._now_s = now_s
        for key, level in levels:
            self._levels[key] = level
            self._levels.move_to_end(key)
        # What was used longest ago is probably full.
        while len(self._levels) > self._most_buckets:
            self._levels.popitem(last=False)

    def _follow_clock(self, now_s: float) -> None:
        """Where the clock was put back, go on from there: a moment to come would give nothing back."""
        if now_s < self._now_s:
            self._now_s = now_s
            for key, level in self._levels.items():
                self._levels[key] = Level(level.missing, min(level.at_s, now_s))


_WHOSE: Final = {"identity": " of each caller", "address": " of each address", "all": " of all callers"}


def rate_text(bucket: Bucket, what: str) -> str:
    """A rate in words."""
    return f"{bucket.amount:g} {what} in {bucket.per_s:g} s"


def _documents(rules: Iterable[RateRule], count: Count) -> int:
    """How many documents a request has, if that matters. Raises TooManyForRate."""
    bursts = [int(rule.burst_documents) for rule in rules if rule.documents is not None]
    if not bursts:
        return 0
    found = count(min(bursts))
    if found > min(bursts):
        raise TooManyForRate(min(bursts))
    return found


def _buckets(rule: RateRule, documents: int) -> Iterator[tuple[str, Bucket, float]]:
    """What is counted by a rule, the bucket that it is taken from, and how much."""
    if rule.requests is not None:
        yield "requests", Bucket(rule.requests, rule.per_s, rule.burst), 1
    if rule.documents is not None and documents:
        yield "documents", Bucket(rule.documents, rule.per_s, rule.burst_documents), documents


def _who(rule: RateRule, caller: Caller) -> str:
    """The text that stands for all whom a caller shares its bucket with."""
    if rule.by == "all":
        return ""
    if rule.by == "identity" and caller.name is not None:
        name = f"{caller.means}:{caller.name}"
        return name if len(name) <= _LONGEST_NAME else sha256(name.encode("utf-8", "replace")).hexdigest()
    return f"@{network_of(caller.address)}"
