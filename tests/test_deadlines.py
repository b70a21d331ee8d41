"""Deadlines as values."""

from __future__ import annotations

import pytest

from gatewayd.deadlines import deadline_after, has_passed, left_s


def test_without_a_timeout_there_is_no_deadline() -> None:
    assert deadline_after(None, 5.0) is None
    assert left_s(None, 5.0) is None
    assert not has_passed(None, 5.0)


def test_what_is_left_of_a_deadline() -> None:
    assert left_s(deadline_after(2.0, 5.0), 6.5) == 0.5
    assert left_s(7.0, 8.0) == -1.0


@pytest.mark.parametrize(("now_s", "expected"), [(6.9, False), (6.96, True), (7.0, True), (9.0, True)])
def test_a_deadline_has_passed_when_a_timer_may_have_fired(now_s: float, expected: bool) -> None:
    assert has_passed(7.0, now_s) is expected
