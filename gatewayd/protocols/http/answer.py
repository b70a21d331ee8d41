# mypy: disable-error-code="no-untyped-call"
"""The bytes of HTTP responses: the head, and large bodies in pieces."""

from __future__ import annotations

import time
from functools import lru_cache
from http.client import responses
from typing import Any, Final

from twisted.internet.interfaces import IPushProducer
from twisted.web.http import datetimeToString
from zope.interface import implementer

from gatewayd.errors import SUCCESS

JSON: Final = b"application/json"
OK: Final = SUCCESS.http

# Bodies up to this size are written at once, larger ones in pieces of it.
PIECE_BYTES: Final = 128 * 1024


@implementer(IPushProducer)
class LargeBody:
    """
    Writes an answer's body in pieces, as fast as the client reads.

    Each piece that is sent restarts the idle timeout: a download may take longer, but a client that stops
    reading is disconnected.
    """

    def __init__(self, http_request: Any, body: bytes) -> None:
        self._http_request = http_request
        self._body = body
        self._position = 0
        self._paused = False

    def begin(self) -> None:
        self._http_request.registerProducer(self, True)
        self._http_request.channel.setTimeout(self._http_request.site.limits.idle_s)
        self.resumeProducing()

    def resumeProducing(self) -> None:
        if self._http_request is None:
            return
        self._paused = False
        channel = self._http_request.channel
        channel.resetTimeout()
        while not self._paused and self._position < len(self._body):
            piece = self._body[self._position : self._position + PIECE_BYTES]
            self._position += len(piece)
            channel.write(piece)
        if not self._paused and self._position >= len(self._body):
            self._paused = True
            channel.setTimeout(None)
            self._http_request.unregisterProducer()
            self._http_request.finish()

    def pauseProducing(self) -> None:
        self._paused = True

    def stopProducing(self) -> None:
        # The request refers to its producer: what is left of the body would wait for the garbage collector.
        self._paused = True
        self._body, self._http_request = b"", None


def head(status: int, content_type: bytes, length: int) -> list[bytes]:
    """The response's head, without the blank line that ends it."""
    if status == 204:  # must not have a Content-Length (RFC 9110 section 8.6)
        return [_status_line(status), _date(int(time.time())), b"\r\nContent-Type: %s\r\n" % content_type]
    return [_status_line(status), _date(int(time.time())), _length_prefix(content_type), b"%d\r\n" % length]


def streaming_head(content_type: bytes, *, chunked: bool) -> list[bytes]:
    """As ``head``, of a successful response whose length is not known."""
    coding = b"Transfer-Encoding: chunked\r\n" if chunked else b""
    named = b"\r\nContent-Type: %s\r\n%s" % (content_type, coding)
    return [_status_line(OK), _date(int(time.time())), named]


@lru_cache(maxsize=64)
def _status_line(status: int) -> bytes:
    # A browser that took an answer for another type than its own could be made to run what a client sent.
    common = b"Server: gatewayd\r\nX-Content-Type-Options: nosniff\r\nDate: "
    return b"HTTP/1.1 %d %s\r\n%s" % (status, responses.get(status, "").encode(), common)


@lru_cache(maxsize=8)
def _length_prefix(content_type: bytes) -> bytes:
    return b"\r\nContent-Type: %s\r\nContent-Length: " % content_type


@lru_cache(maxsize=2)
def _date(second: int) -> bytes:
    return bytes(datetimeToString(second))
