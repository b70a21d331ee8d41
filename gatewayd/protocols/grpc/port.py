"""
The gateway's gRPC port: the servicer, health and reflection, behind ``grpc.aio``'s server.

The reactor thread starts and stops it; everything that touches gRPC's objects is a coroutine for the loop
thread.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc
from twisted.internet.defer import CancelledError, Deferred, succeed

from gatewayd.access.control import DOCS
from gatewayd.binding import EVERYWHERE, addresses_of, bind_error
from gatewayd.bridge import Bridge
from gatewayd.config import GatewayConfig
from gatewayd.errors import ConfigError, PortTaken
from gatewayd.inflating import inflated_here, looks_compressed
from gatewayd.messages.generations import Generation
from gatewayd.pb import POOL
from gatewayd.protocols.grpc.identification import CallAccess
from gatewayd.protocols.grpc.options import exposed_services, options_of, pool_of, served_methods
from gatewayd.protocols.grpc.servicer import Servicer
from gatewayd.protocols.grpc.tls import GrpcTls
from gatewayd.protocols.grpc.unfinished import PLAIN_BYTES, TLS_BYTES, end_unfinished
from gatewayd.protocols.port import LAST_WORDS_S, PortReport
from gatewayd.tls.credentials import TlsCredentials, UnusableTlsFile

_START_TIMEOUT_S = 10.0
# How long the server may take to notice that connections have been shut. Chosen with room to spare.
_HANDSHAKES_END_S: Final = 0.05
# What health checks and reflection ask in.
_MAX_SMALL_BYTES: Final = 64 * 1024


class GrpcPort:
    """One listening gRPC port. Reactor thread only, but for the methods named ``_on_loop``."""

    def __init__(
        self,
        bridge: Bridge,
        servicer: Servicer,
        gateway: GatewayConfig,
        tls: TlsCredentials | None = None,
        port: int = 0,
    ) -> None:
        """With ``tls`` the port speaks TLS only; ``port`` 0 is a free one."""
        self._bridge = bridge
        self._servicer = servicer
        self._gateway = gateway
        self._tls = None if tls is None else GrpcTls(tls)
        self._port = port
        self._methods = served_methods(gateway)
        # What health knows: the server as a whole, and each service that reflection lists (spec wire.md).
        self._names = ("", *exposed_services(gateway))
        self._server: Any = None  # loop thread only
        self._health: Any = None  # loop thread only
        self._reflecting = _Reflecting(reflection.aio.ReflectionServicer(self._names[1:], POOL))

    def listen(self, inherited: Sequence[socket.socket] = ()) -> None:
        """
        Bind and serve.

        Blocks until gRPC has bound the port. Raises PortTaken, UnusableTlsFile, or ConfigError for
        ``inherited`` sockets, which gRPC's server cannot use.
        """
        if inherited:
            raise ConfigError("gateway.grpc_server: grpcio serves no inherited sockets; set gatewayd")
        self._port = self._bridge.run_on_loop(lambda: self._listen_on_loop(self._port), _START_TIMEOUT_S)

    def set_serving(
        self,
        serving: bool = True,
        parts: Mapping[str, bool] = {},
        generation: Generation | None = None,
    ) -> None:
        """Tell health checkers whether it serves, and each of the ``parts``; reflection shows the rest."""
        services = exposed_services(self._gateway, generation)
        told = {name: serving and one for name, one in parts.items()}
        told |= dict.fromkeys((*self._names, *services), serving)
        shown = reflection.aio.ReflectionServicer(services, pool_of(generation))
        self._bridge.on_loop(self._set_serving_on_loop, told, shown).addErrback(
            lambda failure: failure.trap(CancelledError)
        )

    def renew(self, credentials: TlsCredentials) -> None:
        """Use these for connections from now on."""
        assert self._tls is not None, "renew without TLS"
        self._tls.credentials = credentials

    def share(self) -> list[socket.socket]:
        """Raises ConfigError: this server keeps its sockets to itself."""
        raise ConfigError("gateway.grpc_server: grpcio cannot hand its port on; restart the gateway")

    def retire(self) -> None:
        """This server does not tell its clients before ``drain``; it is never one of several workers'."""

    def drain(self, grace_s: float) -> Deferred[None]:
        """
        Tell health checkers, take no new calls, and fire when those under way have ended.

        What has not ended shortly after ``grace_s`` seconds is cancelled.
        """
        return self._bridge.on_loop(self._drain_on_loop, grace_s + LAST_WORDS_S)

    def stop(self) -> Deferred[None]:
        """Nothing is left to release after ``drain``."""
        return succeed(None)

    def report(self) -> PortReport:
        """What the port speaks, and where; gRPC's server does not say how many connections are open."""
        return PortReport(("grpc",), self._gateway.host, self._port, self._tls is not None)

    async def _listen_on_loop(self, port: int) -> int:
        server = grpc.aio.server(options=list(self._options().items()))
        server.add_generic_rpc_handlers(self._servicer.handlers(self._methods))
        inflating: Any = _InflatingServer(server)
        if self._gateway.expose_reflection:
            kept: Any = _InflatingServer(server, self._servicer.call_access)
            reflection_pb2_grpc.add_ServerReflectionServicer_to_server(self._reflecting, kept)  # type: ignore[no-untyped-call]
        self._health = health.aio.HealthServicer()
        for name in self._names:
            await self._health.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, inflating)
        for address in self._addresses():
            try:
                port = self._bind(server, f"[{address}]:{port}" if ":" in address else f"{address}:{port}")
            except RuntimeError as error:
                raise self._refusal(address, port) from error
        await server.start()
        self._server = server
        return port

    def _addresses(self) -> tuple[str, ...]:
        # Of all interfaces, gRPC's server itself takes both families at the first.
        found = addresses_of(self._gateway.host)
        return found[:1] if found[0] in EVERYWHERE else found

    def _bind(self, server: Any, address: str) -> int:
        if self._tls is None:
            return int(server.add_insecure_port(address))
        return int(server.add_secure_port(address, self._tls.server_credentials()))

    def _refusal(self, address: str, port: int) -> ConfigError:
        """Why gRPC could not bind: it logs that, but its exception doesn't say."""
        host = self._gateway.host
        reason = bind_error(address, port)
        if reason is None and self._tls is not None:
            # gRPC brings a TLS library of its own, which knows fewer kinds of keys than OpenSSL.
            files = self._tls.credentials.pairs[0].files
            return UnusableTlsFile(files.certfile_at, f"gRPC refuses {files.certfile} with {files.keyfile}")
        return PortTaken("grpc", host, port, reason or os.strerror(errno.EADDRINUSE))

    async def _set_serving_on_loop(self, told: Mapping[str, bool], shown: Any) -> None:
        self._reflecting.shown = shown
        status = health_pb2.HealthCheckResponse
        for name, serving in told.items():
            await self._health.set(name, status.SERVING if serving else status.NOT_SERVING)

    async def _drain_on_loop(self, grace_s: float) -> None:
        if self._server is not None:
            await self._health.enter_graceful_shutdown()
            if end_unfinished(self._port, PLAIN_BYTES if self._tls is None else TLS_BYTES):
                await asyncio.sleep(_HANDSHAKES_END_S)
            stopping = asyncio.ensure_future(self._server.stop(grace_s))
            # One turn of the loop first: clients learn of the stop before their streams end.
            await asyncio.sleep(0)
            self._servicer.drain()
            await stopping

    def _options(self) -> dict[str, int | str]:
        return options_of(self._gateway)


