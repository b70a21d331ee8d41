"""The bridge between the reactor thread and the loop thread."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.python.failure import Failure

from gatewayd.bridge import GATHER_S, Bridge
from tests.memory_gateway import Reactor


@pytest_twisted.async_yield_fixture()
async def bridge() -> AsyncIterator[Bridge]:
    bridge = Bridge(reactor)
    bridge.start()
    yield bridge
    await bridge.stop()


@pytest_twisted.ensureDeferred
async def test_work_on_the_loop_answers_on_the_reactor_thread(bridge: Bridge) -> None:
    async def where(word: str) -> tuple[str, str]:
        return word, threading.current_thread().name

    word, thread = await bridge.on_loop(where, "here")

    assert (word, thread) == ("here", "grpc loop")
    assert threading.current_thread() is threading.main_thread()


@pytest_twisted.ensureDeferred
async def test_an_exception_on_the_loop_reaches_its_asker(bridge: Bridge) -> None:
    async def fail() -> None:
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        await bridge.on_loop(fail)


@pytest_twisted.ensureDeferred
async def test_cancelling_the_deferred_cancels_the_task(bridge: Bridge) -> None:
    ended: Deferred[str] = Deferred()
    begun: Deferred[None] = Deferred()

    async def wait() -> None:
        bridge.tell_reactor(begun.callback, None)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            bridge.tell_reactor(ended.callback, "cancelled")
            raise

    work = bridge.on_loop(wait)
    await begun
    work.cancel()

    with pytest.raises(CancelledError):
        await work
    assert await ended.addTimeout(30, reactor) == "cancelled"


@pytest_twisted.ensureDeferred
async def test_work_on_the_reactor_answers_on_the_loop(bridge: Bridge) -> None:
    def double(number: int) -> Deferred[int]:
        assert threading.current_thread() is threading.main_thread()
        answer: Deferred[int] = Deferred()
        reactor.callLater(0, answer.callback, number * 2)
        return answer

    async def ask() -> int:
        return await bridge.on_reactor(double, 21)

    assert await bridge.on_loop(ask) == 42


@pytest_twisted.ensureDeferred
async def test_an_exception_on_the_reactor_reaches_the_loop(bridge: Bridge) -> None:
    def refuse() -> Deferred[None]:
        raise LookupError("not here")

    async def ask() -> str:
        try:
            await bridge.on_reactor(refuse)
        except LookupError as error:
            return str(error)
        return "no error"

    assert await bridge.on_loop(ask) == "not here"


@pytest_twisted.ensureDeferred
async def test_a_task_that_is_cancelled_cancels_its_work_on_the_reactor(bridge: Bridge) -> None:
    cancelled: Deferred[str] = Deferred()
    begun: Deferred[None] = Deferred()

    def forever() -> Deferred[None]:
        begun.callback(None)
        return Deferred(lambda _: cancelled.callback("cancelled"))

    async def ask() -> None:
        await bridge.on_reactor(forever)

    work = bridge.on_loop(ask)
    await begun
    work.cancel()

    with pytest.raises(CancelledError):
        await work
    assert await cancelled.addTimeout(30, reactor) == "cancelled"


@pytest_twisted.ensureDeferred
async def test_a_letter_that_raises_does_not_stop_the_ones_behind_it(
    bridge: Bridge, caught_failures: list[Failure]
) -> None:
    arrived: Deferred[str] = Deferred()

    def fail() -> None:
        raise LookupError("in a letter")

    async def send() -> None:
        bridge.tell_reactor(fail)
        bridge.tell_reactor(arrived.callback, "behind")

    await bridge.on_loop(send)
    assert await arrived.addTimeout(30, reactor) == "behind"
    assert caught_failures.pop().check(LookupError)


@pytest_twisted.ensureDeferred
async def test_stopping_cancels_what_still_runs_and_refuses_what_comes_later() -> None:
    bridge = Bridge(reactor)
    bridge.start()

    async def forever() -> None:
        await asyncio.Event().wait()

    running = bridge.on_loop(forever)
    await bridge.stop()
    with pytest.raises(CancelledError):
        await running.addTimeout(30, reactor)
    with pytest.raises(CancelledError):
        await bridge.on_loop(forever)


@pytest_twisted.ensureDeferred
async def test_offloaded_work_runs_in_another_thread(bridge: Bridge) -> None:
    assert await bridge.offload(threading.current_thread) is not threading.main_thread()


@pytest.mark.slow
@pytest_twisted.ensureDeferred
async def test_a_hundred_thousand_crossings_with_random_cancels_lose_and_double_none(bridge: Bridge) -> None:
    """Round trips reactor -> loop -> reactor -> loop -> reactor, 50 000 of two crossings each way."""
    dice = random.Random(7)
    total, batch = 50_000, 500
    outcomes: list[int] = [0] * total
    answered = cancelled = 0

    def on_reactor(number: int) -> Deferred[int]:
        answer: Deferred[int] = Deferred()
        if number % 3:
            reactor.callLater(0, lambda: answer.called or answer.callback(number))
        else:
            answer.callback(number)
        return answer

    async def on_loop(number: int) -> int:
        return await bridge.on_reactor(on_reactor, number)

    def got(result: object, number: int) -> None:
        nonlocal answered, cancelled
        outcomes[number] += 1
        if result == number:
            answered += 1
        else:
            assert getattr(result, "type", None) is CancelledError, result
            cancelled += 1

    for first in range(0, total, batch):
        work = [bridge.on_loop(on_loop, number) for number in range(first, first + batch)]
        for number, one in enumerate(work, first):
            one.addBoth(got, number)
        for one in dice.sample(work, batch // 5):
            if dice.random() < 0.5:
                one.cancel()
            else:
                reactor.callLater(dice.random() / 100, one.cancel)
        await DeferredList(work)

    assert outcomes == [1] * total
    assert answered + cancelled == total
    assert answered > total * 0.7
    assert cancelled > total * 0.05


class Turning:
    """A bridge whose loop turns when the test says so, and its clock."""

    def __init__(self, clock: Reactor | None = None) -> None:
        self.clock: Any = clock or Reactor()
        self.bridge = Bridge(self.clock)
        self.told: list[int] = []

    def tell(self, *numbers: int, soon: bool = True) -> None:
        for number in numbers:
            (self.bridge.tell_loop_soon if soon else self.bridge.tell_loop)(self.told.append, number)

    def turn(self) -> list[int]:
        """What the loop has been told by now."""
        loop = self.bridge._loop
        loop.call_soon(loop.stop)
        loop.run_forever()
        return self.told


def test_what_is_told_soon_shares_a_wake_up_with_what_comes_within_a_moment() -> None:
    turning = Turning()
    turning.tell(1)
    assert turning.turn() == [1]  # the first waits for nothing
    turning.tell(2, 3)
    assert turning.turn() == [1]
    turning.clock.advance(GATHER_S / 2)
    turning.tell(4)
    assert turning.turn() == [1]
    turning.clock.advance(GATHER_S / 2)

    assert turning.turn() == [1, 2, 3, 4]
    assert turning.bridge.crossings["loop"] == (4, 2)
    turning.clock.advance(2 * GATHER_S)
    turning.tell(5)
    assert turning.turn()[4:] == [5]
    assert turning.clock.getDelayedCalls() == []


def test_what_is_told_soon_needs_no_timer_while_the_loop_is_being_woken() -> None:
    turning = Turning()
    turning.tell(1, 2, 3)
    assert turning.clock.getDelayedCalls() == []
    assert turning.turn() == [1, 2, 3]
    assert turning.bridge.crossings["loop"] == (3, 1)


def test_the_loop_is_woken_at_the_end_of_a_turn_of_a_reactor_that_tells_of_it() -> None:
    class Telling(Reactor):
        def __init__(self) -> None:
            super().__init__()
            self.at_the_end: list[Callable[[], object]] = []

        def when_turn_ends(self, function: Callable[..., object], *args: object) -> None:
            self.at_the_end.append(partial(function, *args))

    turning = Turning(Telling())
    turning.tell(1, 2, soon=False)
    turning.tell(3)
    assert turning.turn() == []
    (wake,) = turning.clock.at_the_end
    wake()

    assert turning.turn() == [1, 2, 3]


def test_what_a_letter_asks_to_be_called_soon_is_called_behind_all_of_them(
    caught_failures: list[Failure],
) -> None:
    turning = Turning()
    bridge, told = turning.bridge, turning.told

    def fail() -> None:
        raise ValueError("a mistake")

    def ask() -> None:
        bridge.call_soon(fail)
        bridge.call_soon(lambda: told.append(2))

    bridge.tell_loop(ask)
    turning.tell(1, soon=False)
    # In one turn of the loop, which ends with what stands behind it.
    assert turning.turn() == [1, 2]
    assert caught_failures.pop().check(ValueError)

    bridge._loop.call_soon(bridge.call_soon, lambda: told.append(3))
    turning.turn()
    assert turning.turn() == [1, 2, 3]


def test_what_is_told_at_once_takes_with_it_what_was_told_soon_before_it() -> None:
    turning = Turning()
    turning.tell(1, 2)
    turning.turn()
    turning.tell(3)
    turning.tell(4, soon=False)

    assert turning.turn() == [1, 2, 3, 4]
    turning.clock.advance(GATHER_S)
    assert turning.turn() == [1, 2, 3, 4]
    assert turning.clock.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_a_bridge_that_stops_leaves_no_timer() -> None:
    turning = Turning()
    turning.tell(1, 2)
    turning.turn()
    turning.tell(3)
    assert turning.clock.getDelayedCalls() != []
    await turning.bridge.stop()
    turning.tell(4)

    assert turning.clock.getDelayedCalls() == []
