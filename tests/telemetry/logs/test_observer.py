"""Where the lines of a log go, and what becomes of a file that somebody moves."""

import io
import logging
import os

import pytest
from twisted.logger import Logger, capturedLogs, globalLogPublisher

from gatewayd.config import GatewayConfig
from gatewayd.telemetry.logs.forms import as_text
from gatewayd.telemetry.logs.levels import Levels
from gatewayd.telemetry.logs.observer import FileSink, Logs, StreamSink, is_journal
from gatewayd.telemetry.logs.settings import LogSettings

log = Logger(namespace="gatewayd.pool")


class Observing:
    """``logs`` observe Twisted's log meanwhile."""

    def __init__(self, logs):
        self.logs = logs

    def __enter__(self):
        globalLogPublisher.addObserver(self.logs)
        return self.logs

    def __exit__(self, *exc_info):
        globalLogPublisher.removeObserver(self.logs)


@pytest.fixture
def logs(path):
    """A log in a file, which observes Twisted's meanwhile."""
    sink = FileSink(path)
    with Observing(Logs(Levels(), as_text, sink)) as logs:
        yield logs
    sink._file.close()


def texts(path):
    return [line.partition("] ")[2] for line in path.read_text().splitlines()]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.log"


def test_only_what_the_levels_admit_is_written():
    stream = io.StringIO()
    with Observing(Logs(Levels("warn"), as_text, StreamSink(stream))):
        log.info("quiet")
        log.warn("loud")

    assert "loud" in stream.getvalue()
    assert "quiet" not in stream.getvalue()


def test_a_stream_of_another_encoding_gets_what_it_can_show():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    with Observing(Logs(Levels(), as_text, StreamSink(stream))):
        log.info("räksmörgås")

    assert raw.getvalue().endswith(b"r\\xe4ksm\\xf6rg\\xe5s\n")


def test_a_file_that_was_moved_is_opened_anew(logs, path):
    log.info("one")
    path.rename(path.with_suffix(".old"))
    log.info("two")
    logs.reopen()
    log.info("three")

    assert texts(path.with_suffix(".old")) == ["one", "two"]
    assert texts(path) == ["three"]


def test_one_in_whose_place_is_another_is_left_to_it(logs, path):
    """What logrotate does with ``create``."""
    log.info("one")
    path.rename(path.with_suffix(".old"))
    path.touch(0o600)
    logs.reopen()
    log.info("two")

    assert texts(path) == ["two"]
    assert path.stat().st_mode & 0o777 == 0o600 or os.geteuid() == 0


def test_one_that_nobody_has_moved_gets_a_number(logs, path):
    log.info("one")
    logs.reopen()
    log.info("two")

    assert texts(path.with_suffix(".log.1")) == ["one"]
    assert texts(path) == ["two"]


def test_one_that_was_truncated_begins_with_the_next_line(logs, path):
    log.info("one")
    os.truncate(path, 0)
    log.info("two")

    assert texts(path) == ["two"]


def test_where_no_new_file_can_be_made_the_old_one_is_written_on(logs, path):
    path.rename(path.with_suffix(".old"))
    path.mkdir()
    logs.reopen()
    log.info("one")

    first, second = texts(path.with_suffix(".old"))
    assert first.startswith("the log's file cannot be opened anew, and the old one is written on: ")
    assert second == "one"


def test_the_journal_is_known_by_its_device_and_inode(tmp_path):
    with (tmp_path / "journal").open("w") as journal, (tmp_path / "other").open("w") as other:
        found = os.fstat(journal.fileno())
        environ = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}

        assert is_journal(journal, environ)
        assert not is_journal(other, environ)
        assert not is_journal(journal, {})
        assert not is_journal(io.StringIO(), environ)


@pytest.mark.parametrize(
    ("gateway", "environ", "expected"),
    [
        ({}, {}, ("info", "text", "info")),
        ({"log_level": "error"}, {}, ("error", "text", "error")),
        ({"log_level": "error"}, {"JINA_LOG_LEVEL": "SUCCESS"}, ("info", "text", "info")),
        ({"log_level": "error"}, {"JINA_LOG_LEVEL": "Warning"}, ("warn", "text", "warn")),
        ({"log_format": "json"}, {}, ("info", "json", "info")),
        ({}, {"JINA_LOG_CONFIG": "json"}, ("info", "json", "info")),
        ({"log_level": "info"}, {"JINA_LOG_CONFIG": "QUIET"}, ("critical", "text", "critical")),
    ],
)
def test_the_environment_comes_before_the_flow_file(gateway, environ, expected):
    found = LogSettings.of(GatewayConfig(**gateway), environ)

    assert (found.level, found.log_format, found.executors) == expected
    assert not found.problems


def test_a_flow_in_python_is_quieter_but_for_what_executors_write():
    found = LogSettings.of(GatewayConfig(), {}, default="warn")

    assert found.levels().base == "warn"
    assert found.levels().of_executor("a") == "info"


def test_what_cannot_be_used_of_the_environment_is_told_when_the_log_begins(monkeypatch):
    monkeypatch.setattr(logging, "root", logging.RootLogger(logging.WARNING))
    environ = {"JINA_LOG_LEVEL": "loud", "JINA_LOG_CONFIG": "/none.yml"}
    found = LogSettings.of(GatewayConfig(log_level="error"), environ)
    logs = Logs(found.levels(), as_text, StreamSink(io.StringIO()), found.problems)

    with capturedLogs() as events:
        logs.begin()

    assert found.level == "error"
    config, level = (event["problem"] for event in events)
    assert config.startswith("JINA_LOG_CONFIG is not used: '/none.yml' cannot be read (No such file")
    assert level.startswith("JINA_LOG_LEVEL: 'loud' is not used; accepted: debug, info, success, warning")
