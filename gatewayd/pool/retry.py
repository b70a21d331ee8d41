"""
Which failures deserve another attempt, and after how long.

Pure: the caller brings the clock and the dice. The reference's rules are in spec dispatch.md, Calls to
executors; departures: a call that timed out is not sent again unless ``retries`` says so, and a budget
keeps an outage from turning into a storm of retries.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

from gatewayd.backoff import Backoff

# The connection is to blame, not the request: what rpc/channel.py calls UNAVAILABLE. An executor that shuts
# down, or a proxy, cancels what it did not finish; NOT_FOUND is a proxy without an executor behind it.
_LOST: Final = frozenset({"UNAVAILABLE", "CANCELLED", "NOT_FOUND"})
# Sent again only where ``retries`` is set: the executor may still be working on the first attempt, or has
# answered that it failed.
_ON_REQUEST: Final = frozenset({"DEADLINE_EXCEEDED", "UNKNOWN", "INTERNAL"})

# Four attempts end within 0.5 s, so that the client learns of an outage well within a second. Half of a
# delay is jitter.
RETRY_BACKOFF: Final = Backoff(first_s=0.064, factor=1.6, ceiling_s=0.5, low=0.5)


@attrs.frozen
class RetryPolicy:
    """
    ``retries`` is the number of further attempts, -1 for automatic (at least three, and each replica once).

    ``idempotent`` maps an endpoint, or ``"*"``, to whether a request may be sent again that an
    executor may have accepted already; the default is yes.
    """

    retries: int = -1
    idempotent: Mapping[str, bool] = attrs.field(factory=dict)

    def allows(self, code: str, *, reached: bool, endpoint: str, tries: int, replicas: int) -> bool:
        """Whether a request that failed with ``code`` on its ``tries``-th attempt may be sent again."""
        if tries > (max(3, replicas) if self.retries < 0 else self.retries):
            return False
        if reached and not self.idempotent.get(endpoint, self.idempotent.get("*", True)):
            return False
        return code in _LOST or (code in _ON_REQUEST and self.retries > 0)


class RetryBudget:
    """
    A share of recent requests that may be retried, with a reserve for the loss of one whole replica.

    The reserve is what one replica may have in flight: when it dies, each of its requests gets
    another attempt; when everything is down, retries add no more than ``share`` to the load.
    """

    def __init__(self, share: float, reserve: int) -> None:
        self.full = True  # nothing more can be earned
        self._share = share
        self._reserve = float(reserve)
        self._tokens = float(reserve)

    @property
    def left(self) -> float:
        """How many retries are allowed now."""
        return self._tokens

    def earn(self) -> None:
        """A request was made for the first time."""
        if self._tokens < self._reserve:
            self._tokens += self._share
        self.full = self._tokens >= self._reserve

    def spend(self) -> bool:
        """Take what one retry costs; False when nothing is left."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        self.full = False
        return True
