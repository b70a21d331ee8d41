"""
A Stream of the reactor thread, as the loop thread takes it.

    loop thread       open ──> answers, one by one ──> taken ──> ... ──> end
    reactor thread         pulls while there is room for one more answer on its way

So many answers may be on their way as fit into ``AHEAD``; their documents count in the gateway's ``buffers``.
The bridge carries what is there with one wake-up of the loop thread, and room is given back for several
answers at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from twisted.python.failure import Failure

from gatewayd.bridge import Bridge
from gatewayd.buffers import Buffers
from gatewayd.errors import Overloaded
from gatewayd.messages.request import Request, Response
from gatewayd.protocols.backend import Dispatcher
from gatewayd.streams import Stream

AHEAD: Final = 16


class Crossing:
    """
    The answers to one request. Made and used on the loop thread.

    ``on_answer`` is called with each, and with None or a Failure at the end, until it is closed.
    """

    def __init__(
        self,
        bridge: Bridge,
        dispatcher: Dispatcher,
        buffers: Buffers | None,
        request: Request,
        timeout_s: float | None,
        on_answer: Callable[[Response | Failure | None], object],
    ) -> None:
        self._bridge = bridge
        self._dispatcher = dispatcher
        self._buffers = buffers
        self._request = request
        self._timeout_s = timeout_s
        self._on_answer = on_answer
        # Loop thread only.
        self._closed = False
        self._taken = 0
        self._awaited = False
        # Reactor thread only.
        self._stream: Stream | None = None
        self._over = False
        self._pulling = self._waiting = False
        self._held: deque[int] = deque()  # the bytes of each answer that is on its way
        self._request_bytes = 0
        self._too_much: Response | None = None  # it has no room among the buffers
        bridge.tell_reactor(self._open)

    # -- loop thread ---------------------------------------------------------------------------------

    def taken(self) -> None:
        """An answer has left for its client: there is room for another."""
        self._taken += 1
        if self._taken >= AHEAD >> 1 or self._awaited:
            self._give_room()

    def _await_room(self) -> None:
        """An answer waits for the room of others: whatever there is of it is wanted at once."""
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

    def _arrived(self, found: Response | Failure | None) -> None:
        if not self._closed:
            self._on_answer(found)

    # -- reactor thread ------------------------------------------------------------------------------

    def _open(self) -> None:
        buffers, size = self._buffers, len(self._request.documents)
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
            and self._too_much is None
            and len(self._held) < AHEAD
        ):
            self._waiting = True
            stream.receive().addCallbacks(self._got, self._failed)
        self._pulling = False

    def _got(self, response: Response | None) -> None:
        self._waiting = False
        if self._over:
            return
        if response is None:
            self._end(None)
            return
        self._hand_over(response)
        self._pull()

    def _hand_over(self, response: Response) -> None:
        buffers, size = self._buffers, len(response.documents)
        if buffers is not None and not buffers.take(size):
            if self._held:
                self._too_much = response  # until the client has taken what it has
                self._bridge.tell_loop(self._await_room)
            else:
                self._cancel()
                self._end(Failure(Overloaded(buffers.full())))
            return
        self._held.append(size)
        self._bridge.tell_loop(self._arrived, response)

    def _failed(self, failure: Failure) -> None:
        self._waiting = False
        if not self._over:
            self._end(failure)

    def _make_room(self, count: int) -> None:
        for _ in range(min(count, len(self._held))):
            self._give_back(self._held.popleft())
        response, self._too_much = self._too_much, None
        if response is not None and not self._over:
            self._hand_over(response)
        self._pull()

    def _end(self, outcome: Failure | None) -> None:
        self._over = True
        self._stream = None
        self._bridge.tell_loop(self._arrived, outcome)

    def _close(self) -> None:
        self._cancel()
        while self._held:
            self._give_back(self._held.popleft())
        self._give_back(self._request_bytes)
        self._request_bytes = 0
        self._too_much = None

    def _cancel(self) -> None:
        self._over = True
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.cancel()

    def _give_back(self, size: int) -> None:
        if self._buffers is not None:
            self._buffers.give_back(size)
