"""
gRPC in a forked process, where gRPC's own library can't be used again: its threads don't survive a fork, and
what it was doing is never finished. HTTP/2 is then that of ``gatewayd.rpc``, which has neither threads nor
state of the process.

Every request is a call of its own: gateways answer them as they answer those of a stream.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from functools import partial
from typing import Any, Final, NoReturn

import attrs

import gatewayd
from gatewayd.client.address import GatewayAddress
from gatewayd.client.errors import BadClient, Unreachable, error_of
from gatewayd.client.exchange import Deliver, Outbox, Read, run_singles
from gatewayd.client.hints import explained, proxy_to
from gatewayd.client.inputs import Message
from gatewayd.client.post import Post, PostOptions, compression_named
from gatewayd.client.response import Response
from gatewayd.client.streaming import Arrive
from gatewayd.client.transports.base import DRY_RUN_FAILED
from gatewayd.messages import methods, wire
from gatewayd.messages.headers import Headers, received
from gatewayd.messages.request import Request
from gatewayd.messages.rope import Buffer, Content
from gatewayd.pb import StatusProto
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
from gatewayd.rpc.headers import Field
from gatewayd.rpc.http2 import Broken, Connection

# What gRPC's library waits for a connection, and the keepalive of transports/grpc.py.
_CONNECT_S: Final = 20.0
_KEEPALIVE_S: Final = 9.999
_KEEPALIVE_TIMEOUT_S: Final = 4.999
# A stream of requests is slowed down by the gateway; calls of their own it would refuse at some point. As
# many as aiohttp has over HTTP.
_AT_ONCE: Final = 100
# Messages of any size: what their four bytes of length can say.
_UNLIMITED: Final = 2**32 - 1

_CLOSED: Final = "the client was closed"


@attrs.frozen
class _Answer:
    message: bytes
    encoding: str
    headers: Headers

    def expanded(self) -> bytes:
        """The message itself. Raises errors.py's tree."""
        if self.encoding == "identity":
            return self.message
        try:
            return expand(self.message, self.encoding, _UNLIMITED)
        except CallError as error:
            raise error_of(error.code, error.details) from error


class ForkedGrpcTransport:
    def __init__(self, address: GatewayAddress) -> None:
        self._address = address
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._connecting = asyncio.Lock()
        self._current: _Session | None = None
        self._sessions: set[_Session] = set()
        self._closed = False

    def encode(self, request: Request) -> bytes:
        return wire.encode_request(request)

    async def exchange(self, post: Post, outbox: Outbox, deliver: Deliver) -> None:
        await run_singles(partial(self._single, post), outbox, deliver, post.retries)

    async def stream(self, post: Post, message: Message, arrive: Arrive) -> NoReturn:
        raise BadClient(
            "streams over grpc need gRPC's own library, which cannot be used in a forked process: stream "
            "over http, or start the process by spawning"
        )

    async def unready(self, options: PostOptions) -> str | None:
        answer = await self._asked(methods.DRY_RUN, options, b"")
        status = StatusProto.FromString(answer.expanded())
        return None if status.code == 0 else status.description or DRY_RUN_FAILED

    async def mutate(self, body: dict[str, Any], options: PostOptions) -> NoReturn:
        raise BadClient("GraphQL is spoken over HTTP only: Client(protocol='http')")

    async def close(self) -> None:
        self._closed = True
        self._current = None
        for session in tuple(self._sessions):
            session.end(_CLOSED)

    async def _single(self, options: PostOptions, message: Message) -> Read:
        async with self._slots:
            answer = await self._asked(methods.SINGLE, options, message.payload)
        return lambda: Response(answer.expanded(), received(answer.headers))

    async def _asked(self, path: str, options: PostOptions, message: bytes) -> _Answer:
        """One call. Raises errors.py's tree."""
        if options.credentials is not None:
            raise BadClient(
                "credentials: call credentials are gRPC's own, which cannot be used in a forked process; "
                "give metadata= or headers=, or start the process by spawning"
            )
        compression = compression_named(options.compression) or "none"
        head = self._head(path, options, compression)
        body, compressed = message, False
        if message and compression != "none":
            body, compressed = await asyncio.to_thread(compress, message, compression), True
        lead = prefix(len(body), compressed=compressed)
        try:
            async with asyncio.timeout(options.timeout):
                return await self._called(head.block(options.timeout), lead, body)
        except TimeoutError:
            raise error_of("DEADLINE_EXCEEDED", "Deadline Exceeded") from None
        except CallError as error:
            text = error.details
            raise error_of(error.code, explained(text, self._address) if _is_lost(error) else text) from error

    def _head(self, path: str, options: PostOptions, compression: str) -> RequestHead:
        try:
            return RequestHead.of(
                path,
                tls=self._address.tls,
                authority=self._address.authority,
                agent=f"gatewayd/{gatewayd.__version__}",
                compression=compression,
                metadata=options.sent_metadata(),
            )
        except (ValueError, IllegalMetadata) as error:
            raise BadClient(str(error)) from error

    async def _called(self, block: bytes, lead: bytes, body: bytes) -> _Answer:
        """Raises CallError, or errors.py's tree for what prevents a connection."""
        for last in (False, True):
            session = await self._session()
            call = _Call(block, lead, body)
            session.connection.start(call)
            try:
                return await call.answer
            except CallError as error:
                # A server that leaves has not looked at it. As in gRPC's library: once more, over the next.
                if error.reached or last or not session.leaving:
                    raise
            finally:
                call.drop()
        raise AssertionError("unreachable")

    async def _session(self) -> _Session:
        """A connection that takes calls, made if there is none. Raises errors.py's tree."""
        async with self._connecting:
            if self._closed:
                raise Unreachable(_CLOSED)
            if self._current is None or not self._current.usable:
                self._current = await self._connected()
            return self._current

    async def _connected(self) -> _Session:
        address = self._address
        if proxy := proxy_to(address):
            raise BadClient(
                f"proxy: the proxy {proxy} cannot be used for grpc in a forked process; post over http, or "
                "start the process by spawning"
            )
        context = None
        if address.tls:
            try:
                context = address.certificates.context(os.environ.get("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"))
            except OSError as error:
                raise BadClient(f"the TLS files cannot be read: {error}") from error
            context.set_alpn_protocols(["h2"])
        name = (address.certificates.server_name or address.host) if address.tls else None
        connecting = asyncio.get_running_loop().create_connection(
            lambda: _Session(self._sessions), address.host, address.port, ssl=context, server_hostname=name
        )
        try:
            async with asyncio.timeout(_CONNECT_S):
                _, session = await connecting
        except TimeoutError:
            raise Unreachable(f"no connection within {_CONNECT_S:.0f} s", "UNAVAILABLE") from None
        except OSError as error:  # those of TLS and of unknown names are among them
            text = f"failed to connect: {error}"
            raise Unreachable(explained(text, address, error), "UNAVAILABLE") from error
        if self._closed:
            session.end(_CLOSED)
        return session


