"""When a refused call may be made again, as gRPC's clients read it: a google.rpc.Status with a RetryInfo."""

from __future__ import annotations

from typing import Final

from google.protobuf.message import DecodeError

from gatewayd.pb import RetryInfo, RpcStatus

# The trailing metadata that has it.
STATUS_DETAILS: Final = "grpc-status-details-bin"

_RETRY_INFO: Final = "type.googleapis.com/google.rpc.RetryInfo"


def encode_retry_info(code: int, message: str, retry_after_s: float) -> bytes:
    """The value of STATUS_DETAILS. ``code`` and ``message`` are those of the call's status."""
    info = RetryInfo()
    info.retry_delay.FromMilliseconds(round(retry_after_s * 1000))
    status = RpcStatus(code=code, message=message)
    status.details.add(type_url=_RETRY_INFO, value=info.SerializeToString())
    return status.SerializeToString()


def retry_after_s(details: bytes) -> float | None:
    """The seconds in a value of STATUS_DETAILS; None if it has none, or cannot be read."""
    try:
        for detail in RpcStatus.FromString(details).details:
            if detail.type_url == _RETRY_INFO:
                return RetryInfo.FromString(detail.value).retry_delay.ToMilliseconds() / 1000
    except DecodeError:
        pass
    return None
