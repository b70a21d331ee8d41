"""The other end of a server's connection in memory: a client by the h2 package, and frames by hand."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.settings
import hpack
from twisted.internet.task import Clock

from gatewayd.buffers import Buffers
from gatewayd.messages.rope import Buffer
from gatewayd.rpc.server.backlog import Backlog
from gatewayd.rpc.server.call import CallSettings, ServerCall, Streaming, Unary
from gatewayd.rpc.server.connection import Connection
from gatewayd.rpc.server.head import RequestHead
from gatewayd.rpc.server.stream import Limits, Stream
from gatewayd.rpc.timeouts import Timeouts

HEAD = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/echo"),
    (":authority", "a"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
]
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
KINDS = ("DATA", "HEADERS", "PRIORITY", "RST_STREAM", "SETTINGS", "PUSH_PROMISE", "PING", "GOAWAY")
KINDS += ("WINDOW_UPDATE", "CONTINUATION")
DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream_id) + payload


def number(value: int) -> bytes:
    return struct.pack(">I", value)


def head(**fields: str) -> list[tuple[str, str]]:
    """``HEAD`` with some fields changed or added; ``__`` stands for a colon, ``_`` for a hyphen."""
    changed = {name.replace("__", ":").replace("_", "-"): value for name, value in fields.items()}
    return [(name, changed.pop(name, value)) for name, value in HEAD] + list(changed.items())


def block(fields: list[tuple[str, str]] | None = None) -> bytes:
    """A header block that touches no table."""
    return hpack.Encoder().encode(
        [hpack.NeverIndexedHeaderTuple(*field) for field in fields or HEAD], huffman=False
    )


def message(content: bytes, compressed: bool = False) -> bytes:
    return bytes([compressed]) + number(len(content)) + content


class EchoHandler:
    """A method of many messages that sends each one back."""

    def __init__(self, call: ServerCall, log: list[Any]) -> None:
        self.call = call
        self.log = log
        self.queue: list[bytes] = []
        self.sending = False
        self.ended = False

    def on_message(self, content: bytes, compressed: bool) -> None:
        self.queue.append(content)
        self.advance()

    def on_half_closed(self) -> None:
        self.ended = True
        self.advance()

    def on_sent(self) -> None:
        self.sending = False
        self.advance()

    def on_cancelled(self) -> None:
        self.log.append("cancelled")

    def advance(self) -> None:
        while self.queue and not self.sending:
            self.sending = not self.call.send(self.queue.pop(0))
        if self.sending:
            self.call.pause_reading()
        else:
            self.call.resume_reading()
            if self.ended and not self.call.over:
                self.call.finish()


class TogetherHandler(EchoHandler):
    """As EchoHandler, but what has come is sent back in one piece when the client has said all."""

    def on_message(self, content: bytes, compressed: bool) -> None:
        self.queue.append(content)

    def on_half_closed(self) -> None:
        if self.call.send_all(self.queue):
            self.on_sent()

    def on_sent(self) -> None:
        self.log.append("sent")
        self.call.finish()


class Server:
    """A server's connection whose bytes are kept (``stream.Owner``)."""

    def __init__(self, limits: Limits | None = None, **settings: Any) -> None:
        self.clock = Clock()
        self.log: list[Any] = []
        self.held = Buffers(settings.pop("held", 1 << 30))
        self.waiting: list[ServerCall] = []
        self.calls: list[ServerCall] = []
        self.unsent_limit = settings.pop("max_unsent_bytes", 0)
        given: dict[str, Any] = {"max_received_bytes": 1 << 24, "max_sent_bytes": None, **settings}
        self.settings = CallSettings(
            methods={
                "/echo": Unary(self.echo),
                "/held": Unary(self.hold),
                "/fail": Unary(lambda call, *_: call.fail("ABORTED", "é%\n", (("k", "v"), ("b-bin", b"\0")))),
                "/stream": Streaming(lambda call: EchoHandler(call, self.log)),
                "/together": Streaming(lambda call: TogetherHandler(call, self.log)),
            },
            held=self.held,
            timeouts=Timeouts(self.clock),
            seconds=self.clock.seconds,
            max_headers_bytes=(limits or Limits()).headers_bytes,
            full=self.held.full,
            **given,
        )
        self.backlog = Backlog(self.unsent_limit)
        self.connection = Connection(self, RequestHead.of, self.clock.seconds, self.held, limits)
        self.sent = bytearray(self.connection.begin())
        self.pause_after: int | None = None

    def echo(self, call: ServerCall, content: bytes, compressed: bool) -> None:
        call.respond(content)

    def hold(self, call: ServerCall, content: bytes, compressed: bool) -> None:
        self.waiting.append(call)
        call.cancel = lambda: self.log.append("cancelled")

    def receive(self, data: bytes) -> None:
        self.connection.receive(data)
        self.begin_waiting()

    def begin_waiting(self) -> None:
        """As the transport does whenever it has written."""
        while (call := self.backlog.next(self.connection.unsent_bytes)) is not None:
            call.begin()

    def write_all(self, buffers: list[Buffer]) -> None:
        self.write(b"".join(buffers))

    def write(self, data: bytes) -> None:
        self.sent += data
        if self.pause_after is not None and len(self.sent) > self.pause_after:
            self.connection.pause()

    def new_stream(self) -> Stream:
        self.calls.append(ServerCall(self.settings, self.backlog, "peer"))
        return self.calls[-1]

    def on_idle(self) -> None:
        self.log.append("idle")

    def on_failed(self, why: str) -> None:
        self.log.append(f"failed: {why}")

    # -- by hand ---------------------------------------------------------------------------------------

    def begin(self) -> Server:
        """The client's preface and settings have arrived, and what was sent is forgotten."""
        self.receive(PREFACE + frame(SETTINGS, 0, 0))
        self.sent.clear()
        return self

    def frames(self) -> list[tuple[str, int, int, bytes]]:
        """Kind, flags, stream and payload of every frame sent since the last time."""
        found, at = [], 0
        while at < len(self.sent):
            length = int.from_bytes(self.sent[at : at + 3], "big")
            kind, flags, stream_id = struct.unpack_from(">BBI", self.sent, at + 3)
            found.append((KINDS[kind], flags, stream_id, bytes(self.sent[at + 9 : at + 9 + length])))
            at += 9 + length
        self.sent.clear()
        return found

    def goaway(self) -> int | None:
        """The code of the GOAWAY that ended the connection."""
        codes = [
            struct.unpack(">II", payload[:8])[1] for kind, _, _, payload in self.frames() if kind == "GOAWAY"
        ]
        return codes[-1] if codes and self.connection.closed else None

    def resets(self) -> dict[int, int]:
        """The codes of RST_STREAM by stream."""
        return {
            stream_id: struct.unpack(">I", payload)[0]
            for kind, _, stream_id, payload in self.frames()
            if kind == "RST_STREAM"
        }


