"""How many replicas are wanted, decided with figures and times alone."""

from __future__ import annotations

import math
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from gatewayd.config.scaling import ScalingConfig
from gatewayd.supervisor.scaling import Decision, Load, Policy

SETTINGS = ScalingConfig(most=8, least=1, target_in_flight=2, up_after_s=5, down_after_s=30)


def settings() -> st.SearchStrategy[ScalingConfig]:
    return st.builds(
        lambda least, more, target, up, down: ScalingConfig(max(1, least + more), least, target, up, down),
        st.integers(0, 5),
        st.integers(0, 20),
        st.sampled_from([0.5, 1, 2, 3.5, 10]),
        st.integers(1, 10),
        st.integers(1, 60),
    )


def run(policy: Policy, loads: list[int], began_s: int = 0) -> list[tuple[int, Decision]]:
    """What is decided when there is each of ``loads`` for a second."""
    found = []
    for at_s, load in enumerate(loads, began_s):
        decision = policy.judge(at_s, Load(load))
        if decision is not None:
            found.append((at_s, decision))
    return found


def test_one_is_added_when_more_were_needed_for_long_enough() -> None:
    policy = Policy(SETTINGS, 1)

    ((at_s, decision),) = run(policy, [4] * 20)

    assert at_s == SETTINGS.up_after_s
    assert (decision.before, decision.wanted) == (1, 2)


def test_the_reason_is_told() -> None:
    policy = Policy(SETTINGS, 1)
    run(policy, [23] * 5)

    decision = policy.judge(5, Load(3, 20))

    assert str(decision) == "1 -> 2 replicas: 3 in flight and 20 queued, 2 wanted for each"


def test_a_short_peak_changes_nothing() -> None:
    assert run(Policy(SETTINGS, 1), [2, 100, 100, 100, 100, 2, 2, 2, 2] * 5) == []


def test_a_load_that_swings_around_a_step_changes_nothing() -> None:
    assert run(Policy(SETTINGS, 2), [3, 5, 4, 6, 3] * 50) == []


def test_fewer_are_wanted_for_the_most_that_was_needed_meanwhile() -> None:
    ((at_s, decision),) = run(Policy(SETTINGS, 5), [6] * 10 + [8] + [1] * 25)

    assert at_s == SETTINGS.down_after_s
    assert decision.wanted == 4


def test_of_none_one_is_wanted_at_once_and_the_last_one_ends_after_its_time() -> None:
    policy = Policy(ScalingConfig(most=3, least=0, down_after_s=30), 0)

    assert [(at_s, one.wanted) for at_s, one in run(policy, [0, 0, 1] + [0] * 60)] == [(2, 1), (33, 0)]


def test_while_some_start_no_more_are_added_and_the_time_begins_anew() -> None:
    policy = Policy(SETTINGS, 1)
    for at_s in range(20):
        assert policy.judge(at_s, Load(100), starting=True) is None

    assert [at_s for at_s, _ in run(policy, [100] * 8, began_s=20)] == [25]


def test_while_some_end_no_more_are_given_up_but_more_are_added() -> None:
    policy = Policy(SETTINGS, 4)
    for at_s in range(100):
        assert policy.judge(at_s, Load(0), ending=True) is None
    for at_s in range(100, 105):
        assert policy.judge(at_s, Load(16), ending=True) is None

    assert policy.judge(105, Load(16), ending=True) is not None


def test_other_limits_hold_at_once() -> None:
    policy = Policy(SETTINGS, 6)
    policy.settings = ScalingConfig(most=3, least=2)

    decision = policy.judge(0, Load(100))

    assert decision is not None
    assert str(decision) == "6 -> 3 replicas: from 2 to 3 are allowed"


@given(settings(), st.lists(st.integers(0, 60), max_size=200), st.integers(1, 5))
def test_whatever_the_load_steps_are_bounded_and_nothing_flaps(
    limits: ScalingConfig, loads: list[int], first: int
) -> None:
    policy = Policy(limits, min(limits.most, max(limits.first, first)))
    decisions = run(policy, loads)

    for _, each in decisions:
        assert limits.least <= each.wanted <= limits.most
        assert each.before != each.wanted
        assert each.wanted <= max(1, each.before * 2)
        assert each.wanted >= each.before // 2
    for (before_s, _), (after_s, after) in pairwise(decisions):
        if after.wanted < after.before:
            assert after_s - before_s > limits.down_after_s
        elif after.before:
            assert after_s - before_s > limits.up_after_s


@given(settings(), st.integers(0, 60), st.integers(0, 20))
def test_a_load_that_stays_leads_to_what_it_needs_and_to_nothing_else(
    limits: ScalingConfig, load: int, first: int
) -> None:
    policy = Policy(limits, min(limits.most, max(limits.least, first)))
    needed = min(limits.most, max(limits.least, math.ceil(load / limits.target_in_flight)))

    decisions = run(policy, [load] * 500)

    assert policy.wanted == needed
    assert len({after.wanted > after.before for _, after in decisions}) <= 1
