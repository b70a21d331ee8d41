"""Errors, and the ordinary end, as WebSocket close frames."""

from __future__ import annotations

from typing import Final

import attrs

from gatewayd.errors import SUCCESS, ExecutorNetworkError, GatewayError
from gatewayd.protocols.told import told

_MAX_REASON_BYTES: Final = 123  # of a control frame's 125 (RFC 6455 section 5.5)


@attrs.frozen
class CloseFrame:
    """``reason`` is UTF-8 of at most 123 bytes."""

    code: int
    reason: bytes = b""


NORMAL_CLOSURE: Final = CloseFrame(SUCCESS.websocket)


def encode_error(error: GatewayError) -> CloseFrame:
    """
    How a connection ends with ``error``; clients of the reference show the reason to their users.

    A text that does not fit is replaced by the error's summary.
    """
    return _close_frame(error, error.summary())


def encode_dry_run_error(error: ExecutorNetworkError) -> CloseFrame:
    """As ``encode_error``; the summary of every network error is the same (spec websocket.md)."""
    return _close_frame(error, ExecutorNetworkError.summary(error))


def _close_frame(error: GatewayError, summary: str) -> CloseFrame:
    text = str(error)
    fits = len(text.encode("utf-8", "replace")) <= _MAX_REASON_BYTES
    return CloseFrame(told(error, "websocket").websocket, truncated(text if fits else summary))


def truncated(reason: str) -> bytes:
    """``reason`` as UTF-8 of at most 123 bytes, cut between characters."""
    return reason.encode("utf-8", "replace")[:_MAX_REASON_BYTES].decode("utf-8", "ignore").encode()
