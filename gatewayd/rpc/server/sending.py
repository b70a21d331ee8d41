"""
What a server sends on one HTTP/2 connection: answers, as far as the client's windows and the transport allow.

The rest of a message waits in its stream. The connection (``connection.py``) is this, and what it receives.
"""

from __future__ import annotations

from typing import Final

from gatewayd.messages.rope import Buffer, Content
from gatewayd.rpc.flow_control import Outgoing, Unsent
from gatewayd.rpc.frames import (
    CANCEL,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME,
    HEADERS,
    NO_ERROR,
    NUMBER,
    RST_STREAM,
    WINDOW_UPDATE,
    frame,
    header_frames,
)
from gatewayd.rpc.server.conduct import Conduct
from gatewayd.rpc.server.stream import Held, Limits, Owner, Stream

# Streams that we ended before the client had, and of which it may still send; the oldest are forgotten.
_ENDED_EARLY: Final = 1000
_MUCH_BYTES: Final = 4096
# The most of one message that may be on its way at once, whatever the window is.
_MOST_AHEAD_BYTES: Final = 1 << 22


class Sending:
    """The sending half of a connection. ``held`` counts what waits in the streams of all connections."""

    def __init__(self, owner: Owner, held: Held, limits: Limits) -> None:
        self.closed = False
        self.draining = False
        self.unsent_bytes = 0  # what waits in streams for the client's windows
        self.conduct = Conduct(limits.ping_interval_s, limits.resets)
        self._owner = owner
        self._held = held
        self._limits = limits
        self._streams: dict[int, Stream] = {}
        self._ended_early: dict[int, None] = {}
        self._outgoing: Outgoing[Stream] = Outgoing()
        self._paused = False
        self._pumping = False

    def pause(self) -> None:
        """The transport cannot take more for now. Nothing should be received meanwhile, either."""
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self._pump()

    def stalled(self) -> list[Stream]:
        """The streams whose answers wait for the client's windows."""
        return [stream for stream in self._streams.values() if stream.unsent is not None]

    def answer(self, stream: Stream, head: bytes, lead: bytes, body: Content, trailers: bytes) -> None:
        """The whole answer: two header blocks, and between them ``lead`` and ``body``."""
        if self.closed:
            return
        outgoing = self._outgoing
        size, most = len(lead) + len(body), outgoing.most_at_once
        room = min(most, outgoing.window, stream.window)
        if self._paused or size > room or len(trailers) > most or len(head) > most:
            self.send_head(stream, head)
            self.send_data(stream, lead, body)
            self.end(stream, trailers)
            return
        outgoing.window -= size
        stream_id = stream.stream_id
        first, last = len(head), len(trailers)
        self._owner.write(
            b"".join(
                (
                    FRAME.pack(first >> 8, first & 255, HEADERS, END_HEADERS, stream_id),
                    head,
                    FRAME.pack(size >> 8, size & 255, DATA, 0, stream_id),
                    lead,
                    bytes(body),
                    FRAME.pack(last >> 8, last & 255, HEADERS, END_HEADERS | END_STREAM, stream_id),
                    trailers,
                )
            )
        )
        self._finish(stream)

    def send_head(self, stream: Stream, block: bytes) -> None:
        if self.closed:
            return
        self.conduct.sent()
        self._owner.write(header_frames(stream.stream_id, block, self._outgoing.max_frame))

    def send_data(self, stream: Stream, lead: bytes, body: Content) -> bool:
        """Send a message when nothing is unsent. False if not all could leave yet: ``on_sent`` follows."""
        if self.closed:
            return False
        outgoing = self._outgoing
        size = len(lead) + len(body)
        if not self._paused and size <= min(outgoing.most_at_once, outgoing.window, stream.window):
            outgoing.window -= size
            stream.window -= size
            header = FRAME.pack(size >> 8, size & 255, DATA, 0, stream.stream_id)
            self._owner.write(b"".join((header, lead, bytes(body))))
            self.conduct.message_sent()
            return True
        stream.unsent = Unsent(lead, body)
        self._count_unsent(size)
        outgoing.add(stream)
        self._pump(stream)
        return stream.unsent is None

    def end(self, stream: Stream, block: bytes) -> None:
        """End the answer with its trailers, as soon as what is unsent has left."""
        if self.closed:
            return
        if stream.unsent is not None:
            stream.trailers = block
            return
        self._owner.write(header_frames(stream.stream_id, block, self._outgoing.max_frame, ended=True))
        self._finish(stream)

    def reset(self, stream: Stream, code: int = CANCEL) -> None:
        """Forget the stream: none of its methods is called again. Harmless when it is over."""
        if stream.stream_id:
            self._emit_reset(stream.stream_id, code)
            self._forget(stream)

    def consumed(self, stream: Stream, size: int) -> None:
        """The method has taken ``size`` bytes of what ``on_data`` gave it: the client may send as many."""
        stream.returned += size
        # Worth a frame only when it is much.
        if stream.returned >= self._limits.stream_window_bytes >> 1 and stream.stream_id:
            more, stream.returned = stream.returned, 0
            if not stream.half_closed:
                stream.credit += more
                self.conduct.sent()
                self._owner.write(frame(WINDOW_UPDATE, 0, stream.stream_id, NUMBER.pack(more)))

    def expect(self, stream: Stream, size: int) -> None:
        """So much is to come of a message that is being read: its client should not wait in the middle."""
        size = min(size, _MOST_AHEAD_BYTES)
        more = size - stream.credit
        # Again when little is left, not with each piece.
        if more > 0 and stream.credit <= size >> 1 and stream.stream_id and not stream.half_closed:
            stream.returned -= more
            stream.credit += more
            self.conduct.sent()
            self._owner.write(frame(WINDOW_UPDATE, 0, stream.stream_id, NUMBER.pack(more)))

    def _finish(self, stream: Stream) -> None:
        """The answer has ended with END_STREAM."""
        self.conduct.answered()
        if not stream.half_closed:
            # The answer did not need the whole request (section 8.1).
            self._emit_reset(stream.stream_id, NO_ERROR)
        self._forget(stream)

    def _emit_reset(self, stream_id: int, code: int) -> None:
        self._owner.write(frame(RST_STREAM, 0, stream_id, NUMBER.pack(code)))
        self._ended_early[stream_id] = None
        if len(self._ended_early) > _ENDED_EARLY:
            del self._ended_early[next(iter(self._ended_early))]

    def _forget(self, stream: Stream) -> None:
        del self._streams[stream.stream_id]
        stream.stream_id = 0
        if stream.unsent is not None:
            self._count_unsent(-stream.unsent.left)
            stream.unsent = None
            self._outgoing.waiting.pop(stream, None)
        if self.draining and not self._streams:
            self._check_idle()

    def _check_idle(self) -> None:
        """The last stream of a connection that drains is over."""
        raise NotImplementedError

    def _count_unsent(self, size: int) -> None:
        self.unsent_bytes += size
        self._held.held_bytes += size

    def _pump(self, sender: Stream | None = None) -> None:
        """Send what windows and transport allow, a piece of each in turn; no on_sent for ``sender``."""
        if self._pumping or self.closed:
            return  # called by one of the streams below: their turns come
        self._pumping = True
        outgoing = self._outgoing
        try:
            while outgoing.waiting and outgoing.window > 0 and not self._paused:
                stream = next(iter(outgoing.waiting))
                buffers: list[Buffer] = []
                size = outgoing.next_piece(buffers)
                self._owner.write_all(buffers)
                self._count_unsent(-size)
                self.conduct.sent()
                # A client that grants a few bytes at a time makes more work than it asks for.
                if stream.unsent is None or size >= _MUCH_BYTES:
                    self.conduct.message_sent()
                if stream.unsent is None and stream is not sender:
                    self._sent(stream)
        finally:
            self._pumping = False

    def _sent(self, stream: Stream) -> None:
        if stream.trailers is not None:
            self.end(stream, stream.trailers)
        else:
            stream.on_sent()
