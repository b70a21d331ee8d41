"""The client's pattern over the names of Deployments."""

from __future__ import annotations

import time

import pytest

from gatewayd.dispatch.target_pattern import compile_target_pattern
from gatewayd.errors import BadRequest


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("exec", "exec_a", True),
        ("exec_[ab]", "exec_b", True),
        ("exec_[ab]", "exec_c", False),
        ("a", "exec_a", False),
        ("(?!exec_a)", "exec_b", True),
        ("(?!exec_a)", "exec_a", False),
    ],
)
def test_a_pattern_is_anchored_at_the_start_only(pattern: str, name: str, expected: bool) -> None:
    assert compile_target_pattern(pattern).matches(name) is expected


@pytest.mark.parametrize("pattern", ["[", "*a", "(?P<n", "x" * 1001])
def test_what_is_no_pattern_is_refused_with_its_place(pattern: str) -> None:
    with pytest.raises(BadRequest) as caught:
        compile_target_pattern(pattern)
    assert caught.value.problems[0]["loc"] == ["body", "targetExecutor"]


def test_a_pattern_made_to_take_forever_is_refused_soon() -> None:
    started = time.monotonic()
    with pytest.raises(BadRequest, match="takes too long"):
        compile_target_pattern("(a|aa|a|a)+" * 20 + "$").matches("a" * 40 + "!")
    # Without the limit it would take longer than the universe has existed.
    assert time.monotonic() - started < 60
