"""
One address: gRPC calls to an executor as Deferreds that can be cancelled. Reactor thread only.

``Channel`` is what the pool sees; it makes calls (``call.py``) over a connection that is restored when
it is lost (``link.py``, ``http2.py``; why they are ours: docs/decisions/http2-to-executors.md).
Executors are called by ``process_single_data``; those that do not implement it by ``Call`` (spec wire.md,
How a gateway learns what an executor serves: the reference asks reflection first, which costs a round trip
and fails on executors without it).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import attrs
from twisted.internet.defer import CancelledError, Deferred, DeferredList, maybeDeferred
from twisted.python.failure import Failure

import gatewayd
from gatewayd.clocks import Connector, Timer
from gatewayd.deadlines import has_passed
from gatewayd.messages import wire
from gatewayd.messages.discovery import DEFAULT, Told
from gatewayd.messages.endpoints_codec import read_endpoints
from gatewayd.messages.headers import AllowList, Headers
from gatewayd.messages.methods import DISCOVERY, LISTED, SINGLE, STREAM, STREAM_DOC
from gatewayd.messages.request import Answer, Call
from gatewayd.messages.rope import Content
from gatewayd.messages.single import decode_single_answer
from gatewayd.offload import Offload, is_small
from gatewayd.rpc.call import (
    AnswerHead,
    CallError,
    IllegalMetadata,
    RequestHead,
    Unary,
    compress,
    encoded,
    expand,
    prefix,
)
from gatewayd.rpc.http2 import Limits
from gatewayd.rpc.link import Link, LinkSettings, State
from gatewayd.rpc.streaming import WINDOW_BYTES, PulledCall
from gatewayd.rpc.timeouts import Timeouts
from gatewayd.rpc.turns import Line, Turns
from gatewayd.schemes import socket_path
from gatewayd.tls.outgoing import CallTls

__all__ = ["CallError", "Channel", "ChannelSettings", "Metadata", "State"]

# An executor without discovery is taken to serve everything (spec wire.md).
EVERY_ENDPOINT: Final = Told({DEFAULT: ""})

Metadata = tuple[tuple[str, str], ...]

# How long a server may take to end a stream that it has answered.
_STREAM_END_S: Final = 0.5
_MAX_HEADS: Final = 256
_TOO_LATE: Final = "Deadline Exceeded"
_LEFT: Final = "the connection was lost before the request was sent"


@attrs.frozen
class ChannelSettings:
    """
    How every call through one channel is made. ``metadata`` is sent before the endpoint's; ``credentials``
    also when the server is asked for its endpoints.

    ``host`` is the name that the address was resolved from: it stays the call's authority, and the name that
    the server's certificate must have, unless there is a ``tls_name``. The channels of a
    deployment share ``call_tls``. ``max_pings`` and ``line`` are as in ``LinkSettings``. ``forwarded`` are
    the headers of answers that are read.
    """

    tls: bool = False
    host: str | None = None
    tls_name: str | None = None
    call_tls: CallTls = attrs.field(factory=CallTls, repr=False)
    compression: str = "none"
    metadata: Metadata = attrs.field(default=(), repr=False)
    credentials: Metadata = attrs.field(default=(), repr=False)
    forwarded: AllowList = attrs.field(factory=AllowList)
    max_message_bytes: int = 1 << 30
    connect_timeout_s: float = 0.8
    reconnect_s: float = 0.1
    max_pings: int = 0
    line: Line = attrs.field(factory=lambda: Turns().line(), eq=False, repr=False)


class Channel:
    """
    ``on_state`` is called with each change of the connection.

    The channel connects as soon as it is its turn, and reconnects by itself until it is closed. A call that
    is begun where there is a connection goes out over no later one: another process may be at its end, of
    which the caller knows nothing. ``epoch`` counts the changes of the connection; while one is being made
    it is -1.
    """

    def __init__(
        self,
        reactor: Connector,
        address: str,
        settings: ChannelSettings,
        on_state: Callable[[State], None],
        offload: Offload = maybeDeferred,
    ) -> None:
        self.address = address
        self.settings = settings
        self.clock = reactor
        self.offload = offload
        self.timeouts = Timeouts(reactor)
        self.unary_is_missing = False
        self.epoch = -1
        self._changes = 0
        self._on_state = on_state
        self._stream_link: Link | None = None
        host, _, port = address.rpartition(":")
        name = settings.host or host.strip("[]")
        if settings.host is not None:
            self._authority = f"{settings.host}:{port}"
        else:
            # As gRPC calls a server at a Unix socket.
            self._authority = address if socket_path(address) is None else "localhost"
        self._heads: dict[tuple[str, str], RequestHead] = {}
        self._link_settings = LinkSettings(
            address,
            (settings.tls_name or name) if settings.tls else None,
            settings.call_tls,
            settings.connect_timeout_s,
            settings.reconnect_s,
            settings.max_pings,
            settings.line,
        )
        self._read = (
            partial(AnswerHead.of, forwarded=settings.forwarded) if settings.forwarded else AnswerHead.of
        )
        self.link = Link(reactor, self._link_settings, self._read, self._state_changed)

    def call(self, call: Call, timeout_s: float | None) -> Deferred[Answer]:
        """Make one call. The Deferred, which may be cancelled, ends as the callbacks of ``prepare`` say."""
        answer: Deferred[Answer] = Deferred(lambda _: exchange.cancel())
        exchange = self.prepare(call, timeout_s, answer.callback, answer.errback)
        exchange.begin()
        return answer

    def prepare(
        self,
        call: Call,
        timeout_s: float | None,
        on_answer: Callable[[Answer], object],
        on_failure: Callable[[Exception], object],
    ) -> _Exchange:
        """
        One call, which is made by its ``begin`` and given up by its ``cancel``.

        It ends with exactly one of ``on_answer`` and ``on_failure``, which may not raise: with a CallError,
        with wire.Malformed when the answer cannot be parsed, with CancelledError after ``cancel``.
        ``timeout_s`` becomes the call's gRPC deadline.
        """
        if call.listed:
            path, message = LISTED, wire.encode_call_list(call.messages)
        else:
            path, message = STREAM if self.unary_is_missing else SINGLE, call.messages[0]
        deadline_s = None if timeout_s is None else self.clock.seconds() + timeout_s
        return _Exchange(
            self,
            path,
            call.endpoint,
            message,
            deadline_s,
            wire.decode_answer,
            on_answer,
            on_failure,
            call.headers,
        )

    def stream(
        self,
        call: Call,
        gap_s: float | None,
        left_s: float | None,
        on_answer: Callable[[Answer], object],
        on_end: Callable[[], object],
        on_failure: Callable[[Exception], object],
        on_closed: Callable[[], object],
    ) -> _PulledExchange:
        """
        A call of ``stream_doc`` with the SingleDocumentRequestProto that is the only message of ``call``.

        ``begin`` makes it and asks for the first answer, ``pull`` for each that follows, and ``cancel``
        gives it up. ``more`` gives those that are there, when none is asked for. What was asked for ends in
        exactly one of ``on_answer``, ``on_end`` and ``on_failure``, which may not raise; errors are those of
        ``prepare``. An answer that is asked for may take ``gap_s`` seconds; ``left_s`` bounds all of
        them, as the call's gRPC deadline. ``on_closed`` is called when the server has ended the call and
        something is left to be asked for.
        """
        return _PulledExchange(self, call, gap_s, left_s, on_answer, on_end, on_failure, on_closed)

    @property
    def stream_link(self) -> Link:
        """
        A connection for streams alone, made for the first of them.

        How much of a stream may arrive unasked is a setting of the whole connection, and large single answers
        need more of it.
        """
        link = self._stream_link
        if link is None:
            limits = Limits(stream_window_bytes=WINDOW_BYTES)
            link = self._stream_link = Link(
                self.clock, self._link_settings, self._read, lambda _: None, limits=limits
            )
        return link

    def endpoints(self, timeout_s: float) -> Deferred[Told]:
        """Ask which endpoints the executor binds. Fails with CallError."""
        deadline_s = self.clock.seconds() + timeout_s
        answer: Deferred[Told] = Deferred(lambda _: exchange.cancel())
        exchange = _Exchange(
            self, DISCOVERY, "", b"", deadline_s, _endpoints, answer.callback, answer.errback, ()
        )
        exchange.begin()
        return answer

    def close(self) -> Deferred[None]:
        """End the connection; calls under way fail."""
        closed = self.link.close()
        if self._stream_link is not None:
            both = DeferredList([closed, self._stream_link.close()], fireOnOneErrback=True)
            closed = both.addCallback(lambda _: None)
        self.timeouts.close()
        return closed

    def head(self, path: str, endpoint: str) -> RequestHead:
        """Raises IllegalMetadata."""
        head = self._heads.get((path, endpoint))
        if head is None:
            settings = self.settings
            metadata = settings.credentials
            if path != DISCOVERY:
                metadata = (*metadata, *settings.metadata)
            if endpoint:
                metadata = (*metadata, ("endpoint", endpoint))
            head = RequestHead.of(
                path,
                tls=settings.tls,
                authority=self._authority,
                agent=f"gatewayd/{gatewayd.__version__}",
                compression=settings.compression,
                metadata=metadata,
            )
            # Endpoints come from clients: remember those of a Flow, not all that a scanner makes up.
            if len(self._heads) < _MAX_HEADS:
                self._heads[path, endpoint] = head
        return head

    def _state_changed(self, state: State) -> None:
        self._changes += 1
        self.epoch = -1 if state == "connecting" else self._changes
        if state == "ready":
            # It may be another process now.
            self.unary_is_missing = False
        self._on_state(state)
        if state != "ready" and self._stream_link is not None:
            self._stream_link.break_waiting(_LEFT)


def _endpoints(message: Content, is_error: bool, headers: Headers) -> Told:
    return read_endpoints(bytes(message))


class _Exchange(Unary):
    """A call on its channel (``Channel.prepare``)."""

    __slots__ = (
        "_channel",
        "_deadline_s",
        "_decode",
        "_delivered",
        "_endpoint",
        "_epoch",
        "_headers",
        "_on_answer",
        "_on_failure",
        "_path",
        "_request",
        "_successor",
        "_tick",
        "_trailers_timer",
    )

    def __init__(
        self,
        channel: Channel,
        path: str,
        endpoint: str,
        message: Content,
        deadline_s: float | None,
        decode: Callable[[Content, bool, Headers], Any],
        on_answer: Callable[[Any], object],
        on_failure: Callable[[Exception], object],
        headers: Headers,
    ) -> None:
        Unary.__init__(self, b"", b"", b"", channel.settings.max_message_bytes, stream=path is STREAM)
        self._channel = channel
        self._epoch = channel.epoch
        self._path = path
        self._endpoint = endpoint
        self._request = message
        self._deadline_s = deadline_s
        self._decode = decode
        self._headers = headers
        self._trailers_timer: Timer | None = None
        self._successor: _Exchange | None = None
        self._tick = 0
        self._delivered = False
        self._on_answer = on_answer
        self._on_failure = on_failure

    def begin(self) -> None:
        """Send the request as soon as it is compressed and there is a connection."""
        deadline_s, channel = self._deadline_s, self._channel
        if deadline_s is not None:
            self._tick = channel.timeouts.add(self, deadline_s)
        compression = channel.settings.compression
        message = self._request
        if compression == "none" or not message:
            self._send(message, compressed=False)
        elif is_small(len(message)):
            self._send_compressed(compress(bytes(message), compression))
        else:
            compressing = channel.offload(compress, bytes(message), compression)
            compressing.addCallback(self._send_compressed).addErrback(self._broken)

    def cancel(self) -> None:
        """Unless it has ended, it ends now, and fails with CancelledError."""
        exchange = self._successor or self
        if not exchange._delivered:
            exchange._stop_timers()
            exchange.over = True
            exchange.reset()
            exchange._fail_with(CancelledError())

    def too_late(self) -> None:
        """The deadline has passed."""
        self.give_up(CallError("DEADLINE_EXCEEDED", _TOO_LATE))

    def _send_compressed(self, compressed: bytes) -> None:
        smaller = len(compressed) < len(self._request)
        self._send(compressed if smaller else self._request, compressed=smaller)

    def _send(self, content: Content, *, compressed: bool) -> None:
        if self.over:  # cancelled, or out of time, while it was compressed
            return
        channel, left_s = self._channel, None
        if self._epoch not in (-1, channel.epoch) and self._path is not DISCOVERY:
            self.over = True
            self.failed(CallError("UNAVAILABLE", _LEFT, reached=False))
            return
        if self._deadline_s is not None:
            left_s = self._deadline_s - channel.clock.seconds()
        try:
            block = channel.head(self._path, self._endpoint).block(left_s)
            self.block = block + encoded(self._headers) if self._headers else block
        except IllegalMetadata as error:
            self.over = True
            self.failed(CallError("INVALID_ARGUMENT", str(error)))
            return
        self.lead = prefix(len(content), compressed=compressed)
        self.body = content
        channel.link.start(self)

    # -- Unary ----------------------------------------------------------------------------------------

    def answered(
        self, message: Content, compressed: bool, encoding: str, is_error: bool, headers: Headers
    ) -> None:
        if self._tick or self._trailers_timer is not None:
            self._stop_timers()
        if self._path is STREAM:
            # Remembered only now: before its first answer, nothing shows that Call is implemented.
            self._channel.unary_is_missing = True
        if not compressed:
            self._deliver(message, is_error, headers)
            return
        limit_bytes = self.limit_bytes
        if is_small(len(message)):
            expanding = maybeDeferred(expand, bytes(message), encoding, limit_bytes)
        else:
            expanding = self._channel.offload(expand, bytes(message), encoding, limit_bytes)
        expanding.addCallback(self._deliver, is_error, headers).addErrback(self._broken)

    def failed(self, error: CallError) -> None:
        self._stop_timers()
        if error.code == "UNIMPLEMENTED" and self._path is SINGLE:
            successor = self._successor = _Exchange(
                self._channel,
                STREAM,
                self._endpoint,
                self._request,
                self._deadline_s,
                self._decode,
                self._on_answer,
                self._on_failure,
                self._headers,
            )
            successor._epoch = self._epoch
            successor.begin()
            return
        if error.code == "UNIMPLEMENTED" and self._path is DISCOVERY:
            self._delivered = True
            self._on_answer(EVERY_ENDPOINT)
            return
        if error.code == "CANCELLED" and has_passed(self._deadline_s, self._channel.clock.seconds()):
            # Servers end calls like this when their timer fires before ours.
            error = CallError("DEADLINE_EXCEEDED", _TOO_LATE)
        self._fail_with(error)

    def reset(self) -> None:
        self._channel.link.cancel(self)

    def on_first(self) -> None:
        self._trailers_timer = self._channel.clock.callLater(_STREAM_END_S, self.stop_waiting)

    # -------------------------------------------------------------------------------------------------

    def _deliver(self, message: Content, is_error: bool, headers: Headers) -> None:
        if self._delivered:  # cancelled while it was expanded
            return
        try:
            decoded = self._decode(message, is_error, headers)
        except Exception as error:
            # Without the traceback, whose frames hold whole messages.
            self._fail_with(error.with_traceback(None))
            return
        self._delivered = True
        self._on_answer(decoded)

    def _fail_with(self, error: Exception) -> None:
        if not self._delivered:
            self._delivered = True
            self._on_failure(error)

    def _broken(self, failure: Failure) -> None:
        assert isinstance(failure.value, Exception)
        self._fail_with(failure.value)

    def _stop_timers(self) -> None:
        if self._tick:
            self._channel.timeouts.remove(self, self._tick)
        if self._trailers_timer is not None and self._trailers_timer.active():
            self._trailers_timer.cancel()


class _PulledExchange(PulledCall):
    """A call of ``stream_doc`` on its channel (``Channel.stream``)."""

    __slots__ = (
        "_call",
        "_channel",
        "_deadline_s",
        "_epoch",
        "_gap_s",
        "_given",
        "_headers",
        "_on_answer",
        "_on_closed",
        "_on_end",
        "_on_failure",
        "_tick",
    )

    def __init__(
        self,
        channel: Channel,
        call: Call,
        gap_s: float | None,
        left_s: float | None,
        on_answer: Callable[[Answer], object],
        on_end: Callable[[], object],
        on_failure: Callable[[Exception], object],
        on_closed: Callable[[], object],
    ) -> None:
        PulledCall.__init__(self, b"", b"", b"", channel.settings.max_message_bytes)
        self._channel = channel
        self._epoch = channel.epoch
        self._call = call
        self._gap_s = gap_s
        self._deadline_s = None if left_s is None else channel.clock.seconds() + left_s
        self._given = False  # nothing may be called back any more
        self._headers: Headers | None = None
        self._tick = 0
        self._on_answer = on_answer
        self._on_end = on_end
        self._on_failure = on_failure
        self._on_closed = on_closed

    def begin(self) -> None:
        """Send the request as soon as it is compressed and there is a connection."""
        channel, message = self._channel, self._call.messages[0]
        compression = channel.settings.compression
        self.pull()
        if compression == "none" or not message:
            self._send(message, compressed=False)
        elif is_small(len(message)):
            self._send_compressed(compress(bytes(message), compression))
        else:
            compressing = channel.offload(compress, bytes(message), compression)
            compressing.addCallback(self._send_compressed).addErrback(self._broken)

    def more(self, most: int) -> list[Answer]:
        """Up to ``most`` of the answers that have come with the one before, maybe none."""
        if not self._messages or self._given or self._headers is None:
            return []
        return self.take(most, decode_single_answer)

    def cancel(self) -> None:
        """Unless it has ended, it ends now; an answer that is asked for fails with CancelledError."""
        if not self._given:
            self._given = True
            self._stop_timer()
            self.drop()
            if self.waiting:
                self._on_failure(CancelledError())

    def too_late(self) -> None:
        """The answer that is asked for has taken too long."""
        self._tick = 0
        self.give_up(CallError("DEADLINE_EXCEEDED", _TOO_LATE))

    def _send_compressed(self, compressed: bytes) -> None:
        message = self._call.messages[0]
        smaller = len(compressed) < len(message)
        self._send(compressed if smaller else message, compressed=smaller)

    def _send(self, content: Content, *, compressed: bool) -> None:
        if self.over:
            return
        channel, call, left_s = self._channel, self._call, None
        if self._epoch not in (-1, channel.epoch):
            self._fail(CallError("UNAVAILABLE", _LEFT, reached=False))
            return
        if self._deadline_s is not None:
            left_s = max(0.0, self._deadline_s - channel.clock.seconds())
        try:
            block = channel.head(STREAM_DOC, call.endpoint).block(left_s)
            self.block = block + encoded(call.headers) if call.headers else block
        except IllegalMetadata as error:
            self._fail(CallError("INVALID_ARGUMENT", str(error)))
            return
        self.lead = prefix(len(content), compressed=compressed)
        self.body = content
        channel.stream_link.start(self)

    # -- PulledCall -----------------------------------------------------------------------------------

    def on_waiting(self) -> None:
        if self._gap_s is not None and not self._tick:
            deadline_s = self._channel.clock.seconds() + self._gap_s
            self._tick = self._channel.timeouts.add(self, deadline_s)

    def on_message(self, message: Content, compressed: bool, encoding: str, headers: Headers) -> None:
        if self._tick:
            self._stop_timer()
        # Those of the head belong to the first answer.
        headers = headers if self._headers is None else ()
        self._headers = headers
        if not compressed:
            self._deliver(message, headers)
            return
        limit_bytes = self.limit_bytes
        if is_small(len(message)):
            expanding = maybeDeferred(expand, bytes(message), encoding, limit_bytes)
        else:
            expanding = self._channel.offload(expand, bytes(message), encoding, limit_bytes)
        expanding.addCallback(self._deliver, headers).addErrback(self._broken)

    def on_end(self, error: CallError | None) -> None:
        self._stop_timer()
        if self._given:
            return
        self._given = True
        if error is None:
            self._on_end()
            return
        if error.code == "CANCELLED" and has_passed(self._deadline_s, self._channel.clock.seconds()):
            # Servers end calls like this when their timer fires before ours.
            error = CallError("DEADLINE_EXCEEDED", _TOO_LATE)
        self._on_failure(error)

    def on_closed(self) -> None:
        if not self._given:
            self._on_closed()

    def reset(self) -> None:
        self._channel.stream_link.cancel(self)

    # -------------------------------------------------------------------------------------------------

    def _deliver(self, message: Content, headers: Headers) -> None:
        if self._given:  # cancelled while it was expanded
            return
        try:
            decoded = decode_single_answer(message, headers)
        except Exception as error:
            # Without the traceback, whose frames hold whole messages.
            self._fail_with(error.with_traceback(None))
            return
        self._on_answer(decoded)

    def _broken(self, failure: Failure) -> None:
        assert isinstance(failure.value, Exception)
        self._fail_with(failure.value)

    def _fail_with(self, error: Exception) -> None:
        if not self._given:
            self._given = True
            self._stop_timer()
            self.drop()
            self._on_failure(error)

    def _stop_timer(self) -> None:
        if self._tick:
            self._channel.timeouts.remove(self, self._tick)
            self._tick = 0
