"""
What a peer lets us send on one HTTP/2 connection (RFC 9113 section 5.2), and the bodies that wait for it.

Nothing here knows whether it is a client's or a server's, and nothing is written: the connection asks for the
next piece when its transport can take one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final, Generic, Protocol, TypeVar

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
# The most that is written at once for one stream, so that a large body does not hold up the others.
_TURN_BYTES: Final = 1 << 16


class Body(Protocol):
    """
    A stream whose body is sent.

    ``lead`` and ``unsent`` are what is left of it, ``unsent`` None when nothing is. ``window`` is what the
    peer still allows for this stream. ``end_flag`` is END_STREAM where the end of the body ends the stream.
    """

    end_flag: int

    stream_id: int
    window: int
    lead: bytes
    unsent: memoryview | None


B = TypeVar("B", bound=Body)


class Outgoing(Generic[B]):
    """
    The windows of one connection, and the bodies that wait for them, served a piece each in turn.

    ``window`` is the connection's, ``initial_window`` and ``max_frame`` are the peer's settings. ``waiting``
    holds streams with something unsent whose own windows allow to send it.
    """

    __slots__ = ("initial_window", "max_frame", "waiting", "window")

    def __init__(self) -> None:
        self.window = DEFAULT_WINDOW
        self.initial_window = DEFAULT_WINDOW
        self.max_frame = SMALLEST_FRAME
        self.waiting: OrderedDict[B, None] = OrderedDict()

    def add(self, stream: B) -> None:
        """Serve the stream as soon as the connection's window allows, if it has a body and a window."""
        if stream.unsent is not None and stream.window > 0:
            self.waiting[stream] = None

    def next_piece(self) -> bytes:
        """DATA frames of the stream whose turn it is. Needs one ``waiting`` and an open ``window``."""
        stream, _ = self.waiting.popitem(last=False)
        unsent = stream.unsent
        if unsent is None:
            return b""
        lead = stream.lead
        total = len(lead) + len(unsent)
        turn = min(_TURN_BYTES, total, self.window, stream.window)
        self.window -= turn
        stream.window -= turn
        pieces: list[bytes | memoryview] = []
        left = turn
        while True:
            size = min(left, self.max_frame)
            left -= size
            last = not left and turn == total
            flags = stream.end_flag if last else 0
            pieces.append(FRAME.pack(size >> 8, size & 255, DATA, flags, stream.stream_id))
            if lead:
                pieces.append(lead[:size])
                size -= len(lead[:size])
                lead = lead[len(pieces[-1]) :]
            pieces.append(unsent[:size])
            unsent = unsent[size:]
            if not left:
                break
        stream.lead = lead
        if turn == total:
            stream.unsent = None
        else:
            stream.unsent = unsent
            self.add(stream)
        return b"".join(pieces)

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
