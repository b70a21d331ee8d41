"""
A gRPC call with one message each way, over an HTTP/2 stream (gRPC's doc/PROTOCOL-HTTP2.md).

``Unary`` follows an answer through head, message and trailers, and ends with exactly one of ``answered`` and
``failed``. A server's protocol errors become gRPC's status codes, as doc/http-grpc-status-mapping.md and
PROTOCOL-HTTP2.md (Errors) say.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from typing import Final
from urllib.parse import unquote_to_bytes

import attrs

from gatewayd.messages.headers import AllowList, Headers
from gatewayd.messages.rope import LONG_BYTES, Buffer, Content, in_pieces
from gatewayd.rpc.headers import Field, encode
from gatewayd.rpc.http2 import Broken, Stream

CODES: Final = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
_OF_HTTP: Final = {
    400: "INTERNAL",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "UNIMPLEMENTED",
    429: "UNAVAILABLE",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "UNAVAILABLE",
}
# By the code of RST_STREAM. Where gRPC has INTERNAL, we have UNAVAILABLE: servers that stop or crash end
# their streams like this. It is not the executor's own error, so that retry.py may try another replica.
OF_RESET: Final = {8: "CANCELLED", 11: "RESOURCE_EXHAUSTED", 12: "PERMISSION_DENIED"}

_MAX_INTERIM: Final = 16
_MAX_TIMEOUT: Final = 99_999_999

_WINDOW_BITS: Final = {"gzip": 31, "deflate": 15}


class CallError(Exception):
    """
    A call ended without an answer. ``code`` is gRPC's status name, ``details`` its text.

    ``reached`` is False when the request certainly did not reach the executor's server. ``lost`` is True
    when the server was lost while it may have been working on the request.
    """

    def __init__(self, code: str, details: str, *, reached: bool = True, lost: bool = False) -> None:
        self.code = code
        self.details = details
        self.reached = reached
        self.lost = lost
        super().__init__(f"{code}: {details}")


class IllegalMetadata(Exception):
    """Metadata that an HTTP/2 header cannot carry."""


# -- what we send --------------------------------------------------------------------------------------


@attrs.frozen
class RequestHead:
    """The header block of calls to one path with the same metadata; the timeout goes between its halves."""

    before: bytes
    after: bytes
    whole: bytes

    @classmethod
    def of(
        cls,
        path: str,
        *,
        tls: bool,
        authority: str,
        agent: str,
        compression: str,
        metadata: Sequence[tuple[str, str | bytes]],
    ) -> RequestHead:
        """Raises IllegalMetadata."""
        before = [
            (b":method", b"POST"),
            (b":scheme", b"https" if tls else b"http"),
            (b":path", path.encode()),
            (b":authority", authority.encode()),
            (b"te", b"trailers"),
        ]
        after = [(b"content-type", b"application/grpc")]
        if compression != "none":
            after.append((b"grpc-encoding", compression.encode()))
        after += [(b"grpc-accept-encoding", b"identity, deflate, gzip"), (b"user-agent", agent.encode())]
        halves = encode(before), encode(after + [_field(*pair) for pair in metadata])
        return cls(*halves, b"".join(halves))

    def block(self, timeout_s: float | None) -> bytes:
        if timeout_s is None:
            return self.whole
        text = _timeout(timeout_s)
        return b"%b\0\x0cgrpc-timeout%c%b%b" % (self.before, len(text), text, self.after)


def _timeout(timeout_s: float) -> bytes:
    # At most eight digits. Rounded up, so that the server does not give up before we do.
    ms = int(timeout_s * 1000) + 1
    if ms <= _MAX_TIMEOUT:
        return b"%dm" % ms
    return b"%dS" % min(_MAX_TIMEOUT, int(timeout_s) + 1)


def _field(key: str, value: str | bytes) -> Field:
    name = key.lower()
    if not name or not all(char.isascii() and (char.isalnum() or char in "-_.") for char in name):
        raise IllegalMetadata(f"metadata cannot have the key {key!r}")
    if name.endswith("-bin"):
        content = value.encode() if isinstance(value, str) else value
        return name.encode(), base64.b64encode(content).rstrip(b"=")
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    if not value.isascii() or not value.isprintable():
        raise IllegalMetadata(f"{name} has characters that metadata cannot carry: {value[:80]!r}")
    return name.encode(), value.encode()


def encoded(headers: Headers) -> bytes:
    """What the headers of a client's request add to a header block (gRPC's doc/PROTOCOL-HTTP2.md)."""
    return encode((name.encode(), value.encode()) for name, value in headers)


def compress(message: bytes, compression: str) -> bytes:
    """Compress by ``gzip`` or ``deflate``; the latter is zlib's format, as in gRPC."""
    compressor = zlib.compressobj(wbits=_WINDOW_BITS[compression])
    return compressor.compress(message) + compressor.flush()


