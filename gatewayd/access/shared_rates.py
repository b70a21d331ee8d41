"""What callers may still ask, where several gateways count together. Reactor thread only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Literal, Protocol

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from gatewayd.access.rates import Bucket, Count, Rates, Taking, refusal_of, takings
from gatewayd.access.redis_store import StoreLost, Verdict
from gatewayd.config.rates import RateRule
from gatewayd.errors import Overloaded
from gatewayd.messages.caller import Caller

By = Literal["store", "gateway", "refused"]


class Store(Protocol):
    """What keeps the buckets of all gateways (``RedisStore``)."""

    up: bool

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def take(self, buckets: Sequence[tuple[str, Bucket, float]]) -> Deferred[Verdict]:
        """Take so much from each bucket, by its key, if all have room. Fails with StoreLost."""


class SharedRates:
    """
    ``rules`` are what all gateways allow together.

    Where the store does not answer, ``alone`` decides, which has this gateway's share; None refuses then.
    ``decided`` counts by what requests were decided.
    """

    def __init__(self, rules: Iterable[RateRule], store: Store, alone: Rates | None) -> None:
        self.store = store
        self.decided: Counter[By] = Counter()
        self._rules = tuple(rules)
        self._alone = alone
        self._users = 0

    def start(self) -> None:
        """One more front uses it."""
        self._users += 1
        if self._users == 1:
            self.store.start()

    def stop(self) -> None:
        """One front uses it no more; the last one ends it."""
        self._users -= 1
        if not self._users:
            self.store.stop()

    def take(self, caller: Caller, endpoint: str, count: Count, now_s: float) -> Deferred[None] | None:
        """
        Count one request of a caller, as ``Rates.take``; None where no rule names the endpoint.

        Raises TooManyForRate. Fails with RateLimited, or with Overloaded where nobody can decide.
        """
        taken = takings(self._rules, caller, endpoint, count)
        if not taken:
            return None

        def decided(verdict: Verdict) -> None:
            self.decided["store"] += 1
            if verdict.refusing is not None:
                raise refusal_of(taken[verdict.refusing], verdict.wait_s)

        def lost(failure: Failure) -> None:
            failure.trap(StoreLost)
            if self._alone is None:
                self.decided["refused"] += 1
                raise Overloaded(
                    "how often you may ask cannot be found out now: the store of gateway.rates cannot be "
                    "reached; try again later"
                )
            self.decided["gateway"] += 1
            self._alone.take(caller, endpoint, count, now_s)

        asked = self.store.take([(_key(each), each.bucket, each.amount) for each in taken])
        return asked.addCallbacks(decided, lost)


def _key(taking: Taking) -> str:
    """The same in every gateway that has the rule, and not readable: it stands for who somebody is."""
    rule = taking.rule
    parts = (rule.endpoints, rule.by, rule.requests, rule.documents, rule.per_s, taking.what, taking.who)
    return f"gatewayd:rates:{sha256(repr(parts).encode('utf-8', 'replace')).hexdigest()[:32]}"
