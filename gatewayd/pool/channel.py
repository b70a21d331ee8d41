"""
One address: gRPC calls to an executor as Deferreds that can be cancelled.

The reactor's half (``Channel``) is what the pool sees; the loop's half (``_Stubs``) owns the
``grpc.aio`` channel and is touched by the loop thread alone. gRPC's errors become ``CallError`` here
and go no further. Executors are reached by ``process_single_data``; one that doesn't implement it is
asked by ``Call`` (spec wire.md, How a gateway learns what an executor serves: the
reference asks reflection first, which costs a round trip and fails on executors without it).
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final, Literal

import attrs
import grpc
import grpc.aio
from twisted.internet.defer import Deferred

from gatewayd import wire
from gatewayd.bridge import Bridge
from gatewayd.pb import EndpointsProto
from gatewayd.request import Answer, Call

SINGLE: Final = "/jina.JinaSingleDataRequestRPC/process_single_data"
LISTED: Final = "/jina.JinaDataRequestRPC/process_data"
STREAM: Final = "/jina.JinaRPC/Call"
DISCOVERY: Final = "/jina.JinaDiscoverEndpointsRPC/endpoint_discovery"

# What an executor without discovery is taken to serve: everything (spec wire.md).
EVERY_ENDPOINT: Final = ("/default",)

State = Literal["connecting", "ready", "failed"]
Metadata = tuple[tuple[str, str], ...]

# How long a server may take to end a stream that it has answered.
_STREAM_END_S: Final = 0.5

# How often a connection is looked at where gRPC cannot be waited for.
_LOOK_AGAIN_S: Final = 0.1

_BROKEN: Final = ("Stream removed", "Received RST_STREAM", "RST_STREAM")
_NOT_REACHED: Final = ("failed to connect to all addresses", "DNS resolution failed", "empty address list")

_COMPRESSIONS: Final = {
    "none": grpc.Compression.NoCompression,
    "gzip": grpc.Compression.Gzip,
    "deflate": grpc.Compression.Deflate,
}


class CallError(Exception):
    """
    A call that brought no answer: gRPC's status name and text.

    ``reached`` is False when the request surely never got to the executor's server.
    """

    def __init__(self, code: str, details: str, *, reached: bool = True) -> None:
        self.code = code
        self.details = details
        self.reached = reached
        super().__init__(f"{code}: {details}")


@attrs.frozen
class ChannelSettings:
    """
    How every call through one channel is made. ``metadata`` goes out before the endpoint's.

    ``host`` is the name that the address was resolved from: it stays the call's authority, and what the
    server's certificate must say. ``roots`` are PEM certificates, None for those that gRPC brings.
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
    The reactor's half. ``on_state`` is called on the reactor with each change of the connection.

    The channel connects at once and reconnects by itself until it is closed.
    """

    def __init__(
        self, bridge: Bridge, address: str, settings: ChannelSettings, on_state: Callable[[State], None]
    ) -> None:
        self.address = address
        self._bridge = bridge
        self._settings = settings
        self._stubs = _Stubs(bridge, address, settings, on_state)
        self._metadata: dict[str, Metadata] = {}
        bridge.tell_loop(self._stubs.open)

    def call(self, call: Call, timeout_s: float | None) -> Deferred[Answer]:
        """
        Make one call. Fails with CallError, or wire.Malformed when the answer is no message.

        ``timeout_s`` becomes the call's gRPC deadline.
        """
        metadata = self._metadata.get(call.endpoint)
        if metadata is None:
            metadata = self._settings.metadata
            if call.endpoint:
                metadata = (*metadata, ("endpoint", call.endpoint))
            # Endpoints come from clients: remember those of a Flow, not whatever a scanner makes up.
            if len(self._metadata) < 256:
                self._metadata[call.endpoint] = metadata
        answer = self._bridge.on_loop(self._stubs.call, call, timeout_s, metadata)
        return answer.addCallback(_decode)

    def endpoints(self, timeout_s: float) -> Deferred[tuple[str, ...]]:
        """Ask which endpoints the executor binds. Fails with CallError."""
        return self._bridge.on_loop(self._stubs.endpoints, timeout_s)

    def close(self) -> Deferred[None]:
        """End the connection; calls under way fail."""
        return self._bridge.on_loop(self._stubs.close)


def _decode(reply: tuple[bytes, bool]) -> Answer:
    message, is_error = reply
    return wire.decode_answer(message, is_error=is_error)


class _Stubs:
    """The loop's half: everything here runs on the loop thread."""

    def __init__(
        self, bridge: Bridge, address: str, settings: ChannelSettings, on_state: Callable[[State], None]
    ) -> None:
        self._bridge = bridge
        self._address = address
        self._settings = settings
        self._on_state = on_state
        self._compression = _COMPRESSIONS[settings.compression]
        self._channel: Any = None
        self._watcher: Any = None
        self._unary_is_missing = False

    def open(self) -> None:
        reconnect_ms = round(self._settings.reconnect_s * 1000)
        options: list[tuple[str, Any]] = [
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", self._settings.max_message_bytes),
            # One millisecond less than executors allow between pings (spec wire.md, Options).
            ("grpc.keepalive_time_ms", 9999),
            ("grpc.keepalive_timeout_ms", 4999),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.initial_reconnect_backoff_ms", reconnect_ms),
            ("grpc.max_reconnect_backoff_ms", reconnect_ms),
            # Despite its name, what gRPC allows one attempt: TCP, TLS and the server's first frame.
            ("grpc.min_reconnect_backoff_ms", round(self._settings.connect_timeout_s * 1000)),
            # Shared subchannels would share their backoff, too: a new channel has to connect at once.
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_http_proxy", 0),
        ]
        if self._settings.host is not None:
            port = self._address.rpartition(":")[2]
            options.append(("grpc.default_authority", f"{self._settings.host}:{port}"))
        if self._settings.tls:
            if self._settings.host is not None:
                options.append(("grpc.ssl_target_name_override", self._settings.host))
            credentials = grpc.ssl_channel_credentials(self._settings.roots)
            self._channel = grpc.aio.secure_channel(self._address, credentials, options)
        else:
            self._channel = grpc.aio.insecure_channel(self._address, options)
        self._single = self._channel.unary_unary(SINGLE)
        self._listed = self._channel.unary_unary(LISTED)
        self._stream = self._channel.stream_stream(STREAM)
        self._discovery = self._channel.unary_unary(DISCOVERY)
        self._watcher = self._bridge.spawn_on_loop(self._watch())

    async def close(self) -> None:
        self._watcher.cancel()
        await self._channel.close()

    async def call(self, call: Call, timeout_s: float | None, metadata: Metadata) -> tuple[bytes, bool]:
        """The answer's bytes, and whether its trailing metadata say that the executor raised."""
        try:
            if call.listed:
                return await self._unary(
                    self._listed, wire.encode_call_list(call.messages), timeout_s, metadata
                )
            if not self._unary_is_missing:
                try:
                    return await self._unary(self._single, call.messages[0], timeout_s, metadata)
                except grpc.aio.AioRpcError as error:
                    if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                        raise
            return await self._streamed(call.messages[0], timeout_s, metadata)
        except grpc.aio.AioRpcError as error:
            raise _translated(error) from None

    async def _unary(
        self, stub: Any, message: bytes, timeout_s: float | None, metadata: Metadata
    ) -> tuple[bytes, bool]:
        call = stub(message, timeout=timeout_s, metadata=metadata, compression=self._compression)
        answer: bytes = await call
        return answer, _has_error_flag(await call.trailing_metadata())

    async def _streamed(
        self, message: bytes, timeout_s: float | None, metadata: Metadata
    ) -> tuple[bytes, bool]:
        async def only() -> AsyncIterator[bytes]:
            yield message

        call = self._stream(only(), timeout=timeout_s, metadata=metadata, compression=self._compression)
        answer = await call.read()
        if answer is grpc.aio.EOF:
            raise CallError("INTERNAL", "the executor ended its stream without an answer")
        # Remembered only now: until it has answered one, nothing says that Call is there.
        self._unary_is_missing = True
        try:
            trailing = await asyncio.wait_for(call.trailing_metadata(), _STREAM_END_S)
        except TimeoutError:
            # We have ended our half; a server that keeps its own open has said all we asked for.
            call.cancel()
            trailing = None
        return answer, _has_error_flag(trailing)

    async def endpoints(self, timeout_s: float) -> tuple[str, ...]:
        try:
            answer = await self._discovery(b"", timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                return EVERY_ENDPOINT
            raise _translated(error) from None
        return tuple(EndpointsProto.FromString(answer).endpoints)

    async def _watch(self) -> None:
        told: State | None = None
        asked_s = float("-inf")
        loop = asyncio.get_running_loop()
        while True:
            state = self._channel.get_state(False)
            if state is grpc.ChannelConnectivity.SHUTDOWN:
                return
            name = _STATES[state]
            if name == "ready":
                # Another process may listen there now.
                self._unary_is_missing = False
            # A failed channel flaps to connecting with every try; it stays failed until it is ready.
            if name != told and not (told == "failed" and name == "connecting"):
                told = name
                self._bridge.tell_reactor(self._on_state, name)
            if state is grpc.ChannelConnectivity.IDLE:
                # gRPC forgets its backoff with each success: a server that greets and hangs up, again and
                # again, would keep us busy.
                pause_s = asked_s + self._settings.reconnect_s - loop.time()
                if pause_s > 0:
                    await asyncio.sleep(pause_s)
                asked_s = loop.time()
                # Nothing but a call would connect it otherwise. The answer is the state it was in.
                state = self._channel.get_state(True)
            await self._channel.wait_for_state_change(state)
            if sys.flags.optimize:
                # python -O leaves out the waiting in gRPC's method, which is part of an assert there.
                await asyncio.sleep(_LOOK_AGAIN_S)


_STATES: Final[dict[Any, State]] = {
    grpc.ChannelConnectivity.IDLE: "connecting",
    grpc.ChannelConnectivity.CONNECTING: "connecting",
    grpc.ChannelConnectivity.READY: "ready",
    grpc.ChannelConnectivity.TRANSIENT_FAILURE: "failed",
}


def _has_error_flag(trailing: Sequence[tuple[str, str | bytes]] | None) -> bool:
    # Its presence is what counts (spec wire.md, gRPC metadata).
    return any(key == "is-error" for key, _ in trailing or ())


def _translated(error: grpc.aio.AioRpcError) -> CallError:
    code, details = error.code().name, error.details() or ""
    # A connection that breaks under a call ends it with a code that depends on how it broke (INTERNAL for
    # a stream that was reset, UNKNOWN for what is no HTTP/2); only the text is always the same.
    if code in ("INTERNAL", "UNKNOWN") and details.startswith(_BROKEN):
        code = "UNAVAILABLE"
    # gRPC tells these only by its text, too; with no connection nothing has been sent.
    reached = not details.startswith(_NOT_REACHED)
    return CallError(code, details, reached=reached)
