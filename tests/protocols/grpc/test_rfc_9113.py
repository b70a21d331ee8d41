"""
What RFC 9113 and RFC 7541 demand of servers, said to a listening port as bytes: each row names its section.

A row is what the client sends after its preface and settings, and what it gets to hear: the error of the
connection (GOAWAY), that of the stream 1 (RST_STREAM), or "served": a PING and a call that follow are
answered, and what the row itself hears besides follows that word.
"""

from __future__ import annotations

import socket
import struct

import pytest
import pytest_twisted

from gatewayd.rpc.server.stream import Limits
from tests.protocols.grpc.test_own_server import Own
from tests.protocols.grpc.test_own_server import own as own  # a fixture
from tests.protocols.harness import in_thread
from tests.rpc.server.clients import (
    CONTINUATION,
    DATA,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    PRIORITY,
    PUSH,
    RST,
    SETTINGS,
    WINDOW,
    block,
    frame,
    head,
    message,
    number,
)

pytestmark = pytest.mark.slow

# By their numbers, from 0.
NAMES = [
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
]

# A method that is answered where it arrives, and one that is answered for as long as the client likes.
CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
PROBE, LAST_STREAM = b"a probe!", 2**31 - 1
EMPTY = message(b"")
END, END_HEADERS, PADDED, WITH_PRIORITY, ACK = 1, 4, 8, 32, 1
WINDOW_MOST = 2**31 - 1
FRAME_MOST = Limits().frame_bytes


def headers(stream_id: int = 1, flags: int = END_HEADERS, **fields: str) -> bytes:
    return frame(HEADERS, flags, stream_id, block(head(**{"__path": CHECK, **fields})))


def fields(*more: tuple[str, str], without: str = "") -> bytes:
    """HEADERS with the fields of a call but for one, and some more at their end."""
    kept = [field for field in head(__path=CHECK) if field[0] != without]
    return frame(HEADERS, END_HEADERS, 1, block([*kept, *more]))


def data(content: bytes = EMPTY, flags: int = END, stream_id: int = 1) -> bytes:
    return frame(DATA, flags, stream_id, content)


def setting(key: int, value: int, flags: int = 0) -> bytes:
    return frame(SETTINGS, flags, 0, struct.pack(">HI", key, value))


def raw(stream_id: int, encoded: bytes, flags: int = END_HEADERS | END) -> bytes:
    return frame(HEADERS, flags, stream_id, encoded)


ASKED = headers() + data()  # answered, and over
OPEN = headers()  # its request is not over
WATCHED = headers(__path=WATCH) + data()  # its request is over, and its answer is not
RESET = OPEN + frame(RST, 0, 1, number(8))
TRAILER = block([("x-a", "1")])

