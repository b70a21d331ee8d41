# mypy: disable-error-code="no-untyped-call"
"""One HTTP request on a connection: its body as it arrives, its id, and its answer."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web.http import datetimeToString
from twisted.web.server import Request

from gatewayd.access.authenticator import Question
from gatewayd.access.control import AccessControl
from gatewayd.bounded_log import BoundedLogger
from gatewayd.errors import GatewayError, InternalError, Overloaded
from gatewayd.messages.caller import ANONYMOUS, Caller
from gatewayd.protocols.failures import explained
from gatewayd.protocols.http.answer import JSON, OK, PIECE_BYTES, LargeBody, head
from gatewayd.protocols.http.errors import ErrorResponse
from gatewayd.protocols.http.grammar import origin_form
from gatewayd.protocols.http.identification import credentials_of, is_for_all

if TYPE_CHECKING:
    from gatewayd.protocols.http.channel import GatewayChannel
    from gatewayd.protocols.http.site import GatewaySite

log = BoundedLogger()

_HOST_NAME = re.compile(rb"[A-Za-z0-9]([A-Za-z0-9.-]{0,250}[A-Za-z0-9])?")
_SHOWABLE_ID = re.compile(rb"[\x21-\x7e]{1,128}")


class GatewayRequest(Request):
    """
    One HTTP request, called ``http_request`` elsewhere.

    Answer it with ``respond``. Work passed to ``work_begun`` is cancelled if the client hangs up. ``caller``
    is who sends it, where the gateway asks that.
    """

    channel: GatewayChannel
    site: GatewaySite
    content: Any
    caller: Caller = ANONYMOUS
    give_sign: Callable[[], None] | None = None  # write something that says nothing, into a body that streams
    has_waited = False  # for executors to tell what they bind, which may make its path known
    _identity: Question | GatewayError | None = None  # what stands between the request and its answer
    _work: Deferred[Any] | None = None
    _fields: dict[bytes, bytes] | None = None  # what ``header`` returns, once the request is complete
    _id: str | None = None
    _held_bytes = 0
    _log = BoundedLogger()  # Twisted's lines about requests
    _foreign = False

    def gotLength(self, length: int | None) -> None:
        self.content = BytesIO()

    def head_received(self, method: bytes, target: bytes) -> None:
        """Make known what is asked, before the body has come."""
        self.site = self.channel.site
        self.method, self.uri, self.path = method, target, origin_form(target)

    def identify(self, access: AccessControl) -> bool:
        """Whether the head, which has been received, lets the body come."""
        if is_for_all(self):
            return False  # the answer does not depend on it, and a stranger must not make us hold it
        try:
            found = access.identify(credentials_of(self))
        except GatewayError as error:
            self._identity = error
            return False
        if isinstance(found, Caller):
            self.caller = found
        else:
            self._identity = found
        return True

    def handleContentChunk(self, data: bytes) -> None:
        channel = self.channel
        if channel.refused:
            return
        if self._held_bytes + len(data) > channel.site.limits.body_bytes:
            # Only for chunked bodies: a Content-Length has been checked before.
            channel.refuse_body()
        elif not channel.site.buffers.take(len(data)):
            channel.refuse_for_now()
        else:
            self._held_bytes += len(data)
            self.content.write(data)

    def hold(self, count: int) -> None:
        """Reserve ``count`` bytes more until this request is answered. Raises Overloaded."""
        buffers = self.site.buffers
        if not buffers.take(count):
            raise Overloaded(buffers.full())
        self._held_bytes += count

    def release(self) -> None:
        """Release the body and its reserved bytes."""
        held, self._held_bytes = self._held_bytes, 0
        if held:
            self.channel.site.buffers.give_back(held)
            self.content = BytesIO()

    def getRequestHostname(self) -> bytes:
        # Klein hands this to werkzeug, which raises on a Host header that is not an IDNA name. Nothing of the
        # gateway's own depends on the name the client used.
        name: bytes = super().getRequestHostname() if self._foreign else b""
        return name if _HOST_NAME.fullmatch(name) else b"gateway"

    @property
    def body(self) -> bytes:
        """The whole body, without a copy."""
        return bytes(self.content.getvalue())

    def header(self, name: bytes) -> bytes | None:
        """
        The value of a request header; ``name`` in lower case.

        What is sent in several lines means the same as one list (RFC 9110 section 5.3).
        """
        if self._fields is not None:
            return self._fields.get(name)
        values = self.requestHeaders.getRawHeaders(name)
        return b", ".join(values) if values else None

    def text_header(self, name: str) -> str | None:
        """As ``header``, as text."""
        value = self.header(name.encode())
        return None if value is None else value.decode("latin-1")

    @property
    def request_id(self) -> str:
        """The client's own id for the request if it is valid, else a new one of 32 hex digits."""
        if self._id is None:
            self._id = self.given_id or os.urandom(16).hex()
        return self._id

    @request_id.setter
    def request_id(self, value: str) -> None:
        self._id = value

    @property
    def given_id(self) -> str | None:
        """The header X-Request-ID; None if it is missing or invalid."""
        given = self.header(b"x-request-id")
        return given.decode() if given is not None and _SHOWABLE_ID.fullmatch(given) else None

    @property
    def shown_id(self) -> bytes:
        """The answer's header X-Request-ID; empty if the id cannot be a header's value."""
        value = self.request_id.encode()
        return b"X-Request-ID: %s\r\n" % value if _SHOWABLE_ID.fullmatch(value) else b""

    @property
    def gone(self) -> bool:
        """Whether the client hung up, so that nothing can be answered."""
        return bool(self._disconnected)

    def work_begun(self, work: Deferred[Any]) -> None:
        """Cancel ``work`` if the client hangs up before it is done."""
        self._work = work

    def connectionLost(self, reason: Failure) -> None:
        work, self._work = self._work, None
        self.release()
        super().connectionLost(reason)
        if work is not None:
            work.cancel()

    def finish(self) -> None:
        # Klein finishes a request again after an error handler has answered it.
        if not self.finished and not self._disconnected:
            self.release()
            super().finish()

    def process(self) -> None:
        # twisted.web's own method prepares headers that ``respond`` writes itself, and may answer in HTML.
        self.site = self.channel.site
        # Half a dozen of them are asked for, and twisted.web would spell each name again.
        received = self.requestHeaders.getAllRawHeaders()
        self._fields = {name.lower(): b", ".join(values) for name, values in received if values}
        self.path = origin_form(self.uri)
        self.prepath = []
        self.postpath = [unquote_to_bytes(segment) for segment in self.path[1:].split(b"/")]
        if self._identity is None:
            self._render()
        elif isinstance(self._identity, GatewayError):
            self.respond_with(self.site.encode_error(self._identity, self.path))
        else:
            assert self.site.access is not None
            asking = self.site.access.ask(self._identity)
            self.work_begun(asking)
            asking.addCallbacks(self._identified, self._unidentified)

    def _identified(self, caller: Caller) -> None:
        self._work = None
        self.caller = caller
        if not self._disconnected:
            self._render()

    def _unidentified(self, reason: Failure) -> None:
        if not self._disconnected:
            self.processingFailed(reason)

    def _render(self) -> None:
        try:
            self.site.resource.render(self)
        except Exception:
            self.processingFailed(Failure())

    def begin_foreign(self, prefix: int) -> None:
        """
        Prepare the request for a resource that is not the gateway's own, and uses twisted.web's interface.

        The resource gets the path from segment ``prefix`` on.
        """
        self._foreign = True
        segments = self.path[1:].split(b"/")
        self.prepath = [unquote_to_bytes(segment) for segment in segments[:prefix]]
        self.postpath = [unquote_to_bytes(segment) for segment in segments[prefix:]]
        headers = self.responseHeaders
        headers.setRawHeaders(b"Server", [b"gatewayd"])
        headers.setRawHeaders(b"X-Content-Type-Options", [b"nosniff"])
        headers.setRawHeaders(b"Date", [datetimeToString()])
        if _SHOWABLE_ID.fullmatch(shown := self.request_id.encode()):
            headers.setRawHeaders(b"X-Request-ID", [shown])
        for name, value in self.channel.site.headers_for(self):
            headers.addRawHeader(name, value)
        if not self.channel.persistent:
            headers.setRawHeaders(b"Connection", [b"close"])

    def processingFailed(self, reason: Failure) -> Failure:
        """Answer after an exception, which is logged unless it can be explained to the client."""
        assert reason.value is not None
        # What gatewayd.Gateway.post raises comes of a GatewayError.
        cause = reason.value.__cause__
        public = explained(cause if isinstance(cause, GatewayError) else reason.value, self.request_id)
        if isinstance(public, InternalError):
            log.failure("{method} {path} failed", reason, method=self.method, path=self.path)
        if self.startedWriting:
            # A part of an answer must not look like the whole.
            self.channel.abort()
        else:
            self.respond_with(self.site.encode_error(public, self.path))
        return reason

    def respond(
        self,
        status: int,
        body: bytes,
        content_type: bytes = JSON,
        headers: Iterable[tuple[bytes, bytes]] = (),
    ) -> None:
        """
        Write the whole answer and finish; nothing happens when the client is gone.

        The request's id is always among the headers; ``headers`` are further ones. Their values must hold
        no line ends, as those of a request do not.
        An answer to HEAD is written without its body.
        """
        self._work = None
        if self._disconnected:
            return
        if len(body) > PIECE_BYTES:
            buffers = self.channel.site.buffers
            if not buffers.take(len(body)):
                self.respond_with(self.site.encode_error(Overloaded(buffers.full()), self.path))
                return
            self._held_bytes += len(body)
        parts = [*head(status, content_type, len(body)), self.shown_id]
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

    def begin_body(self, begun: list[bytes], headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Write the head of an answer, which ``begun`` begins; whoever calls this writes its body."""
        parts = [*begun, self.shown_id]
        for name, value in (*headers, *self.channel.site.headers_for(self)):
            parts += (name, b": ", value, b"\r\n")
        parts.append(b"\r\n" if self.channel.persistent else b"Connection: close\r\n\r\n")
        self.startedWriting = 1
        self.code = OK
        self.channel.write(b"".join(parts))

    def respond_with(self, error: ErrorResponse) -> None:
        """As ``respond``, with the result of ``encode_error``."""
        self.respond(error.status, error.body, error.content_type, error.headers)
