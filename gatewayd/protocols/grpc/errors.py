"""Errors as the status of a gRPC call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gatewayd.errors import GatewayError, InternalError, codes_for

if TYPE_CHECKING:
    import grpc

# gRPC's clients replace the status by RESOURCE_EXHAUSTED when all trailers together exceed 8 KiB.
MAX_DETAILS_BYTES: Final = 4096
_PLAIN: Final = frozenset(range(0x20, 0x7F)) - {ord("%")}


def encode_error(error: GatewayError) -> tuple[grpc.StatusCode, str]:
    """As ``status_of``, for gRPC's own server."""
    import grpc  # which a gateway with another server does without

    code, details = status_of(error)
    return grpc.StatusCode[code], details


def status_of(error: GatewayError) -> tuple[str, str]:
    """The name of the code and the details that a call ends with. What clients would not take is cut."""
    details = error.grpc_details() if isinstance(error, InternalError) else str(error)
    return codes_for(error).grpc, _cut(details)


def _cut(details: str) -> str:
    """As much of ``details`` as MAX_DETAILS_BYTES hold, percent-encoded (gRPC's PROTOCOL-HTTP2.md)."""
    if len(details) * 12 <= MAX_DETAILS_BYTES:
        return details
    size = 0
    for at, char in enumerate(details):
        size += sum(1 if byte in _PLAIN else 3 for byte in char.encode("utf-8", "replace"))
        if size > MAX_DETAILS_BYTES:
            return f"{details[:at]}... ({len(details) - at} more characters)"
    return details
