"""The open connections of one port, and how a gateway that stops closes them together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from twisted.internet.defer import Deferred, succeed

from gatewayd.clocks import Clock
from gatewayd.protocols.port import LAST_WORDS_S
from gatewayd.waiters import Waiters


class ClientConnection(Protocol):
    """One open connection. Each method may end it at once."""

    def drain(self) -> None:
        """Take no more requests; close when those under way are answered."""
        ...

    def close_now(self) -> None:
        """Close without waiting for answers, with what the protocol says at the end, if anything."""
        ...

    def abort(self) -> None:
        """End the connection without waiting for the client."""
        ...


class Connections:
    """
    The connections of one port that are open, of whatever protocol. Reactor thread only.

    ``draining`` is true from ``close_all`` on. While they are ``retiring``, HTTP connections are to end with
    their next answer.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._open: set[ClientConnection] = set()
        self._empty: Waiters[None] = Waiters()
        self.draining = False
        self.retiring = False

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[ClientConnection]:
        """Those open now; they may close meanwhile."""
        return iter(tuple(self._open))

    def opened(self, connection: ClientConnection) -> None:
        """Add a connection, which is drained at once if the others are."""
        self._open.add(connection)
        if self.draining:
            connection.drain()

    def closed(self, connection: ClientConnection) -> None:
        """Forget a connection; nothing happens if it is not open."""
        self._open.discard(connection)
        if not self._open:
            self._empty.fire(None)

    def close_all(self, grace_s: float) -> Deferred[None]:
        """
        Drain every connection, close what is left after ``grace_s``, and abort the rest a moment later.

        Fires when no connection is left. Stop listening first.
        """
        self.draining = True
        for connection in self:
            connection.drain()
        if not self._open:
            return succeed(None)
        timers = [
            self._clock.callLater(grace_s, self._close_each),
            self._clock.callLater(grace_s + LAST_WORDS_S, self._abort_each),
        ]

        def closed(_: None) -> None:
            for timer in timers:
                if timer.active():
                    timer.cancel()

        return self._empty.wait().addCallback(closed)

    def _close_each(self) -> None:
        for connection in self:
            connection.close_now()

    def _abort_each(self) -> None:
        for connection in self:
            connection.abort()
