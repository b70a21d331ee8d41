"""
Which failures deserve another try, and after how long.

Pure: the caller brings the clock and the dice. The reference's rules are in spec dispatch.md, Calls to
executors; departures: a timed-out call isn't sent again unless ``retries`` says so, and a budget
keeps an outage from turning into a storm of retries.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

# The connection is to blame, not the request: what channel.py calls UNAVAILABLE. An executor that shuts
# down, or a proxy, cancels what it didn't finish; NOT_FOUND is a proxy without an executor behind it.
_LOST: Final = frozenset({"UNAVAILABLE", "CANCELLED", "NOT_FOUND"})
# Sent again only by those who ask for it: the executor may be at work on the first one still, or has
# said that it failed.
_ON_REQUEST: Final = frozenset({"DEADLINE_EXCEEDED", "UNKNOWN", "INTERNAL"})

# As gRPC's doc/connection-backoff.md grows it, at a smaller scale: four tries end within 0.5 s, so that
# an outage is told to the client well within a second.
_FIRST_S: Final = 0.04
_FACTOR: Final = 1.6
_CEILING_S: Final = 0.5


@attrs.frozen
class RetryPolicy:
    """
    ``retries`` is the number of further tries, -1 for automatic (at least three, and each replica once).

    ``idempotent`` maps an endpoint, or ``"*"``, to whether a request may be sent again that an
    executor may have accepted already. What isn't named may be.
    """

    retries: int = -1
    idempotent: Mapping[str, bool] = attrs.field(factory=dict)

    def allows(self, code: str, *, reached: bool, endpoint: str, tries: int, replicas: int) -> bool:
        """Whether a request that failed with ``code`` on its ``tries``-th try may be sent again."""
        if tries > (max(3, replicas) if self.retries < 0 else self.retries):
            return False
        if reached and not self.idempotent.get(endpoint, self.idempotent.get("*", True)):
            return False
        return code in _LOST or (code in _ON_REQUEST and self.retries > 0)


def backoff_s(tries: int, dice: float) -> float:
    """
    Seconds to wait after the ``tries``-th try, before the same replica is asked again.

    ``dice`` is uniform in [0, 1): half of the delay is jitter.
    """
    delay = min(_CEILING_S, _FIRST_S * _FACTOR**tries)
    return delay * (0.5 + dice / 2)


class RetryBudget:
    """
    A share of recent requests that may be retried, with a reserve for the loss of one whole replica.

    The reserve is what one replica may have in flight: when it dies, each of its requests gets
    another try; when everything is down, retries add no more than ``share`` to the load.
    """

    def __init__(self, share: float, reserve: int) -> None:
        self._share = share
        self._reserve = float(reserve)
        self._tokens = float(reserve)

    def earn(self) -> None:
        """A request was made for the first time."""
        if self._tokens < self._reserve:
            self._tokens += self._share

    def spend(self) -> bool:
        """Take what one retry costs; False when there is nothing left."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
