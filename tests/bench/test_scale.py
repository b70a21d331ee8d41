"""The simulation of a large site: small here, and what it is to show."""

from __future__ import annotations

import pytest

from bench import scale


def test_subsets_cover_all_replicas_and_change_little() -> None:
    (row,) = scale.subsets(200, 100, [20])
    _, connections, spread, without_any, moved = row
    least, mean, most = (float(part) for part in spread.split(" / "))
    assert connections == "2 000"
    assert mean == 10
    assert 0 < least < most < 30
    assert without_any == "0"
    # Only those who called it have another one instead.
    assert int(moved) == pytest.approx(10, abs=9)


def test_the_loss_of_a_zone_costs_retries_and_no_request() -> None:
    _, before, _, after, retries, failed = scale.zone_lost(30, 0.3)
    assert failed == "0"
    assert int(retries) > 0
    assert float(after) < 2 * float(before)


def test_a_storm_ends_with_nothing_ejected() -> None:
    row = scale.storm(20, 0.3)
    assert row[1] == "6"  # those that are broken, and no other
    assert row[4] == "0"
    assert row[6] == "0"


def test_a_newcomer_is_not_flooded() -> None:
    _, first, _, later, most = scale.newcomer(20, 0.6)
    assert float(first) < 2.5
    assert 0.7 < float(later) < 1.5
    new, others = (int(part) for part in most.split(" / "))
    assert new <= others


def test_two_runs_are_the_same() -> None:
    assert scale.newcomer(5, 0.5) == scale.newcomer(5, 0.5)
