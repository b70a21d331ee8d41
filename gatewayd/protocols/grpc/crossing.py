"""
A Stream of the reactor thread, as the loop thread takes it.

    loop thread       open ──> answers, as many as are there ──> taken ──> ... ──> end
    reactor thread         pulls while there is room for one more answer on its way

At most ``AHEAD`` answers may be on their way, and no more when they have ``AHEAD_BYTES``; their documents
count in the gateway's ``buffers``. Answers that are there together cross together, and room is given back for
several at once. All but the first answer may wait a millisecond for others, of any stream, to go with them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from twisted.python.failure import Failure

from gatewayd.bridge import Bridge
from gatewayd.buffers import Buffers
from gatewayd.errors import Overloaded
from gatewayd.messages.request import Request, Response, content_bytes
from gatewayd.protocols.backend import Dispatcher
from gatewayd.streams import Stream

AHEAD: Final = 64
AHEAD_BYTES: Final = 1 << 20


class Crossing:
    """
    The answers to one request. Made and used on the loop thread.

    ``on_answers`` is called with one or more, in order, and with None or a Failure at the end, until it is
    closed.
    """

    def __init__(
        self,
        bridge: Bridge,
        dispatcher: Dispatcher,
        buffers: Buffers | None,
        request: Request,
        timeout_s: float | None,
        on_answers: Callable[[list[Response] | Failure | None], object],
    ) -> None:
        self._bridge = bridge
        self._dispatcher = dispatcher
        self._buffers = buffers
        self._request = request
        self._timeout_s = timeout_s
        self._on_answers = on_answers
        # Loop thread only.
        self._closed = False
        self._taken = 0
        self._awaited = False
        # Reactor thread only.
        self._stream: Stream | None = None
        self._over = False
        self._started = False  # the first answer has gone, for which nothing waits
        self._pulling = self._waiting = False
        self._held: deque[int] = deque()  # the bytes of each answer that is on its way
        self._held_bytes = 0
        self._request_bytes = 0
        self._too_much: list[Response] = []  # the first of them has no room among the buffers
        bridge.tell_reactor(self._open)

    # -- loop thread ---------------------------------------------------------------------------------

    def taken(self, count: int = 1) -> None:
        """So many answers have left for their client: there is room for others."""
        self._taken += count
        if self._taken >= AHEAD >> 1 or self._awaited:
            self._give_room()

    def _await_room(self) -> None:
        """Further answers wait for the room of others: whatever there is of it is wanted at once."""
        self._awaited = True
        if self._taken:
            self._give_room()

    def _give_room(self) -> None:
        if not self._closed:
            self._awaited = False
            count, self._taken = self._taken, 0
            self._bridge.tell_reactor(self._make_room, count)

    def close(self) -> None:
        """Nothing is called back any more, and the stream is cancelled unless it has ended."""
        if not self._closed:
            self._closed = True
            self._bridge.tell_reactor(self._close)

    def _arrived(self, found: list[Response] | Failure | None) -> None:
        if not self._closed:
            self._on_answers(found)

    # -- reactor thread ------------------------------------------------------------------------------

    def _open(self) -> None:
        buffers, size = self._buffers, content_bytes(self._request)
        if buffers is not None and not buffers.take(size):
            self._end(Failure(Overloaded(buffers.full())))
            return
        self._request_bytes = size
        try:
            self._stream = self._dispatcher.stream(self._request, timeout_s=self._timeout_s)
        except Exception:
            self._end(Failure())
            return
        self._pull()

    def _pull(self) -> None:
        if self._pulling:
            return
        self._pulling = True
        stream = self._stream
        while (
            stream is not None
            and not self._over
            and not self._waiting
            and not self._too_much
            and len(self._held) < AHEAD
            and self._held_bytes < AHEAD_BYTES
        ):
            self._waiting = True
            stream.receive().addCallbacks(self._got, self._failed)
        self._pulling = False
        if self._held_bytes >= AHEAD_BYTES and len(self._held) < AHEAD:
            # Few large answers: not so many will be taken that room is given by itself.
            self._bridge.tell_loop(self._await_room)

    def _got(self, response: Response | None) -> None:
        self._waiting = False
        if self._over:
            return
        if response is None:
            self._end(None)
            return
        found, stream = [response], self._stream
        # As many as have room if they are as large as this one.
        size = len(response.documents) + len(response.parameters or b"") + 1
        most = min(AHEAD - len(self._held), (AHEAD_BYTES - self._held_bytes) // size) - 1
        if most > 0 and stream is not None:
            try:
                found += stream.more(most)
            except Exception:
                self._cancel()
                self._end(Failure())
                return
        self._hand_over(found)
        self._pull()

    def _hand_over(self, found: list[Response]) -> None:
        buffers, held = self._buffers, self._held
        fitting = 0
        for response in found:
            size = len(response.documents) + len(response.parameters or b"")
            if buffers is not None and not buffers.take(size):
                break
            held.append(size)
            self._held_bytes += size
            fitting += 1
        if fitting == len(found):
            if self._started:
                self._bridge.tell_loop_soon(self._arrived, found)
            else:
                self._started = True
                self._bridge.tell_loop(self._arrived, found)
            return
        if fitting:
            self._bridge.tell_loop(self._arrived, found[:fitting])
        if held:
            self._too_much = found[fitting:]  # until the client has taken what it has
            self._bridge.tell_loop(self._await_room)
        else:
            assert buffers is not None
            self._cancel()
            self._end(Failure(Overloaded(buffers.full())))

    def _failed(self, failure: Failure) -> None:
        self._waiting = False
        if not self._over:
            self._end(failure)

    def _make_room(self, count: int) -> None:
        self._let_go(min(count, len(self._held)))
        waiting, self._too_much = self._too_much, []
        if waiting and not self._over:
            self._hand_over(waiting)
        self._pull()

    def _end(self, outcome: Failure | None) -> None:
        self._over = True
        self._stream = None
        self._bridge.tell_loop(self._arrived, outcome)

    def _close(self) -> None:
        self._cancel()
        self._let_go(len(self._held))
        self._give_back(self._request_bytes)
        self._request_bytes = 0
        self._too_much = []

    def _cancel(self) -> None:
        self._over = True
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.cancel()

    def _let_go(self, count: int) -> None:
        """So many answers are held no more."""
        take, size = self._held.popleft, 0
        for _ in range(count):
            size += take()
        self._held_bytes -= size
        self._give_back(size)

    def _give_back(self, size: int) -> None:
        if self._buffers is not None:
            self._buffers.give_back(size)