class _Reflecting(reflection_pb2_grpc.ServerReflectionServicer):
    """Answers as ``shown`` does, which may be another one from one question to the next. Loop thread only."""

    def __init__(self, shown: Any) -> None:
        self.shown = shown

    async def ServerReflectionInfo(self, questions: Any, context: Any) -> AsyncIterator[Any]:
        async for question in questions:
            async for answer in self.shown.ServerReflectionInfo(_one(question), context):
                yield answer


async def _one(question: Any) -> AsyncIterator[Any]:
    yield question


class _InflatingServer:
    """
    Where gRPC's own services are added to a server: it inflates what they receive, which is small.

    With ``call_access`` they are for those who may see the documentation.
    """

    def __init__(self, server: Any, call_access: CallAccess | None = None) -> None:
        self._server = server
        self._call_access = call_access

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """The handlers come once more below, with their names."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        inflating = {
            method: handler._replace(request_deserializer=partial(_read_small, handler.request_deserializer))
            for method, handler in handlers.items()
        }
        if self._call_access is not None:
            inflating = {
                method: self._call_access.of_library(f"/{service}/{method}", handler, DOCS)
                for method, handler in inflating.items()
            }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, inflating),))


def _read_small(read: Callable[[bytes], Any], message: bytes) -> Any:
    return read(inflated_here(message, _MAX_SMALL_BYTES) if looks_compressed(message) else message)
