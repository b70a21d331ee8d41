"""
The only door between the reactor thread and gRPC's asyncio loop.

The loop runs in one thread of its own. Calls and answers cross through two mailboxes, one for each
direction; a mailbox wakes its thread once for as many letters as are waiting, which is what makes a
crossing cheap under load. Either side can cancel what it asked for: the work is cancelled on the
other side, and an answer that is already on its way is dropped.

    loop thread       await bridge.on_reactor(dispatch, request)    -> runs dispatch on the reactor
    reactor thread    await bridge.on_loop(call, message)           -> runs the coroutine on the loop
    reactor thread    await bridge.offload(decode, body)            -> runs in a pool thread

Only immutable values may cross. Every attribute below says which thread touches it.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any, Final, Generic, ParamSpec, Protocol, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from gatewayd.bounded_log import BoundedLogger
from gatewayd.clocks import Clock, Threads, Timer
from gatewayd.loops import new_event_loop
from gatewayd.offload_threads import OffloadThreads

T = TypeVar("T")
P = ParamSpec("P")

log = BoundedLogger()

# What is told ``soon`` may wait so long for more to go with it: a thousand wake-ups a second are enough.
GATHER_S: Final = 0.001

# How long cancelled tasks may take to end. Chosen without a measurement: a process that stops must end.
_PATIENCE_S: Final = 5.0


class Offloading:
    """Runs pure functions in threads of its own. Reactor thread only."""

    def __init__(self, reactor: Threads) -> None:
        self._reactor = reactor
        self._threads = OffloadThreads()
        self._stopped = False

    def offload(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """
        Run a pure function in a pool thread.

        Cancelling the Deferred drops the answer, and the function itself if it has not begun. After ``stop``,
        the Deferred is cancelled at once.
        """
        answer: Deferred[T] = Deferred()
        if self._stopped:
            answer.cancel()
            return answer

        def work() -> Any:
            return None if answer.called else function(*args, **kwargs)

        def done(succeeded: bool, result: Any) -> None:
            self._reactor.callFromThread(answer.callback if succeeded else answer.errback, result)

        if not self._threads.started:
            self._threads.start()
        self._threads.callInThreadWithCallback(done, work)
        return answer

    def stop(self) -> None:
        """Leave behind what runs."""
        self._stopped = True
        if self._threads.started:
            self._threads.stop()


_WhenTurnEnds = Callable[[Callable[[Callable[[], None]], None], Callable[[], None]], None]


class BridgeReactor(Clock, Threads, Protocol):
    """What a bridge uses of the reactor."""


class Bridge:
    """
    Owns the loop thread.

    Create and start it on the reactor thread, before or while the reactor runs; ``stop`` needs a running
    reactor.
    """

    def __init__(self, reactor: BridgeReactor, name: str = "grpc loop") -> None:
        self._reactor = reactor
        self._name = name
        self._loop = new_event_loop()
        # At the end of the reactor's turn, where it tells of that (``GatewayReactor``): woken earlier, the
        # other thread would wait for the interpreter's lock; and what comes meanwhile shares the wake-up.
        when_turn_ends: _WhenTurnEnds | None = getattr(reactor, "when_turn_ends", None)
        wake = self._loop.call_soon_threadsafe
        self._to_loop = _Mailbox(wake if when_turn_ends is None else partial(when_turn_ends, self._wake_loop))
        self._to_reactor = _Mailbox(reactor.callFromThread)
        self._thread: threading.Thread | None = None  # reactor thread only
        self._offloading = Offloading(reactor)  # reactor thread only
        self._stopped = False  # reactor thread only
        self._woken_s = float("-inf")  # for what is told soon; reactor thread only
        self._gathering: Timer | None = None  # reactor thread only
        self._ident: int | None = None  # set once, by the loop thread, before anything runs there
        self._tasks: set[asyncio.Task[Any]] = set()  # loop thread only

    # -- reactor thread ------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the loop thread. What was sent to the loop before runs first."""
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """
        Cancel what still runs on the loop, end the loop, and wait for its thread.

        A loop that is stuck is left behind after a few seconds, and that is logged. Offloaded work is left
        behind at once.
        """
        self._stopped = True
        self._offloading.stop()
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        if self._thread is None:
            return
        thread, self._thread = self._thread, None
        ended: Deferred[None] = Deferred()

        def wait() -> None:
            thread.join(_PATIENCE_S)
            self._reactor.callFromThread(ended.callback, None)

        self._to_loop.post(self._cancel_all)
        self._reactor.callInThread(wait)
        await ended
        if thread.is_alive():
            log.error("the {name} does not end; it is left behind", name=self._name)

    def on_loop(
        self, work: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]:
        """
        Run ``work(*args)`` as a task of the loop.

        Cancelling the Deferred cancels the task and drops its answer; stopping the bridge cancels both. On a
        bridge that has stopped, the Deferred is cancelled at once.
        """
        job: _Job[T] = _Job(self)
        if self._stopped:
            job.answer.cancel()
            return job.answer
        self._to_loop.post(self._begin_task, job, partial(work, *args, **kwargs))
        return job.answer

    def run_on_loop(self, work: Callable[[], Coroutine[Any, Any, T]], timeout_s: float) -> T:
        """
        Run ``work()`` on the loop and block until it is done: for start-up, before the reactor runs.

        Raises what the work raises, or TimeoutError.
        """
        return asyncio.run_coroutine_threadsafe(work(), self._loop).result(timeout_s)

    def tell_loop(self, function: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Call a plain function on the loop thread and don't wait. Its exceptions are logged."""
        self._to_loop.post(partial(function, **kwargs) if kwargs else function, *args)

    def tell_loop_soon(self, function: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """
        As ``tell_loop``, for what comes often.

        Where the loop was woken for such a thing less than ``GATHER_S`` ago, it is told when that time is
        over, or something else wakes it: what comes meanwhile shares the wake-up. The order of all that is
        told stays.
        """
        box = self._to_loop
        box.letters.append((partial(function, **kwargs) if kwargs else function, args))
        if self._gathering is None and not box.awake:
            now_s = self._reactor.seconds()
            left_s = self._woken_s + GATHER_S - now_s
            if left_s <= 0:
                self._woken_s = now_s
                box.wake()
            elif not self._stopped:
                self._gathering = self._reactor.callLater(left_s, self._gathered)

    def _wake_loop(self, empty: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(empty)
        except RuntimeError:
            if not self._to_loop.closed:  # the loop has ended since
                raise

    def _gathered(self) -> None:
        self._gathering = None
        self._woken_s = self._reactor.seconds()
        self._to_loop.wake()

    def offload(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """
        Run a pure function in a pool thread.

        Cancelling the Deferred drops the answer, and the function itself if it has not begun. On a bridge
        that has stopped, the Deferred is cancelled at once.
        """
        return self._offloading.offload(function, *args, **kwargs)

    # -- any thread ----------------------------------------------------------------------------------

    @property
    def crossings(self) -> Mapping[str, tuple[int, int]]:
        """What was handed to each thread until now, and how often it was woken for that."""
        return {
            name: (box.carried, box.wakeups)
            for name, box in (("loop", self._to_loop), ("reactor", self._to_reactor))
        }

    @property
    def is_here(self) -> bool:
        """Whether the caller runs on the loop thread."""
        return threading.get_ident() == self._ident

    # -- loop thread ---------------------------------------------------------------------------------

    def on_reactor(
        self, start: Callable[P, Deferred[T]], *args: P.args, **kwargs: P.kwargs
    ) -> asyncio.Future[T]:
        """
        Run ``start(*args)`` on the reactor thread; the future gets what its Deferred fires with.

        Cancelling the future (which a cancelled task that awaits it does) cancels the Deferred.
        """
        errand: _Errand[T] = _Errand(self)
        self._to_reactor.post(self._begin_work, errand, partial(start, **kwargs) if kwargs else start, args)
        return errand

    def ask_reactor(
        self,
        done: Callable[[T | Failure], object],
        start: Callable[..., Deferred[T]],
        *args: object,
    ) -> Question[T]:
        """
        As ``on_reactor``, without a future: ``done`` is called on the loop thread, with the answer or a
        Failure, unless the question is cancelled before. For what each request does.
        """
        question: Question[T] = Question(self, done)
        self._to_reactor.post(self._begin_work, question, start, args)
        return question

    def tell_reactor(self, function: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Call a plain function on the reactor thread and don't wait. Its exceptions are logged."""
        self._to_reactor.post(partial(function, **kwargs) if kwargs else function, *args)

    def call_soon(self, function: Callable[[], object]) -> None:
        """
        Call a plain function behind the letters that are being read, or in the next turn of the loop.

        A turn costs a system call, and a wait for the interpreter's lock.
        """
        behind = self._to_loop.behind
        if behind is None:
            self._loop.call_soon(function)
        else:
            behind.append(function)

    def spawn_on_loop(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine beside everything else, until it ends, is cancelled, or the bridge stops."""
        task = self._loop.create_task(work)
        # The loop itself holds its tasks by weak references only.
        self._tasks.add(task)
        task.add_done_callback(self._spawned_done)
        return task

    # -- the loop's half of on_loop ------------------------------------------------------------------

    def _run(self) -> None:
        self._ident = threading.get_ident()
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._to_loop.close()
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    def _cancel_all(self) -> None:
        async def end() -> None:
            # gRPC's servers and channels have tasks of their own besides ours.
            others = asyncio.all_tasks(self._loop) - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            self._loop.stop()

        self.spawn_on_loop(end())

    def _begin_task(self, job: _Job[T], work: Callable[[], Coroutine[Any, Any, T]]) -> None:
        task = self._loop.create_task(work())
        job.task = task
        self._tasks.add(task)
        task.add_done_callback(job.done)

    def _task_done(self, job: _Job[T], task: asyncio.Task[T]) -> None:
        self._tasks.discard(task)
        result: T | Failure
        if task.cancelled():
            result = Failure(CancelledError())
        elif error := task.exception():
            result = Failure(error)
            # The frames hold whole messages; the text of the traceback is all that is ever shown.
            result.cleanFailure()
        else:
            result = task.result()
        self._to_reactor.post(self._settle, job, result)

    def _spawned_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.failure("a task of the loop failed", failure=Failure(error))

    def _cancel_task(self, job: _Job[Any]) -> None:
        # The mailbox keeps order: _begin_task has run by now.
        if job.task is not None:
            job.task.cancel()

    # -- the reactor's half of on_loop ---------------------------------------------------------------

    def _settle(self, job: _Job[T], result: T | Failure) -> None:
        if not job.abandoned:
            if isinstance(result, Failure):
                job.answer.errback(result)
            else:
                job.answer.callback(result)
        elif isinstance(result, Failure) and not result.check(CancelledError):
            log.debug("work on the loop failed after its asker left: {error}", error=result.value)

    def _abandon(self, job: _Job[Any]) -> None:
        job.abandoned = True
        self._to_loop.post(self._cancel_task, job)

    # -- the reactor's half of on_reactor ------------------------------------------------------------

    def _begin_work(
        self, errand: _Errand[T] | Question[T], start: Callable[..., Deferred[T]], args: Any
    ) -> None:
        if errand.asker_left:
            return
        try:
            work = start(*args)
        except Exception:
            self._to_loop.post(errand.deliver, Failure())
            return
        errand.work = work
        work.addBoth(self._report, errand)

    def _report(self, result: T | Failure, errand: _Errand[T] | Question[T]) -> None:
        errand.work = None
        if not errand.asker_left:
            self._to_loop.post(errand.deliver, result)
        elif isinstance(result, Failure) and not result.check(CancelledError):
            log.debug("work on the reactor failed after its asker left: {error}", error=result.value)

    def _release(self, errand: _Errand[Any] | Question[Any]) -> None:
        errand.asker_left = True
        if errand.work is not None:
            errand.work.cancel()


class _Job(Generic[T]):
    """Work that the reactor asked of the loop."""

    __slots__ = ("abandoned", "answer", "bridge", "task")

    def __init__(self, bridge: Bridge) -> None:
        self.bridge = bridge
        self.answer: Deferred[T] = Deferred(self._left)  # reactor thread only
        self.abandoned = False  # reactor thread only
        self.task: asyncio.Task[T] | None = None  # loop thread only

    def _left(self, _answer: object) -> None:
        self.bridge._abandon(self)

    def done(self, task: asyncio.Task[T]) -> None:
        """Loop thread: the task ended, one way or another."""
        self.bridge._task_done(self, task)


class _Errand(asyncio.Future[T]):
    """Work that the loop asked of the reactor: the future that the loop waits for."""

    def __init__(self, bridge: Bridge) -> None:
        super().__init__(loop=bridge._loop)
        self.bridge = bridge
        self.work: Deferred[Any] | None = None  # reactor thread only
        self.asker_left = False  # reactor thread only

    def cancel(self, msg: object = None) -> bool:
        """Loop thread: by the asker, or by the cancelling of a task that waits."""
        cancelled = super().cancel(msg)
        if cancelled:
            # The mailbox keeps order: _begin_work has run by then.
            self.bridge._to_reactor.post(self.bridge._release, self)
        return cancelled

    def deliver(self, result: T | Failure) -> None:
        """Loop thread: the reactor's answer has arrived."""
        if self.done():
            return
        if isinstance(result, Failure):
            error = result.value
            # A Deferred that was cancelled is to the loop what a cancelled future is.
            if isinstance(error, CancelledError):
                self.cancel()
            else:
                self.set_exception(error or RuntimeError("a failure without an exception"))
        else:
            self.set_result(result)


class Question(Generic[T]):
    """Work that the loop asked of the reactor, and that calls back."""

    __slots__ = ("_done", "asker_left", "bridge", "over", "work")

    def __init__(self, bridge: Bridge, done: Callable[[T | Failure], object]) -> None:
        self.bridge = bridge
        self.over = False  # loop thread only
        self.work: Deferred[Any] | None = None  # reactor thread only
        self.asker_left = False  # reactor thread only
        self._done = done

    def cancel(self) -> None:
        """Loop thread: nothing is called back any more, and the work is cancelled. Harmless when repeated."""
        if not self.over:
            self.over = True
            self.bridge._to_reactor.post(self.bridge._release, self)

    def deliver(self, result: T | Failure) -> None:
        """Loop thread: the reactor's answer has arrived."""
        if not self.over:
            self.over = True
            self._done(result)


class _Mailbox:
    """
    Functions to be called on another thread, in the order they were posted.

    ``wake(function)`` has to call the function soon on the owning thread; it is called once for any
    number of letters that arrive before the owner looks. What is added to ``letters`` waits for ``wake``, or
    the next ``post``.
    """

    def __init__(self, wake: Callable[[Callable[[], None]], object]) -> None:
        self._wake = wake
        self.carried = 0  # as the next one, of the owning thread, which looks at many at once
        self.wakeups = 0
        self.letters: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        # What is to be called behind the letters that are being read; None when none are. Owning thread only.
        self.behind: list[Callable[[], object]] | None = None
        self.awake = False  # the owner has been told to look, and has yet to
        self.closed = False

    def post(self, function: Callable[..., object], *args: Any) -> None:
        """From any thread."""
        self.letters.append((function, args))
        # The letter is in before the flag is read, and the owner clears the flag before it looks:
        # if the flag is set, the owner has yet to look. At worst two posters wake the owner twice.
        if not self.awake and not self.closed:
            self.awake = True
            self._wake(self._empty)

    def wake(self) -> None:
        """Have the owner look at what was added to ``letters``, unless it has."""
        if self.letters and not self.awake and not self.closed:
            self.awake = True
            self._wake(self._empty)

    def close(self) -> None:
        """From the owning thread, which will not look again: letters to it are dropped."""
        self.closed = True
        self.letters.clear()

    def _empty(self) -> None:
        self.awake = False
        # Letters posted meanwhile are left for the next turn, so that the owner's other events get theirs.
        behind: list[Callable[[], object]] = []
        self.behind = behind
        take = self.letters.popleft
        waiting = len(self.letters)
        self.carried += waiting
        self.wakeups += 1
        for _ in range(waiting):
            function, args = take()
            try:
                function(*args)
            except Exception:
                log.failure("a letter between the threads failed")
        self.behind = None
        for call in behind:
            try:
                call()
            except Exception:
                log.failure("what comes behind the letters between the threads failed")