class Client:
    """A client by the h2 package, and the server that it talks to."""

    def __init__(self, server: Server, **settings: int) -> None:
        self.server = server
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        given = {getattr(h2.settings.SettingCodes, name): value for name, value in settings.items()}
        self.h2.local_settings = h2.settings.Settings(client=True, initial_values=given)
        self.h2.max_inbound_frame_size = self.h2.local_settings.max_frame_size
        self.h2.initiate_connection()
        self.unsent: dict[int, bytes] = {}
        self.ends: set[int] = set()
        self.data: dict[int, bytearray] = {}
        self.heads: dict[int, dict[str, str]] = {}
        self.trailers: dict[int, dict[str, str]] = {}
        self.resets: dict[int, int] = {}
        self.reads = True

    def ask(self, path: str, *contents: bytes, end: bool = True, **fields: str) -> int:
        stream_id = int(self.h2.get_next_available_stream_id())
        self.h2.send_headers(stream_id, head(__path=path, **fields))
        self.unsent[stream_id] = b"".join(map(message, contents))
        if end:
            self.ends.add(stream_id)
        self.data[stream_id] = bytearray()
        return stream_id

    def turn(self, chunk: int) -> bool:
        for stream_id in [*self.unsent]:
            self._send(stream_id)
        out = self.h2.data_to_send()
        for at in range(0, len(out), chunk or max(1, len(out))):
            self.server.receive(out[at : at + (chunk or len(out))])
        self.server.begin_waiting()
        back, self.server.sent = bytes(self.server.sent), bytearray()
        if back:
            for event in self.h2.receive_data(back):
                self._happened(event)
        return bool(out or back)

    def settle(self, chunk: int = 0) -> None:
        while self.turn(chunk):
            pass

    def messages(self, stream_id: int) -> list[bytes]:
        data, found = self.data[stream_id], []
        while data:
            size = int.from_bytes(data[1:5], "big")
            found.append(bytes(data[5 : 5 + size]))
            del data[: 5 + size]
        return found

    def status(self, stream_id: int) -> tuple[str, str]:
        fields = self.trailers.get(stream_id) or self.heads[stream_id]
        return fields["grpc-status"], fields.get("grpc-message", "")

    def _send(self, stream_id: int) -> None:
        data = self.unsent[stream_id]
        while data:
            size = min(
                len(data), self.h2.local_flow_control_window(stream_id), self.h2.max_outbound_frame_size
            )
            if not size:
                self.unsent[stream_id] = data
                return
            self.h2.send_data(stream_id, data[:size])
            data = data[size:]
        del self.unsent[stream_id]
        if stream_id in self.ends:
            self.h2.end_stream(stream_id)

    def _happened(self, event: Any) -> None:
        if isinstance(event, h2.events.ResponseReceived):
            self.heads[event.stream_id] = _texts(event.headers)
        elif isinstance(event, h2.events.TrailersReceived):
            self.trailers[event.stream_id] = _texts(event.headers)
        elif isinstance(event, h2.events.DataReceived):
            self.data[event.stream_id] += event.data
            if self.reads:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamReset):
            self.resets[event.stream_id] = int(event.error_code)
            self.unsent.pop(event.stream_id, None)


def _texts(fields: Any) -> dict[str, str]:
    return {bytes(name).decode(): bytes(value).decode() for name, value in fields}


Talk = Callable[[Server], None]
