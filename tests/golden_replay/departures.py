"""
Where gatewayd answers otherwise than the reference did, on purpose, and why.

The one list of these for all replays. Each entry names what stands in the recording's place; what is
not named must be equal. A case that could be equal again fails its entry, so the list stays true.
"""

from __future__ import annotations

from typing import Any

import attrs

from tests.golden_replay.comparing import GONE, VOLATILE, differences, replaced


@attrs.frozen
class Departure:
    """``instead`` maps a path in the recorded answer to what is received there; GONE: no such key."""

    reason: str
    instead: dict[str, Any]


def depart(recorded: Any, received: Any, departure: Departure | None) -> Any:
    """What is expected instead of ``recorded``. A departure that is not needed any more fails."""
    if departure is None:
        return recorded
    assert differences(recorded, received), f"no departure any more; it was: {departure.reason}"
    for path, instead in departure.instead.items():
        recorded = replaced(recorded, path, instead)
    return recorded


def _unprocessable(reason: str) -> Departure:
    return Departure(
        reason, {"status": 422, "content_type": "application/json", "text": GONE, "json": {"detail": VOLATILE}}
    )


HTTP: dict[str, Departure] = {
    "dict without docs key": _unprocessable("the client's mistake is no internal error"),
    "tensor in: null in list": _unprocessable("the client's mistake is no internal error"),
    "tensor round trip: null in list": _unprocessable("the client's mistake is no internal error"),
    "blob bad base64": _unprocessable("the client's mistake is no internal error"),
    "NaN in parameters": _unprocessable("the client's mistake is no internal error"),
    "chain, bad regex as target": _unprocessable("the client's mistake is no internal error"),
}
WEBSOCKET: dict[str, Departure] = {}
GRPC: dict[str, Departure] = {}