ROWS: dict[str, tuple[bytes, str]] = {
    # Frames
    "4.1 a frame of an unknown type is ignored": (frame(0x7F, 0xFF, 0, b"x") + ASKED, "served grpc"),
    "4.1 flags that are not defined are ignored": (
        frame(PING, 0xFE, 0, bytes(8)) + ASKED,
        "served ping grpc",
    ),
    "4.1 the reserved bit of a stream is ignored": (
        OPEN + frame(DATA, END, 1 << 31 | 1, EMPTY),
        "served grpc",
    ),
    "4.2 DATA longer than we allow": (OPEN + data(bytes(FRAME_MOST + 1), 0), "connection FRAME_SIZE_ERROR"),
    "4.2 HEADERS longer than we allow": (raw(1, bytes(FRAME_MOST + 1)), "connection FRAME_SIZE_ERROR"),
    # More than this method takes, so that the rest of the request is not awaited.
    "4.2 as long as we allow": (OPEN + data(message(bytes(FRAME_MOST - 5))), "stream NO_ERROR"),
    "4.3 a block that is no HPACK": (raw(1, b"\xff\xff\xff\xff\xff\xff"), "connection COMPRESSION_ERROR"),
    "4.3 a block without its end, and PING": (
        headers(1, 0) + frame(PING, 0, 0, bytes(8)),
        "connection PROTOCOL_ERROR",
    ),
    "4.3 a block without its end, and its own DATA": (headers(1, 0) + data(), "connection PROTOCOL_ERROR"),
    "4.3 a block without its end, and an unknown frame": (
        headers(1, 0) + frame(0x7F, 0, 1),
        "connection PROTOCOL_ERROR",
    ),
    "4.3 a block without its end, and another's HEADERS": (
        headers(1, 0) + headers(3),
        "connection PROTOCOL_ERROR",
    ),
    "4.3 a block without its end, and another's CONTINUATION": (
        headers(1, 0) + frame(CONTINUATION, END_HEADERS, 3),
        "connection PROTOCOL_ERROR",
    ),
    # States of streams
    "5.1 idle: DATA": (data(), "connection PROTOCOL_ERROR"),
    "5.1 idle: RST_STREAM": (frame(RST, 0, 1, number(8)), "connection PROTOCOL_ERROR"),
    "5.1 idle: WINDOW_UPDATE": (frame(WINDOW, 0, 1, number(1)), "connection PROTOCOL_ERROR"),
    "5.1 idle: CONTINUATION": (frame(CONTINUATION, END_HEADERS, 1, block()), "connection PROTOCOL_ERROR"),
    "5.1 idle: PRIORITY is allowed": (frame(PRIORITY, 0, 1, bytes(5)) + ASKED, "served grpc"),
    "5.1 idle: WINDOW_UPDATE of a stream of the server's": (
        frame(WINDOW, 0, 2, number(1)),
        "connection PROTOCOL_ERROR",
    ),
    "5.1 idle: RST_STREAM of a stream of the server's": (
        frame(RST, 0, 2, number(8)),
        "connection PROTOCOL_ERROR",
    ),
    "5.1 half-closed (remote): DATA": (WATCHED + data(), "stream STREAM_CLOSED"),
    "5.1 half-closed (remote): HEADERS": (WATCHED + headers(), "stream STREAM_CLOSED"),
    "5.1 half-closed (remote): CONTINUATION": (
        WATCHED + frame(CONTINUATION, END_HEADERS, 1),
        "connection PROTOCOL_ERROR",
    ),
    "5.1 half-closed (remote): WINDOW_UPDATE is allowed": (
        WATCHED + frame(WINDOW, 0, 1, number(9)),
        "served watch",
    ),
    "5.1 half-closed (remote): PRIORITY is allowed": (
        WATCHED + frame(PRIORITY, 0, 1, bytes(5)),
        "served watch",
    ),
    "5.1 half-closed (remote): RST_STREAM is allowed": (
        WATCHED + frame(RST, 0, 1, number(8)),
        "served watch",
    ),
    "5.1 closed by END_STREAM: DATA": (ASKED + data(), "stream STREAM_CLOSED"),
    "5.1 closed by END_STREAM: HEADERS": (ASKED + headers(), "stream STREAM_CLOSED"),
    "5.1 closed by END_STREAM: CONTINUATION": (
        ASKED + frame(CONTINUATION, END_HEADERS, 1),
        "connection PROTOCOL_ERROR",
    ),
    "5.1 closed by END_STREAM: WINDOW_UPDATE is allowed": (
        ASKED + frame(WINDOW, 0, 1, number(9)),
        "served grpc",
    ),
    "5.1 closed by END_STREAM: RST_STREAM is allowed": (ASKED + frame(RST, 0, 1, number(8)), "served grpc"),
    "5.1 closed by the client's RST_STREAM: DATA": (RESET + data(), "stream STREAM_CLOSED"),
    "5.1 closed by the client's RST_STREAM: HEADERS": (RESET + headers(), "stream STREAM_CLOSED"),
    "5.1 closed by the client's RST_STREAM: PRIORITY is allowed": (
        RESET + frame(PRIORITY, 0, 1, bytes(5)),
        "served",
    ),
    "5.1 closed by our RST_STREAM: what was under way is ignored": (
        headers(te="x") + data() * 3,
        "stream PROTOCOL_ERROR",
    ),
    "5.1.1 an even stream": (headers(2), "connection PROTOCOL_ERROR"),
    "5.1.1 the stream 0": (headers(0), "connection PROTOCOL_ERROR"),
    "5.1.1 a smaller stream than before": (
        headers(5) + data(stream_id=5) + headers(3),
        "connection PROTOCOL_ERROR",
    ),
    "5.1.1 a stream that was passed over is closed: DATA": (
        headers(3) + data(stream_id=3) + data(),
        "stream STREAM_CLOSED",
    ),
    "5.1.1 larger gaps are allowed": (ASKED + headers(1001) + data(stream_id=1001), "served grpc grpc"),
    "5.4.1 GOAWAY, and then nothing": (frame(PING, 0, 1, bytes(8)) + ASKED, "connection PROTOCOL_ERROR"),
    "5.4.2 RST_STREAM is not answered with RST_STREAM": (RESET + frame(RST, 0, 1, number(8)), "served"),
    # Each kind of frame
    "6.1 DATA of the stream 0": (data(stream_id=0), "connection PROTOCOL_ERROR"),
    "6.1 padding as long as its frame": (
        OPEN + data(b"\x05" + EMPTY[:4], PADDED),
        "connection PROTOCOL_ERROR",
    ),
    "6.1 padding without its length": (OPEN + data(b"", PADDED), "connection PROTOCOL_ERROR"),
    "6.1 padding": (OPEN + data(b"\x03" + EMPTY + bytes(3), PADDED | END), "served grpc"),
    "6.1 nothing but padding": (OPEN + data(b"\x03" + bytes(3), PADDED) + data(), "served grpc"),
    "6.2 HEADERS of the stream 0": (raw(0, block()), "connection PROTOCOL_ERROR"),
    "6.2 padding longer than HEADERS": (raw(1, b"\xff" + block(), 13), "connection PROTOCOL_ERROR"),
    "6.2 padding": (
        raw(1, b"\x02" + block(head(__path=CHECK)) + bytes(2), END_HEADERS | PADDED) + data(),
        "served grpc",
    ),
    "6.2 a priority": (
        raw(1, bytes(5) + block(head(__path=CHECK)), END_HEADERS | WITH_PRIORITY) + data(),
        "served grpc",
    ),
    "6.2 a priority that is too short": (
        raw(1, bytes(4), END_HEADERS | WITH_PRIORITY),
        "connection FRAME_SIZE_ERROR",
    ),
    "6.2 a priority of itself (RFC 7540 5.3.1)": (
        raw(1, number(1) + b"\0" + block(), END_HEADERS | WITH_PRIORITY),
        "connection PROTOCOL_ERROR",
    ),
    "6.2 END_STREAM, and then CONTINUATION": (
        frame(HEADERS, END, 1, TRAILER[:1]).join(
            [OPEN + data(flags=0), frame(CONTINUATION, END_HEADERS, 1, TRAILER[1:])]
        ),
        "served grpc",
    ),
    "6.3 PRIORITY of the stream 0": (frame(PRIORITY, 0, 0, bytes(5)), "connection PROTOCOL_ERROR"),
    "6.3 PRIORITY of 4 bytes": (OPEN + frame(PRIORITY, 0, 1, bytes(4)), "connection FRAME_SIZE_ERROR"),
    "6.4 RST_STREAM of the stream 0": (frame(RST, 0, 0, number(8)), "connection PROTOCOL_ERROR"),
    "6.4 RST_STREAM of 3 bytes": (OPEN + frame(RST, 0, 1, bytes(3)), "connection FRAME_SIZE_ERROR"),
    "6.4 RST_STREAM of 5 bytes": (OPEN + frame(RST, 0, 1, bytes(5)), "connection FRAME_SIZE_ERROR"),
    "6.5 SETTINGS of a stream": (frame(SETTINGS, 0, 1), "connection PROTOCOL_ERROR"),
    "6.5 SETTINGS of 5 bytes": (frame(SETTINGS, 0, 0, bytes(5)), "connection FRAME_SIZE_ERROR"),
    "6.5 an acknowledgement with content": (setting(3, 1, ACK), "connection FRAME_SIZE_ERROR"),
    "6.5.2 ENABLE_PUSH is 2": (setting(2, 2), "connection PROTOCOL_ERROR"),
    "6.5.2 INITIAL_WINDOW_SIZE beyond 2**31 - 1": (setting(4, 1 << 31), "connection FLOW_CONTROL_ERROR"),
    "6.5.2 MAX_FRAME_SIZE below 2**14": (setting(5, (1 << 14) - 1), "connection PROTOCOL_ERROR"),
    "6.5.2 MAX_FRAME_SIZE beyond 2**24 - 1": (setting(5, 1 << 24), "connection PROTOCOL_ERROR"),
    "6.5.2 a setting that is not known": (setting(0xFFFF, 7) + ASKED, "served settings grpc"),
    "6.5.3 each is acknowledged": (setting(3, 1) + setting(3, 2), "served settings settings"),
    "6.6 PUSH_PROMISE": (
        OPEN + frame(PUSH, END_HEADERS, 1, number(2) + block()),
        "connection PROTOCOL_ERROR",
    ),
    "6.7 PING is answered": (frame(PING, 0, 0, b"12345678"), "served ping"),
    "6.7 an acknowledgement is not": (frame(PING, ACK, 0, b"12345678"), "served"),
    "6.7 PING of a stream": (frame(PING, 0, 1, bytes(8)), "connection PROTOCOL_ERROR"),
    "6.7 PING of 6 bytes": (frame(PING, 0, 0, bytes(6)), "connection FRAME_SIZE_ERROR"),
    "6.8 GOAWAY of a stream": (frame(GOAWAY, 0, 1, bytes(8)), "connection PROTOCOL_ERROR"),
    "6.8 GOAWAY of 7 bytes": (frame(GOAWAY, 0, 0, bytes(7)), "connection FRAME_SIZE_ERROR"),
    "6.8 calls are answered after the client's GOAWAY": (
        OPEN + frame(GOAWAY, 0, 0, bytes(8)) + data(),
        "served grpc",
    ),
    "6.9 WINDOW_UPDATE of nothing": (frame(WINDOW, 0, 0, number(0)), "connection PROTOCOL_ERROR"),
    "6.9 WINDOW_UPDATE of nothing, of a stream": (
        OPEN + frame(WINDOW, 0, 1, number(0)),
        "stream PROTOCOL_ERROR",
    ),
    "6.9 WINDOW_UPDATE of 3 bytes": (frame(WINDOW, 0, 0, bytes(3)), "connection FRAME_SIZE_ERROR"),
    "6.9 DATA of an ended stream counts for the connection": (
        ASKED + data(bytes(1 << 16), 0) * 100,
        "stream STREAM_CLOSED",
    ),
    "6.9.1 the connection's window beyond 2**31 - 1": (
        frame(WINDOW, 0, 0, number(WINDOW_MOST)),
        "connection FLOW_CONTROL_ERROR",
    ),
    "6.9.1 a stream's window beyond 2**31 - 1": (
        OPEN + frame(WINDOW, 0, 1, number(WINDOW_MOST)),
        "stream FLOW_CONTROL_ERROR",
    ),
    "6.9.1 nothing is sent until there is a window": (
        setting(4, 0) + ASKED,
        "served settings head settings data end",
    ),
    "6.9.2 windows that are open already grow": (
        setting(4, 0) + ASKED + setting(4, 100),
        "served settings head settings data end",
    ),
    "6.9.2 windows that are open already shrink below 0": (
        setting(4, 4)
        + ASKED
        + setting(4, 0)
        + frame(WINDOW, 0, 1, number(1))
        + frame(WINDOW, 0, 1, number(100)),
        "served settings watch settings data end settings",
    ),
    "6.9.2 a change that makes a window too large": (
        setting(4, 0) + OPEN + frame(WINDOW, 0, 1, number(WINDOW_MOST)) + setting(4, 1),
        "connection FLOW_CONTROL_ERROR",
    ),
    "6.10 CONTINUATION of the stream 0": (frame(CONTINUATION, END_HEADERS, 0), "connection PROTOCOL_ERROR"),
    "6.10 CONTINUATION after the block's end": (
        OPEN + frame(CONTINUATION, END_HEADERS, 1),
        "connection PROTOCOL_ERROR",
    ),
    "6.10 CONTINUATION after DATA": (
        OPEN + data() + frame(CONTINUATION, END_HEADERS, 1),
        "connection PROTOCOL_ERROR",
    ),
    "7 an error code that is not known": (
        OPEN + frame(RST, 0, 1, number(0xFF)) + frame(GOAWAY, 0, 0, bytes(4) + number(0xFF)),
        "served",
    ),
    # Requests
    "8.1 trailers": (OPEN + data(flags=0) + raw(1, TRAILER), "served grpc"),
    "8.1 trailers that do not end the request": (
        OPEN + data(flags=0) + raw(1, TRAILER, END_HEADERS),
        "stream PROTOCOL_ERROR",
    ),
    "8.1 trailers with a pseudo-header": (
        OPEN + data(flags=0) + raw(1, block([(":path", "/")])),
        "stream PROTOCOL_ERROR",
    ),
    "8.1 trailers with a capital": (
        OPEN + data(flags=0) + raw(1, block([("X-a", "1")])),
        "stream PROTOCOL_ERROR",
    ),
    "8.1.1 less than content-length": (headers(content_length="9") + data(), "stream PROTOCOL_ERROR"),
    "8.1.1 more than content-length": (headers(content_length="4") + data(), "stream PROTOCOL_ERROR"),
    "8.1.1 less than content-length, in two": (
        headers(content_length="9") + data(EMPTY[:2], 0) + data(EMPTY[2:]),
        "stream PROTOCOL_ERROR",
    ),
    "8.1.1 less than content-length, and trailers": (
        headers(content_length="9") + data(flags=0) + raw(1, TRAILER),
        "stream PROTOCOL_ERROR",
    ),
    "8.1.1 content-length, and no content": (
        headers(1, END_HEADERS | END, content_length="1"),
        "stream PROTOCOL_ERROR",
    ),
    "8.1.1 content-length": (headers(content_length="5") + data(), "served grpc"),
    "8.2.1 a capital": (fields(("X-a", "1")), "stream PROTOCOL_ERROR"),
    "8.2.1 a space in a name": (fields(("x a", "1")), "stream PROTOCOL_ERROR"),
    "8.2.1 a colon in a name": (fields(("x:a", "1")), "stream PROTOCOL_ERROR"),
    "8.2.1 a line's end in a value": (fields(("x-a", "1\nx-b: 2")), "stream PROTOCOL_ERROR"),
    "8.2.1 a zero in a value": (fields(("x-a", "1\0")), "stream PROTOCOL_ERROR"),
    # gRPC's protocol lets servers strip such a value, which its older clients send.
    "8.2.1 a space around a value": (fields(("x-a", " 1 ")) + data(), "served grpc"),
    "8.2.2 connection": (fields(("connection", "keep-alive")), "stream PROTOCOL_ERROR"),
    "8.2.2 proxy-connection": (fields(("proxy-connection", "keep-alive")), "stream PROTOCOL_ERROR"),
    "8.2.2 keep-alive": (fields(("keep-alive", "1")), "stream PROTOCOL_ERROR"),
    "8.2.2 transfer-encoding": (fields(("transfer-encoding", "chunked")), "stream PROTOCOL_ERROR"),
    "8.2.2 upgrade": (fields(("upgrade", "h2c")), "stream PROTOCOL_ERROR"),
    "8.2.2 te with another value": (headers(te="trailers, deflate"), "stream PROTOCOL_ERROR"),
    "8.3 a pseudo-header that is not known": (headers(__x="1"), "stream PROTOCOL_ERROR"),
    "8.3 a pseudo-header of answers": (headers(__status="200"), "stream PROTOCOL_ERROR"),
    "8.3 a pseudo-header after a field": (
        fields((":authority", "a"), without=":authority"),
        "stream PROTOCOL_ERROR",
    ),
    "8.3 a pseudo-header twice": (
        raw(1, block([(":method", "POST"), *head(__path=CHECK)])),
        "stream PROTOCOL_ERROR",
    ),
    "8.3.1 no :method": (fields(without=":method"), "stream PROTOCOL_ERROR"),
    "8.3.1 no :scheme": (fields(without=":scheme"), "stream PROTOCOL_ERROR"),
    "8.3.1 no :path": (fields(without=":path"), "stream PROTOCOL_ERROR"),
    "8.3.1 an empty :path": (headers(__path=""), "stream PROTOCOL_ERROR"),
    "8.3.1 no :authority": (fields(without=":authority") + data(), "served grpc"),
    # RFC 7541
    "HPACK 2.3.3 an index beyond the table": (raw(1, b"\xc6"), "connection COMPRESSION_ERROR"),
    "HPACK 4.2 a size of the table after a field": (
        raw(1, block() + b"\x20"),
        "connection COMPRESSION_ERROR",
    ),
    "HPACK 5.2 padding of a byte": (
        raw(1, b"\x00\x85\xf2\xb2\x4a\x84\xff\x84\x49\x50\x9f\xff"),
        "connection COMPRESSION_ERROR",
    ),
    "HPACK 5.2 padding of zeros": (
        raw(1, b"\x00\x85\xf2\xb2\x4a\x84\xff\x83\x49\x50\x90"),
        "connection COMPRESSION_ERROR",
    ),
    "HPACK 5.2 the end in a text": (
        raw(1, b"\x00\x85\xf2\xb2\x4a\x84\xff\x87\x49\x51\xff\xff\xff\xfa\x7f"),
        "connection COMPRESSION_ERROR",
    ),
    "HPACK 6.1 the index 0": (raw(1, b"\x80"), "connection COMPRESSION_ERROR"),
    "HPACK 6.3 a table larger than ours": (raw(1, b"\x3f\xe2\x1f" + block()), "connection COMPRESSION_ERROR"),
}


