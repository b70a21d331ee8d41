# mypy: disable-error-code="no-untyped-call"
"""
Reads connections whose requests drip in, a few in each turn of the reactor.

A reactor reads all sockets that are ready before it comes to the first of them again, and a read costs some
30 microseconds, however little it brings. A thousand clients that send a few bytes each at the same instant
would keep all others waiting for as many reads, at every step of every request. So a connection that goes on
with a request in small pieces is moved to an epoll of its own, the slow lane, which the reactor watches as
one more descriptor. When that is ready, a handful is read, and the reactor goes on with the others; what is
left makes it ready again. A connection returns as soon as its request is complete, or comes in larger pieces.

Where the system has no epoll, the reactor reads all connections alike.
"""

from __future__ import annotations

import select
from typing import Any, Final

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.tcp import Server
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.log import callWithLogger
from zope.interface import implementer

from gatewayd.clocks import Watcher

# How many connections are read in one turn of the reactor: half a millisecond.
HANDFUL: Final = 16

# What is smaller is a small piece. Networks carry more in a packet, but for the last one of a request.
SMALL_BYTES: Final = 1024

log = Logger()


class Pieces:
    """The pieces in which the requests of one connection come, and whether they drip."""

    __slots__ = ("_is_under_way",)

    def __init__(self) -> None:
        self._is_under_way = False

    def drips(self, size: int, *, complete: bool) -> bool:
        """
        Record a piece of ``size`` bytes, after which all that has begun to arrive is ``complete``, or not.

        True if it goes on with what was under way, is small and not the end of it.
        """
        dripping = self._is_under_way and not complete and size < SMALL_BYTES
        self._is_under_way = not complete
        return dripping


@implementer(IReadDescriptor)
class SlowLane:
    """
    The connections of a gateway that are read with patience. Reactor thread only.

    Takes up a file descriptor while it has any.
    """

    def __init__(self, reactor: Watcher) -> None:
        self._reactor = reactor
        self._epoll: Any = None
        self._connections: dict[int, Server] = {}

    def __len__(self) -> int:
        return len(self._connections)

    @staticmethod
    def exists() -> bool:
        """Whether this system has what it takes."""
        return hasattr(select, "epoll")

    def add(self, connection: Server) -> None:
        """Read ``connection`` here from now on; the reactor must not read it."""
        descriptor = connection.fileno()
        if descriptor in self._connections:
            return
        if self._epoll is None:
            self._epoll = select.epoll()
            self._reactor.addReader(self)
        self._epoll.register(descriptor, select.EPOLLIN)
        self._connections[descriptor] = connection

    def remove(self, connection: Server) -> None:
        """Read ``connection`` no longer; nothing happens if it is not read here."""
        descriptor = connection.fileno()
        if self._connections.get(descriptor) is not connection:
            return
        del self._connections[descriptor]
        self._epoll.unregister(descriptor)
        if not self._connections:
            self._reactor.removeReader(self)
            self._epoll.close()
            self._epoll = None

    # -- called by the reactor ------------------------------------------------------------------------

    def fileno(self) -> int:
        """Of the epoll itself: readable when a connection is."""
        return int(self._epoll.fileno()) if self._epoll is not None else -1

    def doRead(self) -> None:
        """Read a handful of those that are ready; the kernel puts them at the end of its line."""
        for descriptor, _ in self._epoll.poll(0, HANDFUL):
            # One that was read before may have ended this one.
            connection = self._connections.get(descriptor)
            if connection is not None:
                callWithLogger(connection, _read, connection)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor ends, and with it all that it reads."""
        for connection in tuple(self._connections.values()):
            callWithLogger(connection, connection.connectionLost, reason)

    def logPrefix(self) -> str:
        """What Twisted's own messages call this."""
        return "slow lane"


def _read(connection: Server) -> None:
    """Read once, with the consequences that a read by Twisted's reactors has."""
    why: BaseException | None
    try:
        # An end or an error shows here, too.
        why = connection.doRead()
    except BaseException as error:
        log.failure("reading a connection failed")
        why = error
    if why is None:
        return
    connection.stopReading()
    if isinstance(why, ConnectionDone):
        connection.readConnectionLost(Failure(why))
    else:
        connection.stopWriting()
        connection.connectionLost(Failure(why))


class LanedServer(Server):
    """
    A connection that ``lane`` reads while its requests drip in, and otherwise the reactor.

    Its protocol says ``input_complete()`` while it takes a piece. It does not if it drops what comes, nor if
    it has not got anything yet, as the piece is part of a handshake or record of TLS.
    """

    lane: SlowLane | None = None
    _is_reading = False
    _is_slow = False
    _is_complete = False

    def __init__(self, *args: Any) -> None:
        self._pieces = Pieces()
        super().__init__(*args)

    def input_complete(self) -> None:
        """All that has begun to arrive is complete with the piece that is being taken."""
        self._is_complete = True

    def startReading(self) -> None:
        self._is_reading = True
        if self._is_slow and self.lane is not None:
            self.lane.add(self)
        else:
            super().startReading()

    def stopReading(self) -> None:
        self._is_reading = False
        if self._is_slow and self.lane is not None:
            self.lane.remove(self)
        else:
            super().stopReading()

    def _dataReceived(self, data: bytes | None) -> ConnectionDone | None:
        # Twisted's, for each read.
        self._is_complete = False
        why = super()._dataReceived(data)
        if data:
            self._choose(self._pieces.drips(len(data), complete=self._is_complete))
        return why

    def _choose(self, is_slow: bool) -> None:
        """Be read in the slow lane or not; a connection that is not read at all stays so."""
        if is_slow is self._is_slow or self.lane is None:
            return
        is_reading = self._is_reading
        self.stopReading()
        self._is_slow = is_slow
        if is_reading:
            self.startReading()
