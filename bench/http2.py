"""
The load generator's gRPC: HTTP/2 with the least that is needed, so that it is not what limits.

Its own, and neither grpcio's client, which costs more than the gateways that it would measure, nor
gatewayd's. Header blocks are those of gRPC's clients: in full for a connection's first call, then by index.
"""

from __future__ import annotations

import asyncio
import itertools
import ssl
import struct
from typing import Any, Final

import hpack

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM = _ACK = 1
_END_HEADERS = 4
_PADDED = 8
_INITIAL_WINDOW_SIZE, _MAX_FRAME_SIZE = 4, 5
# What we grant: no answer waits for us.
_WINDOW: Final = 2**31 - 1
_TOP_UP: Final = 2**28


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    return struct.pack("!HBBBI", len(payload) >> 8, len(payload) & 255, kind, flags, stream_id) + payload


def message(payload: bytes) -> bytes:
    """A gRPC message, not compressed."""
    return struct.pack("!BI", 0, len(payload)) + payload


class Stream:
    """One stream; ``answer`` gets the next message, without its prefix."""

    def __init__(self, stream_id: int, window: int) -> None:
        self.stream_id = stream_id
        self.window = window
        self.received = bytearray()
        self.answer: asyncio.Future[bytes] | None = None
        # Wait for the end of the stream, which comes after the trailers.
        self.whole = True


class _Outgoing:
    """A message, of which ``sent`` bytes are gone."""

    def __init__(self, stream: Stream, body: bytes, ends: bool) -> None:
        self.stream = stream
        self.body = body
        self.ends = ends
        self.sent = 0


