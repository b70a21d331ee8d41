"""The settings of the gRPC port in the words of gRPC's channel arguments, which Flow files use, too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gatewayd.config import GatewayConfig
from gatewayd.messages import methods
from gatewayd.messages.generations import Generation
from gatewayd.pb import POOL, second
from gatewayd.protocols.port import HANDSHAKE_S
from gatewayd.rpc.server.reflecting import V1_ALPHA

Options = Mapping[str, int | str]

METADATA_BYTES: Final = 8192


def exposed_methods(gateway: GatewayConfig) -> tuple[str, ...]:
    """The paths of the gateway's own methods that clients may see."""
    hidden = {methods.STATUS: not gateway.expose_status, methods.DRY_RUN: not gateway.expose_dry_run}
    return tuple(path for path in methods.OF_A_GATEWAY if not hidden.get(path))


def served_methods(gateway: GatewayConfig) -> tuple[str, ...]:
    """Those that are served. Discovery is for Flows of the second generation, and is not listed."""
    shown = exposed_methods(gateway)
    return (*shown, methods.DISCOVERY) if gateway.expose_reflection else shown


def exposed_services(gateway: GatewayConfig, generation: Generation | None = None) -> tuple[str, ...]:
    """
    Each service that reflection lists (spec wire.md, spec 34/wire.md).

    That of ``stream_doc`` is the sign of the second generation, and gateways of the first fail on its name.
    """
    shown = exposed_methods(gateway)
    if generation is Generation.SECOND:
        shown = (*shown, methods.DISCOVERY) if gateway.expose_reflection else shown
    else:
        shown = tuple(path for path in shown if path != methods.STREAM_DOC)
    services = [methods.service_of(path) for path in shown]
    if gateway.expose_reflection:
        services.append(V1_ALPHA)
    return tuple(services)


def pool_of(generation: Generation | None) -> Any:
    """The types that reflection shows."""
    return second.POOL if generation is Generation.SECOND else POOL


def options_of(gateway: GatewayConfig) -> dict[str, int | str]:
    """spec wire.md, Options; but a message's size has a limit."""
    most_streams = gateway.grpc_max_concurrent_streams
    return {
        # Streams that were reset count until they are let go of, so that a client cannot fill our memory
        # by opening and resetting them (rapid reset). So do those of ordinary calls: hence twice the
        # 1000 calls that a client of the reference makes at once.
        **({"grpc.max_concurrent_streams": most_streams} if most_streams else {}),
        # A compressed message would be inflated whole before its size is looked at: we do it ourselves.
        "grpc.per_message_decompression": 0,
        "grpc.max_send_message_length": -1,
        "grpc.max_receive_message_length": gateway.max_message_bytes,
        # gRPC's own limit for TLS and HTTP/2's first frames is two minutes.
        "grpc.server_handshake_timeout_ms": int(HANDSHAKE_S * 1e3),
        "grpc.keepalive_time_ms": 10_000,
        "grpc.keepalive_timeout_ms": 5_000,
        "grpc.keepalive_permit_without_calls": 1,
        "grpc.http2.max_pings_without_data": 0,
        "grpc.http2.min_time_between_pings_ms": 10_000,
        "grpc.http2.min_ping_interval_without_data_ms": 5_000,
        "grpc.so_reuseport": 0,
        # gRPC's own bound, with room for what is forwarded.
        "grpc.max_metadata_size": METADATA_BYTES
        + (gateway.forward_headers_max_bytes if gateway.forward_headers else 0),
        **gateway.grpc_server_options,
    }
