"""Which events are in the log."""

import pytest

from gatewayd.telemetry.logs.levels import Levels


@pytest.mark.parametrize(
    ("namespace", "level", "admitted"),
    [
        ("gatewayd.pool", "debug", True),
        ("gatewayd.pool.dns", "debug", True),
        ("gatewayd.pooling", "debug", False),
        ("gatewayd.pooling", "warn", True),
        ("gatewayd.pool.events", "error", False),
        ("gatewayd.pool.events", "critical", True),
        ("-", "info", False),
        ("executor.a", "debug", True),
        ("executor.a/uses_before-0", "debug", True),
        ("executor.loud", "info", False),
        ("executors", "info", False),
    ],
)
def test_the_nearest_namespace_above_decides(namespace, level, admitted):
    levels = Levels(
        "warn", {"gatewayd.pool": "debug", "gatewayd.pool.events": "critical", "executor.loud": "error"}
    )

    assert levels.admits(namespace, level) is admitted


def test_a_level_can_be_changed_for_all_and_for_one():
    levels = Levels()
    assert not levels.admits("gatewayd.pool.dns", "debug")

    levels.set("debug", "gatewayd.pool")
    levels.set("error")

    assert levels.admits("gatewayd.pool.dns", "debug")
    assert not levels.admits("gatewayd.service", "warn")
    assert levels.base == "error"


def test_an_access_log_is_written_whatever_the_level_unless_it_has_one():
    assert Levels("error").admits("gatewayd.access", "info")
    assert not Levels("error", {"gatewayd.access": "warn"}).admits("gatewayd.access", "info")


def test_what_is_no_level_is_refused_and_changes_nothing():
    levels = Levels()
    with pytest.raises(ValueError, match="'loud' is no level of the log; accepted: debug, info"):
        levels.set("loud")
    assert levels.base == "info"


def test_executors_write_from_the_base_on_or_from_their_own_level_on():
    levels = Levels("warn", {"executor.a": "debug"})

    assert [levels.of_executor(name) for name in ("a", "b")] == ["debug", "warn"]
    levels = Levels("warn", executors="info")
    assert levels.of_executor("b") == "info"

    levels.set("debug")
    assert levels.of_executor("b") == "debug"


def test_no_number_of_namespaces_is_remembered_without_end():
    levels = Levels()
    for number in range(5000):
        assert levels.admits(f"library.{number}", "info")
    assert len(levels._found) <= 1000
