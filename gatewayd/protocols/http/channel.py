# mypy: disable-error-code="no-untyped-call"
"""
HTTP/1.1 connections with limits on size and time, and an answer for requests that exceed them.

twisted.web parses requests and keeps their order; this module adds the limits, and ``grammar`` the
strictness. A body is counted while it arrives and kept in memory (twisted.web itself would use a temporary
file, which blocks the reactor), so one request holds at most ``body_bytes``. A request that exceeds a limit
or breaks the grammar is answered at once, and the rest of it is read and dropped for a moment: closing with
unread bytes makes the kernel reset the connection, and the answer would be lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, _IdentityTransferDecoder
from twisted.web.server import Request
from zope.interface import implementer

from gatewayd.bounded_log import BoundedLogger
from gatewayd.errors import (
    GatewayError,
    HeadTimeout,
    HeadTooLarge,
    HttpRefusal,
    InvalidHttp,
    Overloaded,
    TooLarge,
    TooSlow,
)
from gatewayd.protocols.arrival import Arrival
from gatewayd.protocols.http.answer import head
from gatewayd.protocols.http.chunks import ChunkedBody
from gatewayd.protocols.http.grammar import (
    check_field_line,
    check_host,
    check_target,
    check_transfer_coding,
    content_length,
    is_health_check,
    members,
)
from gatewayd.protocols.tcp import limit_writes

if TYPE_CHECKING:
    from gatewayd.access.control import AccessControl
    from gatewayd.protocols.http.site import GatewaySite

_BARE_LF: Final = "a line of its head ends with LF instead of CR LF"


@implementer(IHalfCloseableProtocol)
class GatewayChannel(HTTPChannel):
    """
    One connection of a client.

    From ``refused`` on, what arrives is dropped.
    """

    site: GatewaySite
    transport: Any
    refused = False
    _log = BoundedLogger()  # Twisted's lines about clients that are late
    _arrival: Arrival  # of a body
    _deadline: Any = None  # an IDelayedCall, as the next one
    _doubt: Any = None
    _watched = -1  # the descriptor, while hang-ups are looked for
    _input_ended = False
    _leaves_body = False

    def connectionMade(self) -> None:
        limits = self.site.limits
        self.totalHeadersSize = self.MAX_LENGTH = limits.head_bytes
        self.maxHeaders = limits.headers
        self.abortTimeout = limits.linger_s  # type: ignore[assignment]
        self._arrival = Arrival(limits.arrival, self.site.reactor, self._refuse_late_body)
        self.site.connections.opened(self)
        super().connectionMade()
        limit_writes(self.transport, limits.write_s)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._leave_site()
        super().connectionLost(reason)
        # Without these, the connection would wait for the garbage collector: each refers back to it.
        self._transferDecoder = None
        self.transport.unregisterProducer()

    def upgraded(self) -> None:
        """Another protocol has taken over the transport: nothing of HTTP is needed any more."""
        self._leave_site()
        self.requests.clear()
        self._transferDecoder = None

    def _leave_site(self) -> None:
        self._stop_deadline()
        self._stop_doubting()
        self._arrival.close()
        self.site.connections.closed(self)

    # -- what arrives ---------------------------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        if self.refused:
            return
        super().dataReceived(data)
        # Most requests arrive at once and never need the timer.
        in_head = self.line_mode and bool(self._receivedHeaderSize or self._buffer)
        if not in_head:
            self._stop_deadline()
            # Most bodies, too, are complete by now.
            if self._transferDecoder is not None and not self.line_mode and not self.refused:
                self._arrival.received(len(data))
            # What lies there has come behind the request that is being served.
            elif not self.refused and not any(self._dataBuffer) and self.transport is not None:
                self.transport.input_complete()
        elif b"\n" in self._buffer and b"\r\n" not in self._buffer:
            self.refuse(InvalidHttp(_BARE_LF))
        elif self._deadline is None:
            self._deadline = self.callLater(self.site.limits.head_s, self._refuse_late_head)

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
            names = headers.getRawHeaders(b"host", ())
            check_host(names, self._version)
            upgrade = headers.hasHeader(b"upgrade")
            if not is_health_check(self._command, self._path, self.site.health_paths, upgrade=upgrade):
                self.site.browsers.check_host(self._path, names)
        except HttpRefusal as error:
            self.refuse(error)
            return
        if self.site.access is not None and not self._identify(self.site.access):
            self._answer_without_body()
        if self.length is not None and self.length > self.site.limits.body_bytes:
            self.refuse_body()
        elif self.length and not self.site.buffers.has_room(self.length):
            self.refuse_for_now()
        else:
            super().allHeadersReceived()

    def _identify(self, access: AccessControl) -> bool:
        """Whether the body of the current request may come."""
        http_request = self.requests[-1]
        http_request.head_received(self._command, self._path)
        return bool(http_request.identify(access))

    def _answer_without_body(self) -> None:
        """Have the current request answered now as one without a body, and close after it if it has one."""
        if self.length != 0:
            self._leaves_body = True
            self.length = 0

    def _send100Continue(self) -> None:
        # HTTPChannel's, for a client that waits before it sends its body. Where the head alone decides, the
        # request is answered now as one without a body.
        if self.length == 0:
            return
        http_request = self.requests[-1]
        http_request.head_received(self._command, self._path)
        if self.site.resource.wants_body(http_request):
            super()._send100Continue()
        else:
            self._answer_without_body()
            self.persistent = 0

    def rawDataReceived(self, data: bytes) -> None:
        if self.refused:
            return
        try:
            super().rawDataReceived(data)
        except HttpRefusal as error:
            self.refuse(error)

    def allContentReceived(self) -> None:
        self._arrival.ended()
        if not self.refused:
            super().allContentReceived()

    def lineLengthExceeded(self, line: bytes) -> None:
        self.refuse(HeadTooLarge())

    def checkPersistence(self, request: Request, version: bytes) -> bool:
        # twisted.web's reads the first Connection header only, and no commas.
        options = members(request.requestHeaders.getRawHeaders(b"connection", ()))
        if version != b"HTTP/1.1" or b"close" in options or self._leaves_body:
            return False
        connections = self.site.connections
        return not (connections.draining or connections.retiring)

    def _refuse_late_head(self) -> None:
        self._deadline = None
        self.refuse(HeadTimeout())

    def _refuse_late_body(self) -> None:
        self.refuse(TooSlow("body"))

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def pauseProducing(self) -> None:
        # The client does not read its last answer: until it does, it is not read either.
        self._arrival.pause()
        super().pauseProducing()

    def resumeProducing(self) -> None:
        self._arrival.resume()
        super().resumeProducing()

    # -- refusals -------------------------------------------------------------------------------------

    def refuse_body(self) -> None:
        """Refuse the current request: its body is larger than the limit."""
        self.refuse(TooLarge(self.site.limits.body_bytes, "body"))

    def refuse_for_now(self) -> None:
        """Refuse the current request: the buffers have no room for its body."""
        self.refuse(Overloaded(self.site.buffers.full()))

    def _respondToBadRequestAndDisconnect(self) -> None:
        # HTTPChannel calls this for everything it cannot parse; its own answer has no body.
        self.refuse(InvalidHttp())

    def refuse(self, error: GatewayError) -> None:
        """Answer the current request with ``error``, then close."""
        if self.refused:
            return
        self.refused = True
        response = self.site.encode_error(error, getattr(self, "_path", b""))
        headers = b"".join(
            b"%s: %s\r\n" % header for header in (*self.site.secure_headers, *response.headers)
        )
        if self.requests:
            headers += self.requests[-1].shown_id
            self.requests[-1].release()
        self.persistent = 0
        self._stop_deadline()
        self._arrival.close()
        parts = head(response.status, response.content_type, len(response.body))
        body = b"" if getattr(self, "_command", b"") == b"HEAD" else response.body
        self.transport.writeSequence([*parts, headers, b"Connection: close\r\n\r\n", body])
        self._linger()

    def _linger(self) -> None:
        """Close this side, and read and drop for a moment what the client still sends."""
        self.refused = True
        self.setTimeout(None)
        if self.isSecure():  # TLS has no half-close: Content-Length tells the client where the answer ends
            self._abortingCall = self.callLater(self.site.limits.linger_s, self._end_linger)
        else:
            self.transport.unregisterProducer()
            self.transport.loseWriteConnection()
            self._abortingCall = self.callLater(self.site.limits.linger_s, self.forceAbortClient)

    def _end_linger(self) -> None:
        self._abortingCall = None
        self.loseConnection()

    # -- the end of a request, and of the connection ---------------------------------------------------

    def requestDone(self, request: Request) -> None:
        super().requestDone(request)
        # While lines are being taken apart, further requests may be among them.
        if self._input_ended and not self._handlingRequest and not self._busyReceiving:
            self.loseConnection()

    def loseConnection(self) -> None:
        if self._leaves_body and not self.refused:
            self._linger()
        else:
            super().loseConnection()

    # -- a client that has half-closed ----------------------------------------------------------------

    def readConnectionLost(self) -> None:
        """
        The client sends nothing more. It may be waiting for its answers, or have gone: that looks the same.

        Its request is served. But a client that is not there resets the connection as soon as something is
        sent to it, so that is tried if the answer takes longer than ``trust_s``: with an interim response, or
        with what a stream has to say in between. Nothing is read any more, so that the reset would be noticed
        only by the write after the next one, which in a stream may be long in coming.
        """
        self._input_ended = True
        if self.refused:  # it was answered, and has read that
            self.loseConnection()
            return
        if self._handlingRequest:
            if self._doubt is None and self._watched < 0:
                self._doubt = self.callLater(self.site.limits.trust_s, self._ask_for_life)
            return
        if self.requests or self._buffer:
            self.refuse(InvalidHttp("it ends too early"))
        self.loseConnection()

    def writeConnectionLost(self) -> None:
        """This side was closed, by ``refuse``."""

    def _ask_for_life(self) -> None:
        self._doubt = None
        if not self._handlingRequest or not self.requests:
            return
        http_request = self.requests[0]
        if http_request.startedWriting:
            self._watch_for_reset()
            if http_request.give_sign is not None:
                http_request.give_sign()
        elif http_request.clientproto == b"HTTP/1.1":  # HTTP/1.0 has no interim responses
            self._watch_for_reset()
            super()._send100Continue()

    def _watch_for_reset(self) -> None:
        self._watched = self.transport.fileno()
        self.site.hangups.watch_half_closed(self._watched, self.abort)

    def _stop_doubting(self) -> None:
        if self._doubt is not None:
            self._doubt.cancel()
            self._doubt = None
        self.site.hangups.unwatch(self._watched)

    # -- called by Connections ------------------------------------------------------------------------

    def drain(self) -> None:
        """Close now if idle, otherwise after the request under way."""
        if not self.requests:
            self.loseConnection()
        else:
            self.persistent = 0

    def close_now(self) -> None:
        """Close without waiting for the answer; HTTP has no closing message."""
        self.abort()

    def abort(self) -> None:
        """Close without waiting for the client."""
        self.transport.abortConnection()
