"""
Which server a gRPC port has: ``gateway.grpc_server`` says it.

Only that one is loaded: without grpcio a gateway starts faster, and is smaller.
"""

from __future__ import annotations

from gatewayd.config import Listener
from gatewayd.protocols.backend import Backend
from gatewayd.protocols.port import Port


def make_port(listener: Listener, backend: Backend) -> Port:
    """The gRPC port of ``listener`` (see ``gatewayd.protocols.port``)."""
    gateway = backend.gateway
    settings = (
        backend.bridge,
        backend.dispatcher_for("grpc"),
        backend.status,
        gateway.prefetch,
        backend.buffers,
        backend.forwarded,
        gateway.max_message_bytes,
        gateway.max_unsent_bytes,
        backend.access,
        backend.endpoints,
        backend.streaming,
    )
    if gateway.grpc_server == "gatewayd":
        from gatewayd.protocols.grpc.own_port import OwnGrpcPort
        from gatewayd.protocols.grpc.serving import CallServicer

        servicer = CallServicer(*settings)
        entrance = backend.admission.entrance()
        held = backend.held_on_loop
        return OwnGrpcPort(backend.bridge, servicer, gateway, backend.tls, listener.port, entrance, held)
    from gatewayd.protocols.grpc.port import GrpcPort
    from gatewayd.protocols.grpc.servicer import Servicer

    return GrpcPort(backend.bridge, Servicer(*settings), gateway, backend.tls, listener.port)
