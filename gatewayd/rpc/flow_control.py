"""
What a peer lets us send on one HTTP/2 connection (RFC 9113 section 5.2), and the bodies that wait for it.

Nothing here knows whether it is a client's or a server's, and nothing is written: the connection asks for the
next piece when its transport can take one.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from itertools import islice
from typing import Final, Generic, Protocol, TypeVar

from gatewayd.messages.rope import LONG_BYTES, Buffer, Content, Rope
from gatewayd.rpc.frames import (
    DATA,
    FLOW_CONTROL_ERROR,
    FRAME,
    PROTOCOL_ERROR,
    SMALLEST_FRAME,
    Violation,
)

MAX_WINDOW: Final = 2**31 - 1
# What every window is until the peer says otherwise.
DEFAULT_WINDOW: Final = 65535
# The most that is written at once for one stream, so that a large body does not hold up the others; and if
# there are none.
_TURN_BYTES: Final = 1 << 16
_ALONE_BYTES: Final = 1 << 18
# So many bodies take turns; the others wait until one is sent. If all did, all would be received at the same
# time, and their receiver would have to hold as many incomplete messages.
_IN_TURN: Final = 4


class Unsent:
    """What is left of a message: a ``lead``, and the ``body`` in its pieces, which are not copied."""

    __slots__ = ("_at", "_pieces", "left")

    def __init__(self, lead: bytes, body: Content) -> None:
        self.left = len(lead) + len(body)
        pieces = body.pieces if isinstance(body, Rope) else (body,)
        self._pieces: deque[Buffer] = deque((lead, *pieces))
        self._at = 0  # where what is left of the first piece begins

    def take(self, size: int, into: list[Buffer]) -> None:
        """Append the next ``size`` bytes, which must be left."""
        self.left -= size
        pieces, at = self._pieces, self._at
        while size:
            piece = pieces[0]
            have = len(piece) - at
            if have > size:
                into.append(memoryview(piece)[at : at + size])
                at += size
                break
            if have:
                into.append(memoryview(piece)[at:] if at else piece)
            pieces.popleft()
            at = 0
            size -= have
        self._at = at


class Body(Protocol):
    """
    A stream whose body is sent.

    ``unsent`` is what is left of it, None when nothing is. ``window`` is what the peer still allows for this
    stream. ``end_flag`` is END_STREAM where the end of the body ends the stream.
    """

    end_flag: int

    stream_id: int
    window: int
    unsent: Unsent | None


B = TypeVar("B", bound=Body)


class Outgoing(Generic[B]):
    """
    The windows of one connection, and the bodies that wait for them: a few take turns, a piece each.

    ``window`` is the connection's, ``initial_window`` and ``max_frame`` are the peer's settings. ``waiting``
    holds streams with something unsent whose own windows allow to send it. What is larger than
    ``most_at_once`` is not to be sent in one frame that is joined.
    """

    __slots__ = ("initial_window", "max_frame", "most_at_once", "waiting", "window")

    def __init__(self) -> None:
        self.window = DEFAULT_WINDOW
        self.initial_window = DEFAULT_WINDOW
        self.max_frame = self.most_at_once = SMALLEST_FRAME
        self.waiting: OrderedDict[B, None] = OrderedDict()

    def add(self, stream: B) -> None:
        """Serve the stream as soon as the connection's window allows, if it has a body and a window."""
        if stream.unsent is not None and stream.window > 0:
            self.waiting[stream] = None

    def next_piece(self, into: list[Buffer]) -> int:
        """
        Append DATA frames of the stream whose turn it is; returns how many bytes of its body.

        Needs one ``waiting`` and an open ``window``.
        """
        stream, _ = self.waiting.popitem(last=False)
        unsent = stream.unsent
        if unsent is None:
            return 0
        most = _TURN_BYTES if self.waiting else _ALONE_BYTES
        turn = left = min(most, unsent.left, self.window, stream.window)
        self.window -= turn
        stream.window -= turn
        while True:
            size = min(left, self.max_frame)
            left -= size
            flags = stream.end_flag if size == unsent.left else 0
            into.append(FRAME.pack(size >> 8, size & 255, DATA, flags, stream.stream_id))
            unsent.take(size, into)
            if not left:
                break
        if not unsent.left:
            stream.unsent = None
        elif stream.window > 0:
            self._put_back(stream)
        return turn

    def _put_back(self, stream: B) -> None:
        """Have its next turn after those of the few that are in front."""
        waiting = self.waiting
        others = list(islice(waiting, _IN_TURN - 1))
        for each in (stream, *reversed(others)):
            waiting[each] = None
            waiting.move_to_end(each, last=False)

    def set_initial_window(self, size: int, streams: Iterable[B]) -> None:
        """A setting of the peer, which changes the windows of all open ``streams``. Raises Violation."""
        if size > MAX_WINDOW:
            raise Violation(FLOW_CONTROL_ERROR, "the initial window is too large")
        more = size - self.initial_window
        self.initial_window = size
        for stream in streams:
            stream.window += more
            if stream.window > MAX_WINDOW:
                raise Violation(FLOW_CONTROL_ERROR, "a stream's window is too large")
            if stream.window > 0:
                self.add(stream)
            else:
                self.waiting.pop(stream, None)

    def set_max_frame(self, size: int) -> None:
        """A setting of the peer. Raises Violation."""
        if not SMALLEST_FRAME <= size < 1 << 24:
            raise Violation(PROTOCOL_ERROR, f"frames of {size} bytes")
        self.max_frame = size
        self.most_at_once = min(size, LONG_BYTES)
