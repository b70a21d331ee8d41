"""
How long to wait before trying again: exponential, with a ceiling and jitter. Pure.

Grown as gRPC's doc/connection-backoff.md says. Jitter keeps callers that failed together from coming back
together.
"""

from __future__ import annotations

import attrs


@attrs.frozen
class Backoff:
    """
    Delays in seconds, by the number of failures in a row.

    Each delay is ``factor`` times the one before, from ``first_s`` up to ``ceiling_s``. It is then multiplied
    by a number between ``low`` and ``high``.
    """

    first_s: float
    factor: float = 2.0
    ceiling_s: float = float("inf")
    low: float = 1.0
    high: float = 1.0

    def delay_s(self, failures: int, dice: float = 1.0) -> float:
        """``failures`` counts from 1; ``dice`` is uniform in [0, 1)."""
        # The exponent is bounded, for what fails for weeks.
        steady = min(self.ceiling_s, self.first_s * self.factor ** min(failures - 1, 64))
        return steady * (self.low + (self.high - self.low) * dice)
