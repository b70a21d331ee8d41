"""What each probe finds, and why."""

import pytest

from gatewayd.health import LIVE, PROBES, READY, STARTED, Health, Part, parts_of, serving_by_name, verdict_of

A, B = Part("a", 0, 1), Part("b", 0, 2)


def reasons(probe, health):
    return [each.reason for each in verdict_of(probe, health).reasons]


@pytest.mark.parametrize("probe", PROBES)
def test_a_gateway_that_serves_passes_each(probe):
    verdict = verdict_of(probe, Health("serving", True, (A, B)))

    assert verdict.ok
    assert verdict.as_json() == {"ok": True, "reasons": []}


@pytest.mark.parametrize(
    ("health", "live", "started", "ready"),
    [
        (Health("starting", False), [], ["starting"], ["starting"]),
        (Health("draining", True, (A,)), [], [], ["draining"]),
        (Health("stopping", True, (A,)), [], [], ["stopping"]),
        (Health("stopping", False), [], ["starting"], ["stopping"]),
        (Health("serving", True, (A, Part("b", 0, 0))), [], [], ["no_replica"]),
        (Health("serving", True, (Part("a", 0, 0), Part("b", 0, 0))), [], [], ["no_replica"] * 2),
        (Health("serving", True, (A, Part("b", 0, 0, needed=False))), [], [], []),
        (Health("serving", True, (), (0, 2)), [], [], ["no_worker"]),
        (Health("serving", True, (A,), (1, 2)), [], [], []),
    ],
)
def test_one_that_does_not(health, live, started, ready):
    assert [reasons(probe, health) for probe in (LIVE, STARTED, READY)] == [live, started, ready]


def test_the_reason_names_what_is_missing():
    (reason,) = verdict_of(READY, Health("serving", True, (Part("a", 0, 1), Part("a", 1, 0)))).reasons

    assert (reason.deployment, reason.shard) == ("a", 1)
    assert reason.detail == "no replica of shard 1 of a is connected"


def test_what_is_inside_can_be_withheld():
    verdict = verdict_of(READY, Health("serving", True, (Part("secret", 0, 0),)))

    assert verdict.as_json(withheld=True) == {"ok": False, "reasons": [{"reason": "no_replica"}]}
    assert "secret" in str(verdict.as_json())


def test_answers_do_not_wait_for_what_is_optional():
    connected = {("a", 0): 0, ("a/uses_before-0", 0): 0, ("b", 0): 0, ("b/uses_after-0", 0): 1}

    assert [each.needed for each in parts_of(connected, ["a"])] == [False, False, True, True]


def test_the_flow_serves_if_all_that_is_needed_does():
    parts = (Part("a", 0, 1), Part("a", 1, 0), Part("b", 0, 1), Part("c", 0, 0, needed=False))

    assert serving_by_name(Health("serving", True, parts), "flow") == {
        "a": False,
        "b": True,
        "c": False,
        "flow": False,
    }
    assert serving_by_name(Health("serving", True, parts[2:]), "flow")["flow"]
    assert serving_by_name(Health("serving", True, (Part("a/uses_after-0", 0, 0),)), None) == {"a": False}


def test_replicas_that_speak_another_generation_are_a_reason_of_their_own() -> None:
    parts = parts_of({("a", 0): 0}, (), {("a", 0): "it speaks another"})
    verdict = verdict_of(READY, Health("serving", True, parts))
    (reason,) = verdict.reasons
    assert (reason.reason, reason.deployment) == ("other_generation", "a")
    assert reason.detail == "no replica of a is called: it speaks another"
    assert verdict.as_json(withheld=True) == {"ok": False, "reasons": [{"reason": "other_generation"}]}
