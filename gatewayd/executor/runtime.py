"""
Serves one Executor over gRPC: the services, their options, and how they stop.

    starting ── start() ──> serving ── stop() ──> NOT_SERVING, batches flushed, running calls
                                                   finished within the grace period, close() called

Messages stay bytes until ``handling.py`` splits them. Reflection lists exactly what a gateway of the
reference expects: it refuses an executor that lists anything else (spec wire.md).
"""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final

import grpc.aio
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from gatewayd.config.addresses import authority
from gatewayd.executor.executor import Executor
from gatewayd.executor.handling import Handling
from gatewayd.executor.spec import ExecutorSpec
from gatewayd.messages import methods
from gatewayd.messages.headers import METADATA_BYTES, as_metadata
from gatewayd.messages.wire import Malformed
from gatewayd.pb import POOL, DataRequestListProto, EndpointsProto, JinaInfoProto
from gatewayd.schemes import unix_address
from gatewayd.status import status_maps

log = logging.getLogger(__name__)

SERVICES: Final = (
    *map(methods.service_of, methods.OF_AN_EXECUTOR),
    reflection.SERVICE_NAME,
)
OPTIONS: Final = (
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_time_between_pings_ms", 10_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    # Two replicas on one port would share its connections at random; the second one must fail instead.
    ("grpc.so_reuseport", 0),
    # A gateway may forward headers.
    ("grpc.max_metadata_size", METADATA_BYTES),
)
_FAILED: Final = ("is-error", "true")

# The pairs of a call's trailing metadata, without repetitions: the keys.
_Trailing = dict[tuple[str, str | bytes], None]


class Runtime:
    """One executor's gRPC server. ``on_fatal(reason)`` is called if the process has to end."""

    def __init__(self, executor: Executor, spec: ExecutorSpec, on_fatal: Callable[[str], None]) -> None:
        self._executor = executor
        self._spec = spec
        self._handling = Handling(executor, spec, on_fatal)
        self._health = health.aio.HealthServicer()
        self._received_bytes = 0
        self._sent_bytes = 0
        self._server = grpc.aio.server(
            options=(
                *OPTIONS,
                ("grpc.max_receive_message_length", spec.max_message_bytes),
                ("grpc.max_send_message_length", -1),
            )
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection(SERVICES, self._server, pool=POOL)
        self._server.add_generic_rpc_handlers(self._handlers())

    @property
    def busy(self) -> bool:
        """Whether a plain method is still running after the grace period."""
        return self._handling.busy

    async def start(self) -> str:
        """Listen and serve. Returns the address. Raises RuntimeError if the port is taken."""
        spec = self._spec
        at_socket = None if spec.socket is None else unix_address(spec.socket)
        wanted = at_socket or authority(spec.host, spec.port)
        try:
            port = self._server.add_insecure_port(wanted)
        except RuntimeError as error:
            raise RuntimeError(f"cannot listen on {wanted}: {error}") from error
        await self._server.start()
        for service in ("", *SERVICES):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        host = "127.0.0.1" if spec.host in ("0.0.0.0", "::") else spec.host
        return at_socket or authority(host, port)

    async def stop(self) -> None:
        """Stop as in the module's diagram. Returns when the executor's ``close()`` has returned."""
        await self._health.enter_graceful_shutdown()
        await self._handling.drain()
        await self._server.stop(self._spec.grace_s)
        closed = self._executor.close()
        if inspect.isawaitable(closed):
            await closed
        self._handling.close()

    def _handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.stream_stream_rpc_method_handler
        services: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = methods.by_service(
            {
                methods.SINGLE: unary(self._process_single_data),
                methods.LISTED: unary(self._process_data),
                methods.STREAM: stream(self._call),
                methods.DISCOVERY: unary(self._endpoint_discovery),
                methods.STATUS: unary(self._status),
            }
        )
        return tuple(
            grpc.method_handlers_generic_handler(service, handlers) for service, handlers in services.items()
        )

    async def _process_single_data(self, message: bytes, context: Any) -> bytes:
        return await self._answer((message,), len(message), context, {})

    async def _process_data(self, message: bytes, context: Any) -> bytes:
        try:
            parts = [part.SerializeToString() for part in DataRequestListProto.FromString(message).requests]
        except DecodeError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"not a DataRequestListProto: {error}")
        return await self._answer(parts, len(message), context, {})

    async def _call(self, messages: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        # One at a time: while a message waits to be read, gRPC's flow control slows the client down.
        trailing: _Trailing = {}
        async for message in messages:
            yield await self._answer((message,), len(message), context, trailing)

    async def _answer(self, messages: Sequence[bytes], size: int, context: Any, trailing: _Trailing) -> bytes:
        """``trailing`` is the metadata that the call ends with, of all its answers."""
        self._received_bytes += size
        try:
            handled = await self._handling.handle(messages, context.invocation_metadata)
        except (Malformed, DecodeError) as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            raise
        if handled.failed or handled.headers:
            trailing.update(dict.fromkeys(as_metadata(handled.headers)))
            if handled.failed:
                trailing[_FAILED] = None
            context.set_trailing_metadata(tuple(trailing))
        self._sent_bytes += len(handled.message)
        return handled.message

    async def _endpoint_discovery(self, message: bytes, context: Any) -> bytes:
        described = self._handling.endpoints
        texts = {endpoint: text for endpoint, text in described.items() if text}
        return EndpointsProto(endpoints=list(described), descriptions=texts).SerializeToString()

    async def _status(self, message: bytes, context: Any) -> bytes:
        # Where the reference keeps these totals (spec status.md).
        if self._received_bytes:
            os.environ["JINA_GRPC_RECV_BYTES"] = str(self._received_bytes)
            os.environ["JINA_GRPC_SEND_BYTES"] = str(self._sent_bytes)
        versions, environment = status_maps()
        return JinaInfoProto(jina=versions, envs=environment).SerializeToString()
