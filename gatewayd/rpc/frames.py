"""
Frames of HTTP/2 (RFC 9113 sections 4 and 6): written, and cut out of what a connection receives. No I/O.

Nothing here knows whether it is a client's or a server's.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, Protocol

from gatewayd.messages.rope import Buffer

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA: Final = 0
HEADERS: Final = 1
PRIORITY: Final = 2
RST_STREAM: Final = 3
SETTINGS: Final = 4
PUSH_PROMISE: Final = 5
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9

END_STREAM: Final = 1
ACK: Final = 1
END_HEADERS: Final = 4
PADDED: Final = 8
WITH_PRIORITY: Final = 32

NO_ERROR: Final = 0
PROTOCOL_ERROR: Final = 1
FLOW_CONTROL_ERROR: Final = 3
STREAM_CLOSED: Final = 5
FRAME_SIZE_ERROR: Final = 6
REFUSED_STREAM: Final = 7
CANCEL: Final = 8
COMPRESSION_ERROR: Final = 9
ENHANCE_YOUR_CALM: Final = 11

ENABLE_PUSH: Final = 2
MAX_CONCURRENT_STREAMS: Final = 3
INITIAL_WINDOW_SIZE: Final = 4
MAX_FRAME_SIZE: Final = 5
MAX_HEADER_LIST_SIZE: Final = 6

MAX_ID: Final = 2**31 - 1
# What a peer's MAX_FRAME_SIZE is until it says otherwise.
SMALLEST_FRAME: Final = 16384

# Of a DATA frame that arrives in pieces, each that is handed on has at least so much, but for the last.
_LEAST_PIECE: Final = 512
# What is shorter is copied out of what was received: a view costs more, and keeps all of it in memory.
_LONG_PIECE: Final = 1 << 14

# Flags without which HEADERS is a whole block and nothing else; with END_HEADERS, which it needs.
_UNUSUAL_HEADERS: Final = END_HEADERS | PADDED | WITH_PRIORITY

# What each further frame of a header block has to bring on average.
_FRAME_BYTES: Final = 4096

# Length (24 bits in two), type, flags, stream.
FRAME: Final = Struct(">HBBBI")
SETTING: Final = Struct(">HI")
NUMBER: Final = Struct(">I")


class Violation(Exception):
    """
    The peer broke the rules so badly that the connection has to end, with the error ``code``.

    ``stream_id`` is the stream that did it, 0 for the connection as a whole.
    """

    def __init__(self, code: int, why: str, stream_id: int = 0) -> None:
        self.code = code
        self.stream_id = stream_id
        super().__init__(why)


def frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    size = len(payload)
    return FRAME.pack(size >> 8, size & 255, kind, flags, stream_id) + payload


def header_frames(stream_id: int, block: bytes, max_frame: int, *, ended: bool = False) -> bytes:
    """HEADERS and as many CONTINUATIONs as a header block needs; ``ended`` is whether the stream ends."""
    pieces = [block[at : at + max_frame] for at in range(0, len(block), max_frame)]
    kinds = [HEADERS] + [CONTINUATION] * (len(pieces) - 1)
    flags = [0] * (len(pieces) - 1) + [END_HEADERS]
    flags[0] |= END_STREAM if ended else 0
    return b"".join(
        frame(kind, flag, stream_id, piece) for kind, flag, piece in zip(kinds, flags, pieces, strict=True)
    )


def unpadded(payload: Buffer) -> Buffer:
    """The content of a PADDED frame. Raises Violation."""
    if not payload or payload[0] >= len(payload):
        raise Violation(PROTOCOL_ERROR, "the padding is longer than its frame")
    return payload[1 : len(payload) - payload[0]]


def _piece(data: bytes, begin: int, end: int) -> Buffer:
    """A part of ``data``: a view where that is long, and keeps at most twice its own size in memory."""
    size = end - begin
    if size < _LONG_PIECE or 2 * size < len(data):
        return data[begin:end]
    return data if size == len(data) else memoryview(data)[begin:end]


class FrameHandler(Protocol):
    """What a FrameReader hands frames to. Every method may raise Violation."""

    def on_data(self, flags: int, stream_id: int, payload: Buffer) -> None:
        """A DATA frame, or a part of one without END_STREAM. Padding is still in a PADDED one."""

    def on_block(self, stream_id: int, ended: bool, block: bytes) -> None:
        """A whole header block; ``ended`` tells whether the peer's half of the stream is over."""

    def on_window_update(self, stream_id: int, payload: bytes) -> None: ...

    def on_other(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        """Every other frame, as it is."""


class FrameReader:
    """
    Cuts what a connection receives into frames.

    ``frame_bytes`` bounds frames, and ``whole_bytes`` those that are kept until they are complete: all but
    plain DATA. The connection sets ``ready`` when the peer's first SETTINGS have been handled (nothing else
    is accepted before), and ``closed`` to stop in the middle of what was received.
    """

    __slots__ = (
        "_block",
        "_block_bytes",
        "_block_frames",
        "_block_size",
        "_frame_bytes",
        "_handler",
        "_have",
        "_need",
        "_parts",
        "_peer",
        "_unfinished",
        "_whole_bytes",
        "closed",
        "ready",
    )

    def __init__(
        self,
        handler: FrameHandler,
        *,
        frame_bytes: int,
        block_bytes: int,
        block_frames: int,
        whole_bytes: int | None = None,
        peer: str = "server",
    ) -> None:
        self.ready = False
        self.closed = False
        self._handler = handler
        self._peer = peer
        self._frame_bytes = frame_bytes
        self._whole_bytes = frame_bytes if whole_bytes is None else whole_bytes
        self._block_bytes = block_bytes
        self._block_frames = block_frames
        # The beginning of a frame, in pieces; how much of it is there, and how much is needed to go on.
        self._parts: list[bytes] = []
        self._have = 0
        self._need = 9
        # A DATA frame that has been received in part: flags, stream, and bytes that are missing.
        self._unfinished: tuple[int, int, int] | None = None
        # A header block that goes on: stream, whether the stream ends, its pieces, their size.
        self._block: tuple[int, bool, list[bytes]] | None = None
        self._block_size = 0

    def feed(self, data: bytes) -> None:
        """Hand on every whole frame, and keep the rest for the next time. Raises Violation."""
        at, end = 0, len(data)
        if self._parts:
            at = self._complete(data)
            if at == end or self.closed:
                return
        most, handler = self._whole_bytes, self._handler
        self._need = 9
        if self._unfinished is not None:
            missing = self._unfinished[2]
            if end - at < _LEAST_PIECE and end - at < missing:
                self._keep(data[at:], min(missing, _LEAST_PIECE))
                return
            at = self._more_data(data, at)
        while end - at >= 9 and not self.closed:
            high, low, kind, flags, stream_id = FRAME.unpack_from(data, at)
            length = high << 8 | low
            if not self.ready and (kind != SETTINGS or flags & ACK or length > most):
                raise Violation(PROTOCOL_ERROR, f"the {self._peer} does not speak HTTP/2")
            if length > most:
                self._check_long(length, plain=kind == DATA and not flags & PADDED)
            after = at + 9 + length
            if after > end:
                self._need = 9 + length
                if kind == DATA and not flags & PADDED and self._block is None:
                    # Handed on as it arrives: a large frame is the same as many smaller ones.
                    if end - at >= 9 + _LEAST_PIECE:
                        self._need = 9
                        self._unfinished = (flags, stream_id & MAX_ID, length)
                        at = self._more_data(data, at + 9)
                    else:
                        self._need = 9 + min(length, _LEAST_PIECE)
                break
            begin, at = at + 9, after
            stream_id &= MAX_ID
            if self._block is not None and kind != CONTINUATION:
                raise Violation(PROTOCOL_ERROR, "a header block was interrupted")
            if kind == DATA:
                if length >= _LONG_PIECE:
                    handler.on_data(flags, stream_id, _piece(data, begin, after))
                else:
                    handler.on_data(flags, stream_id, data[begin:after])
            elif kind == HEADERS:
                if flags & _UNUSUAL_HEADERS == END_HEADERS:
                    handler.on_block(stream_id, flags & END_STREAM != 0, data[begin:after])
                else:
                    self._on_headers(flags, stream_id, data[begin:after])
            elif kind == WINDOW_UPDATE:
                handler.on_window_update(stream_id, data[begin:after])
            elif kind == CONTINUATION:
                self._on_continuation(flags, stream_id, data[begin:after])
            else:
                handler.on_other(kind, flags, stream_id, data[begin:after])
        if at < end and not self.closed:
            self._keep(data[at:] if at else data, self._need)

    def _check_long(self, length: int, *, plain: bool) -> None:
        most = self._frame_bytes
        if length > most:
            raise Violation(FRAME_SIZE_ERROR, f"a frame of {length} bytes where {most} are allowed")
        if not plain:
            raise Violation(ENHANCE_YOUR_CALM, f"a frame of {length} bytes that is not plain data")

    def _complete(self, data: bytes) -> int:
        """Go on with what is kept; returns how much of ``data`` that took."""
        at, end = 0, len(data)
        while self._parts:
            missing = self._need - self._have
            if end - at < missing:
                self._parts.append(data[at:])
                self._have += end - at
                return end
            # Of much data only what the kept piece lacks is joined to it.
            after = end if end - at < _LONG_PIECE else at + missing
            whole = b"".join((*self._parts, data[at:after]))
            self._parts.clear()
            at = after
            self.feed(whole)
        return at

    def _keep(self, rest: bytes, need: int) -> None:
        self._parts.append(rest)
        self._have = len(rest)
        self._need = need

    def clear(self) -> None:
        """Forget what was received of an unfinished frame."""
        self._parts.clear()

    def release(self) -> None:
        """Let go of the handler, which refers to this reader: nothing is fed any more."""
        self.closed = True
        self._parts.clear()
        del self._handler

    def _more_data(self, data: bytes, at: int) -> int:
        """Hand on what was received of the unfinished DATA frame; returns where that ends in ``data``."""
        assert self._unfinished is not None
        flags, stream_id, missing = self._unfinished
        end = len(data)
        if end - at < missing:
            self._unfinished = (flags, stream_id, missing - (end - at))
            self._handler.on_data(flags & ~END_STREAM, stream_id, _piece(data, at, end))
            return end
        self._unfinished = None
        self._handler.on_data(flags, stream_id, _piece(data, at, at + missing))
        return at + missing

    def _on_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        if flags & (PADDED | WITH_PRIORITY):
            if flags & PADDED:
                payload = bytes(unpadded(payload))
            if flags & WITH_PRIORITY:
                if len(payload) < 5:
                    raise Violation(FRAME_SIZE_ERROR, "HEADERS are too short for their priority")
                if NUMBER.unpack_from(payload)[0] & MAX_ID == stream_id:
                    raise Violation(PROTOCOL_ERROR, "a stream that depends on itself")
                payload = payload[5:]
        ended = bool(flags & END_STREAM)
        if flags & END_HEADERS:
            self._handler.on_block(stream_id, ended, payload)
        else:
            self._block = (stream_id, ended, [])
            self._block_size = 0
            self._add_to_block(stream_id, payload)

    def _on_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        if self._block is None:
            raise Violation(PROTOCOL_ERROR, "CONTINUATION of nothing")
        self._add_to_block(stream_id, payload)
        if flags & END_HEADERS:
            _, ended, parts = self._block
            self._block = None
            self._handler.on_block(stream_id, ended, b"".join(parts))

    def _add_to_block(self, stream_id: int, payload: bytes) -> None:
        assert self._block is not None
        own_id, _, parts = self._block
        if own_id != stream_id:
            raise Violation(PROTOCOL_ERROR, "a header block was interrupted")
        parts.append(payload)
        self._block_size += len(payload)
        # Small frames cost more than their bytes: those beyond the first must bring some.
        frames = self._block_frames + self._block_size // _FRAME_BYTES
        if self._block_size > self._block_bytes or len(parts) > frames:
            raise Violation(ENHANCE_YOUR_CALM, "a header block is too large", stream_id)
