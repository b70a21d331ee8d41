"""
The pool's decisions, counted and logged.

Every decision is counted. Those about replicas are logged each time, for operators; those that a request
can cause are logged at most once a second for each Deployment, with how often they happened, so that an
outage does not flood the log.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from twisted.logger import Logger

log = Logger()

_QUIET_S: Final = 1.0


class Decisions:
    """
    One Deployment's decisions. ``counters`` are the pool's, keyed by (decision, Deployment).

    ``seconds`` is a monotonic clock.
    """

    def __init__(
        self, deployment: str, counters: Counter[tuple[str, str]], seconds: Callable[[], float]
    ) -> None:
        self.deployment = deployment
        self._counters = counters
        self._picked = "picked", deployment
        self._seconds = seconds
        self._logged: dict[str, tuple[float, int]] = {}  # decision -> when last, and the count then
        self.retries: Counter[str] = Counter()  # by the gRPC status of the failure before

    def picked(self) -> None:
        """A replica was picked, as for every request: counted only."""
        self._counters[self._picked] += 1

    def count(self, decision: str) -> None:
        """A decision that says little by itself: counted only."""
        self._counters[decision, self.deployment] += 1

    def request(self, decision: str, why: str = "") -> None:
        """A decision about one request; ``why`` is shown for the one that is logged."""
        key = decision, self.deployment
        self._counters[key] = count = self._counters[key] + 1
        now = self._seconds()
        last, before = self._logged.get(decision, (now - _QUIET_S, 0))
        if now - last >= _QUIET_S:
            self._logged[decision] = now, count
            log.info(
                "{deployment}: {decision} {times} time(s){separator}{why}",
                deployment=self.deployment,
                decision=decision,
                times=count - before,
                separator="; the last: " if why else "",
                why=why,
            )

    def retried(self, code: str, why: str) -> None:
        """A call is tried again after a failure with this gRPC status."""
        self.retries[code] += 1
        self.request("retried", why)

    def replica(self, decision: str, address: str, why: str = "") -> None:
        """A decision about one replica."""
        self._counters[decision, self.deployment] += 1
        log.info(
            "{deployment}: {address} {decision}{separator}{why}",
            deployment=self.deployment,
            address=address,
            decision=decision,
            separator=": " if why else "",
            why=why,
        )
