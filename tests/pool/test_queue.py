"""Requests that wait: their order, their bound, and that each leaves once."""

from __future__ import annotations

from gatewayd.pool.queue import Queue


class Request:
    """Finds one of ``slots`` or not, and records that it was started."""

    def __init__(self, name: str, slots: list[str], started: list[str]) -> None:
        self.name = name
        self.slots = slots
        self.started = started

    def reserve(self) -> bool:
        return bool(self.slots) and bool(self.slots.pop())

    def start_call(self) -> None:
        self.started.append(self.name)


class Setup:
    def __init__(self, limit: int = 10) -> None:
        self.queue: Queue[Request] = Queue(limit)
        self.slots: list[str] = []
        self.started: list[str] = []

    def add(self, name: str, *, retry: bool = False) -> Request:
        request = Request(name, self.slots, self.started)
        self.queue.add(request, retry=retry)
        return request

    def serve(self, slots: int) -> list[str]:
        self.slots += ["slot"] * slots
        self.queue.serve()
        return self.started


def test_requests_are_started_in_order_as_long_as_slots_are_free() -> None:
    setup = Setup()
    for name in "abc":
        setup.add(name)

    assert setup.serve(2) == ["a", "b"]
    assert setup.queue.size == 1
    assert setup.serve(1) == ["a", "b", "c"]
    assert setup.queue.size == 0


def test_a_retry_goes_before_those_that_were_not_called_yet() -> None:
    setup = Setup()
    setup.add("a")
    setup.add("again", retry=True)

    assert setup.serve(1) == ["again"]


def test_a_retry_that_finds_no_slot_does_not_hold_up_the_others() -> None:
    setup = Setup()
    picky = Request("picky", [], setup.started)
    setup.queue.add(picky, retry=True)
    setup.add("again", retry=True)
    setup.add("a")

    assert setup.serve(2) == ["again", "a"]
    assert list(setup.queue) == [picky]


def test_a_request_that_left_is_not_started_and_may_leave_twice() -> None:
    setup = Setup()
    left = setup.add("left")
    setup.add("a")
    setup.queue.discard(left)
    setup.queue.discard(left)

    assert setup.queue.size == 1
    assert setup.serve(2) == ["a"]


def test_the_queue_is_bounded_over_both_lines() -> None:
    setup = Setup(limit=2)
    assert not setup.queue.full
    setup.add("a")
    setup.add("b", retry=True)

    assert setup.queue.full
    setup.serve(1)
    assert not setup.queue.full


def test_a_call_that_ends_at_once_and_comes_back_is_served_by_the_same_loop() -> None:
    setup = Setup()

    class Failing(Request):
        def start_call(self) -> None:
            super().start_call()
            setup.slots.append("slot")
            setup.queue.serve()  # as a call that fails at once does

    setup.queue.add(Failing("first", setup.slots, setup.started), retry=False)
    setup.add("second")

    assert setup.serve(1) == ["first", "second"]
    assert setup.queue.size == 0
