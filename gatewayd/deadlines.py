"""
Deadlines as values: moments of a monotonic clock in seconds, None where there is no limit. Pure.
"""

from __future__ import annotations

from typing import Final

# Timers of two processes, or of one reactor that is busy, do not fire at the same moment: what ended this
# little early ended because of the deadline.
SLACK_S: Final = 0.05


def deadline_after(timeout_s: float | None, now_s: float) -> float | None:
    """When a timeout that begins now will be over."""
    return None if timeout_s is None else now_s + timeout_s


def left_s(deadline_s: float | None, now_s: float) -> float | None:
    """What is left of a deadline; zero or less when it has passed."""
    return None if deadline_s is None else deadline_s - now_s


def has_passed(deadline_s: float | None, now_s: float) -> bool:
    """Whether a deadline has passed, or will within ``SLACK_S``."""
    return deadline_s is not None and now_s >= deadline_s - SLACK_S
