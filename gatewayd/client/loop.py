"""
The one asyncio loop that all Clients of a process share, in a thread of its own.

The user's thread never runs it and it never runs the user's code: generators, callbacks, and the
reading and writing of documents stay in the thread that called ``post``. So a Client works in any
thread, even inside a running asyncio loop (a notebook), and a slow callback delays no other Client.

A forked child has no threads but the one that forked; it gets a loop of its own when it needs one. What it
has inherited of its parent's is left as it is, for good: see ``_forget``.
"""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import os
import sys
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Final, Protocol, TypeVar

from gatewayd.loops import new_event_loop

T = TypeVar("T")

# How long the end of the process waits for connections to be closed.
_END_S: Final = 2.0


class Closable(Protocol):
    async def close(self) -> None: ...


class LoopThread:
    """
    A running loop. Its methods may be called from any thread but its own, except ``keep``, ``release``
    and ``closed``, which run on it through ``tell`` and ``run``.
    """

    def __init__(self) -> None:
        self._loop = new_event_loop()
        self._kept: set[Closable] = set()  # loop thread only
        self._closing: set[asyncio.Task[None]] = set()  # loop thread only; asyncio's hold is weak
        self._thread = threading.Thread(target=self._run, name="gatewayd client", daemon=True)
        self._thread.start()

    def tell(self, function: Callable[..., object], *args: Any) -> None:
        """Call a function on the loop and don't wait; without effect once the loop has ended."""
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            if not self._loop.is_closed():
                raise

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine; cancelling the future cancels it. Raises RuntimeError if the loop has ended."""
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:
            work.close()
            raise

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine and wait for it; an interrupted wait (Ctrl-C) cancels it."""
        future = self.start(work)
        try:
            return future.result()
        finally:
            future.cancel()

    def end(self) -> None:
        """Cancel everything that runs, let it clean up, and end the thread."""
        if self._loop.is_closed():
            return
        self.tell(self._loop.stop)
        self._thread.join(_END_S)

    def keep(self, resource: Closable) -> None:
        """Loop thread: close it when the loop ends, unless it is released before."""
        self._kept.add(resource)

    def release(self, resource: Closable) -> None:
        """Loop thread: close it now, and don't wait."""
        closing = self._loop.create_task(self.closed(resource))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def closed(self, resource: Closable) -> None:
        """Loop thread: close it."""
        self._kept.discard(resource)
        await resource.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.run_until_complete(_cancel_all())
            for resource in self._kept:
                self._loop.run_until_complete(resource.close())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()


_lock = threading.Lock()
_current: LoopThread | None = None
_grpc_was_parents = False


def loop_thread() -> LoopThread:
    """This process's loop, started on first use."""
    global _current
    with _lock:
        if _current is None:
            _current = LoopThread()
            # The thread is a daemon, so that a script may end without closing its Clients; here it
            # gets the time to close its connections in order.
            atexit.register(_current.end)
        return _current


def grpc_was_parents() -> bool:
    """Whether this process was forked from one that had gRPC's library loaded, and may have used it."""
    return _grpc_was_parents


def _forget() -> None:
    """
    In a forked child: the thread is gone, and another that is gone may hold the lock.

    The parent's loop and connections are never freed here. To close them, even at the end of the process,
    would remove the parent's sockets from the epoll instance that both have, say goodbye to the parent's
    gateway, or wait for a lock of gRPC's that a lost thread holds.
    """
    global _lock, _current, _grpc_was_parents
    _lock = threading.Lock()
    if _current is not None:
        atexit.unregister(_current.end)
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(_current))
    _current = None
    _grpc_was_parents = _grpc_was_parents or "grpc" in sys.modules


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


async def _cancel_all() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.wait_for(asyncio.gather(*others, return_exceptions=True), _END_S)
