# mypy: disable-error-code="no-untyped-call"
"""
HTTP/1.1 connections with limits: what a client may send, for how long, and how it is told.

twisted.web parses and keeps order; this file bounds it. A body is counted while it arrives and kept in
memory (twisted's own way is a temporary file, which blocks the reactor), so that no client makes the
gateway hold more than ``body_bytes`` for one request. A request that breaks a limit gets its answer at
once, and what else it sends is read and dropped for a moment: closing with unread bytes makes the
kernel reset the connection, and the answer would be lost on its way.
"""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from io import BytesIO
from typing import Any
from urllib.parse import unquote_to_bytes

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from gatewayd.protocols.http_answer import JSON, PIECE_BYTES, LargeBody, head, problem

log = Logger()


@attrs.frozen
class SiteLimits:
    """
    What one connection may do.

    ``body_bytes`` bounds one body, ``idle_s`` the silence between requests or within one, ``head_s``
    the time from a request's first byte to the end of its headers, ``linger_s`` how long the rest of
    a refused request is read and dropped. ``head_bytes`` is twice what nginx allows.
    """

    body_bytes: int
    idle_s: float = 75.0
    head_s: float = 30.0
    linger_s: float = 2.0
    head_bytes: int = 64 * 1024
    headers: int = 200


class GatewayChannel(HTTPChannel):
    """One connection of a client."""

    site: GatewaySite
    transport: Any
    refused = False
    _deadline: Any = None  # an IDelayedCall

    def connectionMade(self) -> None:
        limits = self.site.limits
        self.totalHeadersSize = self.MAX_LENGTH = limits.head_bytes
        self.maxHeaders = limits.headers
        self.abortTimeout = limits.linger_s  # type: ignore[assignment]
        self.site.channels.add(self)
        super().connectionMade()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.leave_site()
        super().connectionLost(reason)

    def leave_site(self) -> None:
        """Forget this connection: it is lost, or another protocol took its transport over."""
        self._stop_deadline()
        self.site.channel_left(self)

    def dataReceived(self, data: bytes) -> None:
        if self.refused:
            return
        super().dataReceived(data)
        # Most requests arrive whole and never need the timer.
        in_head = self.line_mode and bool(self._receivedHeaderSize or self._buffer)
        if not in_head:
            self._stop_deadline()
        elif self._deadline is None:
            self._deadline = self.callLater(self.site.limits.head_s, self._head_late)

    def headerReceived(self, line: bytes) -> bool:
        try:
            return bool(super().headerReceived(line))
        except ValueError:  # int() refuses a Content-Length of thousands of digits
            self._respondToBadRequestAndDisconnect()
            return False

    def allHeadersReceived(self) -> None:
        if self.length is not None and self.length > self.site.limits.body_bytes:
            self.refuse_body()
        elif not self.refused:
            super().allHeadersReceived()

    def rawDataReceived(self, data: bytes) -> None:
        if not self.refused:
            super().rawDataReceived(data)

    def allContentReceived(self) -> None:
        if not self.refused:
            super().allContentReceived()

    def lineLengthExceeded(self, line: bytes) -> None:
        self.refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "a line of the request's head is too long")

    def checkPersistence(self, request: Request, version: bytes) -> bool:
        return bool(super().checkPersistence(request, version)) and not self.site.draining

    def refuse_body(self) -> None:
        """The body of the current request is, or became, larger than the limit."""
        limit = self.site.limits.body_bytes
        self.refuse(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"the body is larger than {limit} bytes; the limit is gateway.max_message_bytes",
        )

    def refuse(self, status: HTTPStatus, detail: object) -> None:
        """Answer the request that is being read with an error, then close."""
        if self.refused:
            return
        self.refused = True
        self.persistent = 0
        self._stop_deadline()
        self.setTimeout(None)
        body = problem(detail)
        parts = [*head(int(status), JSON, len(body)), b"Connection: close\r\n\r\n"]
        self.transport.writeSequence([*parts, body])
        if self.isSecure():  # TLS has no half-close: the client goes by Content-Length
            self._abortingCall = self.callLater(self.site.limits.linger_s, self._lingered)
        else:
            self._networkProducer.unregisterProducer()
            self.transport.loseWriteConnection()
            self._abortingCall = self.callLater(self.site.limits.linger_s, self.forceAbortClient)

    def drain(self) -> None:
        """Close now when idle, else after the request that is under way."""
        if not self.requests:
            self.loseConnection()
        else:
            self.persistent = 0

    def abort(self) -> None:
        """Close without waiting for anything."""
        self.transport.abortConnection()

    def _respondToBadRequestAndDisconnect(self) -> None:
        # What HTTPChannel calls for whatever it cannot parse; its own answer has no body.
        self.refuse(HTTPStatus.BAD_REQUEST, "the request is not valid HTTP/1.1")

    def _head_late(self) -> None:
        self._deadline = None
        self.refuse(HTTPStatus.REQUEST_TIMEOUT, "the request's head did not arrive in time")

    def _lingered(self) -> None:
        self._abortingCall = None
        self.loseConnection()

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class GatewayRequest(Request):
    """
    One HTTP request; ``http_request`` elsewhere.

    Answer it with ``respond``. Whoever works for it says so with ``work_begun``: that work is
    cancelled when the client hangs up.
    """

    channel: GatewayChannel
    site: GatewaySite
    content: Any
    _work: Deferred[Any] | None = None

    def gotLength(self, length: int | None) -> None:
        self.content = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        if self.content.tell() + len(data) > self.channel.site.limits.body_bytes:
            # Only a chunked body gets here: a Content-Length was refused before.
            self.content = BytesIO()
            self.channel.refuse_body()
        elif not self.channel.refused:
            self.content.write(data)

    def getRequestHostname(self) -> bytes:
        # Klein hands this to werkzeug, which raises on a Host header that is no IDNA name. Nothing here
        # depends on the name the client used.
        return b"gateway"

    @property
    def body(self) -> bytes:
        """The whole body; taking it copies nothing."""
        return bytes(self.content.getvalue())

    def header(self, name: bytes) -> bytes | None:
        """The last value of a request header; ``name`` in lower case."""
        values = self.requestHeaders.getRawHeaders(name)
        return values[-1] if values else None

    @property
    def gone(self) -> bool:
        """Whether the client hung up, so that an answer has nowhere to go."""
        return bool(self._disconnected)

    def work_begun(self, work: Deferred[Any]) -> None:
        """Cancel ``work`` if the client hangs up before it is done."""
        self._work = work

    def connectionLost(self, reason: Failure) -> None:
        work, self._work = self._work, None
        super().connectionLost(reason)
        if work is not None:
            work.cancel()

    def finish(self) -> None:
        # Klein finishes once more what an error handler has answered.
        if not self.finished and not self._disconnected:
            super().finish()

    def process(self) -> None:
        # twisted.web's own prepares headers that ``respond`` writes better, and may answer in HTML.
        self.site = self.channel.site
        if not self.path.startswith(b"/"):
            self.path = _origin_form(self.path)
        self.prepath = []
        self.postpath = [unquote_to_bytes(segment) for segment in self.path[1:].split(b"/")]
        try:
            self.site.resource.render(self)
        except Exception:
            log.failure("{method} {path} failed", method=self.method, path=self.path)
            self.respond(500, problem("Internal Server Error"))

    def respond(
        self,
        status: int,
        body: bytes,
        content_type: bytes = JSON,
        headers: Iterable[tuple[bytes, bytes]] = (),
    ) -> None:
        """
        Write the whole answer and finish; nothing happens when the client is gone.

        ``headers`` are further ones; their values must hold no line ends, as those of a request do not.
        An answer to HEAD is written without its body.
        """
        self._work = None
        if self._disconnected:
            return
        parts = head(status, content_type, len(body))
        for name, value in headers:
            parts += (name, b": ", value, b"\r\n")
        for name, value in self.channel.site.headers_for(self):
            parts += (name, b": ", value, b"\r\n")
        if not self.channel.persistent:
            parts.append(b"Connection: close\r\n")
        parts.append(b"\r\n")
        if self.method == b"HEAD":
            body = b""
        self.startedWriting = 1
        self.code = status
        if len(body) <= PIECE_BYTES:
            self.channel.write(b"".join((*parts, body)))
            self.finish()
        else:
            self.channel.write(b"".join(parts))
            LargeBody(self, body).begin()


