"""
HTTP/2 (RFC 9113), the client's half of one connection: bytes in, bytes out, no sockets and no clock.

A ``Stream`` is one request with its whole body at hand; its answer comes through the methods that it
overrides. Streams wait in here for the server's settings, for one of the streams that it allows, and for
the transport to take more; their bodies wait for the server's flow control.

    start() ──> waiting ──> open: HEADERS, DATA out ──> its answer ──> on_headers, on_data ... ended
                   │                  │
                   └── cancel() ──────┴── reset, GOAWAY, lost ──> on_broken

Every way ends with one of: ``ended`` given to a stream, ``on_broken``, or our own ``cancel``. What a
server does wrong ends the stream or, where its bytes cannot be trusted any more, the connection.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from struct import Struct
from typing import Any, Final, Protocol

import attrs

from gatewayd.rpc.headers import Blocks, Unreadable

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

_DATA: Final = 0
_HEADERS: Final = 1
_PRIORITY: Final = 2
_RST_STREAM: Final = 3
_SETTINGS: Final = 4
_PUSH_PROMISE: Final = 5
_PING: Final = 6
_GOAWAY: Final = 7
_WINDOW_UPDATE: Final = 8
_CONTINUATION: Final = 9

_END_STREAM: Final = 1
_ACK: Final = 1
_END_HEADERS: Final = 4
_PADDED: Final = 8
_WITH_PRIORITY: Final = 32

NO_ERROR: Final = 0
PROTOCOL_ERROR: Final = 1
FLOW_CONTROL_ERROR: Final = 3
FRAME_SIZE_ERROR: Final = 6
REFUSED_STREAM: Final = 7
CANCEL: Final = 8
COMPRESSION_ERROR: Final = 9
ENHANCE_YOUR_CALM: Final = 11

_MAX_ID: Final = 2**31 - 1
_MAX_WINDOW: Final = 2**31 - 1
_DEFAULT_WINDOW: Final = 65535
_SMALLEST_FRAME: Final = 16384
# The most that is written at once for one stream, so that a large body doesn't hold up the others.
_TURN_BYTES: Final = 1 << 16

_FRAME = Struct(">HBBBI")  # length (24 bits in two), type, flags, stream
_SETTING = Struct(">HI")
_NUMBER = Struct(">I")


@attrs.frozen
class Limits:
    """
    What we allow a server.

    ``window_bytes`` is how much may be on its way to us, by stream and for all of them: nothing of it is
    ever kept waiting, so it bounds only what a cancelled stream still brings. ``noise`` is the number of
    frames that bring nothing, between two answers or calls of ``calm``.
    """

    window_bytes: int = 1 << 24
    frame_bytes: int = 1 << 18
    block_bytes: int = 1 << 18
    block_frames: int = 64
    noise: int = 4000


class Stream:
    """
    One request and its answer.

    ``block`` is the header block, ``lead`` and ``body`` the request's content; both must be there before
    the stream is started.
    """

    __slots__ = ("block", "body", "connection", "credit", "lead", "stream_id", "unsent", "window")

    def __init__(self, block: bytes, lead: bytes, body: bytes) -> None:
        self.block = block
        self.lead = lead
        self.body = body
        self.connection: Connection | None = None  # the last that was asked to send it
        self.stream_id = 0  # 0 while it waits, and again when it is over
        self.window = 0
        self.credit = 0
        self.unsent: memoryview | None = None

    def on_headers(self, fields: Any, ended: bool) -> None:
        """What ``Blocks`` made of a header block: the answer's head, or its trailers."""
        raise NotImplementedError

    def on_data(self, data: bytes, ended: bool) -> None:
        """A piece of the answer's content; empty only at the end."""
        raise NotImplementedError

    def on_broken(self, broken: Broken) -> None:
        """There will be no answer, or no more of it."""
        raise NotImplementedError


@attrs.frozen
class Broken:
    """
    Why a stream has ended early. ``code`` is that of a RST_STREAM from the server, else None.

    ``reached`` is False when the server surely has done nothing with the request.
    """

    why: str
    code: int | None = None
    reached: bool = True


