"""Delays between attempts."""

from __future__ import annotations

import pytest

from gatewayd.backoff import Backoff


@pytest.mark.parametrize(("failures", "expected"), [(1, 1.0), (2, 2.0), (3, 4.0), (4, 5.0), (10_000, 5.0)])
def test_delays_grow_up_to_the_ceiling(failures: int, expected: float) -> None:
    assert Backoff(1.0, ceiling_s=5.0).delay_s(failures) == expected


@pytest.mark.parametrize(("dice", "expected"), [(0.0, 8.0), (0.5, 10.0), (1.0, 12.0)])
def test_jitter_spreads_a_delay(dice: float, expected: float) -> None:
    assert Backoff(10.0, low=0.8, high=1.2).delay_s(1, dice) == pytest.approx(expected)
