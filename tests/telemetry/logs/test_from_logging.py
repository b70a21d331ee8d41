"""What Python's ``logging`` is told arrives in the log."""

import logging

import pytest
from twisted.logger import capturedLogs

from gatewayd.telemetry.logs.forms import as_text
from gatewayd.telemetry.logs.from_logging import ToTheLog, let_through, take_over
from gatewayd.telemetry.logs.levels import Levels


@pytest.fixture
def root():
    """The root logger, as it was before when the test ends."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield root
    root.handlers[:] = before
    root.setLevel(level)


def test_a_record_is_an_event_with_its_level_and_logger(root):
    take_over(Levels("info"))
    with capturedLogs() as events:
        for name in ("debug", "info", "warning", "error", "critical"):
            getattr(logging.getLogger("a.b"), name)("%s %s", name, "{x}")

    assert [event["log_level"].name for event in events] == ["info", "warn", "error", "critical"]
    assert {event["log_namespace"] for event in events} == {"a.b"}
    assert events[0]["text"] == "info {x}"


def test_a_traceback_comes_along_as_text(root):
    take_over(Levels())
    with capturedLogs() as events:
        try:
            raise LookupError("gone")
        except LookupError:
            logging.getLogger("a").exception("it failed")

    (event,) = events
    assert "log_failure" not in event
    text = as_text(event)
    assert "[a#error] it failed\n\tTraceback (most recent call last):\n" in text
    assert text.endswith("\n\tLookupError: gone\n")


def test_what_no_level_admits_is_not_made(root):
    take_over(Levels("error", {"a": "warn"}))
    assert not logging.getLogger("a").isEnabledFor(logging.INFO)
    assert logging.getLogger("a").isEnabledFor(logging.WARNING)

    let_through(Levels("debug"))
    assert logging.getLogger("a").isEnabledFor(logging.DEBUG)


def test_a_record_that_cannot_be_formatted_harms_nobody(root, monkeypatch):
    monkeypatch.setattr(logging, "raiseExceptions", False)
    handler = ToTheLog()
    with capturedLogs() as events:
        handler.handle(logging.LogRecord("a", logging.INFO, "", 1, "%d", ("x",), None))
    assert events == []
