"""
HTTP/2 (RFC 9113), the server's half of one connection: bytes in, bytes out, no sockets.

A ``Stream`` is one request of the client and its answer. It receives the request through the methods that it
overrides, and answers through the connection's:

    HEADERS in ──> open: on_head, on_data ... ended ──> send_head, send_data ..., end ──> over
                     │                                                     │
                     └── RST_STREAM, GOAWAY, lost ──> on_broken            └── or answer(), all of it at once

What the client's windows do not allow yet waits in the stream, one message at a time; ``on_sent`` says when
it has left. A client's error ends its stream or, where its bytes can no longer be trusted, the connection.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from gatewayd.messages.rope import Buffer
from gatewayd.rpc.flow_control import DEFAULT_WINDOW, MAX_WINDOW
from gatewayd.rpc.frames import (
    ACK,
    COMPRESSION_ERROR,
    ENABLE_PUSH,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GOAWAY,
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
    PRIORITY,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    REFUSED_STREAM,
    RST_STREAM,
    SETTING,
    SETTINGS,
    STREAM_CLOSED,
    WINDOW_UPDATE,
    FrameReader,
    Violation,
    frame,
    unpadded,
)
from gatewayd.rpc.headers import Blocks, BlockTooLarge, Field, Unreadable
from gatewayd.rpc.server.sending import Sending
from gatewayd.rpc.server.stream import Held, Limits, Owner, Stream

# Messages in smaller pieces than this cost more than they bring.
_SMALL_PIECE: Final = 16
_KEEPALIVE: Final = b"gatewayd"
_GOODBYE: Final = b"goodbye!"
# So many gaps in a client's numbers of streams are remembered.
_SKIPPED: Final = 16


class Connection(Sending):
    """
    One connection. Its owner writes ``begin()`` first, and passes what it receives to ``receive``.

    ``read`` makes a request's head of its fields. ``seconds`` is a monotonic clock. ``held`` counts what the
    answers of all connections hold.
    """

    def __init__(
        self,
        owner: Owner,
        read: Callable[[Sequence[Field]], Any],
        seconds: Callable[[], float],
        held: Held,
        limits: Limits | None = None,
    ) -> None:
        limits = limits or Limits()
        super().__init__(owner, held, limits)
        self.ready = False  # the client's settings have arrived
        self._seconds = seconds
        self._blocks: Blocks[Any] = Blocks(read, limits.headers_bytes)
        self._most_streams = limits.streams or MAX_ID
        self._last_id = 0
        self._skipped: deque[range] = deque(maxlen=_SKIPPED)  # streams that newer ones have closed
        self._final_id = MAX_ID  # what our last GOAWAY says; newer streams are not looked at
        self._credit = limits.window_bytes
        self._preface: bytes | None = b""  # as much of it as has arrived; None when all has
        self._reader = FrameReader(
            self,
            frame_bytes=limits.frame_bytes,
            block_bytes=limits.block_bytes,
            block_frames=limits.block_frames,
            whole_bytes=limits.whole_bytes,
            peer="client",
        )

    def begin(self) -> bytes:
        """Our settings."""
        limits = self._limits
        pairs = [
            (INITIAL_WINDOW_SIZE, limits.stream_window_bytes),
            (MAX_FRAME_SIZE, limits.frame_bytes),
            (MAX_HEADER_LIST_SIZE, limits.headers_bytes),
        ]
        if limits.streams:
            pairs.append((MAX_CONCURRENT_STREAMS, limits.streams))
        settings = b"".join(SETTING.pack(key, value) for key, value in pairs)
        more = limits.window_bytes - DEFAULT_WINDOW
        update = frame(WINDOW_UPDATE, 0, 0, NUMBER.pack(more)) if more > 0 else b""
        return frame(SETTINGS, 0, 0, settings) + update

    @property
    def open_streams(self) -> int:
        return len(self._streams)

    def streams(self) -> tuple[Stream, ...]:
        """Those that are open now."""
        return tuple(self._streams.values())

    # -- the connection as a whole -------------------------------------------------------------------

    def ping(self) -> None:
        self._owner.write(frame(PING, 0, 0, _KEEPALIVE))

    def drain(self) -> None:
        """Ask the client to open no more streams, and refuse them when it has certainly heard of it."""
        if not self.draining:
            self.draining = True
            self._owner.write(_goaway(MAX_ID, NO_ERROR) + frame(PING, 0, 0, _GOODBYE))

    def refuse(self) -> None:
        """Take no more streams, after ``drain``: the client has answered, or does not."""
        if self._final_id == MAX_ID and not self.closed:
            self._final_id = self._last_id
            self._owner.write(_goaway(self._last_id, NO_ERROR))
            self._check_idle()

    def fail(self, code: int, why: str) -> None:
        """End the connection with an error."""
        if not self.closed:
            self._owner.write(_goaway(self._last_id, code, why.encode()))
            self.lost()
            self._owner.on_failed(why)

    def lost(self) -> None:
        """The transport is gone, or is about to be closed."""
        self.closed = self._reader.closed = True
        streams = [*self._streams.values()]
        # The streams may call back into us, so leave a consistent state first.
        self._streams.clear()
        self._outgoing.waiting.clear()
        self._reader.clear()
        self._ended_early.clear()
        self._count_unsent(-self.unsent_bytes)
        for stream in streams:
            stream.stream_id = 0
        for stream in streams:
            broken, stream.unsent = stream.trailers is None, None
            if broken:
                stream.on_broken()

    def release(self) -> None:
        """Let go of the owner, and of all that refers to this connection from inside: after ``lost``."""
        self._owner = _Nobody()
        self._reader.release()

    def _check_idle(self) -> None:
        if not self._streams and self._final_id != MAX_ID and not self.closed:
            self._owner.on_idle()

    # -- what the client sends -----------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Handle bytes from the transport."""
        if self.closed:
            return
        try:
            if self._preface is not None:
                data = self._after_preface(data)
            self._reader.feed(data)
        except Violation as violation:
            self.fail(violation.code, str(violation))
            return
        if self._outgoing.waiting:
            self._pump()

    def _after_preface(self, data: bytes) -> bytes:
        received = (self._preface or b"") + data
        if not received.startswith(PREFACE[: len(received)]):
            raise Violation(PROTOCOL_ERROR, "the client does not speak HTTP/2")
        if len(received) < len(PREFACE):
            self._preface = received
            return b""
        self._preface = None
        return received[len(PREFACE) :]

    # -- FrameHandler --------------------------------------------------------------------------------

    def on_data(self, flags: int, stream_id: int, payload: Buffer) -> None:
        size = len(payload)
        self._credit -= size
        if self._credit < 0:
            raise Violation(FLOW_CONTROL_ERROR, "more data than the connection's window allows")
        window = self._limits.window_bytes
        if self._credit <= window >> 1:
            self.conduct.sent()
            self._owner.write(frame(WINDOW_UPDATE, 0, 0, NUMBER.pack(window - self._credit)))
            self._credit = window
        stream = self._streams.get(stream_id)
        if stream is None or stream.half_closed:
            self._after_the_end(stream_id)
            return
        stream.credit -= size
        if stream.credit < 0:
            self._break(stream, FLOW_CONTROL_ERROR)
            return
        if flags & PADDED:
            payload = unpadded(payload)
            self.consumed(stream, size - len(payload))
        if flags & END_STREAM:
            stream.half_closed = True
            stream.on_data(payload, True)
        elif payload:
            if len(payload) < _SMALL_PIECE:
                self.conduct.small()
            stream.on_data(payload, False)
        else:
            self.conduct.noise()

    def on_block(self, stream_id: int, ended: bool, block: bytes) -> None:
        # Decoded even if its stream is gone: the table has to follow.
        try:
            head = self._blocks.decode(block)
        except BlockTooLarge:
            head = None
        except Unreadable as error:
            code = ENHANCE_YOUR_CALM if error.oversized else COMPRESSION_ERROR
            raise Violation(code, f"headers cannot be decoded: {error}") from error
        if stream_id <= self._last_id:
            stream = self._streams.get(stream_id)
            if stream is None or stream.half_closed:
                if any(stream_id in each for each in self._skipped):
                    raise Violation(PROTOCOL_ERROR, f"the stream {stream_id} comes after newer ones")
                self._after_the_end(stream_id)
            elif not ended:
                self._break(stream, PROTOCOL_ERROR)  # trailers that do not end the request
            else:
                stream.half_closed = True
                stream.on_trailers(head)
            return
        if not stream_id & 1:
            raise Violation(PROTOCOL_ERROR, f"a client cannot open the stream {stream_id}")
        if stream_id > self._final_id:
            self.conduct.noise()
            return
        if stream_id > self._last_id + 2:
            self._skipped.append(range(self._last_id + 1, stream_id))
        self._last_id = stream_id
        if len(self._streams) >= self._most_streams:
            self.conduct.reset()
            self._emit_reset(stream_id, REFUSED_STREAM)
            return
        stream = self._owner.new_stream()
        stream.connection = self
        stream.stream_id = stream_id
        stream.window = self._outgoing.initial_window
        stream.credit = self._limits.stream_window_bytes
        stream.half_closed = ended
        self._streams[stream_id] = stream
        stream.on_head(head, ended)

    def _break(self, stream: Stream, code: int) -> None:
        """End a stream for what the client sent on it."""
        self.conduct.reset()
        ended = stream.trailers is not None
        self.reset(stream, code)
        if not ended:
            stream.on_broken()

    def _after_the_end(self, stream_id: int) -> None:
        """A frame of a stream whose request is over."""
        self._check_opened(stream_id)
        self.conduct.noise()
        if stream_id in self._ended_early or stream_id > self._final_id:
            return
        stream = self._streams.get(stream_id)
        if stream is not None:
            self._break(stream, STREAM_CLOSED)
        else:
            self._emit_reset(stream_id, STREAM_CLOSED)

    def _check_opened(self, stream_id: int) -> None:
        """Of the streams of a connection that drains, newer ones may have been refused unseen."""
        if not stream_id & 1 or self._last_id < stream_id <= self._final_id:
            raise Violation(PROTOCOL_ERROR, f"the stream {stream_id} was never opened")

    def on_window_update(self, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise Violation(FRAME_SIZE_ERROR, "WINDOW_UPDATE of a wrong size")
        more = NUMBER.unpack(payload)[0] & MAX_WINDOW
        self.conduct.noise()
        if not stream_id:
            outgoing = self._outgoing
            outgoing.window += more
            if not more:
                raise Violation(PROTOCOL_ERROR, "WINDOW_UPDATE of nothing")
            if outgoing.window > MAX_WINDOW:
                raise Violation(FLOW_CONTROL_ERROR, "the connection's window is too large")
            return
        stream = self._streams.get(stream_id)
        if stream is None:
            self._check_opened(stream_id)
        elif not more:
            self._break(stream, PROTOCOL_ERROR)
        elif stream.window + more > MAX_WINDOW:
            self._break(stream, FLOW_CONTROL_ERROR)
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
            if stream_id:
                raise Violation(PROTOCOL_ERROR, "GOAWAY of a stream")
            if len(payload) < 8:
                raise Violation(FRAME_SIZE_ERROR, "GOAWAY of a wrong size")
            # The client opens nothing more, and closes the connection when it has its answers.
            self.conduct.noise()
        elif kind == PUSH_PROMISE:
            raise Violation(PROTOCOL_ERROR, "PUSH_PROMISE, which clients cannot send")
        else:
            # Kinds of later versions are ignored, and so is what PRIORITY says.
            self.conduct.noise()
            if kind == PRIORITY and len(payload) != 5:
                raise Violation(FRAME_SIZE_ERROR, "PRIORITY of a wrong size")
            if kind == PRIORITY and not stream_id:
                raise Violation(PROTOCOL_ERROR, "PRIORITY of no stream")

    def _on_rst_stream(self, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise Violation(FRAME_SIZE_ERROR, "RST_STREAM of a wrong size")
        self._check_opened(stream_id)
        stream = self._streams.get(stream_id)
        if stream is None:
            self.conduct.noise()
            return
        self.conduct.reset()
        ended = stream.trailers is not None
        self._forget(stream)
        if not ended:
            stream.on_broken()

    def _on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise Violation(PROTOCOL_ERROR, "SETTINGS of a stream")
        if len(payload) % 6 or (flags & ACK and payload):
            raise Violation(FRAME_SIZE_ERROR, "SETTINGS of a wrong size")
        self.conduct.noise()
        if flags & ACK:
            return
        for key, value in SETTING.iter_unpack(payload):
            self._set(key, value)
        self._owner.write(frame(SETTINGS, ACK, 0, b""))
        self.ready = self._reader.ready = True

    def _set(self, key: int, value: int) -> None:
        self.conduct.noise()
        if key == INITIAL_WINDOW_SIZE:
            # The windows of all streams change.
            self.conduct.noise(len(self._streams) >> 3)
            self._outgoing.set_initial_window(value, self._streams.values())
        elif key == MAX_FRAME_SIZE:
            self._outgoing.set_max_frame(value)
        elif key == ENABLE_PUSH and value > 1:
            raise Violation(PROTOCOL_ERROR, f"ENABLE_PUSH is {value}")

    def _on_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise Violation(PROTOCOL_ERROR, "PING of a stream")
        if len(payload) != 8:
            raise Violation(FRAME_SIZE_ERROR, "PING of a wrong size")
        if flags & ACK:
            self.conduct.noise()
            if payload == _GOODBYE:
                self.refuse()
        else:
            self.conduct.ping(self._seconds())
            self._owner.write(frame(PING, ACK, 0, payload))


class _Nobody:
    """The owner of a connection that is lost."""

    def write(self, data: bytes) -> None:
        """To nobody."""

    def write_all(self, buffers: list[Buffer]) -> None:
        """To nobody."""

    def new_stream(self) -> Stream:
        raise RuntimeError("a stream of a connection that is lost")

    def on_idle(self) -> None:
        """Nothing is left to do."""

    def on_failed(self, why: str) -> None:
        """Nothing is left to do."""


def _goaway(last_id: int, code: int, debug: bytes = b"") -> bytes:
    return frame(GOAWAY, 0, 0, NUMBER.pack(last_id) + NUMBER.pack(code) + debug)
