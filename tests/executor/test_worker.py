"""The thread of plain methods: order, cancellation, many answers at once, its end."""

import asyncio
import gc
import threading
import weakref

from gatewayd.executor.worker import Worker
from tests.waiting import until_in_loop


def run(scenario):
    async def with_worker():
        worker = Worker("a thread")
        try:
            async with asyncio.timeout(20):
                return await scenario(worker)
        finally:
            worker.close(wait=True)

    return asyncio.run(with_worker())


def test_jobs_run_in_one_thread_in_their_order_and_are_answered_on_the_loop():
    async def scenario(worker):
        seen, all_answered = [], asyncio.Event()

        def done(answer):
            seen.append((*answer, threading.current_thread().name))
            if len(seen) == 50:
                all_answered.set()

        for number in range(50):
            worker.run(lambda number=number: (number, threading.current_thread().name), done)
        await all_answered.wait()
        return seen

    seen = run(scenario)
    assert [number for number, *_ in seen] == list(range(50))
    assert {names for _, *names in seen for names in [tuple(names)]} == {("a thread", "MainThread")}


def test_answers_that_are_ready_together_wake_the_loop_once():
    async def scenario(worker):
        loop, answered, woken = asyncio.get_running_loop(), asyncio.Event(), []
        call_soon = loop.call_soon_threadsafe
        loop.call_soon_threadsafe = lambda *args: (woken.append(args), call_soon(*args))
        begun, gate = threading.Event(), threading.Event()
        left = [*range(20)]

        def done(_):
            left.pop()
            if not left:
                answered.set()

        worker.run(lambda: (begun.set(), gate.wait(20)), done)
        for _ in range(19):
            worker.run(int, done)
        # While the loop is held here, the thread answers all of them.
        gate.set()
        while len(worker._answers) < 20:
            threading.Event().wait(0.001)
        await answered.wait()
        return len(woken)

    assert run(scenario) == 1


def test_what_is_cancelled_is_never_answered_and_begins_only_if_it_had_begun():
    async def scenario(worker):
        begun, gate, seen, last = threading.Event(), threading.Event(), [], asyncio.Event()
        running = worker.run(lambda: (begun.set(), gate.wait(20), seen.append("ran")), seen.append)
        waiting = worker.run(lambda: seen.append("never"), seen.append)
        begun.wait(20)
        assert worker.busy
        running.cancel()
        waiting.cancel()
        gate.set()
        worker.run(int, lambda _: last.set())
        await last.wait()
        return seen, worker.busy

    assert run(scenario) == (["ran"], False)


def test_what_is_raised_is_the_answer_even_a_stop_iteration():
    async def scenario(worker):
        answered = asyncio.get_running_loop().create_future()
        worker.run(lambda: next(iter(())), lambda answer: answered.set_result(answer))
        return await answered

    assert isinstance(run(scenario), StopIteration)


def test_an_answer_that_cannot_be_passed_on_does_not_take_others_with_it(caplog):
    async def scenario(worker):
        second = asyncio.Event()

        def fails(_):
            raise ZeroDivisionError

        worker.run(int, fails)
        worker.run(int, lambda _: second.set())
        await second.wait()

    run(scenario)
    assert [record.message for record in caplog.records] == ["an answer could not be passed on"]


def test_what_waits_when_it_is_closed_is_answered_as_cancelled():
    async def scenario(worker):
        begun, gate, seen = threading.Event(), threading.Event(), []
        both = asyncio.Event()

        def done(answer):
            seen.append(answer)
            if len(seen) == 2:
                both.set()

        worker.run(lambda: (begun.set(), gate.wait(20), "ran")[2], done)
        worker.run(lambda: "never", done)
        begun.wait(20)
        worker.close()
        gate.set()
        await both.wait()
        return seen

    first, second = run(scenario)
    assert first == "ran"
    assert isinstance(second, asyncio.CancelledError)


def test_nothing_of_a_job_stays_while_the_next_is_awaited():
    class Large:
        pass

    async def scenario(worker):
        large, answered = Large(), asyncio.Event()
        kept = weakref.ref(large)
        worker.run(lambda large=large: large, lambda _: answered.set())
        del large
        await answered.wait()
        gc.disable()
        try:
            await until_in_loop(lambda: kept() is None)
        finally:
            gc.enable()

    run(scenario)


def test_a_worker_without_jobs_has_no_thread():
    before = threading.active_count()
    Worker("idle").close(wait=True)
    assert threading.active_count() == before
