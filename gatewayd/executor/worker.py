"""
The thread that an executor's plain methods run in, one after the other.

A job goes to the thread, and its answer comes back to the event loop, together with all that are ready by
then: one wake-up of the loop for many answers.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any

log = logging.getLogger(__name__)

Work = Callable[[], Any]
Done = Callable[[Any], object]


class Job:
    """A function that waits for the thread, or is running there."""

    __slots__ = ("done", "work")

    def __init__(self, work: Work, done: Done) -> None:
        self.work: Work | None = work
        self.done: Done | None = done

    def cancel(self) -> None:
        """Drop it, or its answer if it is running."""
        self.work = self.done = None


class Worker:
    """
    One thread, called ``name``, which is started by the first job. ``run`` is for one event loop's thread.

    ``busy`` says whether a job is running.
    """

    def __init__(self, name: str) -> None:
        self.busy = False
        self._name = name
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._answers: deque[tuple[Job, Any]] = deque()
        self._will_deliver = False
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def run(self, work: Work, done: Done) -> Job:
        """
        Call ``work`` in the thread, and ``done`` with what it returns, or raises, on the loop.

        After ``close``, and in place of what had not begun then, ``done`` gets a CancelledError.
        """
        if self._thread is None:
            self._loop = asyncio.get_running_loop()
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        job = Job(work, done)
        self._jobs.put(job)
        return job

    async def call(self, work: Work) -> Any:
        """
        What ``work`` returns or raises, in the thread: as a value, for no future takes a StopIteration.

        It is dropped if that is not awaited to its end.
        """
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        job = self.run(work, partial(settle, answered))
        return await cancelling(answered, job.cancel)

    def close(self, *, wait: bool = False) -> None:
        """
        End the thread once a job that is running has returned.

        With ``wait``, wait for that.
        """
        self._closed = True
        self._jobs.put(None)
        if wait and self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            work, job.work = job.work, None
            if work is None:
                continue
            self.busy = True
            try:
                answer = asyncio.CancelledError() if self._closed else work()
            except BaseException as error:
                answer = error
            self.busy = False
            self._answers.append((job, answer))
            # Nothing of a request stays while the next is awaited.
            del job, work, answer
            # Read after the answer was appended: the loop clears it before it takes the answers.
            if not self._will_deliver:
                self._will_deliver = True
                self._wake_loop()

    def _wake_loop(self) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(self._deliver)
        except RuntimeError:  # it is closed, and so nobody waits
            self._answers.clear()

    def _deliver(self) -> None:
        self._will_deliver = False
        answers = self._answers
        while answers:
            job, answer = answers.popleft()
            done, job.done = job.done, None
            if done is not None:
                try:
                    done(answer)
                except Exception:
                    log.exception("an answer could not be passed on")


def settle(answered: asyncio.Future[Any], answer: Any) -> None:
    """Set the result of a future that is still awaited."""
    if not answered.done():
        answered.set_result(answer)


async def cancelling(answered: asyncio.Future[Any], cancel: Callable[[], object]) -> Any:
    """What comes of a future; ``cancel`` is called if it is not awaited to its end."""
    try:
        return await answered
    except asyncio.CancelledError:
        cancel()
        raise
