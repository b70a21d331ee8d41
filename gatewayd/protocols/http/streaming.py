# mypy: disable-error-code="no-untyped-call"
"""
Answers that come one after the other, as the body of one HTTP response: server-sent events, or lines of JSON.

The bytes of events are those that the reference's client can read, whose parser knows no other (spec
34/streaming.md): one write for each event, CR LF, and the space of ``event: `` inside of a text escaped. A
client is not written to while it does not read, and nothing is asked of executors meanwhile. What fails in
the middle ends the body without its end, so that no client takes a part for the whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Protocol

import orjson
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from gatewayd.errors import Overloaded
from gatewayd.protocols.http.answer import PIECE_BYTES, streaming_head
from gatewayd.protocols.http.negotiation import quality_of
from gatewayd.protocols.http.request import GatewayRequest

# Proxies and browsers give connections up that are silent for a minute.
PING_S: Final = 15.0

EVENTS: Final = b"text/event-stream; charset=utf-8"
LINES: Final = b"application/x-ndjson"

_EVENT_TYPES: Final = ("text/event-stream",)
_LINE_TYPES: Final = tuple(
    f"application/{name}" for name in ("x-ndjson", "ndjson", "jsonl", "x-jsonl", "jsonlines")
)

_HEADERS: Final = (
    (b"Cache-Control", b"no-cache"),
    # nginx, and others that take after it, would otherwise keep events back.
    (b"X-Accel-Buffering", b"no"),
    (b"Vary", b"Accept"),
)


class Framing(Protocol):
    """How answers stand in the body."""

    @property
    def content_type(self) -> bytes: ...

    @property
    def ping(self) -> bytes:
        """What says that the gateway is still there; empty if there is nothing that says only that."""
        ...

    @property
    def end(self) -> bytes: ...

    def update(self, document: bytes) -> bytes: ...

    def error(self, detail: str, status: int) -> bytes:
        """What says that the answers end here; ``status`` is what the answer would have had at its head."""
        ...


class Events:
    """Server-sent events: ``update`` with a document, ``error`` with a detail and a status, ``end``."""

    content_type: Final = EVENTS
    ping: Final = b": ping\r\n\r\n"
    end: Final = b"event: end\r\n\r\n"

    def update(self, document: bytes) -> bytes:
        return b"event: update\r\ndata: %s\r\n\r\n" % document.replace(b"event: ", b"event:\\u0020")

    def error(self, detail: str, status: int) -> bytes:
        said = orjson.dumps({"detail": detail, "status": status}).replace(b"event: ", b"event:\\u0020")
        return b"event: error\r\ndata: %s\r\n\r\n" % said


class Lines:
    """A line of JSON for each document; in the last one, where something failed, a detail and a status."""

    content_type: Final = LINES
    ping: Final = b""
    end: Final = b""

    def update(self, document: bytes) -> bytes:
        return document + b"\n"

    def error(self, detail: str, status: int) -> bytes:
        return orjson.dumps({"detail": detail, "status": status}) + b"\n"


def framing_for(accept: bytes | None) -> Framing:
    """What a client asks for. Events, unless it prefers lines: the reference does not look at Accept."""
    prefers_lines = quality_of(accept, _LINE_TYPES) > quality_of(accept, _EVENT_TYPES)
    return Lines() if prefers_lines else Events()


def asks_for_stream(accept: bytes | None) -> bool:
    """Whether Accept names a type that only streams have."""
    return quality_of(accept, _EVENT_TYPES) > 0 or quality_of(accept, _LINE_TYPES) > 0


@implementer(IPushProducer)
class StreamBody:
    """
    Writes the body of one response, from its head on.

    ``pauseProducing`` and ``resumeProducing`` come from the transport: a client that does not read is
    disconnected after ``write_s`` seconds of that. HTTP/1.0 has no chunks; its body ends with the connection.
    """

    def __init__(self, http_request: GatewayRequest, framing: Framing) -> None:
        self._http_request: GatewayRequest | None = http_request
        self._framing = framing
        self._clock = http_request.site.reactor
        self._is_chunked = http_request.clientproto == b"HTTP/1.1"
        self._paused = False
        self._drained: Deferred[None] | None = None
        self._held_bytes = 0
        self._ping: Any = None  # an IDelayedCall

    def begin(self, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        """Write the head, with further ``headers``."""
        http_request = self._http_request
        assert http_request is not None, "begin after the end"
        if not self._is_chunked:
            http_request.channel.persistent = 0
        http_request.registerProducer(self, True)
        http_request.give_sign = self._give_sign
        begun = streaming_head(self._framing.content_type, chunked=self._is_chunked)
        http_request.begin_body(begun, (*_HEADERS, *headers))
        if self._framing.ping:
            self._ping = self._clock.callLater(PING_S, self._write_ping)

    async def update(self, documents: list[bytes]) -> None:
        """
        Write one or more answers. Returns when the client can take more.

        Raises Overloaded where there is no room for them, and CancelledError when the client has left.
        """
        self.write(documents)
        if self._paused:
            self._drained = Deferred(lambda _: None)
            await self._drained

    def write(self, documents: list[bytes]) -> None:
        """Write answers whether or not the client can take more. Raises Overloaded."""
        if documents:
            update, chunk = self._framing.update, self._chunk
            self._write(b"".join([chunk(update(document)) for document in documents]))

    def end(self) -> None:
        """Write the end, after the last answer."""
        http_request = self._stop()
        if http_request is None:
            return
        end = self._framing.end
        http_request.channel.write(self._chunk(end) + (b"0\r\n\r\n" if self._is_chunked else b""))
        http_request.unregisterProducer()
        http_request.finish()

    def fail(self, detail: str, status: int) -> None:
        """
        Write what is wrong, and break the transfer off: what came so far is not the whole.

        ``status`` is what HTTP says of it, for clients that understand it.
        """
        http_request = self._stop()
        if http_request is None:
            return
        channel = http_request.channel
        channel.persistent = 0
        if not self._is_chunked:
            # The end of the connection would be the end of the body.
            channel.abort()
            return
        channel.write(self._chunk(self._framing.error(detail, status)))
        http_request.unregisterProducer()
        http_request.release()
        channel.loseConnection()

    def abandon(self) -> None:
        """The client has left: nothing is written any more."""
        self._stop()

    def _write(self, content: bytes) -> None:
        http_request = self._http_request
        if http_request is None:
            return
        if len(content) > PIECE_BYTES:
            buffers = http_request.site.buffers
            if not buffers.take(len(content)):
                raise Overloaded(buffers.full())
            self._held_bytes += len(content)
        if self._ping is not None:
            self._ping.reset(PING_S)
        http_request.channel.write(content)
        if not self._paused:
            self._give_back()

    def _chunk(self, content: bytes) -> bytes:
        if not self._is_chunked or not content:
            return content
        return b"%x\r\n%s\r\n" % (len(content), content)

    def _write_ping(self) -> None:
        # Behind an event in one read it would break the reference's client: only when nothing was written.
        self._ping = None
        if self._http_request is not None:
            self._ping = self._clock.callLater(PING_S, self._write_ping)
            if not self._paused:
                self._http_request.channel.write(self._chunk(self._framing.ping))

    def _give_sign(self) -> None:
        http_request = self._http_request
        if http_request is None or self._paused:
            return
        # A chunk's size may have zeros before it (RFC 9112 section 7.1): that of the next one begins.
        sign = self._chunk(self._framing.ping) or (b"0" if self._is_chunked else b"")
        http_request.channel.write(sign)

    def _give_back(self) -> None:
        if self._held_bytes and self._http_request is not None:
            self._http_request.site.buffers.give_back(self._held_bytes)
            self._held_bytes = 0

    def _stop(self) -> GatewayRequest | None:
        """No more is written; the request, unless that was so before."""
        self._give_back()
        http_request, self._http_request = self._http_request, None
        if http_request is not None:
            http_request.give_sign = None  # it refers back to this
        if self._ping is not None:
            self._ping.cancel()
            self._ping = None
        return http_request

    # -- called by the transport ----------------------------------------------------------------------

    def pauseProducing(self) -> None:
        """What was written waits for the client to read."""
        self._paused = True
        if self._http_request is not None:
            self._http_request.channel.setTimeout(self._http_request.site.limits.write_s)

    def resumeProducing(self) -> None:
        """The client has caught up."""
        self._paused = False
        self._give_back()
        if self._http_request is not None:
            self._http_request.channel.setTimeout(None)
        drained, self._drained = self._drained, None
        if drained is not None:
            drained.callback(None)

    def stopProducing(self) -> None:
        """The connection is lost; the request's own work is cancelled as well."""
        self._stop()
