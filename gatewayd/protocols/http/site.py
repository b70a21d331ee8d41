# mypy: disable-error-code="no-untyped-call"
"""
HTTP/1.1 connections with limits: what a client may send, for how long, and the answer beyond that.

twisted.web parses and keeps order; this file bounds it, and makes it strict where ``grammar`` says so. A body
is counted while it arrives and kept in memory (twisted's own way is a temporary file, which blocks the
reactor), so that no client makes the gateway hold more than ``body_bytes`` for one request. A request that
breaks a limit or the grammar gets its answer at once, and what else it sends is read and dropped awhile:
closing with unread bytes makes the kernel reset the connection, and the answer would be lost on its way.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import attrs
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, _IdentityTransferDecoder
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from gatewayd.config.model import GatewayConfig
from gatewayd.errors import (
    GatewayError,
    HeadTimeout,
    HeadTooLarge,
    HttpRefusal,
    InvalidHttp,
    Overloaded,
    TooLarge,
)
from gatewayd.protocols.backend import Backend
from gatewayd.protocols.connections import Connections
from gatewayd.protocols.http.answer import head
from gatewayd.protocols.http.chunks import ChunkedBody
from gatewayd.protocols.http.cors import Cors
from gatewayd.protocols.http.errors import encode_error
from gatewayd.protocols.http.grammar import (
    check_field_line,
    check_host,
    check_target,
    check_transfer_coding,
    content_length,
    members,
)
from gatewayd.protocols.http.request import GatewayRequest


@attrs.frozen
class SiteLimits:
    """
    What one connection may do.

    ``body_bytes`` bounds one body, ``idle_s`` the silence between requests or within one, ``head_s``
    the time from a request's first byte to the end of its headers, ``linger_s`` how long the rest of
    a refused request is read and dropped. ``head_bytes`` bounds a request's head, twice what nginx
    allows.
    """

    body_bytes: int
    idle_s: float = 75.0
    head_s: float = 30.0
    linger_s: float = 2.0
    head_bytes: int = 64 * 1024
    headers: int = 200

    @classmethod
    def of(cls, gateway: GatewayConfig) -> SiteLimits:
        """Those that a gateway's settings ask for."""
        return cls(
            body_bytes=gateway.max_message_bytes,
            idle_s=gateway.http_idle_timeout_s,
            head_s=gateway.http_head_timeout_s,
            head_bytes=gateway.http_max_head_bytes,
        )


