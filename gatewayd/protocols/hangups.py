"""
Notices clients that hang up while nothing is read from them.

Twisted notices the end of a connection only when it reads. A connection that is not read (its window is full,
or its client has half-closed it) would keep executors busy for a client that has gone. Linux reports the end
without a read, so these sockets are in an epoll of their own, which the reactor watches as one more
descriptor. On other systems the end is noticed when something is read or written.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from gatewayd.clocks import Watcher


@implementer(IReadDescriptor)
class HangUps:
    """
    The connections of one port that are not read. Reactor thread only.

    Takes up a file descriptor from the first ``watch`` to ``close``.
    """

    def __init__(self, reactor: Watcher) -> None:
        self._reactor = reactor
        self._epoll: Any = None
        self._watched: dict[int, Callable[[], None]] = {}

    def watch(self, descriptor: int, hung_up: Callable[[], None]) -> None:
        """Call ``hung_up`` once when the peer of this socket ends the connection, or its side of it."""
        # Errors and resets are always reported.
        self._watch(descriptor, hung_up, getattr(select, "EPOLLRDHUP", 0))

    def watch_half_closed(self, descriptor: int, hung_up: Callable[[], None]) -> None:
        """As ``watch``, where the peer has ended its side before: call ``hung_up`` once when it resets."""
        self._watch(descriptor, hung_up, 0)

    def _watch(self, descriptor: int, hung_up: Callable[[], None], events: int) -> None:
        if not hasattr(select, "EPOLLRDHUP"):
            return
        if self._epoll is None:
            self._epoll = select.epoll()
        if not self._watched:
            self._reactor.addReader(self)
        self._watched[descriptor] = hung_up
        self._epoll.register(descriptor, events)

    def unwatch(self, descriptor: int) -> None:
        """Forget a socket, which may be closed by now, or never have been watched."""
        if self._watched.pop(descriptor, None) is not None:
            with suppress(OSError):  # a socket that is closed has left the epoll by itself
                self._epoll.unregister(descriptor)
            self._rest()

    def close(self) -> None:
        """Forget all."""
        self._watched.clear()
        if self._epoll is not None:
            self._rest()
            self._epoll.close()
            self._epoll = None

    def _rest(self) -> None:
        if not self._watched:
            self._reactor.removeReader(self)

    # -- called by the reactor ------------------------------------------------------------------------

    def fileno(self) -> int:
        """Of the epoll itself: readable when there is news."""
        return int(self._epoll.fileno()) if self._epoll is not None else -1

    def doRead(self) -> None:
        """Report the peers that have gone."""
        gone = [self._watched[fd] for fd, _ in self._epoll.poll(0) if fd in self._watched]
        for hung_up in gone:
            hung_up()

    def connectionLost(self, reason: Failure) -> None:
        """The reactor ends."""
        self._watched.clear()

    def logPrefix(self) -> str:
        """What Twisted's own messages call this."""
        return "hang-ups"
