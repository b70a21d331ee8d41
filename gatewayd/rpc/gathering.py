"""
Writes many buffers to a plain socket of Twisted's, as they are: its transports join what they are given.

Short writes go through the transport, which collects those of one turn of the reactor. Long ones go to the
socket at once, as far as it takes them. The rest waits here, and a small piece of it is left to the
transport: when that has been written, the socket takes more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any, Final

from twisted.internet.interfaces import IPullProducer
from zope.interface import implementer

from gatewayd.messages.rope import Buffer

# What waits before nothing more should be written.
HIGH_WATER_BYTES: Final = 1 << 16
_TOKEN_BYTES: Final = 1 << 12
# What one system call takes; Linux allows 1024.
_MOST_BUFFERS: Final = 512


@implementer(IPullProducer)
class Gathering:
    """
    The writing half of ``transport``, from ``start`` on. Reactor thread only.

    ``pause`` and ``resume`` are called when too much waits, and when all of it has left. Its owner passes
    short writes to the transport, unless something is ``waiting``, and counts them in ``with_transport``.
    """

    def __init__(self, transport: Any, pause: Callable[[], object], resume: Callable[[], object]) -> None:
        self._transport = transport
        self._pause = pause
        self._resume = resume
        self.waiting: deque[Buffer] = deque()
        self._waiting_bytes = 0
        self.with_transport = 0  # bytes that it may not have written yet
        self._is_full = False

    def start(self) -> None:
        self._transport.registerProducer(self, False)

    def write_all(self, buffers: list[Buffer]) -> None:
        """What cannot leave at once is kept, not copied."""
        self.waiting += buffers
        self._waiting_bytes += sum(map(len, buffers))
        if not self.with_transport:
            self._send()
        if self._waiting_bytes > HIGH_WATER_BYTES:
            self.fill()

    def finish(self) -> None:
        """Leave what waits to the transport, which is about to be closed."""
        self._transport.unregisterProducer()
        if self.waiting:
            self._transport.write(b"".join(self.waiting))
        self.clear()

    def clear(self) -> None:
        """Forget what waits: the transport is lost."""
        self.waiting.clear()
        self._waiting_bytes = 0

    # -- IPullProducer -------------------------------------------------------------------------------

    def resumeProducing(self) -> None:
        """The transport has written what it had."""
        self.with_transport = 0
        if self.waiting:
            self._send()
        if self._is_full and not self.waiting:
            self._is_full = False
            self._resume()

    def stopProducing(self) -> None:
        self.clear()

    # -------------------------------------------------------------------------------------------------

    def fill(self) -> None:
        """Too much waits."""
        if not self._is_full:
            self._is_full = True
            self._pause()

    def _send(self) -> None:
        waiting = self.waiting
        while waiting:
            buffers = list(islice(waiting, _MOST_BUFFERS))
            try:
                sent = self._transport.socket.sendmsg(buffers)
            except OSError:
                # Full; or broken, which the transport finds out with the next piece.
                sent = 0
            self._waiting_bytes -= sent
            for buffer in buffers:
                size = len(buffer)
                if sent < size:
                    self._leave_piece(waiting, memoryview(buffer)[sent:])
                    return
                waiting.popleft()
                sent -= size

    def _leave_piece(self, waiting: deque[Buffer], rest: memoryview) -> None:
        """Have the transport wait until the socket takes more."""
        piece = bytes(rest[:_TOKEN_BYTES])
        waiting[0] = rest[_TOKEN_BYTES:]
        if not waiting[0]:
            waiting.popleft()
        self._waiting_bytes -= len(piece)
        self.with_transport = len(piece)
        self._transport.write(piece)
