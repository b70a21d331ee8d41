"""What clients of every protocol get to know of a failure."""

from __future__ import annotations

from twisted.internet.defer import CancelledError

from gatewayd.errors import Draining, GatewayError, InternalError
from gatewayd.pb import StatusProto


def explained(error: BaseException, request_id: str = "") -> GatewayError:
    """
    ``error`` as a client may see it; an InternalError is a bug, which the caller has to log.

    Work that was cancelled although its client is still there was given up by the gateway, which is stopping.
    """
    if isinstance(error, GatewayError):
        return error
    return Draining() if isinstance(error, CancelledError) else InternalError(request_id)


def failure_status(error: GatewayError) -> bytes:
    """
    The serialised StatusProto of a dry run or request that failed (spec grpc.md).

    The exception has the name that clients of the reference look for. A dry run that succeeds has no bytes.
    """
    status = StatusProto(code=StatusProto.ERROR, description=str(error))
    status.exception.name = "InternalNetworkError"
    return status.SerializeToString()
