"""
gRPC: ``Call``, one stream for all requests of a post, or ``process_single_data`` for each; ``stream_doc``.

Messages go through as bytes. A lost connection is replaced by a new channel: gRPC's own would make
the next calls fail at once until its backoff is over, and a retry would fail with them.

Not for forked processes: see forked_grpc.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import weakref
from collections.abc import AsyncIterator, Coroutine
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio

from gatewayd.client.address import Certificates, GatewayAddress
from gatewayd.client.errors import BadClient, Unreachable, error_of
from gatewayd.client.exchange import Deliver, Outbox, Read, run_singles, run_stream
from gatewayd.client.hints import explained
from gatewayd.client.inputs import Message
from gatewayd.client.post import Post, PostOptions, compression_named
from gatewayd.client.response import Response
from gatewayd.client.streaming import Arrive
from gatewayd.client.transports.base import DRY_RUN_FAILED
from gatewayd.messages import methods, wire
from gatewayd.messages.headers import METADATA_BYTES, received
from gatewayd.messages.request import Request
from gatewayd.messages.retry_info import STATUS_DETAILS, retry_after_s
from gatewayd.messages.single import encode_single_calls
from gatewayd.pb import StatusProto

if TYPE_CHECKING:  # gRPC's own classes take no parameters
    Unary = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
    Stream = grpc.aio.StreamStreamMultiCallable[bytes, bytes]
    Server = grpc.aio.UnaryStreamMultiCallable[bytes, bytes]

# Messages of any size, keepalive of the reference's clients (spec wire.md, Options).
_OPTIONS: Final = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.keepalive_time_ms", 9999),
    ("grpc.keepalive_timeout_ms", 4999),
    ("grpc.keepalive_permit_without_calls", 1),
    # Executors' headers may come back.
    ("grpc.max_metadata_size", METADATA_BYTES),
    # A channel of ours is a connection of its own; see the module's docstring.
    ("grpc.use_local_subchannel_pool", 1),
)

_COMPRESSIONS: Final = {
    None: None,
    "none": grpc.Compression.NoCompression,
    "deflate": grpc.Compression.Deflate,
    "gzip": grpc.Compression.Gzip,
}


# What gRPC's writer makes of a call when a message cannot be sent: mostly because the call has ended, with a
# status of which it does not know yet, or that it writes over.
_NOT_SENT: Final = "Internal error from Core"
# The status is there already, or on its way through this process.
_STATUS_S: Final = 5.0


class Status:
    """How one ``call`` of grpc.aio ends, whatever its writer says of that; made before it writes."""

    def __init__(self, call: Any) -> None:
        self._found: asyncio.Future[grpc.aio.AioRpcError] = asyncio.get_running_loop().create_future()
        # It is called for each status that is set, the writer's as well. gRPC keeps it together with the
        # call, in a circle that nothing collects; and as long as there is a call, its connection lasts.
        type(call).add_done_callback(weakref.proxy(call), self._see)

    async def instead_of(self, error: grpc.aio.AioRpcError) -> grpc.aio.AioRpcError:
        """``error``, or what the gateway has said if it is the writer's."""
        if not _is_not_sent(error):
            return error
        try:
            return await asyncio.wait_for(asyncio.shield(self._found), _STATUS_S)
        except TimeoutError:
            return error

    def _see(self, call: Any) -> None:
        try:
            asked = (call.code, call.details, call.trailing_metadata, call.initial_metadata)
        except ReferenceError:
            return  # nobody has the call any more, and so nobody waits for its status
        code, details, trailing, initial = (_of_now(each()) for each in asked)
        error = grpc.aio.AioRpcError(code, initial, trailing, details)
        if not self._found.done() and not _is_not_sent(error):
            self._found.set_result(error)


def _is_not_sent(error: grpc.aio.AioRpcError) -> bool:
    return error.code() is grpc.StatusCode.INTERNAL and error.details() == _NOT_SENT