class Wire:
    """A connection that reads frames."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.data = b""

    def next(self) -> tuple[int, int, int, bytes] | None:
        """Kind, flags, stream and payload; None when the server has closed."""
        while len(self.data) < 9 or len(self.data) < 9 + int.from_bytes(self.data[:3], "big"):
            try:
                more = self.connection.recv(1 << 16)
            except ConnectionResetError:
                return None
            if not more:
                return None
            self.data += more
        end = 9 + int.from_bytes(self.data[:3], "big")
        kind, flags, stream_id = struct.unpack(">BBI", self.data[3:9])
        payload, self.data = self.data[9:end], self.data[end:]
        return kind, flags, stream_id, payload


def heard(port: int, sent: bytes) -> str:
    """What the server says to a row."""
    hello = PREFACE + frame(SETTINGS, 0, 0) + frame(PING, 0, 0, PROBE)
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(hello)
        wire = Wire(connection)
        while (found := wire.next()) is not None and found[3] != PROBE:
            pass
        connection.sendall(sent + frame(PING, 0, 0, PROBE))
        return outcome(wire, setting(4, 65_535) if setting(4, 0) in sent else b"")


def outcome(wire: Wire, opened: bytes) -> str:
    """``opened`` goes with the call that follows: windows that the row has closed would keep its answer."""
    happened: list[str] = []
    of_stream = ""
    while (found := wire.next()) is not None:
        kind, flags, stream_id, payload = found
        if kind == GOAWAY:
            assert wire.next() is None, "a frame after GOAWAY"
            return f"connection {NAMES[struct.unpack('>II', payload[:8])[1]]}"
        if stream_id == LAST_STREAM:
            if flags & END and kind == HEADERS:
                said = " ".join(["served", *happened])
                return of_stream or said.replace("head data end", "grpc").replace("head data", "watch")
        elif kind == RST:
            of_stream = of_stream or f"stream {NAMES[struct.unpack('>I', payload)[0]]}"
        elif kind == PING and payload == PROBE:
            wire.connection.sendall(headers(LAST_STREAM) + data(stream_id=LAST_STREAM) + opened)
        else:
            happened.append(word(kind, flags))
    return "closed without a word"


def word(kind: int, flags: int) -> str:
    words = {DATA: "data", SETTINGS: "settings", PING: "ping", WINDOW: "window"}
    return ("end" if flags & END else "head") if kind == HEADERS else words[kind]


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
@pytest_twisted.ensureDeferred
async def test_what_the_rfc_demands(own: Own, row: tuple[bytes, str]) -> None:
    sent, wanted = row
    assert await in_thread(heard, own.start(), sent) == wanted
