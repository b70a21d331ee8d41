"""The other end of an HTTP/2 connection in memory: a server by the h2 package, and frames by hand."""

from __future__ import annotations

from struct import pack
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.settings

from gatewayd.messages.headers import Headers
from gatewayd.messages.rope import Buffer, Content
from gatewayd.rpc.call import AnswerHead, CallError, RequestHead, Unary, prefix
from gatewayd.rpc.http2 import Connection, Limits

SETTINGS = b"\0\0\0\4\0\0\0\0\0"
ANSWER = [(":status", "200"), ("content-type", "application/grpc")]
TRAILERS = [("grpc-status", "0"), ("grpc-message", "")]
HEAD = RequestHead.of("/p", tls=False, authority="a:1", agent="t", compression="none", metadata=())


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    return pack(">I", len(payload))[1:] + pack(">BBI", kind, flags, stream_id) + payload


class Asked(Unary):
    """A call that remembers how it ended; ``ends`` must not grow past one."""

    __slots__ = ("ends", "headers", "log")

    def __init__(
        self, message: bytes = b"m", *, limit_bytes: int = 1 << 20, stream: bool = False, block: bytes = b""
    ) -> None:
        Unary.__init__(
            self,
            block or HEAD.block(None),
            prefix(len(message), compressed=False),
            message,
            limit_bytes,
            stream=stream,
        )
        self.ends: list[Any] = []
        self.headers: Headers = ()

    def answered(
        self, message: Content, compressed: bool, encoding: str, is_error: bool, headers: Headers
    ) -> None:
        self.ends.append((message, is_error))
        self.headers = headers

    def failed(self, error: CallError) -> None:
        self.ends.append(error)

    def reset(self) -> None:
        assert self.connection is not None
        self.connection.cancel(self)

    @property
    def code(self) -> str:
        (end,) = self.ends
        return end.code if isinstance(end, CallError) else "OK"


class Memory:
    """A connection whose bytes are kept (``http2.StreamOwner``)."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.connection = Connection(self, AnswerHead.of, limits)
        self.sent = bytearray(self.connection.begin())
        self.events: list[str] = []
        self.pause_after: int | None = None

    @property
    def idle(self) -> bool:
        """Whether the connection holds no stream, open or waiting."""
        return not self.connection._streams and not self.connection._waiting

    def ask(self, *args: Any, **options: Any) -> Asked:
        asked = Asked(*args, **options)
        self.connection.start(asked)
        return asked

    def write(self, data: bytes) -> None:
        self.sent += data
        if self.pause_after is not None and len(self.sent) > self.pause_after:
            self.connection.pause()

    def write_all(self, buffers: list[Buffer]) -> None:
        self.write(b"".join(buffers))

    def on_ready(self) -> None:
        self.events.append("ready")

    def on_leaving(self, code: int, debug: bytes) -> None:
        self.events.append("leaving")

    def on_idle(self) -> None:
        self.events.append("idle")

    def on_failed(self, why: str) -> None:
        self.events.append(f"failed: {why}")


class Peer(Memory):
    """A connection to a server made with the h2 package, which echoes what it receives."""

    def __init__(self, limits: Limits | None = None, **settings: int) -> None:
        super().__init__(limits)
        self.server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        given = {getattr(h2.settings.SettingCodes, name): value for name, value in settings.items()}
        self.server.local_settings = h2.settings.Settings(client=False, initial_values=given)
        self.server.max_inbound_frame_size = self.server.local_settings.max_frame_size
        self.server.initiate_connection()
        self.bodies: dict[int, bytearray] = {}
        self.requests: dict[int, dict[bytes, bytes]] = {}
        self.resets: list[tuple[int, int]] = []
        self.unsent: dict[int, bytes] = {}
        self.hold = False
        self.most_at_once = 0

    def turn(self, *, chunk: int = 0) -> bool:
        """Carry what is there in both directions once; False when there was nothing."""
        sent, self.sent = bytes(self.sent), bytearray()
        if sent:
            for event in self.server.receive_data(sent):
                self.happened(event)
        self.send_more()
        back = self.server.data_to_send()
        size = chunk or max(1, len(back))
        for at in range(0, len(back), size):
            self.connection.receive(back[at : at + size])
        return bool(sent or back)

    def settle(self, *, chunk: int = 0) -> None:
        while self.turn(chunk=chunk):
            pass

    def happened(self, event: Any) -> None:
        if isinstance(event, h2.events.RequestReceived):
            self.requests[event.stream_id] = dict(event.headers)
            self.bodies[event.stream_id] = bytearray()
            self.most_at_once = max(self.most_at_once, len(self.bodies))
        elif isinstance(event, h2.events.DataReceived):
            self.bodies[event.stream_id] += event.data
            if event.flow_controlled_length:
                self.server.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded) and not self.hold:
            self.answer(event.stream_id)
        elif isinstance(event, h2.events.StreamReset):
            self.resets.append((event.stream_id, event.error_code))
            self.bodies.pop(event.stream_id, None)
            self.unsent.pop(event.stream_id, None)

    def answer(self, stream_id: int) -> None:
        self.server.send_headers(stream_id, ANSWER)
        self.unsent[stream_id] = bytes(self.bodies.pop(stream_id))

    def send_more(self) -> None:
        for stream_id in list(self.unsent):
            data = self.unsent[stream_id]
            size = min(
                len(data),
                self.server.local_flow_control_window(stream_id),
                self.server.max_outbound_frame_size,
            )
            if size > 0:
                self.server.send_data(stream_id, data[:size])
                self.unsent[stream_id] = data[size:]
            if not self.unsent[stream_id]:
                self.server.send_headers(stream_id, TRAILERS, end_stream=True)
                del self.unsent[stream_id]