def _of_now(known: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine returns that has nothing to wait for: a moment later it would be something else."""
    try:
        known.send(None)
    except StopIteration as returned:
        return returned.value
    known.close()
    raise AssertionError("a call that has a status waits for it")


class _Connection:
    """A channel and how many calls are using it."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.users = 0


class GrpcTransport:
    def __init__(self, address: GatewayAddress) -> None:
        self._address = address
        self._connection: _Connection | None = None

    def encode(self, request: Request) -> bytes:
        return wire.encode_request(request)

    async def exchange(self, post: Post, outbox: Outbox, deliver: Deliver) -> None:
        if post.stream:
            await run_stream(partial(self._stream, post), outbox, deliver, post.retries)
        else:
            await run_singles(partial(self._single, post), outbox, deliver, post.retries)

    async def stream(self, post: Post, message: Message, arrive: Arrive) -> None:
        (request,) = encode_single_calls(message.payload)
        async with self._channel() as channel:
            begin: Server = channel.unary_stream(methods.STREAM_DOC)
            call = begin(bytes(request), **_arguments(post))
            try:
                while isinstance(answer := await call.read(), bytes):  # else it is gRPC's EOF
                    await arrive(partial(Response.of_single, answer), len(answer))
            finally:
                call.cancel()

    async def unready(self, options: PostOptions) -> str | None:
        async with self._channel() as channel:
            ask: Unary = channel.unary_unary(methods.DRY_RUN)
            answer = await ask(b"", **_arguments(options))
        status = StatusProto.FromString(answer)
        return None if status.code == 0 else status.description or DRY_RUN_FAILED

    async def mutate(self, body: dict[str, Any], options: PostOptions) -> dict[str, Any]:
        raise BadClient("GraphQL is spoken over HTTP only: Client(protocol='http')")

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.channel.close()

    async def _stream(self, options: PostOptions, outbox: Outbox, deliver: Deliver) -> None:
        async with self._channel() as channel:
            begin: Stream = channel.stream_stream(methods.STREAM)
            call = begin(**_arguments(options))
            status = Status(call)
            writer = asyncio.create_task(_write(call, outbox))
            try:
                while isinstance(message := await call.read(), bytes):  # else it is gRPC's EOF
                    response = Response(message)
                    # Before a call fails, its gateway names the request that failed in an answer
                    # that holds nothing else; the failure itself follows.
                    if not response.empty:
                        deliver(response.request_id, response.itself)
                outbox.check_complete()
            except grpc.aio.AioRpcError as error:
                raise await status.instead_of(error) from None
            finally:
                writer.cancel()
                call.cancel()

    async def _single(self, options: PostOptions, message: Message) -> Read:
        async with self._channel() as channel:
            ask: Unary = channel.unary_unary(methods.SINGLE)
            call = ask(message.payload, **_arguments(options))
            answer, trailing = await call, await call.trailing_metadata()
        return lambda: Response(answer, received(trailing or ()))

    @contextlib.asynccontextmanager
    async def _channel(self) -> AsyncIterator[grpc.aio.Channel]:
        """Lend the channel for one call, and translate what gRPC raises."""
        connection = self._connection
        if connection is None:
            connection = self._connection = _Connection(self._connect())
        connection.users += 1
        try:
            yield connection.channel
        except grpc.aio.AioRpcError as error:
            failure = _failure(error, self._address)
            if isinstance(failure, Unreachable) and self._connection is connection:
                self._connection = None
            raise failure from error
        except grpc.aio.UsageError as error:
            raise Unreachable("the client was closed") from error
        finally:
            connection.users -= 1
            if not connection.users and self._connection is not connection:
                await connection.channel.close()

    def _connect(self) -> grpc.aio.Channel:
        proxy = ("grpc.enable_http_proxy", int(self._address.proxy))
        options: tuple[tuple[str, int | str], ...] = (*_OPTIONS, proxy)
        if not self._address.tls:
            return grpc.aio.insecure_channel(self._address.authority, options=options)
        try:
            credentials = _credentials(self._address.certificates)
        except OSError as error:
            raise BadClient(f"the TLS files cannot be read: {error}") from error
        if name := self._address.certificates.server_name:
            options = (*options, ("grpc.ssl_target_name_override", name))
        return grpc.aio.secure_channel(self._address.authority, credentials, options=options)


async def _write(call: Any, outbox: Outbox) -> None:
    # The reader raises the reason why a call ended; the writer only stops.
    with contextlib.suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):
        while message := await outbox.take():
            await call.write(message.payload)
        await call.done_writing()


def _arguments(options: PostOptions) -> dict[str, Any]:
    try:
        metadata = options.sent_metadata()
    except ValueError as error:
        raise BadClient(str(error)) from error
    return {
        "metadata": metadata or None,
        "timeout": options.timeout,
        "compression": _COMPRESSIONS[compression_named(options.compression)],
        "credentials": options.credentials,
    }


def _failure(error: grpc.aio.AioRpcError, address: GatewayAddress) -> Exception:
    code, details = error.code().name, error.details() or ""
    found = next((value for key, value in error.trailing_metadata() or () if key == STATUS_DETAILS), None)
    wait_s = retry_after_s(found) if isinstance(found, bytes) else None
    return error_of(code, explained(details, address) if code == "UNAVAILABLE" else details, wait_s)


def _credentials(certificates: Certificates) -> grpc.ChannelCredentials:
    ca, key, own = certificates.contents()
    if ca is None and "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH" not in os.environ:
        ca = _system_roots()
    return grpc.ssl_channel_credentials(ca, key, own)


def _system_roots() -> bytes | None:
    """
    What OpenSSL trusts, in PEM; None where that is not in a file, which leaves gRPC's own list.

    gRPC doesn't look at the system's authorities, so one that an operator has installed would be
    unknown to it, though HTTP and WebSocket know it. SSL_CERT_FILE names another file.
    """
    roots = ssl.get_default_verify_paths().cafile
    return None if roots is None else Path(roots).read_bytes()
