"""
Frames of WebSocket (RFC 6455 section 5) in the form that nearly all messages have, read and written by hand.

A client's short message arrives in one piece: one frame, whole, masked, without an extension. Autobahn, whose
parser takes thirty calls for it, gets all the rest. Pure.
"""

from __future__ import annotations

from typing import Final

# What arrives in one piece and is longer than this is left to Autobahn, too.
SHORT_BYTES: Final = 4096

_TEXT: Final = 0x81  # with FIN
_BINARY: Final = 0x82
_MASKED: Final = 0x80
_TWO_BYTES: Final = 126
_EIGHT_BYTES: Final = 127


def whole_message(data: bytes, most_bytes: int) -> tuple[bytes, bool] | None:
    """
    The payload, and whether it is binary, if ``data`` is one frame that is a whole message; otherwise None.

    Also None for a payload of more than ``most_bytes``, 0 for no limit, and for a text that is not ASCII.
    """
    size = len(data) - 6
    if not 0 < size <= SHORT_BYTES:
        return None
    kind, length = data[0], data[1]
    if length == _MASKED | size and size < _TWO_BYTES:
        begin = 6
    elif length == _MASKED | _TWO_BYTES and size >= _TWO_BYTES + 2:
        begin, size = 8, size - 2
        if data[2] << 8 | data[3] != size:
            return None
    else:
        return None
    if kind not in (_TEXT, _BINARY) or 0 < most_bytes < size:
        return None
    payload, mask = data[begin:], data[begin - 4 : begin]
    if mask != b"\0\0\0\0":
        key = (mask * (size // 4 + 1))[:size]
        payload = (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")
    if kind == _TEXT and not payload.isascii():
        return None
    return payload, kind == _BINARY


def head(size: int, *, binary: bool) -> bytes:
    """What stands before ``size`` bytes of a message in one frame that is not masked."""
    kind = _BINARY if binary else _TEXT
    if size < _TWO_BYTES:
        return bytes((kind, size))
    if size < 1 << 16:
        return bytes((kind, _TWO_BYTES, size >> 8, size & 255))
    return bytes((kind, _EIGHT_BYTES)) + size.to_bytes(8, "big")
