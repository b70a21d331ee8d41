"""
HTTP/2 (RFC 9113), the client's half of one connection: bytes in, bytes out, no sockets and no clock.

A ``Stream`` is one request with its whole body at hand; it receives its answer through the methods that it
overrides. Streams wait here for the server's settings, for one of the streams that the server allows, and for
the transport to take more; their bodies wait for the server's flow control.

    start() ──> waiting ──> open: HEADERS, DATA out ──> its answer ──> on_headers, on_data ... ended
                   │                  │
                   └── cancel() ──────┴── reset, GOAWAY, lost ──> on_broken

Every stream ends with ``on_headers`` or ``on_data`` with ``ended``, with ``on_broken``, or with our own
``cancel``. A server's error ends the stream or, where its bytes can no longer be trusted, the connection.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, Protocol

import attrs

from gatewayd.messages.rope import Buffer, Content
from gatewayd.rpc.flow_control import DEFAULT_WINDOW, MAX_WINDOW, Outgoing, Unsent
from gatewayd.rpc.frames import (
    ACK,
    CANCEL,
    COMPRESSION_ERROR,
    DATA,
    ENABLE_PUSH,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
    MAX_HEADER_LIST_SIZE,
    MAX_ID,
    NO_ERROR,
    NUMBER,
    PADDED,
    PING,
    PREFACE,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    REFUSED_STREAM,
    RST_STREAM,
    SETTING,
    SETTINGS,
    WINDOW_UPDATE,
    FrameReader,
    Violation,
    frame,
    header_frames,
    unpadded,
)
from gatewayd.rpc.headers import Blocks, BlockTooLarge, Unreadable

# What is collected before it is written.
_WRITE_BYTES: Final = 1 << 18


@attrs.frozen
class Limits:
    """
    What we allow a server.

    ``window_bytes`` is how much may be on its way to us of all streams together, ``stream_window_bytes`` of
    each. We always read at once, so they bound only what still arrives for a cancelled stream, and what a
    stream that is ``pulled`` has not taken. ``headers_bytes``
    bounds the fields of a header block: larger ones fail their own stream. ``block_bytes`` and
    ``block_frames`` bound what is received of one, encoded: larger ones end the connection. ``noise`` is the
    number of frames without content that are accepted between two answers or calls of ``reset_noise``.
    """

    window_bytes: int = 1 << 24
    stream_window_bytes: int = attrs.field(default=attrs.Factory(lambda it: it.window_bytes, takes_self=True))
    frame_bytes: int = 1 << 18
    headers_bytes: int = 1 << 18
    block_bytes: int = 1 << 24
    block_frames: int = 64
    noise: int = 4000


class Stream:
    """
    One request and its answer.

    ``block`` is the header block, ``lead`` and ``body`` the request's content; both must be there before
    the stream is started.
    """

    __slots__ = ("block", "body", "connection", "credit", "lead", "stream_id", "unsent", "window")

    end_flag = END_STREAM
    # A stream that is pulled gives back by ``consumed`` what it has taken of its answer; of others, all that
    # arrives counts as taken.
    pulled = False

    def __init__(self, block: bytes, lead: bytes, body: Content) -> None:
        self.block = block
        self.lead = lead
        self.body = body
        self.connection: Connection | None = None  # the last that it was started on
        self.stream_id = 0  # 0 while it waits, and again when it is over
        self.window = 0
        self.credit = 0
        self.unsent: Unsent | None = None

    def on_headers(self, fields: Any, ended: bool) -> None:
        """The answer's head, or its trailers, as ``Blocks`` has decoded them."""
        raise NotImplementedError

    def on_data(self, data: Buffer, ended: bool) -> None:
        """A piece of the answer's content; empty only at the end."""
        raise NotImplementedError

    def on_read(self) -> None:
        """All that one read of the socket has brought was handed on: as asked for by ``when_read``."""
        raise NotImplementedError

    def on_broken(self, broken: Broken) -> None:
        """There will be no answer, or no more of it."""
        raise NotImplementedError


@attrs.frozen
class Broken:
    """
    Why a stream has ended early. ``code`` is an error code of HTTP/2 (RFC 9113 section 7) when this stream
    was reset, by the server or for what it sent on it; None when the connection is to blame.

    ``reached`` is False when the server certainly has not processed the request.
    """

    why: str
    code: int | None = None
    reached: bool = True