def prefix(size: int, *, compressed: bool) -> bytes:
    """The five bytes before a message of ``size`` bytes."""
    return (b"\1" if compressed else b"\0") + size.to_bytes(4, "big")


# -- what we receive -----------------------------------------------------------------------------------


@attrs.frozen
class AnswerHead:
    """
    One header block of an answer.

    ``http_status`` is None in trailers, and ``code`` in anything else. ``is_error`` is set when the executor
    raised (spec wire.md, gRPC metadata). ``headers`` are those that go back to the client.
    """

    http_status: int | None
    is_grpc: bool
    encoding: str
    code: str | None
    details: str
    is_error: bool
    headers: Headers = attrs.field(default=(), repr=False)

    @classmethod
    def of(cls, fields: Sequence[Field], forwarded: AllowList | None = None) -> AnswerHead:
        found = dict(fields)
        status = found.get(b":status", b"")
        code = found.get(b"grpc-status")
        return cls(
            http_status=int(status) if status.isdigit() and len(status) == 3 else None,
            is_grpc=found.get(b"content-type", b"application/grpc").startswith(b"application/grpc"),
            encoding=found.get(b"grpc-encoding", b"identity").decode("latin-1"),
            code=None if code is None else _code(code),
            details=unquote_to_bytes(found.get(b"grpc-message", b"")).decode("utf-8", "replace"),
            is_error=b"is-error" in found,
            headers=forwarded.of_answer(
                (name.decode("latin-1"), value.decode("latin-1")) for name, value in fields
            )
            if forwarded
            else (),
        )


def _code(text: bytes) -> str:
    number = int(text) if text.isdigit() and len(text) < 3 else 2
    return CODES[number] if number < len(CODES) else "UNKNOWN"


def expand(message: bytes, encoding: str, limit_bytes: int) -> bytes:
    """Undo ``compress``. Raises CallError if that is impossible, or the result too large."""
    try:
        expander = zlib.decompressobj(wbits=_WINDOW_BITS[encoding])
        expanded = expander.decompress(message, limit_bytes + 1)
        whole = expander.eof
    except KeyError:
        raise CallError("INTERNAL", f"an answer is compressed with {encoding[:80]!r}") from None
    except zlib.error as error:
        raise CallError("INTERNAL", f"an answer cannot be decompressed: {error}") from None
    if len(expanded) > limit_bytes:
        raise too_large(len(expanded), limit_bytes)
    if not whole:
        raise CallError("INTERNAL", "an answer cannot be decompressed: it ends too early")
    return expanded


