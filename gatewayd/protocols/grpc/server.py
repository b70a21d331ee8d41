"""
The gateway's gRPC port: the servicer, health and reflection, behind ``grpc.aio``'s server.

Started and stopped from the reactor thread; everything that touches gRPC's objects is a coroutine for
the loop thread.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from twisted.internet.defer import CancelledError, Deferred

from gatewayd.bridge import Bridge
from gatewayd.config import GatewayConfig
from gatewayd.errors import ConfigError, PortTaken
from gatewayd.pb import POOL
from gatewayd.protocols.grpc.servicer import SERVICES, Servicer
from gatewayd.tls import Identity, UnusableIdentity

_START_TIMEOUT_S = 10.0


class GrpcServer:
    """One listening gRPC port. Reactor thread only, but for the methods named ``_on_loop``."""

    # What health knows: the server as a whole, and each service that reflection lists (spec wire.md).
    _names = ("", *SERVICES, reflection.SERVICE_NAME)

    def __init__(
        self, bridge: Bridge, servicer: Servicer, gateway: GatewayConfig, identity: Identity | None = None
    ) -> None:
        """With an ``identity`` the port speaks TLS only."""
        self._bridge = bridge
        self._servicer = servicer
        self._gateway = gateway
        self._identity = identity
        self._server: Any = None  # loop thread only
        self._health: Any = None  # loop thread only

    def listen(self, port: int) -> int:
        """
        Bind and serve; returns the port that was bound.

        Blocks until gRPC has bound it: to be called while the service starts. Raises PortTaken, or
        UnusableIdentity.
        """
        return self._bridge.run_on_loop(lambda: self._listen_on_loop(port), _START_TIMEOUT_S)

    def set_serving(self) -> None:
        """Tell health checkers that the executors are there, too."""
        self._bridge.on_loop(self._set_serving_on_loop).addErrback(
            lambda failure: failure.trap(CancelledError)
        )

    def stop(self, grace_s: float) -> Deferred[None]:
        """
        Tell health checkers, take no new calls, and fire when those under way have ended.

        What hasn't after ``grace_s`` seconds is cancelled.
        """
        return self._bridge.on_loop(self._stop_on_loop, grace_s)

    async def _listen_on_loop(self, port: int) -> int:
        server = grpc.aio.server(options=list(self._options().items()))
        server.add_generic_rpc_handlers(self._servicer.handlers())
        reflection.enable_server_reflection(self._names[1:], server, pool=POOL)
        self._health = health.aio.HealthServicer()
        for name in self._names:
            await self._health.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        try:
            bound = self._bind(server, f"{self._gateway.host}:{port}")
        except RuntimeError as error:
            raise self._refusal(port) from error
        await server.start()
        self._server = server
        return bound

    def _bind(self, server: Any, address: str) -> int:
        if self._identity is None:
            return int(server.add_insecure_port(address))
        # TLS 1.2 and 1.3 with ALPN h2, and no certificates of clients: gRPC's defaults.
        pair = (self._identity.key_pem, self._identity.chain_pem)
        return int(server.add_secure_port(address, grpc.ssl_server_credentials([pair])))

    def _refusal(self, port: int) -> ConfigError:
        """Why gRPC could not bind: it logs that, but its exception doesn't say."""
        host = self._gateway.host
        reason = _bind_error(host, port)
        if reason is None and self._identity is not None:
            # gRPC brings a TLS library of its own, which knows fewer kinds of keys than OpenSSL.
            return UnusableIdentity(
                "ssl_certfile", f"gRPC refuses {self._identity.certfile} with {self._identity.keyfile}"
            )
        return PortTaken("grpc", host, port, reason or os.strerror(errno.EADDRINUSE))

    async def _set_serving_on_loop(self) -> None:
        for name in self._names:
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def _stop_on_loop(self, grace_s: float) -> None:
        if self._server is not None:
            await self._health.enter_graceful_shutdown()
            await self._server.stop(grace_s)

    def _options(self) -> dict[str, int | str]:
        """spec wire.md, Options; but a message's size has a limit."""
        return {
            "grpc.max_send_message_length": -1,
            "grpc.max_receive_message_length": self._gateway.max_message_bytes,
            "grpc.keepalive_time_ms": 10_000,
            "grpc.keepalive_timeout_ms": 5_000,
            "grpc.keepalive_permit_without_calls": 1,
            "grpc.http2.max_pings_without_data": 0,
            "grpc.http2.min_time_between_pings_ms": 10_000,
            "grpc.http2.min_ping_interval_without_data_ms": 5_000,
            "grpc.so_reuseport": 0,
            **self._gateway.grpc_server_options,
        }


def _bind_error(host: str, port: int) -> str | None:
    """What the system says to a socket that is bound there; None where it can be."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.bind((host.strip("[]"), port))
    except OSError as error:
        return os.strerror(error.errno) if error.errno else str(error)
    return None
