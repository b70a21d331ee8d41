"""The threads that offloaded work runs in (``offload.py``)."""

from __future__ import annotations

import os
import threading
from typing import Any

from twisted.python.threadpool import ThreadPool


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
