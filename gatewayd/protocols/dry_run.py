"""What a dry run says when it failed, in the words that clients of the reference know."""

from __future__ import annotations

from gatewayd.errors import GatewayError
from gatewayd.pb import StatusProto


def failure_status(error: GatewayError) -> bytes:
    """A serialised StatusProto (spec grpc.md); a dry run that went well is no bytes at all."""
    status = StatusProto(code=StatusProto.ERROR, description=str(error))
    status.exception.name = "InternalNetworkError"
    return status.SerializeToString()