def _is_lost(error: CallError) -> bool:
    return error.code == "UNAVAILABLE" and error.details != _CLOSED


def _read(fields: Sequence[Field]) -> AnswerHead:
    """A header block, with everything that trailers hold."""
    head = AnswerHead.of(fields)
    if head.http_status is not None:
        return head
    headers: list[tuple[str, str]] = []
    for name, value in fields:
        # Several values of a name with -bin may be in one field (gRPC's doc/PROTOCOL-HTTP2.md).
        values = value.split(b",") if name.endswith(b"-bin") else [value]
        headers += ((name.decode("latin-1"), each.decode("latin-1")) for each in values)
    return attrs.evolve(head, headers=tuple(headers))


class _Call(Unary):
    __slots__ = ("answer",)

    def __init__(self, block: bytes, lead: bytes, body: bytes) -> None:
        Unary.__init__(self, block, lead, body, _UNLIMITED)
        self.answer: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()

    def answered(
        self, message: Content, compressed: bool, encoding: str, is_error: bool, headers: Headers
    ) -> None:
        if not self.answer.done():
            self.answer.set_result(_Answer(bytes(message), encoding if compressed else "identity", headers))

    def failed(self, error: CallError) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)

    def reset(self) -> None:
        if self.connection is not None:
            self.connection.cancel(self)

    def drop(self) -> None:
        """The answer is no longer waited for. Harmless after it."""
        if not self.over:
            self.over = True
            self.reset()


class _Session(asyncio.Protocol):
    """One connection, which is in ``sessions`` as long as it lasts; http2.py's StreamOwner."""

    def __init__(self, sessions: set[_Session]) -> None:
        self.connection = Connection(self, _read)
        self.leaving = False
        self._sessions = sessions
        self._transport: asyncio.Transport | None = None
        self._heard_s = 0.0
        self._watch: asyncio.Task[None] | None = None

    @property
    def usable(self) -> bool:
        return not (self.leaving or self.connection.closed)

    def end(self, why: str) -> None:
        """Fail the calls, say goodbye, and disconnect."""
        if not self.connection.closed:
            if self.connection.ready:
                self.write(self.connection.goodbye())
            self.connection.lost(why)
        self._disconnect()

    # -- called by asyncio ---------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:  # uvloop's are no subclass of asyncio's
        self._transport = transport
        self._sessions.add(self)
        self._watch = asyncio.get_running_loop().create_task(self._keep_alive())
        negotiated = transport.get_extra_info("ssl_object")
        if negotiated is not None and negotiated.selected_alpn_protocol() != "h2":
            self.end("TLS handshake failed: the server does not speak HTTP/2")
        else:
            transport.write(self.connection.begin())

    def data_received(self, data: bytes) -> None:
        self._heard_s = asyncio.get_running_loop().time()
        self.connection.receive(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._sessions.discard(self)
        if self._watch is not None:
            self._watch.cancel()
        self.connection.lost(self._described(f"Socket closed: {exc}" if exc else "Socket closed"))

    def pause_writing(self) -> None:
        self.connection.pause()

    def resume_writing(self) -> None:
        self.connection.resume()

    # -- called by the connection --------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def write_all(self, buffers: list[Buffer]) -> None:
        if self._transport is not None:
            self._transport.writelines(buffers)

    def on_ready(self) -> None:
        pass

    def on_leaving(self, code: int, debug: bytes) -> None:
        self.leaving = True
        for stream in self.connection.take_waiting():
            stream.on_broken(Broken("the server is going away", reached=False))

    def on_idle(self) -> None:
        self.end("the server is going away")

    def on_failed(self, why: str) -> None:
        self._disconnect()

    # ------------------------------------------------------------------------------------------------

    async def _keep_alive(self) -> None:
        now = asyncio.get_running_loop().time
        while True:
            asked_s = now()
            await asyncio.sleep(_KEEPALIVE_S)
            self.connection.reset_noise()
            if self._heard_s > asked_s:
                continue
            self.connection.ping()
            await asyncio.sleep(_KEEPALIVE_TIMEOUT_S)
            if self._heard_s <= asked_s:
                self.connection.lost(self._described("keepalive watchdog timeout"))
                self._abort()

    def _described(self, why: str) -> str:
        return why if self.connection.ready else f"the server sent no HTTP2 settings: {why}"

    def _disconnect(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