class Connection(asyncio.Protocol):
    """One HTTP/2 connection to a gRPC server."""

    def __init__(self, path: str, authority: str, scheme: str) -> None:
        encoder = hpack.Encoder()
        headers = [
            (":method", "POST"),
            (":scheme", scheme),
            (":path", path),
            (":authority", authority),
            ("content-type", "application/grpc"),
            ("user-agent", "bench"),
            ("te", "trailers"),
        ]
        self._first_block: bytes | None = encoder.encode(headers)
        self._block: bytes = encoder.encode(headers)
        self._streams: dict[int, Stream] = {}
        self._ids = itertools.count(1, 2)
        self._window = self._initial_window = 65535
        self._frame_size = 16384
        self._waiting: list[_Outgoing] = []
        self._granted = _WINDOW
        self._buffer = b""
        self.ready = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        settings = struct.pack("!HI", _INITIAL_WINDOW_SIZE, _WINDOW)
        grant = struct.pack("!I", _WINDOW - 65535)
        transport.write(_PREFACE + frame(_SETTINGS, 0, 0, settings) + frame(_WINDOW_UPDATE, 0, 0, grant))

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(error or ConnectionError("the server has closed the connection"))

    def open(self, payload: bytes, *, ends: bool, more_headers: bytes = b"") -> Stream:
        """A stream and its first message; ``ends``: there are no others."""
        stream = Stream(next(self._ids), self._initial_window)
        self._streams[stream.stream_id] = stream
        block = (self._first_block or self._block) + more_headers
        self._first_block = None
        head = frame(_HEADERS, _END_HEADERS, stream.stream_id, block)
        body = message(payload)
        size = len(body)
        if size <= self._frame_size and size <= self._window and not self._waiting:
            self._window -= size
            stream.window -= size
            self._transport.write(head + frame(_DATA, _END_STREAM if ends else 0, stream.stream_id, body))
        else:
            self._transport.write(head)
            self._waiting.append(_Outgoing(stream, body, ends))
            self._send()
        return stream

    def send(self, stream: Stream, payload: bytes) -> None:
        """A further message of a stream that goes on."""
        self._waiting.append(_Outgoing(stream, message(payload), ends=False))
        self._send()

    def _send(self) -> None:
        """What the server's windows allow, each message in turn."""
        kept = []
        for outgoing in self._waiting:
            stream, body, ends = outgoing.stream, outgoing.body, outgoing.ends
            pieces = []
            while size := max(
                0, min(len(body) - outgoing.sent, stream.window, self._window, self._frame_size)
            ):
                begin = outgoing.sent
                outgoing.sent += size
                flags = _END_STREAM if ends and outgoing.sent == len(body) else 0
                pieces.append(frame(_DATA, flags, stream.stream_id, body[begin : outgoing.sent]))
                stream.window -= size
                self._window -= size
            if pieces:
                self._transport.write(b"".join(pieces))
            if outgoing.sent < len(body):
                kept.append(outgoing)
        self._waiting = kept

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        position, size = 0, len(buffer)
        while size - position >= 9:
            high, low, kind, flags, stream_id = struct.unpack_from("!HBBBI", buffer, position)
            end = position + 9 + (high << 8 | low)
            if end > size:
                break
            self._on_frame(kind, flags, stream_id, buffer[position + 9 : end])
            position = end
        self._buffer = buffer[position:]

    def _on_frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if kind == _DATA:
            self._grant(len(payload))
            if flags & _PADDED:
                payload = payload[1 : len(payload) - payload[0]]
            stream = self._streams.get(stream_id)
            if stream is not None:
                stream.received += payload
                self._answer(stream, ended=bool(flags & _END_STREAM))
        elif kind == _HEADERS:
            stream = self._streams.get(stream_id)
            if stream is not None and flags & _END_STREAM:
                self._answer(stream, ended=True)
        elif kind == _RST_STREAM:
            stream = self._streams.pop(stream_id, None)
            if stream is not None and stream.answer is not None and not stream.answer.done():
                stream.answer.set_exception(ConnectionError(f"the stream was reset: {payload.hex()}"))
        elif kind == _SETTINGS and not flags & _ACK:
            self._on_settings(payload)
        elif kind == _PING and not flags & _ACK:
            self._transport.write(frame(_PING, _ACK, 0, payload))
        elif kind == _GOAWAY:
            self._fail(ConnectionError(f"the server goes away: {payload!r}"))
        elif kind == _WINDOW_UPDATE:
            (more,) = struct.unpack("!I", payload)
            if not stream_id:
                self._window += more
            elif stream_id in self._streams:
                self._streams[stream_id].window += more
            if self._waiting:
                self._send()

    def _answer(self, stream: Stream, *, ended: bool) -> None:
        received = stream.received
        if ended:
            del self._streams[stream.stream_id]
        elif stream.whole:
            return
        complete = len(received) >= 5 and len(received) >= 5 + int.from_bytes(received[1:5], "big")
        if stream.answer is None or stream.answer.done() or not (complete or ended):
            return
        if not complete:
            stream.answer.set_exception(ConnectionError("the call has failed: it ended without an answer"))
            return
        length = 5 + int.from_bytes(received[1:5], "big")
        stream.answer.set_result(bytes(received[5:length]))
        del received[:length]

    def _on_settings(self, payload: bytes) -> None:
        for key, value in struct.iter_unpack("!HI", payload):
            if key == _INITIAL_WINDOW_SIZE:
                for stream in self._streams.values():
                    stream.window += value - self._initial_window
                self._initial_window = value
            elif key == _MAX_FRAME_SIZE:
                self._frame_size = value
        self._transport.write(frame(_SETTINGS, _ACK, 0))
        if not self.ready.done():
            self.ready.set_result(None)
        self._send()

    def _grant(self, size: int) -> None:
        self._granted -= size
        if self._granted < _WINDOW - _TOP_UP:
            self._transport.write(frame(_WINDOW_UPDATE, 0, 0, struct.pack("!I", _WINDOW - self._granted)))
            self._granted = _WINDOW

    def _fail(self, error: Exception) -> None:
        for stream in self._streams.values():
            if stream.answer is not None and not stream.answer.done():
                stream.answer.set_exception(error)
        self._streams.clear()
        if not self.ready.done():
            self.ready.set_exception(error)


async def connect(path: str, port: int, tls: ssl.SSLContext | None) -> Connection:
    """A connection whose server has said its settings, for calls of the method at ``path``."""
    scheme = "http" if tls is None else "https"
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(
        lambda: Connection(path, f"localhost:{port}", scheme),
        "127.0.0.1",
        port,
        ssl=tls,
        server_hostname=None if tls is None else "localhost",
    )
    await connection.ready
    return connection
