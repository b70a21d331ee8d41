"""What watches requests, from one settings to the next."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from gatewayd.config import FlowConfig
from gatewayd.config.log_kinds import AccessLogConfig
from gatewayd.config.model import GatewayConfig
from gatewayd.config.recording import RecordConfig
from gatewayd.errors import ConfigError
from gatewayd.service.observing import Observing, read_dropped
from gatewayd.telemetry.metrics import table
from gatewayd.telemetry.metrics.reading import Reading

CLOCK: Any = Clock()


@pytest.fixture(autouse=True)
def nothing_stays_open(tmp_path: Path) -> Iterator[None]:
    yield
    assert not open_in(tmp_path)


def open_in(folder: Path) -> list[str]:
    """The names of the files in it that this process has open."""
    found = []
    for each in os.listdir("/proc/self/fd"):
        try:
            target = Path(os.readlink(f"/proc/self/fd/{each}"))
        except FileNotFoundError:
            continue  # that of the listing itself
        if target.parent == folder:
            found.append(target.name)
    return sorted(found)


def flow(folder: Path, **settings: Any) -> FlowConfig:
    gateway = GatewayConfig(
        access_log=AccessLogConfig(str(folder / "access")), record=RecordConfig(str(folder / "record"))
    )
    return FlowConfig(gateway=attrs.evolve(gateway, **settings))


def observing(of: FlowConfig, before: Observing | None = None) -> Observing:
    return Observing.of(of, CLOCK, maybeDeferred, before)


def ended(one: Observing, *keeping: Observing) -> None:
    done: list[Any] = []
    Deferred.fromCoroutine(one.end(keeping)).addBoth(done.append)
    assert done == [None]


def test_those_whose_settings_are_the_same_go_on(tmp_path: Path) -> None:
    before = observing(flow(tmp_path))
    other = AccessLogConfig(str(tmp_path / "other"))
    after = observing(flow(tmp_path, access_log=other), before)
    assert open_in(tmp_path) == ["access", "other", "record"]
    assert after.parts["record"] is before.parts["record"]
    assert len(after.observers) == 2

    ended(before, after)
    assert open_in(tmp_path) == ["other", "record"]
    ended(after)


def test_one_may_come_or_go(tmp_path: Path) -> None:
    none = observing(FlowConfig())
    assert none.observers == ()
    both = observing(flow(tmp_path), none)
    ended(none, both)
    less = observing(flow(tmp_path, record=None), both)
    ended(both, less)
    assert open_in(tmp_path) == ["access"]
    ended(less)


def test_one_that_is_not_used_after_all_takes_nothing_from_those_that_are(tmp_path: Path) -> None:
    before = observing(flow(tmp_path))
    unused = observing(flow(tmp_path, access_log=AccessLogConfig(str(tmp_path / "other"))), before)
    unused.discard(before)
    assert open_in(tmp_path) == ["access", "record"]
    ended(before)


def test_a_file_that_cannot_be_opened_leaves_none_open(tmp_path: Path) -> None:
    missing = AccessLogConfig(str(tmp_path / "nowhere" / "access"))
    with pytest.raises(ConfigError, match="access_log"):
        observing(flow(tmp_path, access_log=missing))
    assert open_in(tmp_path) == []


def test_what_is_left_out_is_counted_once(tmp_path: Path) -> None:
    with capturedLogs():
        before = observing(flow(tmp_path))
        after = observing(flow(tmp_path, access_log=None), before)
        entries: Any = before.parts["access_log"].observer
        entries._entries.dropped = 3
        reading = Reading()
        read_dropped(reading, [after, before])
        assert reading.of(table.LEFT_OUT) == {("access_log",): 3, ("record",): 0}
        ended(before, after)
        ended(after)