class GatewaySite(Site):
    """
    All connections to one listener.

    There is no access log: a line for each request costs more than the gateway's own work on it.
    """

    protocol = GatewayChannel  # type: ignore[assignment]
    requestFactory = GatewayRequest
    noisy = False  # the gateway says itself what listens where

    def __init__(self, resource: Resource, limits: SiteLimits, reactor: Any, *, cors: bool) -> None:
        super().__init__(resource, timeout=limits.idle_s, reactor=reactor, parsePOSTFormSubmission=False)
        self.limits = limits
        self._clock = reactor
        self.channels: set[GatewayChannel] = set()
        self.draining = False
        self._cors = cors
        self._empty: list[Deferred[None]] = []

    def buildProtocol(self, addr: IAddress | None) -> Any:
        return None if self.draining else super().buildProtocol(addr)

    def startFactory(self) -> None:
        """Opens no log."""

    def stopFactory(self) -> None:
        """There is no log to close."""

    def log(self, request: object) -> None:
        """Keeps no access log."""

    def acceptableProtocols(self) -> list[bytes]:
        return [b"http/1.1"]

    def headers_for(self, http_request: GatewayRequest) -> Iterable[tuple[bytes, bytes]]:
        """Headers that every answer carries: those of CORS where it is on and the client a browser."""
        if not self._cors or http_request.method == b"OPTIONS":
            return ()
        return _CORS if http_request.header(b"origin") is not None else ()

    @property
    def cors(self) -> bool:
        """Whether pages of any origin may use the gateway."""
        return self._cors

    def channel_left(self, channel: GatewayChannel) -> None:
        """A connection ended, or became a WebSocket."""
        self.channels.discard(channel)
        if not self.channels:
            waiting, self._empty = self._empty, []
            for waiter in waiting:
                waiter.callback(None)

    def close_all(self, grace_s: float) -> Deferred[None]:
        """
        Close idle connections now, the others after their request, and all of them after ``grace_s``.

        Fires when no connection is left.
        """
        self.draining = True
        for channel in tuple(self.channels):
            channel.drain()
        if not self.channels:
            return succeed(None)
        left: Deferred[None] = Deferred()
        self._empty.append(left)
        late = self._clock.callLater(grace_s, self._abort_all)

        def closed(_: None) -> None:
            if late.active():
                late.cancel()

        return left.addCallback(closed)

    def _abort_all(self) -> None:
        for channel in tuple(self.channels):
            channel.abort()


_CORS = (
    (b"Access-Control-Allow-Origin", b"*"),
    (b"Access-Control-Allow-Credentials", b"true"),
)


def _origin_form(target: bytes) -> bytes:
    """The path of an absolute request target (RFC 9112 section 3.2.2), or of ``*``."""
    _, _, rest = target.partition(b"://")
    return b"/" + rest.partition(b"/")[2]