_BARE_LF: Final = "a line of its head ends with LF instead of CR LF"


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
        self.site.connections.opened(self)
        super().connectionMade()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.leave_site()
        super().connectionLost(reason)

    def leave_site(self) -> None:
        """Forget this connection: it is lost, or another protocol took its transport over."""
        self._stop_deadline()
        self.site.connections.closed(self)

    def dataReceived(self, data: bytes) -> None:
        if self.refused:
            return
        super().dataReceived(data)
        # Most requests arrive whole and never need the timer.
        in_head = self.line_mode and bool(self._receivedHeaderSize or self._buffer)
        if not in_head:
            self._stop_deadline()
        elif b"\n" in self._buffer and b"\r\n" not in self._buffer:
            self.refuse(InvalidHttp(_BARE_LF))
        elif self._deadline is None:
            self._deadline = self.callLater(self.site.limits.head_s, self._head_late)

    def lineReceived(self, line: bytes) -> None:
        if self.refused:
            return
        if line[:1] in (b" ", b"\t"):  # twisted.web joins it with the line before
            self.refuse(InvalidHttp("a header goes on in a second line, or begins with a blank"))
        elif b"\n" in line:
            self.refuse(InvalidHttp(_BARE_LF))
        else:
            super().lineReceived(line)

    def headerReceived(self, line: bytes) -> bool:
        if self.refused:
            return False
        try:
            check_field_line(line)
        except HttpRefusal as error:
            self.refuse(error)
            return False
        return bool(super().headerReceived(line))

    def _maybeChooseTransferDecoder(self, header: bytes, data: bytes) -> bool:
        # HTTPChannel calls this for each header, and goes on if it is true.
        if header not in (b"Content-Length", b"Transfer-Encoding"):
            return True
        take, end = self.requests[-1].handleContentChunk, self._finishRequestBody
        try:
            if self._transferDecoder is not None:
                raise InvalidHttp("it has more than one Content-Length or Transfer-Encoding")
            if header == b"Content-Length":
                self.length = content_length(data)
                self._transferDecoder = _IdentityTransferDecoder(self.length, take, end)
            else:
                check_transfer_coding(data, self._version)
                self.length = None
                self._transferDecoder = ChunkedBody(take, end)
        except HttpRefusal as error:
            self.refuse(error)
            return False
        return True

    def allHeadersReceived(self) -> None:
        if self.refused:
            return
        headers = self.requests[-1].requestHeaders
        try:
            check_target(self._command, self._path)
            check_host(headers.getRawHeaders(b"host", ()), self._version)
        except HttpRefusal as error:
            self.refuse(error)
            return
        if self.length is not None and self.length > self.site.limits.body_bytes:
            self.refuse_body()
        elif self.length and not self.site.buffers.has_room(self.length):
            self.refuse_for_now()
        else:
            super().allHeadersReceived()

    def rawDataReceived(self, data: bytes) -> None:
        if self.refused:
            return
        try:
            super().rawDataReceived(data)
        except HttpRefusal as error:
            self.refuse(error)

    def allContentReceived(self) -> None:
        if not self.refused:
            super().allContentReceived()

    def lineLengthExceeded(self, line: bytes) -> None:
        self.refuse(HeadTooLarge())

    def checkPersistence(self, request: Request, version: bytes) -> bool:
        # twisted.web's reads the first Connection header only, and no commas.
        options = members(request.requestHeaders.getRawHeaders(b"connection", ()))
        return version == b"HTTP/1.1" and b"close" not in options and not self.site.connections.draining

    def refuse_body(self) -> None:
        """The body of the current request is, or became, larger than the limit."""
        self.refuse(TooLarge(self.site.limits.body_bytes, "body"))

    def refuse_for_now(self) -> None:
        """The buffers have no room for the body of the current request."""
        self.refuse(Overloaded(self.site.buffers.full()))

    def refuse(self, error: GatewayError) -> None:
        """Answer the request that is being read with ``error``, then close."""
        if self.refused:
            return
        self.refused = True
        response = encode_error(error)
        headers = b"".join(b"%s: %s\r\n" % header for header in response.headers)
        if self.requests:
            headers += self.requests[-1].shown_id
            self.requests[-1].release()
        self.persistent = 0
        self._stop_deadline()
        self.setTimeout(None)
        parts = head(response.status, response.content_type, len(response.body))
        body = b"" if getattr(self, "_command", b"") == b"HEAD" else response.body
        self.transport.writeSequence([*parts, headers, b"Connection: close\r\n\r\n", body])
        if self.isSecure():  # TLS has no half-close: the client goes by Content-Length
            self._abortingCall = self.callLater(self.site.limits.linger_s, self._lingered)
        else:
            self.transport.unregisterProducer()
            self.transport.loseWriteConnection()
            self._abortingCall = self.callLater(self.site.limits.linger_s, self.forceAbortClient)

    def drain(self) -> None:
        """Close now when idle, else after the request that is under way."""
        if not self.requests:
            self.loseConnection()
        else:
            self.persistent = 0

    def close_now(self) -> None:
        """Close without waiting for the answer; HTTP has nothing to say at the end."""
        self.abort()

    def abort(self) -> None:
        """Close without waiting for the client."""
        self.transport.abortConnection()

    def _respondToBadRequestAndDisconnect(self) -> None:
        # What HTTPChannel calls for whatever it cannot parse; its own answer has no body.
        self.refuse(InvalidHttp())

    def _head_late(self) -> None:
        self._deadline = None
        self.refuse(HeadTimeout())

    def _lingered(self) -> None:
        self._abortingCall = None
        self.loseConnection()

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class GatewaySite(Site):
    """
    All connections to one listener.

    It keeps no access log: a line for each request costs more than the gateway's own work on it.
    """

    protocol = GatewayChannel  # type: ignore[assignment]
    requestFactory = GatewayRequest
    noisy = False  # the gateway says itself what listens where

    def __init__(
        self, root: Resource, limits: SiteLimits, backend: Backend, connections: Connections, *, cors: Cors
    ) -> None:
        super().__init__(root, timeout=limits.idle_s, reactor=backend.reactor, parsePOSTFormSubmission=False)
        self.limits = limits
        self.buffers = backend.buffers
        self.connections = connections
        self.cors = cors

    def buildProtocol(self, addr: IAddress | None) -> Any:
        return None if self.connections.draining else super().buildProtocol(addr)

    def startFactory(self) -> None:
        """Opens no log."""

    def stopFactory(self) -> None:
        """Closes no log."""

    def log(self, request: object) -> None:
        """Keeps no access log."""

    def acceptableProtocols(self) -> list[bytes]:
        return [b"http/1.1"]

    def headers_for(self, http_request: GatewayRequest) -> Iterable[tuple[bytes, bytes]]:
        """Headers that every answer carries: those of CORS where it is on and the client a browser."""
        if http_request.method == b"OPTIONS" and self.cors.is_preflight(http_request.header):
            return ()
        return self.cors.answer(http_request.header)
