"""The two servers that a gateway's gRPC port can have, made for tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from gatewayd.bridge import Bridge
from gatewayd.config import GatewayConfig
from gatewayd.protocols.grpc.own_port import OwnGrpcPort
from gatewayd.protocols.grpc.port import GrpcPort
from gatewayd.protocols.grpc.servicer import Servicer
from gatewayd.protocols.grpc.serving import CallServicer

SERVERS = ("grpcio", "gatewayd")
Served: TypeAlias = GrpcPort | OwnGrpcPort


def grpc_port(
    kind: str,
    bridge: Bridge,
    dispatcher: Any,
    gateway: GatewayConfig,
    status: Callable[[], Mapping[str, Mapping[str, str]]],
    port: int = 0,
    tls: Any = None,
    **settings: Any,
) -> Served:
    """A port that does not listen yet; ``settings`` are those of the servicer."""
    if kind == "grpcio":
        return GrpcPort(bridge, Servicer(bridge, dispatcher, status, **settings), gateway, tls, port)
    return OwnGrpcPort(bridge, CallServicer(bridge, dispatcher, status, **settings), gateway, tls, port)
