"""Errors as the status of a gRPC call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gatewayd.errors import GatewayError, InternalError, Overloaded, codes_for
from gatewayd.messages.retry_info import STATUS_DETAILS, encode_retry_info
from gatewayd.protocols.told import told
from gatewayd.rpc.call import CODES

if TYPE_CHECKING:
    import grpc

Metadata = tuple[tuple[str, str | bytes], ...]

# gRPC's clients replace the status by RESOURCE_EXHAUSTED when all trailers together exceed 8 KiB.
MAX_DETAILS_BYTES: Final = 4096
_PLAIN: Final = frozenset(range(0x20, 0x7F)) - {ord("%")}


def encode_error(error: GatewayError) -> tuple[grpc.StatusCode, str, Metadata]:
    """As ``status_of``, for gRPC's own server."""
    import grpc  # which a gateway with another server does without

    told(error, "grpc")
    code, details, metadata = status_of(error)
    return grpc.StatusCode[code], details, metadata


def status_of(error: GatewayError) -> tuple[str, str, Metadata]:
    """
    The name of the code, the details and the trailing metadata that a call ends with.

    What clients would not take is cut.
    """
    code = codes_for(error).grpc
    details = _cut(error.grpc_details() if isinstance(error, InternalError) else str(error))
    if not isinstance(error, Overloaded):
        return code, details, ()
    found = encode_retry_info(CODES.index(code), details, error.retry_after_s)
    return code, details, ((STATUS_DETAILS, found),)


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
