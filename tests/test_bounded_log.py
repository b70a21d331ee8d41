"""Lines of the log that clients can cause are bounded."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from twisted.logger import LogEvent, formatEvent

from gatewayd.allowance import Allowance, Bounded
from gatewayd.bounded_log import BoundedLogger


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> list[LogEvent]:
    monkeypatch.setattr(BoundedLogger, "allowance", Allowance(3, clock))
    return []


def texts(events: list[LogEvent]) -> list[str]:
    return [formatEvent(event) for event in events]


def test_a_few_lines_of_each_kind_and_how_many_were_left_out(events: list[LogEvent], clock: Clock) -> None:
    log = BoundedLogger("somewhere", observer=events.append)
    for number in range(100):
        log.warn("request {number} failed", number=number)
    log.info("another kind")
    BoundedLogger("elsewhere", observer=events.append).warn("request {number} failed", number=7)
    clock.now_s = 1.0
    log.warn("request {number} failed", number=100)
    clock.now_s = 5.0
    log.warn("request {number} failed", number=101)

    assert texts(events) == [
        "request 0 failed",
        "request 1 failed",
        "request 2 failed",
        "another kind",
        "request 7 failed",
        "97 more lines like the next one were left out of the log",
        "request 100 failed",
        "request 101 failed",
    ]


def test_tracebacks_are_lines_as_well_and_instances_share_what_is_allowed(events: list[LogEvent]) -> None:
    class Part:
        log = BoundedLogger("somewhere", observer=events.append)

    for _ in range(10):
        try:
            raise ValueError("of a client")
        except ValueError:
            Part().log.failure("it failed")

    assert len(events) == 3
    assert all(event["log_failure"].check(ValueError) for event in events)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain é", "plain é"),
        ("forged\n2026-01-01 line \x1b[31m", r"forged\n2026-01-01 line \x1b[31m"),
        (b"/path\r\n", r"/path\r\n"),
        (b"\xff", r"\xff"),
        ("x" * 1000, "x" * 500 + "..."),
        (b"x" * 1_000_000, "x" * 500 + "..."),
        ("\n" * 1000, r"\n" * 250 + "..."),
        (17, "17"),
    ],
)
def test_texts_of_clients_are_cut_and_cannot_forge_lines(
    events: list[LogEvent], value: Any, shown: str
) -> None:
    BoundedLogger("somewhere", observer=events.append).error("{value}", value=value)
    assert texts(events) == [shown]


def test_a_logger_of_the_standard_library(clock: Clock) -> None:
    found: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    log = logging.Logger("bounded")
    log.addHandler(Kept())
    log.addFilter(Bounded(Allowance(2, clock)))
    for number in range(5):
        log.error("request %d failed", number)
    clock.now_s = 1.0
    log.error("request %d failed", 5)

    assert found == [
        "request 0 failed",
        "request 1 failed",
        "(3 more lines like this one were left out) request 5 failed",
    ]


def test_kinds_that_have_no_end_are_forgotten(clock: Clock) -> None:
    allowance = Allowance(1, clock)
    for number in range(10_000):
        assert allowance.take(number) == 0
    assert len(allowance._kinds) <= 1001
