"""
The reactor of a gateway's processes: Twisted's for epoll, with less around each event and each write.

Twisted's sets up a context for its legacy log before each read and each write, which tells a line's
``system``. Ours names the module instead, and nothing here asks for that context. It is some ten calls, of
two hundred that a small request takes, and more of a document that comes by itself.

Twisted's has the kernel tell when a socket can be written to before it writes, and tell no more afterwards:
two system calls and another round for each write, though nearly every socket could have taken it at once.
Ours writes what a turn has left in connections at the end of that turn, and asks the kernel only where a
socket was full.

And it asks with a call for each thing that a turn may have besides events; ours looks whether there is any.
All this is for what comes by itself, such as a token of a model: a function that has not run for a while
takes microseconds, as nothing of it is in the processor's caches.
"""

from __future__ import annotations

from collections.abc import Callable
from select import EPOLLIN
from typing import Any, Final

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.tcp import Connection
from twisted.logger import Logger

log = Logger()

_goes_on = log.failureHandler("a turn of the reactor failed")
_LONGEST_S: Final = 2_147_483.0  # in milliseconds, what epoll takes


class GatewayReactor(EPollReactor):
    """As its base, but for that."""

    def __init__(self) -> None:
        self._to_write: dict[Any, None] = {}  # connections that have something for their sockets now
        self._at_the_end: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        super().__init__()  # type: ignore[no-untyped-call]

    def when_turn_ends(self, function: Callable[..., object], *args: Any) -> None:
        """
        Call ``function`` when all else of this turn is done, before the wait for what comes next.

        At once where the reactor does not run.
        """
        if self.running:
            self._at_the_end.append((function, args))
        else:
            function(*args)

    def addWriter(self, writer: Any) -> None:
        # One that is still connecting is told by epoll when it is connected.
        if isinstance(writer, Connection) and writer.connected and writer.fileno() not in self._writes:
            self._to_write[writer] = None
        else:
            super().addWriter(writer)  # type: ignore[no-untyped-call]

    def removeWriter(self, writer: Any) -> None:
        if writer in self._to_write:
            del self._to_write[writer]
        else:
            super().removeWriter(writer)  # type: ignore[no-untyped-call]

    def getWriters(self) -> list[Any]:
        return [*self._to_write, *super().getWriters()]  # type: ignore[no-untyped-call]

    def removeAll(self) -> list[Any]:
        self._leave_to_epoll()
        found: list[Any] = super().removeAll()  # type: ignore[no-untyped-call]
        return found

    def mainLoop(self) -> None:
        while self._started:
            with _goes_on:
                while self._started:
                    # In nearly every turn there are events and nothing else.
                    timers = self._pendingTimedCalls
                    left_s = min(timers[0].time - self.seconds(), _LONGEST_S) if timers else None
                    if (
                        (left_s is not None and left_s <= 0)
                        or self.threadCallQueue
                        or self._newTimedCalls
                        or self._justStopped
                    ):
                        self.runUntilCurrent()
                        left_s = self.timeout()
                    self.doIteration(left_s if self.running else 0)

    def doIteration(self, timeout: float | None) -> None:
        """End the turn, wait up to ``timeout`` seconds, None for ever, and serve what is ready."""
        if self._to_write or self._at_the_end:
            self._end_turn()
            left_s = self.timeout()  # there may be timers since
            if left_s is not None and (timeout is None or left_s < timeout):
                timeout = left_s
        poller: Any = self._poller
        selectables: dict[int, Any] = self._selectables
        # A signal does not end the wait: it goes on by itself (PEP 475).
        for descriptor, event in poller.poll(-1 if timeout is None else timeout, len(selectables)):
            # One that was served before it in this round may have removed it.
            selectable = selectables.get(descriptor)
            if selectable is None:
                continue
            try:
                if event != EPOLLIN:
                    self._doReadOrWrite(selectable, descriptor, event)  # type: ignore[no-untyped-call]
                elif why := selectable.doRead():
                    self._let_go(selectable, why)
            except Exception as error:
                log.failure("an event of a descriptor failed")
                self._let_go(selectable, error)

    doPoll = doIteration

    def _end_turn(self) -> None:
        """Write what connections have, and leave those whose sockets are full to epoll."""
        for writer in tuple(self._to_write):
            # One that was served before it may have removed it.
            if writer not in self._to_write:
                continue
            try:
                if why := writer.doWrite():
                    self._let_go(writer, why, isRead=False)
            except Exception as error:
                log.failure("a write failed")
                self._let_go(writer, error, isRead=False)
        if self._to_write:
            self._leave_to_epoll()
        functions, self._at_the_end = self._at_the_end, []
        for function, args in functions:
            try:
                function(*args)
            except Exception:
                log.failure("what ends a turn failed")

    def _let_go(self, selectable: Any, why: Exception, isRead: bool = True) -> None:
        try:
            self._disconnectSelectable(selectable, why, isRead)  # type: ignore[no-untyped-call]
        except Exception:
            log.failure("the end of a descriptor failed")

    def _leave_to_epoll(self) -> None:
        while self._to_write:
            writer, _ = self._to_write.popitem()
            super().addWriter(writer)  # type: ignore[no-untyped-call]
