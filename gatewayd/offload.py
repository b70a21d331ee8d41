"""
Heavy pure work: done here when it is small, in a pool thread when it would hold up the reactor.

What takes long, for its size, goes through ``here_or_offloaded`` (in a coroutine), or asks ``is_small`` where
a callback has to serve.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.threadpool import ThreadPool

T = TypeVar("T")

# Decoding or encoding this much JSON, or merging two parts of this size, takes about a millisecond; a trip to
# a pool thread and back costs well under one, and leaves the reactor free meanwhile.
SMALL_BYTES: Final = 64 * 1024


class Offload(Protocol):
    """
    Runs a pure function in a pool thread, as ``Bridge.offload``.

    Cancelling the Deferred drops the answer. A function that has begun runs to its end all the same, so that
    work which may take long has to come in steps.
    """

    def __call__(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> Deferred[T]: ...


class AbandonedThread(threading.Thread):
    """A thread that the end of the process does not wait for, whatever it is computing or looking up."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, daemon=True, **kwargs)

    def join(self, timeout: float | None = None) -> None:
        # ThreadPool.stop has no time limit of its own.
        super().join(0.0 if timeout is None else timeout)


class OffloadThreads(ThreadPool):
    """
    The threads for offloaded work: as many as there are processors, since it computes and does not wait.

    None is started before there is work.
    """

    threadFactory = AbandonedThread

    def __init__(self) -> None:
        super().__init__(0, max(2, os.cpu_count() or 1), "offload")


def is_small(size_bytes: int) -> bool:
    """Whether work on ``size_bytes`` costs less than the trip to another thread and back."""
    return size_bytes <= SMALL_BYTES


async def here_or_offloaded(
    offload: Offload, size_bytes: int, function: Callable[..., T], /, *args: Any, **kwargs: Any
) -> T:
    """Call a pure ``function`` whose cost grows with ``size_bytes``: at once if small, else offloaded."""
    if size_bytes <= SMALL_BYTES:
        return function(*args, **kwargs)
    return await offload(function, *args, **kwargs)
