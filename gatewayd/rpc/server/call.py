"""
One gRPC call as its server sees it (gRPC's doc/PROTOCOL-HTTP2.md): an HTTP/2 stream, cut into messages.

    head ──> method found ──> messages ──> half-closed ──> answer ──> over
                │                                            │
                └── refused          deadline, client gone ──┴──> on_cancelled, over

A method of one message is a function that is called with it, and answers with ``respond`` or ``fail``, at
once or later. A method of many is an object that gets them one by one (``MessageHandler``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import attrs

from gatewayd.messages.rope import LONG_BYTES, Buffer, Content, concatenated, in_pieces
from gatewayd.rpc.call import prefix
from gatewayd.rpc.frames import PROTOCOL_ERROR
from gatewayd.rpc.server.backlog import Backlog
from gatewayd.rpc.server.connection import Connection
from gatewayd.rpc.server.head import ACCEPTED, HEAD, OK, Metadata, RequestHead, not_grpc, trailers
from gatewayd.rpc.server.messages import MessageReader, NoRoom, NotGrpc, TooLong
from gatewayd.rpc.server.stream import Held, Stream
from gatewayd.rpc.timeouts import Timeouts

_ACCEPTED: Final = frozenset(name.decode() for name in ACCEPTED)
# Larger answers have to find room among what all connections hold, in case their clients do not read.
_SMALL_BYTES: Final = 1 << 16
_UNREAD: Final = "answers are not read as fast as they are asked for (gateway.max_unsent_bytes)"


class MessageHandler(Protocol):
    """What a method of many messages does with one call."""

    def on_message(self, message: Any, compressed: bool) -> None:
        """Bytes, or a ``Content`` where the method takes ropes."""

    def on_half_closed(self) -> None:
        """There will be no more messages."""

    def on_sent(self) -> None:
        """The message for which ``send`` returned False has left; the next may be sent."""

    def on_cancelled(self) -> None:
        """The client has given up, or is gone, or the deadline has passed: nothing can be sent any more."""


@attrs.frozen
class Unary:
    """
    A method of one message, of ``most_bytes`` at the most, or what the server takes.

    Long messages are joined for it, unless it takes ``ropes``.
    """

    serve: Callable[[ServerCall, Any, bool], None]
    most_bytes: int | None = None
    ropes: bool = False


@attrs.frozen
class Streaming:
    """
    A method of many messages: ``begin`` may fail the call; what it returns is not used then.

    ``most_bytes`` and ``ropes`` are as those of ``Unary``.
    """

    begin: Callable[[ServerCall], MessageHandler]
    most_bytes: int | None = None
    ropes: bool = False


@attrs.frozen
class CallSettings:
    """
    What all calls of a server have in common.

    ``max_received_bytes`` and ``max_sent_bytes`` bound messages, None for no limit. ``full`` is what clients
    are told when ``held`` has no room. ``too_slow`` is the status of calls whose messages
    do not arrive in time. ``seconds`` is the clock of ``timeouts``. ``identify`` is called with
    each call before its request is read; it may fail the call, or keep it from reading for a while.
    """

    methods: Mapping[str, Unary | Streaming]
    held: Held
    timeouts: Timeouts
    seconds: Callable[[], float]
    max_received_bytes: int
    max_sent_bytes: int | None
    max_headers_bytes: int
    full: Callable[[], str]
    too_slow: tuple[str, str] = ("DEADLINE_EXCEEDED", "the request arrives too slowly")
    identify: Callable[[ServerCall], None] | None = None


class ServerCall(Stream):
    """
    One call over the connection ``peer``.

    Its method may set ``cancel``, which is called when the client has given up, or is gone, or the deadline
    has passed. ``caller`` is for ``identify``.
    """

    __slots__ = (
        "_admitted",
        "_backlog",
        "_busy",
        "_deadline_s",
        "_ended",
        "_half_close_told",
        "_handler",
        "_left",
        "_message",
        "_method",
        "_most_bytes",
        "_reader",
        "_reading",
        "_settings",
        "_started",
        "_tick",
        "_unread_bytes",
        "caller",
        "cancel",
        "head",
        "over",
        "peer",
    )

    connection: Connection

    def __init__(self, settings: CallSettings, backlog: Backlog, peer: Any) -> None:
        Stream.__init__(self)
        self.head: RequestHead = _NO_HEAD
        self.over = False
        self.peer = peer
        self.caller: Any = None
        self.cancel: Callable[[], object] | None = None
        self._settings = settings
        self._backlog = backlog
        self._admitted = False
        self._method: Unary | Streaming | None = None
        self._most_bytes = settings.max_received_bytes
        self._handler: MessageHandler | None = None
        self._deadline_s: float | None = None
        self._tick = 0
        self._started = False  # our head has been sent
        self._left: int | None = None  # of the content-length
        # The request: what is unfinished of it, whether it is read, and what arrived since it is not.
        self._reader: MessageReader | None = None
        self._message: tuple[Content, bool] | None = None
        self._reading = True
        self._unread_bytes = 0
        self._ended = False
        self._half_close_told = False
        self._busy = False

    # -- for methods ---------------------------------------------------------------------------------

    def time_remaining(self) -> float | None:
        """Seconds until the deadline, None if there is none."""
        return None if self._deadline_s is None else max(0.0, self._deadline_s - self._settings.seconds())

    def respond(self, message: Content, metadata: Metadata = ()) -> None:
        """The answer of a method of one message. Without effect on a call that is over."""
        if self.over:
            return
        size, most = len(message), self._settings.max_sent_bytes
        if (size > _SMALL_BYTES or (most is not None and size > most)) and not self._may_send(size):
            return
        self._end(size)
        block = trailers("OK", metadata=metadata) if metadata else OK
        self.connection.answer(self, HEAD, prefix(size, compressed=False), message, block)

    def send(self, message: Content) -> bool:
        """
        Send one of many answers; False if it has not left yet, and the next has to wait for ``on_sent``.

        A message that cannot be sent ends the call, as if the client had given up.
        """
        if self.over:
            return False
        size = len(message)
        if not self._may_send(size):
            return False
        if not self._started:
            self._start()
        return self.connection.send_data(self, prefix(size, compressed=False), message)

    def send_all(self, messages: Sequence[Content]) -> bool:
        """Send several answers in one piece; as ``send``, and False as long as not all of them have left."""
        if self.over:
            return False
        most = self._settings.max_sent_bytes
        parts: list[Content] = []
        total = 0
        too_long: int | None = None
        for message in messages:
            size = len(message)
            if most is not None and size > most:
                too_long = size
                break
            total += size
            parts += (b"\0" + size.to_bytes(4, "big"), message)
        left = True
        if parts:
            if not self._has_room(total):
                return False
            if not self._started:
                self._start()
            joined = b"".join(parts) if total <= LONG_BYTES else concatenated(parts)  # type: ignore[arg-type]
            left = self.connection.send_data(self, b"", joined)
            if len(parts) > 2:
                self.connection.conduct.message_sent(len(parts) // 2 - 1)
        if too_long is not None:
            self._may_send(too_long)  # which ends the call, behind what was sent
            return False
        return left

    def finish(self, code: str = "OK", details: str = "", metadata: Metadata = ()) -> None:
        """End the call with the status called ``code``, once what was sent has left."""
        if self.over:
            return
        self._end(0)
        plain = code == "OK" and not details and not metadata
        block = OK if plain else trailers(code, details, metadata)
        self.connection.end(self, block if self._started else HEAD + block)

    fail = finish

    def start(self) -> None:
        """Send the head of the answer before its first message."""
        if not self.over:
            self._start()

    def pause_reading(self) -> None:
        """Deliver no more messages for now. The client may send no more than fits into its window."""
        self._reading = False

    def resume_reading(self) -> None:
        if self._reading or self.over:
            return
        self._reading = True
        if not self._busy:
            self._read()
        if self._reading and not self.over and self._unread_bytes:
            size, self._unread_bytes = self._unread_bytes, 0
            self.connection.consumed(self, size)

    def begin(self) -> None:
        """Serve a call of one message that had to wait."""
        self._admitted = True
        method, found = self._method, self._message
        assert isinstance(method, Unary)
        assert found is not None
        self._message = None
        message, compressed = found
        method.serve(self, message if method.ropes else bytes(message), compressed)

    def too_late(self) -> None:
        """The deadline has passed."""
        if not self.over:
            self._tell_cancelled()
            self.fail("DEADLINE_EXCEEDED", "Deadline Exceeded")

    def unfinished(self) -> tuple[int, int] | None:
        """
        The messages that have arrived, and the bytes of the one that has not, while the rest is awaited.

        None for a call that owes nothing: a method of many messages may be called with long pauses.
        """
        if self.over or self._ended or not self._reading:
            return None
        reader = self._reader
        if self._handler is not None and (reader is None or reader.empty):
            return None
        return (0, 0) if reader is None else (reader.messages, reader.kept_bytes)

    def end_slow(self) -> None:
        """The message that is awaited does not arrive in time."""
        self._give_up(*self._settings.too_slow)

    # -- the stream ----------------------------------------------------------------------------------

    def on_head(self, head: Any, ended: bool) -> None:
        settings = self._settings
        if head is None:
            most = settings.max_headers_bytes
            self.fail("RESOURCE_EXHAUSTED", f"received metadata size exceeds the limit ({most} bytes)")
            return
        found: RequestHead = head
        self.head = found
        self._ended = ended
        if found.malformed or (ended and found.length):
            self.refuse_stream()
            return
        if found.http_status is not None:
            self._end(0)
            self.connection.end(self, not_grpc(found.http_status))
            return
        method = self._method = settings.methods.get(found.path)
        if method is None:
            self.fail("UNIMPLEMENTED", "Method not found!")
            return
        if method.most_bytes is not None:
            self._most_bytes = min(self._most_bytes, method.most_bytes)
        if found.bad_timeout:
            self.fail("INTERNAL", "the grpc-timeout is malformed")
            return
        if found.encoding not in _ACCEPTED:
            self.fail("UNIMPLEMENTED", f"messages cannot be compressed with {found.encoding[:40]!r}")
            return
        self._left = found.length
        if found.timeout_s is not None:
            self._deadline_s = settings.seconds() + found.timeout_s
            self._tick = settings.timeouts.add(self, self._deadline_s)
            if found.timeout_s <= 0:
                self.too_late()
                return
        if settings.identify is not None:
            settings.identify(self)
        if isinstance(method, Streaming) and not self.over:
            self._handler = method.begin(self)
            if self.over:
                self._handler = None
        if ended and not self.over:
            self._read()

    def refuse_stream(self) -> None:
        """End a request that HTTP/2 forbids."""
        self._tell_cancelled()
        self._end(0)
        self.connection.conduct.reset()
        self.connection.reset(self, PROTOCOL_ERROR)

    def on_data(self, data: Buffer, ended: bool) -> None:
        if self.over:
            return
        size = len(data)
        if self._left is not None:
            self._left -= size
            if self._left < 0 or (ended and self._left):
                self.refuse_stream()
                return
        self._ended = ended
        if self._reading:
            if not ended:
                self.connection.consumed(self, size)
        else:
            self._unread_bytes += size
        if self._reader is None:
            if (
                self._reading
                and size >= 5
                and not data[0]
                and int.from_bytes(data[1:5], "big") == size - 5 <= self._most_bytes
            ):
                # One whole message, as nearly all are; that of a method of one message ends the request.
                message: Content
                if size <= LONG_BYTES and isinstance(data, bytes):
                    message = data[5:]
                else:
                    message = in_pieces([memoryview(data)[5:]])
                if ended and self._handler is None and self._message is None:
                    self._message = message, False
                    self._half_close_told = True
                    if self._backlog.admit(self, self.connection.unsent_bytes):
                        self.begin()
                    return
                self._deliver(message, False)
                if ended and not self.over:
                    self._read()
                return
            self._reader = MessageReader(self._most_bytes, self._settings.held)
        try:
            self._reader.add(data)
        except NoRoom:
            self._give_up("RESOURCE_EXHAUSTED", self._settings.full())
            return
        if not self._busy:
            self._read()
            if self._reading and not ended and not self.over:
                self.connection.expect(self, self._reader.missing_bytes)

    def on_trailers(self, head: Any) -> None:
        if self.over:
            return
        if head is None or not head.is_trailers:
            self.refuse_stream()
        else:
            self.on_data(b"", True)

    def on_sent(self) -> None:
        if self._handler is not None and not self.over:
            self._handler.on_sent()

    def on_broken(self) -> None:
        if not self.over:
            self._tell_cancelled()
            self._end(0)

    # -- the request ---------------------------------------------------------------------------------

    def _read(self) -> None:
        """Deliver the messages that are complete, then the end."""
        reader = self._reader
        self._busy = True
        try:
            while reader is not None and self._reading and not self.over:
                found = reader.next()
                if found is None:
                    break
                self._deliver(*found)
        except TooLong as error:
            most = self._most_bytes
            self._give_up("RESOURCE_EXHAUSTED", f"Received message larger than max ({error.size} vs. {most})")
        except NotGrpc:
            self._give_up("INTERNAL", "the request is not gRPC: a message has an unknown flag")
        finally:
            self._busy = False
        if not self._ended or not self._reading or self.over or self._half_close_told:
            return
        self._half_close_told = True
        if reader is not None and not reader.empty:
            self._give_up("INTERNAL", "the request ends within a message")
        elif self._handler is not None:
            self._handler.on_half_closed()
        elif self._message is None:
            self.fail("UNIMPLEMENTED", "this method takes one message, and there is none")
        elif self._backlog.admit(self, self.connection.unsent_bytes):
            self.begin()

    def _deliver(self, message: Content, compressed: bool) -> None:
        if compressed and self.head.encoding == "identity":
            self._give_up("INTERNAL", "a message is compressed, and grpc-encoding does not say how")
        elif self._handler is not None:
            ropes = self._method is not None and self._method.ropes
            self._handler.on_message(message if ropes else bytes(message), compressed)
        elif self._message is None:
            self._message = message, compressed
        else:
            self._give_up("UNIMPLEMENTED", "this method takes one message, and there are several")

    def _give_up(self, code: str, details: str) -> None:
        self._tell_cancelled()
        self.fail(code, details)

    # -- the end -------------------------------------------------------------------------------------

    def _may_send(self, size: int) -> bool:
        """Whether an answer can be sent; otherwise it ends the call."""
        most = self._settings.max_sent_bytes
        if most is not None and size > most:
            self._give_up("RESOURCE_EXHAUSTED", f"Sent message larger than max ({size} vs. {most})")
            return False
        return self._has_room(size)

    def _has_room(self, size: int) -> bool:
        """Whether so many bytes can be sent; otherwise they end the call."""
        settings = self._settings
        if settings.held.is_half_full and self._backlog.is_flooded(self.connection.unsent_bytes):
            self._give_up("RESOURCE_EXHAUSTED", _UNREAD)
        elif size > _SMALL_BYTES and not settings.held.has_room(size):
            self._give_up("RESOURCE_EXHAUSTED", settings.full())
        return not self.over

    def _start(self) -> None:
        if not self._started:
            self._started = True
            self.connection.send_head(self, HEAD)

    def _tell_cancelled(self) -> None:
        cancel, self.cancel = self.cancel, None
        handler, self._handler = self._handler, None
        if cancel is not None:
            cancel()
        if handler is not None:
            handler.on_cancelled()

    def _end(self, size: int) -> None:
        self.over = True
        self.cancel = self._handler = self._message = None
        if self._deadline_s is not None:
            self._settings.timeouts.remove(self, self._tick)
        if self._reader is not None:
            self._reader.clear()
        if self._admitted:
            self._backlog.ended(size)


_NO_HEAD: Final = RequestHead()
