"""A Client's hold on its transport: made when it is first used, and again after ``close`` or a fork."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from gatewayd.client.exchange import Arrived, Deliver, Ended, Exchange, Options, Outbox, Retries
from gatewayd.client.loop import LoopThread, loop_thread
from gatewayd.client.target import Target
from gatewayd.client.transports.base import Transport, make_transport


class Link:
    """Any thread. A transport belongs to the loop that was the process's when it was made."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._held: tuple[LoopThread, Transport] | None
        self._forget()

    def get(self) -> tuple[LoopThread, Transport]:
        if self._pid != os.getpid():
            # The parent's connections are the parent's; the lock may be held by one of its threads.
            self._forget()
        with self._lock:
            if self._held is None:
                loop, transport = loop_thread(), make_transport(self.target)
                loop.tell(loop.keep, transport)
                self._held = loop, transport
            return self._held

    def begin(self, options: Options, retries: Retries, put: Callable[[Arrived | Ended], None]) -> Exchange:
        loop, transport = self.get()

        def work(outbox: Outbox, deliver: Deliver) -> Coroutine[Any, Any, None]:
            return transport.exchange(outbox, deliver, options, retries)

        return Exchange(loop, work, put)

    def take(self) -> tuple[LoopThread, Transport] | None:
        """What is to be closed, if there is something. The next ``get`` makes another."""
        if self._pid != os.getpid():
            return None
        with self._lock:
            held, self._held = self._held, None
            return held

    def abandon(self) -> None:
        """Close without waiting: for the garbage collector."""
        # The collector may run while this very thread holds the lock, but not for this Link: whoever
        # uses a Link has a Client that is alive.
        if held := self.take():
            loop, transport = held
            loop.tell(loop.release, transport)

    def _forget(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._held = None
