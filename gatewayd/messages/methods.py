"""The gRPC methods of gateways and executors, by their paths (spec grpc.md and wire.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar

T = TypeVar("T")

# One DataRequestProto each way; a list of them to one; a stream of them each way.
SINGLE: Final = "/jina.JinaSingleDataRequestRPC/process_single_data"
LISTED: Final = "/jina.JinaDataRequestRPC/process_data"
STREAM: Final = "/jina.JinaRPC/Call"
# One SingleDocumentRequestProto to a stream of them.
STREAM_DOC: Final = "/jina.JinaSingleDocumentRequestRPC/stream_doc"
DISCOVERY: Final = "/jina.JinaDiscoverEndpointsRPC/endpoint_discovery"
STATUS: Final = "/jina.JinaInfoRPC/_status"
DRY_RUN: Final = "/jina.JinaGatewayDryRunRPC/dry_run"

OF_A_GATEWAY: Final = (STREAM, SINGLE, STREAM_DOC, DRY_RUN, STATUS)
OF_AN_EXECUTOR: Final = (LISTED, DISCOVERY, STATUS, STREAM, SINGLE)


def service_of(path: str) -> str:
    """``jina.JinaRPC`` of ``/jina.JinaRPC/Call``."""
    return path.split("/")[1]


def by_service(handlers: Mapping[str, T]) -> dict[str, dict[str, T]]:
    """Handlers by path, as gRPC's servers take them: by service, then by the method's name."""
    services: dict[str, dict[str, T]] = {}
    for path, handler in handlers.items():
        _, service, name = path.split("/")
        services.setdefault(service, {})[name] = handler
    return services
