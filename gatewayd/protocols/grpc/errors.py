"""Errors as the status of a gRPC call."""

from __future__ import annotations

import grpc

from gatewayd.errors import GatewayError, InternalError, codes_for


def encode_error(error: GatewayError) -> tuple[grpc.StatusCode, str]:
    """The code and details that a call ends with."""
    details = error.grpc_details() if isinstance(error, InternalError) else str(error)
    return grpc.StatusCode[codes_for(error).grpc], details
