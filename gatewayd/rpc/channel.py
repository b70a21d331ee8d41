"""
One address: gRPC calls to an executor as Deferreds that can be cancelled. Reactor thread only.

``Channel`` is what the pool sees; it makes calls (``call.py``) over a connection that comes back when
it is lost (``link.py``, ``http2.py``; why they are ours: docs/decisions/http2-to-executors.md).
Executors are reached by ``process_single_data``; one that doesn't implement it is asked by ``Call`` (spec
wire.md, How a gateway learns what an executor serves: the reference asks reflection first, which costs a
round trip and fails on executors without it).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar

import attrs
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

import gatewayd
from gatewayd.clocks import Timer
from gatewayd.messages import wire
from gatewayd.messages.methods import DISCOVERY, LISTED, SINGLE, STREAM
from gatewayd.messages.request import Answer, Call
from gatewayd.pb import EndpointsProto
from gatewayd.rpc.call import (
    AnswerHead,
    CallError,
    IllegalMetadata,
    RequestHead,
    Unary,
    compress,
    expand,
    prefix,
)
from gatewayd.rpc.deadlines import Deadlines
from gatewayd.rpc.link import Link, LinkSettings, State

__all__ = ["CallError", "Channel", "ChannelSettings", "Metadata", "State"]

# What an executor without discovery is taken to serve: everything (spec wire.md).
EVERY_ENDPOINT: Final = ("/default",)

Metadata = tuple[tuple[str, str], ...]
T = TypeVar("T")

# How long a server may take to end a stream that it has answered.
_STREAM_END_S: Final = 0.5
# Compressing more than this takes longer than a thread of the pool costs.
_OFFLOAD_BYTES: Final = 1 << 15
# gRPC's timers and ours are not the same: a server that gave up this little early was out of time, too.
_NEARLY_LATE_S: Final = 0.05
_MAX_HEADS: Final = 256
_TOO_LATE: Final = "Deadline Exceeded"


class Offload(Protocol):
    """Runs a pure function where it does not hold up the reactor thread."""

    def __call__(self, function: Callable[..., T], /, *args: Any) -> Deferred[T]: ...


@attrs.frozen
class ChannelSettings:
    """
    How every call through one channel is made. ``metadata`` goes out before the endpoint's.

    ``host`` is the name that the address was resolved from: it stays the call's authority, and what the
    server's certificate must say. ``roots`` are PEM certificates, None for those of the platform.
    """

    tls: bool = False
    host: str | None = None
    roots: bytes | None = attrs.field(default=None, repr=False)
    compression: str = "none"
    metadata: Metadata = ()
    max_message_bytes: int = 1 << 30
    connect_timeout_s: float = 0.8
    reconnect_s: float = 0.1


class Channel:
    """
    ``on_state`` is called with each change of the connection.

    The channel connects at once and reconnects by itself until it is closed.
    """

    def __init__(
        self,
        reactor: Any,
        address: str,
        settings: ChannelSettings,
        on_state: Callable[[State], None],
        offload: Offload = maybeDeferred,
    ) -> None:
        self.address = address
        self.settings = settings
        self.clock = reactor
        self.offload = offload
        self.deadlines = Deadlines(reactor)
        self.unary_is_missing = False
        self._on_state = on_state
        host, _, port = address.rpartition(":")
        name = settings.host or host.strip("[]")
        self._authority = address if settings.host is None else f"{settings.host}:{port}"
        self._heads: dict[tuple[str, str], RequestHead] = {}
        self.link = Link(
            reactor,
            LinkSettings(
                address,
                name if settings.tls else None,
                settings.roots,
                settings.connect_timeout_s,
                settings.reconnect_s,
            ),
            AnswerHead.of,
            self._state_changed,
        )

    def call(self, call: Call, timeout_s: float | None) -> Deferred[Answer]:
        """
        Make one call. Fails with CallError, or wire.Malformed when the answer is no message.

        ``timeout_s`` becomes the call's gRPC deadline.
        """
        if call.listed:
            path, message = LISTED, wire.encode_call_list(call.messages)
        else:
            path, message = STREAM if self.unary_is_missing else SINGLE, call.messages[0]
        deadline_s = None if timeout_s is None else self.clock.seconds() + timeout_s
        exchange = _Exchange(self, path, call.endpoint, message, deadline_s, _answer)
        exchange.begin()
        return exchange.answer

    def endpoints(self, timeout_s: float) -> Deferred[tuple[str, ...]]:
        """Ask which endpoints the executor binds. Fails with CallError."""
        exchange = _Exchange(self, DISCOVERY, "", b"", self.clock.seconds() + timeout_s, _endpoints)
        exchange.begin()
        return exchange.answer

    def close(self) -> Deferred[None]:
        """End the connection; calls under way fail."""
        closed = self.link.close()
        self.deadlines.close()
        return closed

    def head(self, path: str, endpoint: str) -> RequestHead:
        """Raises IllegalMetadata."""
        head = self._heads.get((path, endpoint))
        if head is None:
            settings = self.settings
            metadata = () if path == DISCOVERY else settings.metadata
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
            # Endpoints come from clients: remember those of a Flow, not whatever a scanner makes up.
            if len(self._heads) < _MAX_HEADS:
                self._heads[path, endpoint] = head
        return head

    def _state_changed(self, state: State) -> None:
        if state == "ready":
            # Another process may listen there now.
            self.unary_is_missing = False
        self._on_state(state)


def _answer(message: bytes, is_error: bool) -> Answer:
    return wire.decode_answer(message, is_error=is_error)


def _endpoints(message: bytes, is_error: bool) -> tuple[str, ...]:
    return tuple(EndpointsProto.FromString(message).endpoints)


class _Exchange(Unary):
    """A call on its channel, from the Deferred that somebody waits for to the Deferred's answer."""

    __slots__ = (
        "_channel",
        "_deadline_s",
        "_decode",
        "_endpoint",
        "_path",
        "_patience",
        "_request",
        "_successor",
        "_tick",
        "answer",
    )

    def __init__(
        self,
        channel: Channel,
        path: str,
        endpoint: str,
        message: bytes,
        deadline_s: float | None,
        decode: Callable[[bytes, bool], Any],
        answer: Deferred[Any] | None = None,
    ) -> None:
        Unary.__init__(self, b"", b"", b"", channel.settings.max_message_bytes, stream=path is STREAM)
        self._channel = channel
        self._path = path
        self._endpoint = endpoint
        self._request = message
        self._deadline_s = deadline_s
        self._decode = decode
        self._patience: Timer | None = None
        self._successor: _Exchange | None = None
        self._tick = 0
        self.answer: Deferred[Any] = Deferred(self._left) if answer is None else answer

    def begin(self) -> None:
        """Send it, now or when it is compressed and there is a connection."""
        deadline_s, channel = self._deadline_s, self._channel
        if deadline_s is not None:
            self._tick = channel.deadlines.add(self, deadline_s)
        compression = channel.settings.compression
        message = self._request
        if compression == "none" or not message:
            self._send(message, compressed=False)
        elif len(message) <= _OFFLOAD_BYTES:
            self._send_compressed(compress(message, compression))
        else:
            compressing = channel.offload(compress, message, compression)
            compressing.addCallback(self._send_compressed).addErrback(self._broken)

    def too_late(self) -> None:
        """The deadline has passed."""
        self.give_up(CallError("DEADLINE_EXCEEDED", _TOO_LATE))

    def _send_compressed(self, compressed: bytes) -> None:
        smaller = len(compressed) < len(self._request)
        self._send(compressed if smaller else self._request, compressed=smaller)

    def _send(self, content: bytes, *, compressed: bool) -> None:
        if self.over:  # cancelled, or too late, while it was compressed
            return
        channel, left_s = self._channel, None
        if self._deadline_s is not None:
            left_s = self._deadline_s - channel.clock.seconds()
        try:
            self.block = channel.head(self._path, self._endpoint).block(left_s)
        except IllegalMetadata as error:
            self.over = True
            self.failed(CallError("INVALID_ARGUMENT", str(error)))
            return
        self.lead = prefix(len(content), compressed=compressed)
        self.body = content
        channel.link.start(self)

    # -- Unary's --------------------------------------------------------------------------------------

    def answered(self, message: bytes, compressed: bool, encoding: str, is_error: bool) -> None:
        self._stop_timers()
        if self._path is STREAM:
            # Remembered only now: until it has answered one, nothing says that Call is there.
            self._channel.unary_is_missing = True
        if not compressed:
            self._deliver(message, is_error)
            return
        limit_bytes = self.limit_bytes
        if len(message) <= _OFFLOAD_BYTES:
            expanding = maybeDeferred(expand, message, encoding, limit_bytes)
        else:
            expanding = self._channel.offload(expand, message, encoding, limit_bytes)
        expanding.addCallback(self._deliver, is_error).addErrback(self._broken)

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
                self.answer,
            )
            successor.begin()
            return
        if error.code == "UNIMPLEMENTED" and self._path is DISCOVERY:
            self.answer.callback(EVERY_ENDPOINT)
            return
        late_s = self._deadline_s
        if (
            error.code == "CANCELLED"
            and late_s is not None
            and self._channel.clock.seconds() >= late_s - _NEARLY_LATE_S
        ):
            # How servers end what took too long, where their clock was the faster one.
            error = CallError("DEADLINE_EXCEEDED", _TOO_LATE)
        self.answer.errback(error)

    def reset(self) -> None:
        self._channel.link.cancel(self)

    def first(self) -> None:
        self._patience = self._channel.clock.callLater(_STREAM_END_S, self.enough)

    # -------------------------------------------------------------------------------------------------

    def _deliver(self, message: bytes, is_error: bool) -> None:
        answer = self.answer
        if answer.called:  # cancelled while it was expanded
            return
        try:
            decoded = self._decode(message, is_error)
        except Exception as error:
            # Without the frames, which hold whole messages.
            answer.errback(error.with_traceback(None))
            return
        answer.callback(decoded)

    def _broken(self, failure: Failure) -> None:
        if not self.answer.called:
            self.answer.errback(failure)

    def _stop_timers(self) -> None:
        if self._tick:
            self._channel.deadlines.remove(self, self._tick)
        if self._patience is not None and self._patience.active():
            self._patience.cancel()

    def _left(self, _: Deferred[Any]) -> None:
        exchange = self._successor or self
        exchange._stop_timers()
        exchange.over = True
        exchange.reset()