class Unary(Stream):
    """
    One call. ``limit_bytes`` bounds the message of the answer.

    With ``stream`` the method may answer with several messages, and the first one is the answer: ``on_first``
    is called when it has arrived, and ``answered`` at the end of the stream, or after ``stop_waiting``.
    """

    __slots__ = (
        "_compressed",
        "_have",
        "_head",
        "_interim",
        "_message",
        "_need",
        "_parts",
        "_rest",
        "_stream",
        "limit_bytes",
        "over",
    )

    def __init__(
        self, block: bytes, lead: bytes, body: Content, limit_bytes: int, *, stream: bool = False
    ) -> None:
        Stream.__init__(self, block, lead, body)
        self.limit_bytes = limit_bytes
        self.over = False
        self._stream = stream
        self._head: AnswerHead | None = None
        self._interim = 0
        self._message: Content | None = None
        self._compressed = False
        # Bytes of the prefix, and then pieces of the message after it.
        self._rest = b""
        self._parts: list[Buffer] | None = None
        self._have = 0
        self._need = 0

    # -- the two outcomes -----------------------------------------------------------------------------

    def answered(
        self, message: Content, compressed: bool, encoding: str, is_error: bool, headers: Headers
    ) -> None:
        """The call has its answer, ``compressed`` with ``encoding`` or not."""
        raise NotImplementedError

    def failed(self, error: CallError) -> None:
        raise NotImplementedError

    def reset(self) -> None:
        """Reset the stream: it has not ended, and nothing more of it is needed."""
        raise NotImplementedError

    def on_first(self) -> None:
        """The first message of a stream has arrived, its trailers have not."""

    def stop_waiting(self) -> None:
        """Do not wait for the trailers of a stream whose first message has arrived."""
        if not self.over and self._message is not None:
            self.reset()
            self._answer()

    def give_up(self, error: CallError) -> None:
        """End the call with an error of ours."""
        if not self.over:
            self.reset()
            self._fail(error)

    # -- the stream -----------------------------------------------------------------------------------

    def on_headers(self, fields: AnswerHead, ended: bool) -> None:
        if self.over:
            return
        status = fields.http_status
        if status is not None and 100 <= status < 200 and not ended and self._head is None:
            self._interim += 1
            if self._interim > _MAX_INTERIM:
                self.give_up(CallError("INTERNAL", "the server goes on announcing an answer"))
            return
        if self._head is None:
            self._head = fields
            if status != 200 and fields.code is None:
                code = _OF_HTTP.get(status or 0, "UNKNOWN")
                self._end(CallError(code, f"Received http2 header with status: {status}"), ended)
            elif not fields.is_grpc and fields.code is None:
                self._end(CallError("UNKNOWN", "the server's answer is not gRPC"), ended)
            elif ended:
                self._finish(fields)
        elif ended:
            self._finish(fields)
        else:
            self._end(CallError("INTERNAL", "the server sends headers in the middle of an answer"), ended)

    def on_data(self, data: Buffer, ended: bool) -> None:
        if self.over:
            return
        if self._head is None:
            self._end(CallError("INTERNAL", "the server sends an answer without headers"), ended)
            return
        if self._parts is None:
            self._begin_message(data, ended)
        else:
            self._parts.append(data)
            self._have += len(data)
            if self._have >= self._need:
                self._end_message(ended)
        if ended and not self.over:
            self._end(CallError("INTERNAL", "the server ended its answer without a status"), ended)

    def on_broken(self, broken: Broken) -> None:
        if self.over:
            return
        code = "UNAVAILABLE" if broken.code is None else OF_RESET.get(broken.code, "UNAVAILABLE")
        if self._message is not None and self._stream:
            self._answer()
        else:
            lost = broken.reached and code == "UNAVAILABLE"
            self._fail(CallError(code, broken.why, reached=broken.reached, lost=lost))

    def _begin_message(self, data: Buffer, ended: bool) -> None:
        if self._message is not None:
            if data and not self._stream:
                self._end(CallError("INTERNAL", "the server sends more than one answer"), ended)
            return
        if self._rest:
            data = self._rest + data
        if len(data) < 5:
            self._rest = bytes(data)
            return
        size = int.from_bytes(data[1:5], "big")
        if size > self.limit_bytes:
            self._end(too_large(size, self.limit_bytes), ended)
        elif data[0] > 1:
            self._end(CallError("INTERNAL", "the server's answer is not gRPC"), ended)
        elif len(data) == 5 + size:
            self._compressed = data[0] == 1
            short = size <= LONG_BYTES and isinstance(data, bytes)
            self._message = bytes(data[5:]) if short else in_pieces([memoryview(data)[5:]])
            self._rest = b""
            if self._stream:
                self.on_first()
        else:
            self._compressed = data[0] == 1
            self._rest = b""
            self._parts = [memoryview(data)[5:]]
            self._have = len(data) - 5
            self._need = size
            if self._have >= size:
                self._end_message(ended)

    def _end_message(self, ended: bool) -> None:
        parts = self._parts or []
        self._parts = None
        surplus = self._have - self._need
        if surplus:
            if not self._stream:
                self._end(CallError("INTERNAL", "the server sends more than one answer"), ended)
                return
            parts[-1] = parts[-1][:-surplus]
        self._message = in_pieces(parts)
        if self._stream:
            self.on_first()

    def _finish(self, trailers: AnswerHead) -> None:
        code = trailers.code
        if self._stream and self._message is not None:
            # The status is ignored: it is about what came after the answer.
            self._answer(trailers)
        elif code is None:
            self._fail(CallError("INTERNAL", "the server ended its answer without a status"))
        elif code != "OK":
            self._fail(CallError(code, trailers.details))
        elif self._message is None:
            why = "the executor ended its stream without an answer" if self._stream else "there is no answer"
            self._fail(CallError("INTERNAL", why))
        else:
            self._answer(trailers)

    def _answer(self, trailers: AnswerHead | None = None) -> None:
        message, head = self._message, self._head
        assert message is not None
        assert head is not None
        self.over = True
        self._message = None
        if trailers is None:
            self.answered(message, self._compressed, head.encoding, False, head.headers)
        else:
            headers = head.headers + trailers.headers if trailers.headers else head.headers
            self.answered(message, self._compressed, head.encoding, trailers.is_error, headers)

    def _end(self, error: CallError, ended: bool) -> None:
        if not ended:
            self.reset()
        self._fail(error)

    def _fail(self, error: CallError) -> None:
        self.over = True
        self._parts = None
        self._message = None
        self.failed(error)


def too_large(size: int, limit_bytes: int) -> CallError:
    return CallError(
        "RESOURCE_EXHAUSTED", f"CLIENT: Received message larger than max ({size} vs. {limit_bytes})"
    )