class Owner(Protocol):
    """Who carries the bytes."""

    def write(self, data: bytes) -> None:
        """May call ``pause`` before it returns."""

    def on_ready(self) -> None:
        """The server's settings have come."""

    def on_leaving(self, code: int, debug: bytes) -> None:
        """The server takes no more streams; those under way may finish."""

    def on_idle(self) -> None:
        """It took no more streams, and the last one has ended."""

    def on_failed(self, why: str) -> None:
        """The server broke the rules: hang up. The streams are told next; nothing more will be written."""


class _Violation(Exception):
    def __init__(self, code: int, why: str) -> None:
        self.code = code
        super().__init__(why)


class Connection:
    """
    One connection. Its owner writes ``begin()`` first, and gives whatever comes to ``receive``.

    ``read`` is as in ``Blocks``.
    """

    def __init__(self, owner: Owner, read: Callable[[Any], Any], limits: Limits | None = None) -> None:
        limits = limits or Limits()
        self.ready = False  # the server's settings have come
        self.leaving = False  # no stream can be started any more
        self.closed = False
        self._owner = owner
        self._limits = limits
        self._blocks: Blocks[Any] = Blocks(read, limits.block_bytes)
        self._streams: dict[int, Stream] = {}
        self._waiting: OrderedDict[Stream, None] = OrderedDict()
        # Open, with something unsent, and by their own windows allowed to send it.
        self._sending: OrderedDict[Stream, None] = OrderedDict()
        self._next_id = 1
        self._paused = False
        self._corked: list[bytes] | None = None
        self._noise = 0
        # The server's settings, and what is left of its window.
        self._max_streams = _MAX_ID
        self._max_frame = _SMALLEST_FRAME
        self._initial_window = _DEFAULT_WINDOW
        self._window = _DEFAULT_WINDOW
        # What the server may still send, and what has come of a frame.
        self._credit = limits.window_bytes
        self._parts: list[bytes] = []
        self._have = 0
        self._need = 9
        # A DATA frame that has come in part: flags, stream, and bytes that are missing.
        self._data: tuple[int, int, int] | None = None
        # A header block that goes on: stream, whether the stream ends, its pieces, their size.
        self._block: tuple[int, bool, list[bytes]] | None = None
        self._block_size = 0

    def begin(self) -> bytes:
        """The preface and our settings."""
        limits = self._limits
        settings = b"".join(
            _SETTING.pack(key, value)
            for key, value in (
                (2, 0),  # no pushes
                (4, limits.window_bytes),
                (5, limits.frame_bytes),
                (6, limits.block_bytes),
            )
        )
        more = limits.window_bytes - _DEFAULT_WINDOW
        update = _frame(_WINDOW_UPDATE, 0, 0, _NUMBER.pack(more)) if more > 0 else b""
        return PREFACE + _frame(_SETTINGS, 0, 0, settings) + update

    # -- our requests --------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        return bool(self._streams or self._waiting)

    def start(self, stream: Stream) -> None:
        """Send a request as soon as may be. Not when ``leaving`` or ``closed``."""
        stream.connection = self
        if not self.ready or self._paused or self._waiting or len(self._streams) >= self._max_streams:
            self._waiting[stream] = None
        else:
            self._open(stream)
            if self._sending:
                self._pump()

    def cancel(self, stream: Stream, code: int = CANCEL) -> None:
        """Forget the stream: none of its methods is called again. Asking twice changes nothing."""
        if stream.stream_id:
            self._emit(_frame(_RST_STREAM, 0, stream.stream_id, _NUMBER.pack(code)))
            self._forget(stream)
        else:
            self._waiting.pop(stream, None)

    def take_waiting(self) -> list[Stream]:
        """Those that were not sent, for another connection. They are forgotten here."""
        waiting = list(self._waiting)
        self._waiting.clear()
        return waiting

    def ping(self) -> None:
        self._emit(_frame(_PING, 0, 0, b"gatewayd"))

    def calm(self) -> None:
        """Some seconds have passed."""
        # A server that doesn't read gets no more acknowledgements to pile up.
        if not self._paused:
            self._noise = 0

    def pause(self) -> None:
        """The transport has enough to do."""
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self._pump()

    def lost(self, why: str) -> None:
        """The transport is gone, or is about to be closed."""
        self.closed = True
        streams = [*self._streams.values()]
        waiting = self.take_waiting()
        # Whoever is told may look at us.
        self._streams.clear()
        self._sending.clear()
        self._parts.clear()
        for stream in streams:
            stream.stream_id = 0
            stream.unsent = None
        for stream in streams:
            stream.on_broken(Broken(why))
        for stream in waiting:
            stream.on_broken(Broken(why, reached=False))

    def goodbye(self) -> bytes:
        """What to write before hanging up."""
        return _frame(_GOAWAY, 0, 0, _NUMBER.pack(0) + _NUMBER.pack(NO_ERROR))

    def _open(self, stream: Stream) -> None:
        stream_id = stream.stream_id = self._next_id
        self._next_id = stream_id + 2
        self._streams[stream_id] = stream
        stream.credit = self._limits.window_bytes
        stream.window = self._initial_window
        block, lead, body = stream.block, stream.lead, stream.body
        size = len(lead) + len(body)
        length = len(block)
        most = self._max_frame
        if length <= most and size <= most and size <= self._window and size <= stream.window:
            self._window -= size
            # One write for both frames, without a copy of the body on the way.
            self._emit(
                b"".join(
                    (
                        _FRAME.pack(length >> 8, length & 255, _HEADERS, _END_HEADERS, stream_id),
                        block,
                        _FRAME.pack(size >> 8, size & 255, _DATA, _END_STREAM, stream_id),
                        lead,
                        body,
                    )
                )
            )
        else:
            self._emit(self._block_frames(stream_id, block))
            stream.unsent = memoryview(body)
            self._send_later(stream)
        if self._next_id > _MAX_ID:
            self._leave(NO_ERROR, b"stream ids are used up")

    def _block_frames(self, stream_id: int, block: bytes) -> bytes:
        pieces = [block[at : at + self._max_frame] for at in range(0, len(block), self._max_frame)]
        kinds = [_HEADERS] + [_CONTINUATION] * (len(pieces) - 1)
        flags = [0] * (len(pieces) - 1) + [_END_HEADERS]
        return b"".join(
            _frame(kind, flag, stream_id, piece)
            for kind, flag, piece in zip(kinds, flags, pieces, strict=True)
        )

    def _open_waiting(self) -> None:
        while (
            self._waiting and not self._paused and not self.leaving and len(self._streams) < self._max_streams
        ):
            stream, _ = self._waiting.popitem(last=False)
            self._open(stream)

    def _send_later(self, stream: Stream) -> None:
        if stream.unsent is not None and stream.window > 0:
            self._sending[stream] = None

    def _pump(self) -> None:
        """Send what the windows and the transport allow, a piece of each stream in turn."""
        if self._corked is not None or self.closed or not self.ready:
            return  # at the end of ``receive``
        self._open_waiting()
        while self._sending and self._window > 0 and not self._paused:
            stream, _ = self._sending.popitem(last=False)
            self._send_some(stream)

    def _send_some(self, stream: Stream) -> None:
        unsent = stream.unsent
        if unsent is None:
            return
        lead = stream.lead
        total = len(lead) + len(unsent)
        turn = min(_TURN_BYTES, total, self._window, stream.window)
        self._window -= turn
        stream.window -= turn
        pieces: list[bytes | memoryview] = []
        left = turn
        while True:
            size = min(left, self._max_frame)
            left -= size
            last = not left and turn == total
            flags = _END_STREAM if last else 0
            pieces.append(_FRAME.pack(size >> 8, size & 255, _DATA, flags, stream.stream_id))
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
            self._send_later(stream)
        self._emit(b"".join(pieces))

    def _emit(self, data: bytes) -> None:
        if self.closed:
            return
        if self._corked is None:
            self._owner.write(data)
        else:
            self._corked.append(data)

    def _forget(self, stream: Stream) -> None:
        del self._streams[stream.stream_id]
        stream.stream_id = 0
        self._sending.pop(stream, None)
        stream.unsent = None
        if self._waiting:
            self._pump()
        if self.leaving and not self._streams and not self._waiting and not self.closed:
            self._owner.on_idle()

    def _leave(self, code: int, debug: bytes) -> None:
        if not self.leaving:
            self.leaving = True
            self._owner.on_leaving(code, debug)

    # -- what the server says ------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Bytes as they came from the transport."""
        if self.closed:
            return
        if self._parts:
            self._parts.append(data)
            self._have += len(data)
            if self._have < self._need:
                return
            data = b"".join(self._parts)
            self._parts.clear()
        corked = self._corked = []
        why = None
        try:
            rest = self._frames(data)
        except _Violation as violation:
            why = str(violation)
            corked.append(_frame(_GOAWAY, 0, 0, _NUMBER.pack(0) + _NUMBER.pack(violation.code)))
        finally:
            self._corked = None
        if corked and not self.closed:
            self._owner.write(corked[0] if len(corked) == 1 else b"".join(corked))
        if why is not None:
            if not self.closed:
                # The owner first: whoever is told by a stream may start another one at once.
                self.closed = True
                self._owner.on_failed(why)
                self.lost(why)
            return
        if rest:
            self._parts.append(rest)
            self._have = len(rest)
        if self._waiting or self._sending:
            self._pump()

    def _frames(self, data: bytes) -> bytes:
        """Handle every whole frame; what is left over comes back, and ``_need`` says how much is missing."""
        at, end = 0, len(data)
        most = self._limits.frame_bytes
        self._need = 9
        if self._data is not None:
            at = self._more_data(data)
        while end - at >= 9 and not self.closed:
            high, low, kind, flags, stream_id = _FRAME.unpack_from(data, at)
            length = high << 8 | low
            if not self.ready and (kind != _SETTINGS or flags & _ACK or length > most):
                raise _Violation(PROTOCOL_ERROR, "the server does not speak HTTP/2")
            if length > most:
                raise _Violation(FRAME_SIZE_ERROR, f"a frame of {length} bytes where {most} are allowed")
            after = at + 9 + length
            if after > end:
                if kind == _DATA and not flags & _PADDED and self._block is None and end - at > 9:
                    # Handed on as it comes: a large frame is as many smaller ones.
                    self._data = (flags, stream_id & _MAX_ID, length)
                    at += 9 + self._more_data(data[at + 9 :])
                else:
                    self._need = 9 + length
                break
            payload = data[at + 9 : after]
            at = after
            stream_id &= _MAX_ID
            if self._block is not None and kind != _CONTINUATION:
                raise _Violation(PROTOCOL_ERROR, "a header block was interrupted")
            if kind == _DATA:
                self._on_data(flags, stream_id, payload)
            elif kind == _HEADERS:
                self._on_headers(flags, stream_id, payload)
            elif kind == _WINDOW_UPDATE:
                self._on_window_update(stream_id, payload)
            else:
                self._on_other(kind, flags, stream_id, payload)
        return data[at:] if at else data

    def _more_data(self, data: bytes) -> int:
        """Hand on what has come of the unfinished DATA frame; how much of ``data`` that is."""
        assert self._data is not None
        flags, stream_id, missing = self._data
        size = len(data)
        if size < missing:
            self._data = (flags, stream_id, missing - size)
            self._on_data(flags & ~_END_STREAM, stream_id, data)
            return size
        self._data = None
        self._on_data(flags, stream_id, data[:missing])
        return missing

    def _on_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        size = len(payload)
        self._credit -= size
        if self._credit < 0:
            raise _Violation(FLOW_CONTROL_ERROR, "the server sends more than its window allows")
        window = self._limits.window_bytes
        if self._credit <= window >> 1:
            self._emit(_frame(_WINDOW_UPDATE, 0, 0, _NUMBER.pack(window - self._credit)))
            self._credit = window
        stream = self._streams.get(stream_id)
        if stream is None:
            self._check_over(stream_id)
            return
        stream.credit -= size
        ended = flags & _END_STREAM
        if stream.credit < 0:
            self._reset(stream, FLOW_CONTROL_ERROR, "the server sends more than the stream's window allows")
            return
        if stream.credit <= window >> 1 and not ended:
            self._emit(_frame(_WINDOW_UPDATE, 0, stream_id, _NUMBER.pack(window - stream.credit)))
            stream.credit = window
        if flags & _PADDED:
            payload = _unpadded(payload)
        if ended:
            self._ended(stream)
            stream.on_data(payload, True)
        elif payload:
            stream.on_data(payload, False)
        else:
            self._count_noise()

    def _on_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        if flags & (_PADDED | _WITH_PRIORITY):
            if flags & _PADDED:
                payload = _unpadded(payload)
            if flags & _WITH_PRIORITY:
                if len(payload) < 5:
                    raise _Violation(FRAME_SIZE_ERROR, "HEADERS are too short for their priority")
                payload = payload[5:]
        ended = bool(flags & _END_STREAM)
        if flags & _END_HEADERS:
            self._on_block(stream_id, ended, payload)
        else:
            self._block = (stream_id, ended, [])
            self._block_size = 0
            self._on_block_part(stream_id, payload)

    def _on_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        if self._block is None:
            raise _Violation(PROTOCOL_ERROR, "CONTINUATION of nothing")
        self._on_block_part(stream_id, payload)
        if flags & _END_HEADERS:
            _, ended, parts = self._block
            self._block = None
            self._on_block(stream_id, ended, b"".join(parts))

    def _on_block_part(self, stream_id: int, payload: bytes) -> None:
        assert self._block is not None
        own_id, _, parts = self._block
        if own_id != stream_id:
            raise _Violation(PROTOCOL_ERROR, "a header block was interrupted")
        parts.append(payload)
        self._block_size += len(payload)
        if self._block_size > self._limits.block_bytes or len(parts) > self._limits.block_frames:
            raise _Violation(ENHANCE_YOUR_CALM, "a header block is too large")

    def _on_block(self, stream_id: int, ended: bool, block: bytes) -> None:
        # Decoded even if nobody waits for it: the table has to follow.
        try:
            fields = self._blocks.decode(block)
        except Unreadable as error:
            raise _Violation(COMPRESSION_ERROR, f"headers cannot be decoded: {error}") from error
        stream = self._streams.get(stream_id)
        if stream is None:
            self._check_over(stream_id)
            return
        if ended:
            self._ended(stream)
        stream.on_headers(fields, ended)

    def _ended(self, stream: Stream) -> None:
        self.calm()
        if stream.unsent is not None:
            # An answer that didn't need the whole request (RFC 9113 section 8.1).
            self._emit(_frame(_RST_STREAM, 0, stream.stream_id, _NUMBER.pack(NO_ERROR)))
        self._forget(stream)

    def _reset(self, stream: Stream, code: int, why: str) -> None:
        self.cancel(stream, code)
        stream.on_broken(Broken(why))

    def _check_over(self, stream_id: int) -> None:
        """A stream that we don't know must be one that is over."""
        if stream_id >= self._next_id or not stream_id & 1:
            raise _Violation(PROTOCOL_ERROR, f"the stream {stream_id} was never opened")

    def _on_window_update(self, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise _Violation(FRAME_SIZE_ERROR, "WINDOW_UPDATE of a wrong size")
        more = _NUMBER.unpack(payload)[0] & _MAX_WINDOW
        if not stream_id:
            self._window += more
            if not more:
                raise _Violation(PROTOCOL_ERROR, "WINDOW_UPDATE of nothing")
            if self._window > _MAX_WINDOW:
                raise _Violation(FLOW_CONTROL_ERROR, "the connection's window is too large")
            return
        stream = self._streams.get(stream_id)
        if stream is None:
            self._check_over(stream_id)
        elif not more:
            self._reset(stream, PROTOCOL_ERROR, "WINDOW_UPDATE of nothing")
        elif stream.window + more > _MAX_WINDOW:
            self._reset(stream, FLOW_CONTROL_ERROR, "the stream's window is too large")
        else:
            stream.window += more
            self._send_later(stream)

    def _on_other(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        """Everything that is rare."""
        if kind == _CONTINUATION:
            self._on_continuation(flags, stream_id, payload)
        elif kind == _RST_STREAM:
            self._on_rst_stream(stream_id, payload)
        elif kind == _SETTINGS:
            self._on_settings(flags, stream_id, payload)
        elif kind == _PING:
            self._on_ping(flags, stream_id, payload)
        elif kind == _GOAWAY:
            self._on_goaway(stream_id, payload)
        elif kind == _PUSH_PROMISE:
            raise _Violation(PROTOCOL_ERROR, "PUSH_PROMISE, which we don't allow")
        else:
            # PRIORITY, and what later versions may bring: nothing to us.
            self._count_noise()

    def _on_rst_stream(self, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise _Violation(FRAME_SIZE_ERROR, "RST_STREAM of a wrong size")
        stream = self._streams.get(stream_id)
        if stream is None:
            self._check_over(stream_id)
            self._count_noise()
            return
        code = _NUMBER.unpack(payload)[0]
        self._forget(stream)
        reached = code != REFUSED_STREAM
        stream.on_broken(Broken(f"Received RST_STREAM with error code {code}", code, reached))

    def _on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise _Violation(PROTOCOL_ERROR, "SETTINGS of a stream")
        if len(payload) % 6 or (flags & _ACK and payload):
            raise _Violation(FRAME_SIZE_ERROR, "SETTINGS of a wrong size")
        if flags & _ACK:
            self._count_noise()
            return
        if self.ready:
            self._count_noise()
        for key, value in _SETTING.iter_unpack(payload):
            self._set(key, value)
        self._emit(_frame(_SETTINGS, _ACK, 0, b""))
        if not self.ready:
            self.ready = True
            self._owner.on_ready()

    def _set(self, key: int, value: int) -> None:
        if key == 3:
            self._max_streams = value
        elif key == 4:
            if value > _MAX_WINDOW:
                raise _Violation(FLOW_CONTROL_ERROR, "the initial window is too large")
            more = value - self._initial_window
            self._initial_window = value
            for stream in self._streams.values():
                stream.window += more
                if stream.window > _MAX_WINDOW:
                    raise _Violation(FLOW_CONTROL_ERROR, "a stream's window is too large")
                if stream.window > 0:
                    self._send_later(stream)
                else:
                    self._sending.pop(stream, None)
        elif key == 5:
            if not _SMALLEST_FRAME <= value < 1 << 24:
                raise _Violation(PROTOCOL_ERROR, f"frames of {value} bytes")
            self._max_frame = value

    def _on_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise _Violation(PROTOCOL_ERROR, "PING of a stream")
        if len(payload) != 8:
            raise _Violation(FRAME_SIZE_ERROR, "PING of a wrong size")
        self._count_noise()
        if not flags & _ACK:
            self._emit(_frame(_PING, _ACK, 0, payload))

    def _on_goaway(self, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise _Violation(PROTOCOL_ERROR, "GOAWAY of a stream")
        if len(payload) < 8:
            raise _Violation(FRAME_SIZE_ERROR, "GOAWAY of a wrong size")
        last = _NUMBER.unpack_from(payload)[0] & _MAX_ID
        code = _NUMBER.unpack_from(payload, 4)[0]
        self._count_noise()
        self._leave(code, payload[8:])
        for stream in [stream for number, stream in self._streams.items() if number > last]:
            self._forget(stream)
            stream.on_broken(Broken("the server is going away", reached=False))
        if not self._streams and not self._waiting and not self.closed:
            self._owner.on_idle()

    def _count_noise(self) -> None:
        self._noise += 1
        if self._noise > self._limits.noise:
            raise _Violation(ENHANCE_YOUR_CALM, "the server sends too many frames that bring nothing")


def _frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    size = len(payload)
    return _FRAME.pack(size >> 8, size & 255, kind, flags, stream_id) + payload


def _unpadded(payload: bytes) -> bytes:
    if not payload or payload[0] >= len(payload):
        raise _Violation(PROTOCOL_ERROR, "the padding is longer than its frame")
    return payload[1 : len(payload) - payload[0]]