class StreamOwner(Protocol):
    """What owns the transport, and learns what becomes of the connection."""

    def write(self, data: bytes) -> None:
        """May call ``pause`` before it returns."""

    def write_all(self, buffers: list[Buffer]) -> None:
        """Several pieces, in order: as ``write``, but large ones should not be copied."""

    def on_ready(self) -> None:
        """The server's settings have arrived."""

    def on_leaving(self, code: int, debug: bytes) -> None:
        """The server takes no more streams; those that are open may finish."""

    def on_idle(self) -> None:
        """The server takes no more streams, and the last one has ended."""

    def on_failed(self, why: str) -> None:
        """The server broke the protocol: disconnect. The streams fail next; nothing more is written."""


class Connection:
    """
    One connection. Its owner writes ``begin()`` first, and passes what it receives to ``receive``.

    ``read`` is as in ``Blocks``.
    """

    def __init__(self, owner: StreamOwner, read: Callable[[Any], Any], limits: Limits | None = None) -> None:
        limits = limits or Limits()
        self.ready = False  # the server's settings have arrived
        self.leaving = False  # no stream can be started any more
        self.closed = False
        self.pings = 0  # sent since the server last sent a header block
        self._owner = owner
        self._limits = limits
        self._blocks: Blocks[Any] = Blocks(read, limits.headers_bytes)
        self._streams: dict[int, Stream] = {}
        self._waiting: OrderedDict[Stream, None] = OrderedDict()
        self._next_id = 1
        self._paused = False
        self._corked: list[bytes] | None = None
        self._heads: list[Buffer] = []  # header blocks that are written with the bodies behind them
        self._reading: list[Stream] = []  # that want to know when all of a read is handed on
        self._noise = 0
        self._max_streams = MAX_ID  # a setting of the server's
        self._outgoing: Outgoing[Stream] = Outgoing()
        self._credit = limits.window_bytes  # what the server may still send
        self._reader = FrameReader(
            self,
            frame_bytes=limits.frame_bytes,
            block_bytes=limits.block_bytes,
            block_frames=limits.block_frames,
        )

    def begin(self) -> bytes:
        """The preface and our settings."""
        limits = self._limits
        settings = b"".join(
            SETTING.pack(key, value)
            for key, value in (
                (ENABLE_PUSH, 0),
                (INITIAL_WINDOW_SIZE, limits.stream_window_bytes),
                (MAX_FRAME_SIZE, limits.frame_bytes),
                (MAX_HEADER_LIST_SIZE, limits.headers_bytes),
            )
        )
        more = limits.window_bytes - DEFAULT_WINDOW
        update = frame(WINDOW_UPDATE, 0, 0, NUMBER.pack(more)) if more > 0 else b""
        return PREFACE + frame(SETTINGS, 0, 0, settings) + update

    # -- our requests --------------------------------------------------------------------------------

    def start(self, stream: Stream) -> None:
        """Send a request as soon as possible. Not when ``leaving`` or ``closed``."""
        stream.connection = self
        if not self.ready or self._paused or self._waiting or len(self._streams) >= self._max_streams:
            self._waiting[stream] = None
        else:
            self._open(stream)
            if self._outgoing.waiting or self._heads:
                self._pump()

    def cancel(self, stream: Stream, code: int = CANCEL) -> None:
        """Forget the stream: none of its methods is called again. Harmless when repeated."""
        if stream.stream_id:
            self._emit(frame(RST_STREAM, 0, stream.stream_id, NUMBER.pack(code)))
            self._forget(stream)
        else:
            self._waiting.pop(stream, None)

    def consumed(self, stream: Stream, size: int) -> None:
        """A ``pulled`` stream has taken ``size`` bytes of its answer: the server may send as many more."""
        if stream.stream_id and size:
            stream.credit += size
            self._emit(frame(WINDOW_UPDATE, 0, stream.stream_id, NUMBER.pack(size)))

    def when_read(self, stream: Stream) -> None:
        """
        Within ``receive``: call the stream's ``on_read`` once, when all that has been read is handed on.

        So a stream gets the messages of one read together.
        """
        self._reading.append(stream)

    def take_waiting(self) -> list[Stream]:
        """Remove and return the streams that were not sent."""
        waiting = list(self._waiting)
        self._waiting.clear()
        return waiting

    @property
    def busy(self) -> bool:
        """Whether a stream is open."""
        return bool(self._streams)

    def ping(self) -> None:
        self.pings += 1
        self._emit(frame(PING, 0, 0, b"gatewayd"))

    def reset_noise(self) -> None:
        """Accept as many frames without content again; to be called every few seconds."""
        # Not for a server that does not read: its acknowledgements would pile up here.
        if not self._paused:
            self._noise = 0

    def pause(self) -> None:
        """The transport cannot take more for now."""
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self._pump()

    def lost(self, why: str) -> None:
        """The transport is gone, or is about to be closed."""
        self._close()
        streams = [*self._streams.values()]
        waiting = self.take_waiting()
        # Callbacks may call back into us, so leave a consistent state first.
        self._streams.clear()
        self._outgoing.waiting.clear()
        self._heads.clear()
        self._reading.clear()
        self._reader.clear()
        for stream in streams:
            stream.stream_id = 0
            stream.unsent = None
        for stream in streams:
            stream.on_broken(Broken(why))
        for stream in waiting:
            stream.on_broken(Broken(why, reached=False))

    def goodbye(self) -> bytes:
        """What to write before disconnecting."""
        return frame(GOAWAY, 0, 0, NUMBER.pack(0) + NUMBER.pack(NO_ERROR))

    def _open(self, stream: Stream) -> None:
        stream_id = stream.stream_id = self._next_id
        self._next_id = stream_id + 2
        self._streams[stream_id] = stream
        stream.credit = self._limits.stream_window_bytes
        outgoing = self._outgoing
        window = stream.window = outgoing.initial_window
        block, lead, body = stream.block, stream.lead, stream.body
        size = len(lead) + len(body)
        length = len(block)
        most = outgoing.most_at_once
        if length <= most and size <= most and size <= outgoing.window and size <= window:
            outgoing.window -= size
            if self._heads:
                self._write_heads()
            emit = self._owner.write if self._corked is None else self._corked.append
            # One write for both frames, without a copy of the body on the way.
            emit(
                b"".join(
                    (
                        FRAME.pack(length >> 8, length & 255, HEADERS, END_HEADERS, stream_id),
                        block,
                        FRAME.pack(size >> 8, size & 255, DATA, END_STREAM, stream_id),
                        lead,
                        bytes(body),
                    )
                )
            )
        else:
            head = header_frames(stream_id, block, outgoing.max_frame)
            stream.unsent = Unsent(lead, body)
            outgoing.add(stream)
            if self._corked is None:
                self._heads.append(head)
            else:
                self._corked.append(head)
        if self._next_id > MAX_ID:
            self._leave(NO_ERROR, b"stream ids are used up")

    def _open_waiting(self) -> None:
        while (
            self._waiting and not self._paused and not self.leaving and len(self._streams) < self._max_streams
        ):
            stream, _ = self._waiting.popitem(last=False)
            self._open(stream)

    def _pump(self) -> None:
        """Send what the windows and the transport allow, a piece of each stream in turn."""
        if self._corked is not None or self.closed or not self.ready:
            return  # ``receive`` pumps when it is done
        self._open_waiting()
        outgoing = self._outgoing
        while True:
            buffers, self._heads = self._heads, []
            size = 0
            while outgoing.waiting and outgoing.window > 0 and size < _WRITE_BYTES and not self._paused:
                size += outgoing.next_piece(buffers)
            if not buffers:
                return
            self._owner.write_all(buffers)

    def _emit(self, data: bytes) -> None:
        if self.closed:
            return
        if self._heads:
            self._write_heads()
        if self._corked is None:
            self._owner.write(data)
        else:
            self._corked.append(data)

    def _write_heads(self) -> None:
        """Before anything else: streams have to be opened in the order of their numbers."""
        heads, self._heads = self._heads, []
        self._owner.write_all(heads)

    def _forget(self, stream: Stream) -> None:
        del self._streams[stream.stream_id]
        stream.stream_id = 0
        self._outgoing.waiting.pop(stream, None)
        stream.unsent = None
        if self._waiting:
            self._pump()
        if self.leaving and not self._streams and not self._waiting and not self.closed:
            self._owner.on_idle()

    def _close(self) -> None:
        self.closed = self._reader.closed = True

    def _leave(self, code: int, debug: bytes) -> None:
        if not self.leaving:
            self.leaving = True
            self._owner.on_leaving(code, debug)

    # -- what the server sends -----------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Handle bytes from the transport."""
        if self.closed:
            return
        corked = self._corked = []
        why, culprit = None, None
        try:
            self._reader.feed(data)
            if self._reading:
                self._all_read()
        except Violation as violation:
            why, culprit = str(violation), self._streams.get(violation.stream_id)
            corked.append(frame(GOAWAY, 0, 0, NUMBER.pack(0) + NUMBER.pack(violation.code)))
        finally:
            self._corked = None
        if corked and not self.closed:
            self._owner.write(corked[0] if len(corked) == 1 else b"".join(corked))
        if why is not None:
            if not self.closed:
                # The owner first: a stream's callback may start another stream at once.
                self._close()
                self._owner.on_failed(why)
                if culprit is not None and culprit.stream_id:
                    # Sent again, the same request would cost the next replica its connection too.
                    self._forget(culprit)
                    culprit.on_broken(Broken(why, ENHANCE_YOUR_CALM))
                self.lost(why)
            return
        if self._waiting or self._outgoing.waiting:
            self._pump()

    def _all_read(self) -> None:
        streams, self._reading = self._reading, []
        for stream in streams:
            stream.on_read()

    # -- FrameHandler --------------------------------------------------------------------------------

    def on_data(self, flags: int, stream_id: int, payload: Buffer) -> None:
        size = len(payload)
        self._credit -= size
        if self._credit < 0:
            raise Violation(FLOW_CONTROL_ERROR, "the server sends more than its window allows")
        window = self._limits.window_bytes
        if self._credit <= window >> 1:
            self._emit(frame(WINDOW_UPDATE, 0, 0, NUMBER.pack(window - self._credit)))
            self._credit = window
        stream = self._streams.get(stream_id)
        if stream is None:
            self._check_over(stream_id)
            return
        stream.credit -= size
        ended = flags & END_STREAM
        if stream.credit < 0:
            self._reset(stream, FLOW_CONTROL_ERROR, "the server sends more than the stream's window allows")
            return
        window = self._limits.stream_window_bytes
        if stream.credit <= window >> 1 and not ended and not stream.pulled:
            self._emit(frame(WINDOW_UPDATE, 0, stream_id, NUMBER.pack(window - stream.credit)))
            stream.credit = window
        if flags & PADDED:
            payload = unpadded(payload)
            if stream.pulled and not ended:
                self.consumed(stream, size - len(payload))
        if ended:
            self._ended(stream)
            stream.on_data(payload, True)
        elif payload:
            stream.on_data(payload, False)
        else:
            self._count_noise()

    def on_block(self, stream_id: int, ended: bool, block: bytes) -> None:
        # Decoded even if its stream is gone: the table has to follow.
        try:
            fields = self._blocks.decode(block)
        except BlockTooLarge:
            fields = None
        except Unreadable as error:
            why = f"headers cannot be decoded: {error}"
            raise Violation(COMPRESSION_ERROR, why, stream_id if error.oversized else 0) from error
        self.pings = 0
        stream = self._streams.get(stream_id)
        if stream is None:
            self._check_over(stream_id)
            return
        if fields is None:
            if ended:
                self._ended(stream)
            else:
                self.cancel(stream, ENHANCE_YOUR_CALM)
            stream.on_broken(Broken(_too_large(self._limits.headers_bytes), ENHANCE_YOUR_CALM))
            return
        if ended:
            self._ended(stream)
        stream.on_headers(fields, ended)

    def _ended(self, stream: Stream) -> None:
        if not self._paused:
            self._noise = 0  # as ``reset_noise``
        if stream.unsent is not None:
            # The answer did not need the whole request (RFC 9113 section 8.1).
            self._emit(frame(RST_STREAM, 0, stream.stream_id, NUMBER.pack(NO_ERROR)))
        self._forget(stream)

    def _reset(self, stream: Stream, code: int, why: str) -> None:
        self.cancel(stream, code)
        stream.on_broken(Broken(why))

    def _check_over(self, stream_id: int) -> None:
        """Raise Violation for a stream that was never opened: an unknown one must be over."""
        if stream_id >= self._next_id or not stream_id & 1:
            raise Violation(PROTOCOL_ERROR, f"the stream {stream_id} was never opened")

    def on_window_update(self, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise Violation(FRAME_SIZE_ERROR, "WINDOW_UPDATE of a wrong size")
        more = NUMBER.unpack(payload)[0] & MAX_WINDOW
        if not stream_id:
            # In place, without a call: servers send one with nearly every answer.
            outgoing = self._outgoing
            outgoing.window += more
            if not more:
                raise Violation(PROTOCOL_ERROR, "WINDOW_UPDATE of nothing")
            if outgoing.window > MAX_WINDOW:
                raise Violation(FLOW_CONTROL_ERROR, "the connection's window is too large")
            return
        stream = self._streams.get(stream_id)
        if stream is None:
            self._check_over(stream_id)
        elif not more:
            self._reset(stream, PROTOCOL_ERROR, "WINDOW_UPDATE of nothing")
        elif stream.window + more > MAX_WINDOW:
            self._reset(stream, FLOW_CONTROL_ERROR, "the stream's window is too large")
        else:
            stream.window += more
            self._outgoing.add(stream)

    def on_other(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        """The rare kinds of frames."""
        if kind == RST_STREAM:
            self._on_rst_stream(stream_id, payload)
        elif kind == SETTINGS:
            self._on_settings(flags, stream_id, payload)
        elif kind == PING:
            self._on_ping(flags, stream_id, payload)
        elif kind == GOAWAY:
            self._on_goaway(stream_id, payload)
        elif kind == PUSH_PROMISE:
            raise Violation(PROTOCOL_ERROR, "PUSH_PROMISE, which we do not allow")
        else:
            # PRIORITY, and kinds of later versions, are ignored.
            self._count_noise()

    def _on_rst_stream(self, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise Violation(FRAME_SIZE_ERROR, "RST_STREAM of a wrong size")
        stream = self._streams.get(stream_id)
        if stream is None:
            self._check_over(stream_id)
            self._count_noise()
            return
        code = NUMBER.unpack(payload)[0]
        self._forget(stream)
        reached = code != REFUSED_STREAM
        stream.on_broken(Broken(f"Received RST_STREAM with error code {code}", code, reached))

    def _on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise Violation(PROTOCOL_ERROR, "SETTINGS of a stream")
        if len(payload) % 6 or (flags & ACK and payload):
            raise Violation(FRAME_SIZE_ERROR, "SETTINGS of a wrong size")
        if flags & ACK:
            self._count_noise()
            return
        if self.ready:
            self._count_noise()
        for key, value in SETTING.iter_unpack(payload):
            self._set(key, value)
        self._emit(frame(SETTINGS, ACK, 0, b""))
        if not self.ready:
            self.ready = self._reader.ready = True
            self._owner.on_ready()

    def _set(self, key: int, value: int) -> None:
        if key == MAX_CONCURRENT_STREAMS:
            self._max_streams = value
        elif key == INITIAL_WINDOW_SIZE:
            self._outgoing.set_initial_window(value, self._streams.values())
        elif key == MAX_FRAME_SIZE:
            self._outgoing.set_max_frame(value)

    def _on_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise Violation(PROTOCOL_ERROR, "PING of a stream")
        if len(payload) != 8:
            raise Violation(FRAME_SIZE_ERROR, "PING of a wrong size")
        self._count_noise()
        if not flags & ACK:
            self._emit(frame(PING, ACK, 0, payload))

    def _on_goaway(self, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise Violation(PROTOCOL_ERROR, "GOAWAY of a stream")
        if len(payload) < 8:
            raise Violation(FRAME_SIZE_ERROR, "GOAWAY of a wrong size")
        last = NUMBER.unpack_from(payload)[0] & MAX_ID
        code = NUMBER.unpack_from(payload, 4)[0]
        self._count_noise()
        self._leave(code, payload[8:])
        for stream in [stream for number, stream in self._streams.items() if number > last]:
            if stream.stream_id:  # not cancelled meanwhile, by what one before it was for
                self._forget(stream)
                stream.on_broken(Broken("the server is going away", reached=False))
        if not self._streams and not self._waiting and not self.closed:
            self._owner.on_idle()

    def _count_noise(self) -> None:
        self._noise += 1
        if self._noise > self._limits.noise:
            raise Violation(ENHANCE_YOUR_CALM, "the server sends too many frames that bring nothing")


def _too_large(limit_bytes: int) -> str:
    return f"the executor's headers or trailers are larger than {limit_bytes} bytes: it should send less"
