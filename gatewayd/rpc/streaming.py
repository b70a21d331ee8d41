"""
A gRPC call that is answered with a stream of messages, over an HTTP/2 stream (gRPC's PROTOCOL-HTTP2.md).

``PulledCall`` hands out one message each time that it is asked, and with ``take`` what has come with it. What
the server sends unasked waits here, and its flow control is given back only for what was taken: a reader that
does not ask stops the server.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, TypeVar

from gatewayd.messages.headers import Headers
from gatewayd.messages.rope import LONG_BYTES, Buffer, Content, in_pieces
from gatewayd.rpc.call import OF_RESET, AnswerHead, CallError, Unary, too_large
from gatewayd.rpc.http2 import Broken

# How much of a stream may arrive that nobody has asked for; HTTP/2's own default. A message that is larger
# arrives whole once it is asked for.
WINDOW_BYTES: Final = 65_535
# Less is not worth a frame.
_LEAST_BYTES: Final = WINDOW_BYTES >> 2


T = TypeVar("T")


class PulledCall(Unary):
    """
    One call. ``limit_bytes`` bounds each message.

    Each ``pull`` ends in one of ``on_message`` and ``on_end``, after which it may be called again. A message
    that is waited for is handed out when all of the read that brought it is there. When the
    call is over on the wire with something left to be asked for, ``on_closed`` says so.
    """

    __slots__ = (
        "_messages",
        "_outcome",
        "_owed_bytes",
        "_prepaid_bytes",
        "_serving",
        "_will_serve",
        "waiting",
    )

    pulled = True

    def __init__(self, block: bytes, lead: bytes, body: Content, limit_bytes: int) -> None:
        Unary.__init__(self, block, lead, body, limit_bytes)
        self.waiting = False  # a message is asked for
        self._messages: deque[tuple[Content, bool]] = deque()
        # How it ended; None while it goes on. The error is None after a good end.
        self._outcome: tuple[CallError | None] | None = None
        self._serving = False
        self._will_serve = False  # at the end of the read
        self._owed_bytes = 0  # taken, and not given back yet
        self._prepaid_bytes = 0  # of the first message: given back before it was taken

    # -- for whoever asks ----------------------------------------------------------------------------

    def pull(self) -> None:
        """Ask for one message. Not while ``waiting``."""
        self.waiting = True
        if self._serving:
            return  # asked by what was called back: the loop goes on
        if self._messages or self._outcome is not None or self._rest or self._parts is not None:
            self._serve()
        else:
            self.on_waiting()

    def take(self, most: int, read: Callable[[Content], T]) -> list[T]:
        """
        What ``read`` makes of up to ``most`` messages that have arrived. Not while ``waiting``.

        A compressed one, or one that cannot be read, stays for ``pull``, and so does all that is behind it.
        Together they fit into the window, as nobody has asked for them.
        """
        found: list[T] = []
        messages = self._messages
        size = 0
        while messages and len(found) < most:
            message, compressed = messages[0]
            if compressed:
                break
            try:
                found.append(read(message))
            except Exception:
                break  # it is raised again where it can be told: by what ``pull`` hands it to
            del messages[0]
            size += len(message) + 5
        if size:
            self._owe(size)
        return found

    def drop(self) -> None:
        """End it without a word; what has arrived is dropped."""
        if not self.over:
            self.over = True
            self.reset()
        self._messages.clear()
        self._parts = None
        self._outcome = (None,)

    # -- what comes of it ----------------------------------------------------------------------------

    def on_waiting(self) -> None:
        """A message is asked for that has not arrived."""
        raise NotImplementedError

    def on_message(self, message: Content, compressed: bool, encoding: str, headers: Headers) -> None:
        """The next message; ``headers`` are those of the head."""
        raise NotImplementedError

    def on_end(self, error: CallError | None) -> None:
        """There are no more messages, because of an ``error`` or not."""
        raise NotImplementedError

    def on_closed(self) -> None:
        """The server has ended the call; some of it has not been asked for."""
        raise NotImplementedError

    # -- the stream ----------------------------------------------------------------------------------

    def on_data(self, data: Buffer, ended: bool) -> None:
        if self.over:
            return
        if self._head is None:
            self._end(CallError("INTERNAL", "the server sends an answer without headers"), ended)
            return
        self._cut(data, ended)
        if ended and not self.over:
            self._end(CallError("INTERNAL", "the server ended its answer without a status"), ended)
        elif self.waiting and not self._will_serve and not self.over:
            connection = self.connection
            assert connection is not None
            self._will_serve = True
            connection.when_read(self)

    def on_read(self) -> None:
        self._will_serve = False
        if self.waiting and (self._messages or not self.over):  # neither dropped meanwhile nor at its end
            self._serve()

    def on_broken(self, broken: Broken) -> None:
        if self.over:
            return
        code = "UNAVAILABLE" if broken.code is None else OF_RESET.get(broken.code, "UNAVAILABLE")
        lost = broken.reached and code == "UNAVAILABLE"
        self._fail(CallError(code, broken.why, reached=broken.reached, lost=lost))

    def _cut(self, data: Buffer, ended: bool) -> None:
        """Cut messages out of what arrives."""
        position, end = 0, len(data)
        while position < end:
            if self._parts is not None:
                piece = memoryview(data)[position : position + self._need - self._have]
                self._parts.append(piece)
                self._have += len(piece)
                position += len(piece)
                if self._have == self._need:
                    self._messages.append((in_pieces(self._parts), self._compressed))
                    self._parts = None
                continue
            missing = 5 - len(self._rest)
            head = self._rest + bytes(data[position : position + missing])
            position += missing
            if len(head) < 5:
                self._rest = head
                return
            self._rest = b""
            size = int.from_bytes(head[1:5], "big")
            if size > self.limit_bytes:
                self._end(too_large(size, self.limit_bytes), ended)
                return
            if head[0] > 1:
                self._end(CallError("INTERNAL", "the server's answer is not gRPC"), ended)
                return
            if size <= LONG_BYTES and position + size <= end:
                self._messages.append((bytes(data[position : position + size]), head[0] == 1))
                position += size
            else:
                self._compressed = head[0] == 1
                self._parts = []
                self._have, self._need = 0, size

    def _serve(self) -> None:
        if self._serving:
            return
        self._serving = True
        try:
            while self.waiting:
                if self._messages:
                    self.waiting = False
                    message, compressed = self._messages.popleft()
                    owed = len(message) + 5 - self._prepaid_bytes
                    self._prepaid_bytes = 0
                    if self._owed_bytes + owed < _LEAST_BYTES:
                        self._owed_bytes += owed
                    else:
                        self._owe(owed)
                    head = self._head
                    assert head is not None
                    self.on_message(message, compressed, head.encoding, head.headers)
                elif self._outcome is not None:
                    self.waiting = False
                    self.on_end(self._outcome[0])
                else:
                    arrived = len(self._rest) if self._parts is None else self._have + 5
                    if arrived != self._prepaid_bytes:
                        self._owe(arrived - self._prepaid_bytes)
                        self._prepaid_bytes = arrived
                    self.on_waiting()
                    return
        finally:
            self._serving = False

    def _owe(self, size: int) -> None:
        self._owed_bytes += size
        if self._owed_bytes >= _LEAST_BYTES and self.connection is not None:
            size, self._owed_bytes = self._owed_bytes, 0
            self.connection.consumed(self, size)

    def _finish(self, trailers: AnswerHead) -> None:
        code = trailers.code
        if code is None:
            self._fail(CallError("INTERNAL", "the server ended its answer without a status"))
        elif code != "OK":
            self._fail(CallError(code, trailers.details))
        elif self._parts is not None or self._rest:
            self._fail(CallError("INTERNAL", "the server ended its answer within a message"))
        else:
            self._over(None)

    def _fail(self, error: CallError) -> None:
        self._over(error)

    def _over(self, error: CallError | None) -> None:
        self.over = True
        self._parts = None
        self._outcome = (error,)
        if not self.waiting or self._messages:
            self.on_closed()
        self._serve()
