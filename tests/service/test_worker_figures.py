"""The figures of several workers, which are made up, as one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from gatewayd.service import worker_messages as messages
from gatewayd.service.worker_figures import WorkerFigures, united
from gatewayd.telemetry.metrics import table
from gatewayd.telemetry.metrics.reading import Reading


def text_of(requests: int) -> str:
    reading = Reading()
    reading.set(table.REQUESTS, requests, "http", "/x", "ok")
    reading.set(table.CONNECTIONS, 1, "http", "80")
    return reading.as_text()


class FakeWorker:
    def __init__(self) -> None:
        self.figures: str | None = None
        self.is_there = True
        self.asked: list[Any] = []

    def listens(self) -> bool:
        return self.is_there

    def tell(self, message: messages.ToWorker) -> None:
        self.asked.append(message)


class Setup:
    """Two workers. What is offloaded is done when the test says so, if it ``waits``."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.workers = [FakeWorker(), FakeWorker()]
        self.figures = WorkerFigures(self.clock, self._offload, lambda: self.workers)
        self.waits = False
        self.work: list[Callable[[], None]] = []

    def _offload(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        self.work.append(lambda: done.callback(function(*args, **kwargs)))
        if not self.waits:
            self.work.pop()()
        return done

    def read(self) -> list[Reading]:
        found: list[Any] = []
        self.figures.read().addBoth(found.append)
        return found

    def tell(self, number: int, *requests: int) -> None:
        """The first of the workers tell this."""
        for worker, count in zip(self.workers, requests, strict=False):
            self.figures.told(worker, number, text_of(count))

    def lose(self, worker: FakeWorker) -> None:
        worker.is_there = False
        self.figures.lost(worker)


def test_all_who_ask_meanwhile_join_one_round() -> None:
    setup = Setup()
    first, second = setup.read(), setup.read()
    assert [each.asked for each in setup.workers] == [[messages.Measure(1)]] * 2

    setup.tell(1, 3)
    assert not first
    setup.tell(1, 3, 4)

    assert [each.total(table.REQUESTS) for each in (*first, *second)] == [7, 7]
    assert first[0].number(table.CONNECTIONS, "http", "80") == 2
    assert first[0].number(table.SILENT, "worker") == 0


def test_the_readings_of_many_endpoints_are_decoded_in_a_thread() -> None:
    setup = Setup()
    setup.waits = True
    found = setup.read()
    setup.tell(1, 3, 4)
    assert not found

    # Who asks from now on gets figures of now.
    later = setup.read()
    setup.work.pop()()
    assert [each.total(table.REQUESTS) for each in found] == [7]
    assert not later
    setup.tell(2, 30, 40)
    setup.work.pop()()
    assert [each.total(table.REQUESTS) for each in later] == [70]


def test_one_that_does_not_answer_is_not_waited_for_long() -> None:
    setup = Setup()
    found = setup.read()
    setup.tell(1, 3)
    setup.clock.advance(2.0)
    assert found[0].total(table.REQUESTS) == 3
    assert found[0].number(table.SILENT, "worker") == 1

    # What comes too late answers no later question.
    later = setup.read()
    setup.figures.told(setup.workers[1], 1, text_of(100))
    setup.tell(2, 3)
    assert not later
    setup.tell(2, 3, 4)
    assert later[0].total(table.REQUESTS) == 7


def test_one_that_does_not_answer_keeps_the_counts_that_it_told_last() -> None:
    setup = Setup()
    setup.read()
    setup.tell(1, 3, 4)
    found = setup.read()
    setup.tell(2, 5)
    setup.clock.advance(2.0)

    assert found[0].total(table.REQUESTS) == 9
    assert found[0].number(table.SILENT, "worker") == 1
    assert found[0].number(table.CONNECTIONS, "http", "80") == 1  # what it has now is unknown


def test_nobody_waits_for_one_that_ends_and_its_counts_stay() -> None:
    setup = Setup()
    setup.read()
    setup.tell(1, 3, 4)
    found = setup.read()
    setup.tell(2, 5)
    setup.lose(setup.workers[1])

    assert found[0].total(table.REQUESTS) == 9
    assert found[0].number(table.CONNECTIONS, "http", "80") == 1
    # What arrives after its end has been counted.
    setup.figures.told(setup.workers[1], 2, text_of(4))
    again = setup.read()
    setup.tell(3, 5)
    assert again[0].total(table.REQUESTS) == 9


def test_without_workers_there_are_figures_all_the_same() -> None:
    setup = Setup()
    setup.workers.clear()
    assert setup.read()[0].number(table.SILENT, "worker") == 0


def test_what_the_past_is_united_with_leaves_it_as_it_is() -> None:
    past = united(Reading(), [(text_of(3), True)])
    assert united(past, [(text_of(4), False)]).total(table.REQUESTS) == 7
    assert past.total(table.REQUESTS) == 3
    assert not past.of(table.CONNECTIONS)
