"""The file of an access log: written aside, opened anew, and never waited for."""

import os

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.python.failure import Failure

from gatewayd.errors import ConfigError
from gatewayd.telemetry import access_file
from gatewayd.telemetry.access_file import AccessFile


class Offload:
    """Runs what is offloaded when the test says so."""

    def __init__(self):
        self.waiting = []

    def __call__(self, function, *args):
        answer = Deferred()
        self.waiting.append((answer, function, args))
        return answer

    def run(self):
        answer, function, args = self.waiting.pop(0)
        try:
            result = function(*args)
        except Exception:
            answer.errback(Failure())
        else:
            answer.callback(result)


class Setup:
    def __init__(self, path):
        self.path, self.clock, self.offload = path, Clock(), Offload()
        self.file = AccessFile(str(path), str, self.clock, self.offload)

    def add(self, *entries):
        for entry in entries:
            self.file.add(entry)

    def write(self):
        self.clock.advance(0.2)
        self.offload.run()

    @property
    def lines(self):
        return self.path.read_text().split()


@pytest.fixture
def setup(tmp_path):
    return Setup(tmp_path / "access.log")


def test_what_comes_within_a_moment_is_one_write(setup):
    setup.add("a", "b")
    assert not setup.offload.waiting
    setup.write()

    assert setup.lines == ["a", "b"]
    assert not setup.clock.getDelayedCalls()


def test_what_comes_faster_becomes_lines_in_the_meantime_and_stays_in_its_order(setup):
    numbers = [str(number) for number in range(100)]
    setup.add(*numbers)
    assert not setup.offload.waiting
    setup.write()

    assert setup.lines == numbers
    assert setup.file.dropped == 0


def test_what_comes_during_a_write_is_written_after_it(setup):
    setup.add("a")
    setup.clock.advance(0.2)
    setup.add("b")
    setup.clock.advance(1.0)
    assert len(setup.offload.waiting) == 1
    setup.offload.run()
    setup.write()

    assert setup.lines == ["a", "b"]


def test_its_lines_come_after_those_that_are_there(tmp_path):
    (tmp_path / "access.log").write_text("older\n")
    setup = Setup(tmp_path / "access.log")
    setup.add("a")
    setup.write()

    assert setup.lines == ["older", "a"]


def test_a_file_that_was_moved_is_opened_anew_even_if_nothing_comes(setup):
    setup.add("a")
    setup.write()
    setup.path.rename(setup.path.with_suffix(".old"))
    setup.add("b")
    setup.file.reopen()
    setup.offload.run()
    assert setup.lines == ["b"]

    setup.path.unlink()
    setup.file.reopen()
    setup.offload.run()
    assert setup.lines == []


def test_one_that_is_moved_during_a_write_is_opened_anew_after_it(setup):
    setup.add("a")
    setup.clock.advance(0.2)
    setup.file.reopen()
    setup.offload.run()
    setup.path.rename(setup.path.with_suffix(".old"))
    setup.add("b")
    setup.offload.run()
    setup.write()

    assert setup.lines == ["b"]


def test_where_it_cannot_be_opened_anew_the_lines_are_lost_and_counted(setup):
    setup.path.unlink()
    setup.path.mkdir()
    setup.add("a", "b")
    with capturedLogs() as events:
        setup.file.reopen()
        setup.offload.run()
    assert setup.file.dropped == 2
    assert [event["log_level"].name for event in events] == ["error"]
    assert "2 lines are lost" in events[0]["log_format"].format(**events[0])

    setup.path.rmdir()
    setup.add("c")
    setup.file.reopen()
    setup.offload.run()
    assert setup.lines == ["c"]


def test_a_disk_that_is_full_is_told_of_once_a_minute(setup, monkeypatch):
    def full(descriptor, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(access_file, "_write_all", full)
    with capturedLogs() as events:
        for _ in range(400):
            setup.add("a")
            setup.write()

    assert setup.file.dropped == 400
    assert len(events) == 2


def test_an_entry_that_cannot_be_written_keeps_no_later_one_from_it(setup, caught_failures):
    setup.add("\ud800")
    setup.write()
    assert [failure.type for failure in caught_failures] == [UnicodeEncodeError]
    caught_failures.clear()

    setup.add("a")
    setup.write()
    assert setup.lines == ["a"]
    assert setup.file.dropped == 1


def test_what_comes_while_too_much_waits_is_left_out_and_counted(setup, monkeypatch):
    monkeypatch.setattr(access_file, "MOST_WAITING", 3)
    setup.add(*"abcde")
    with capturedLogs() as events:
        setup.write()

    assert setup.lines == ["a", "b", "c"]
    assert setup.file.dropped == 2
    assert [(event["log_level"].name, event["count"]) for event in events] == [("warn", 2)]


def test_a_stop_writes_what_is_left_and_closes_the_file(setup):
    setup.add("a")
    before = len(os.listdir("/proc/self/fd"))
    done = setup.file.stop()
    assert not done.called
    setup.offload.run()

    assert done.called
    assert setup.lines == ["a"]
    assert len(os.listdir("/proc/self/fd")) == before - 1
    assert not setup.clock.getDelayedCalls()
    setup.add("late")
    assert setup.file.dropped == 1


def test_a_stop_during_a_write_waits_for_it_and_what_came_after(setup):
    setup.add("a")
    setup.clock.advance(0.2)
    setup.add("b")
    done = setup.file.stop()
    setup.offload.run()
    assert not done.called
    setup.offload.run()

    assert done.called
    assert setup.lines == ["a", "b"]


def test_a_stop_waits_for_no_disk_that_hangs(setup):
    setup.add("a")
    done = setup.file.stop()
    setup.clock.advance(1.0)
    assert done.called

    answer, _, _ = setup.offload.waiting.pop()
    answer.errback(Failure(CancelledError()))


def test_a_file_that_cannot_be_opened_is_refused_by_key_and_path(tmp_path):
    with pytest.raises(
        ConfigError, match=r"gateway.access_log.path: '/.*none/access.log' cannot be opened: No such"
    ):
        Setup(tmp_path / "none" / "access.log")
