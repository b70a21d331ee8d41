"""
HeaderProto and RouteProto, read and written by hand where nothing unusual is in them.

Almost every header is a few short ASCII texts. All of its bytes are then below 128, so that each length and
number in it is one byte, and protobuf's message classes, which cost several times as much, are not needed.
What is unusual returns None: the caller asks protobuf. Bytes and results are the same as protobuf's, field by
field (tests/messages/test_header_codec.py). Pure; the field numbers are those of proto/jina.proto.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

_REQUEST_ID: Final = 0x0A
_STATUS: Final = 0x12
_ENDPOINT: Final = 0x1A
_TARGET: Final = 0x22
_TIMEOUT: Final = 0x28
_TEXTS: Final = frozenset({_REQUEST_ID, _ENDPOINT, _TARGET})

# A text of this length or more has a length of two bytes.
_LONG: Final = 0x80
# A request id and an endpoint of this many characters together make a header of one byte of length.
_SHORT: Final = 0x80 - 6
# A name of this length or more, with two moments of at most 17 bytes, makes a route of a two-byte length.
_LONG_NAME: Final = 0x80 - 6 - 2 * 17
# From here on a number has five bytes.
_FIVE_BYTES: Final = 1 << 28


def read_request_header(data: bytes) -> tuple[str, str, str, int] | None:
    """The request id, endpoint, target and timeout (ms) of a header; None if it is unusual."""
    if not data.isascii():
        return None
    request_id = endpoint = target = b""
    timeout = 0
    at, end = 0, len(data)
    try:
        while at < end:
            tag = data[at]
            start = at + 2
            if tag == _TIMEOUT:
                timeout = data[at + 1]
                at = start
                continue
            at = start + data[at + 1]
            if tag == _REQUEST_ID:
                request_id = data[start:at]
            elif tag == _ENDPOINT:
                endpoint = data[start:at]
            elif tag == _TARGET:
                target = data[start:at]
            else:
                return None
    except IndexError:
        return None
    if at != end:
        return None
    return request_id.decode(), endpoint.decode(), target.decode(), timeout


def is_success(data: bytes) -> bool:
    """Whether a header certainly has no status but the empty one. False if it has one, or is unusual."""
    if not data.isascii():
        return False
    at, end = 0, len(data)
    try:
        while at < end:
            tag, size = data[at], data[at + 1]
            if tag in _TEXTS:
                at += 2 + size
            elif tag == _TIMEOUT or (tag == _STATUS and not size):
                at += 2
            else:
                return False
    except IndexError:
        return False
    return at == end


def header_field(request_id: str, endpoint: str) -> bytes | None:
    """
    The first field of a DataRequestProto: a header of these and an empty target, with its tag and length.

    None for texts that are long, or not ASCII.
    """
    size, length = len(request_id), len(endpoint)
    if size + length >= _SHORT or not (request_id.isascii() and endpoint.isascii()):
        return None
    content = 4 + length  # of the endpoint and the target
    if not size:
        return b"\x0a%c\x1a%c%b\x22\0" % (content, length, endpoint.encode())
    return b"\x0a%c\x0a%c%b\x1a%c%b\x22\0" % (
        content + 2 + size, size, request_id.encode(), length, endpoint.encode()
    )  # fmt: skip


def route(executor: str, start_time: float, end_time: float | None) -> bytes | None:
    """A RouteProto without a status; None for a name that is long, empty, or not ASCII."""
    size = len(executor)
    if not 0 < size < _LONG or not executor.isascii():
        return None
    start = timestamp(start_time)
    if end_time is None:
        return b"\x0a%c%b\x12%c%b" % (size, executor.encode(), len(start), start)
    end = timestamp(end_time)
    return b"\x0a%c%b\x12%c%b\x1a%c%b" % (size, executor.encode(), len(start), start, len(end), end)


def ended_route_field(executor: str, start_time: float, end_time: float | None) -> bytes | None:
    """
    The field of a DataRequestProto with what ``route`` has, and its tag and length.

    None where that has none, also for one without an end.
    """
    size = len(executor)
    if end_time is None or not 0 < size < _LONG_NAME or not executor.isascii():
        return None
    start, end = timestamp(start_time), timestamp(end_time)
    before, after = len(start), len(end)
    return b"\x1a%c\x0a%c%b\x12%c%b\x1a%c%b" % (
        6 + size + before + after, size, executor.encode(), before, start, after, end
    )  # fmt: skip


@lru_cache(maxsize=256)  # most moments are written two or three times
def timestamp(seconds: float) -> bytes:
    """A Timestamp, in microseconds: a float since the epoch holds no more, and JSON times show as many."""
    whole, micros = divmod(round(seconds * 1_000_000), 1_000_000)
    nanos = micros * 1000
    if nanos < _FIVE_BYTES:
        return _number(0x08, whole) + _number(0x10, nanos)
    spread = (
        nanos & 0x7F
        | (nanos & 0x3F80) << 1
        | (nanos & 0x1FC000) << 2
        | (nanos & 0xFE00000) << 3
        | nanos >> 28 << 32
        | 0x80808080
    )
    return _seconds(whole) + spread.to_bytes(5, "little")


@lru_cache(maxsize=16)
def _seconds(whole: int) -> bytes:
    """The seconds of a Timestamp, and the tag of what follows."""
    return _number(0x08, whole) + b"\x10"


def _number(tag: int, value: int) -> bytes:
    """A field of an int64 or int32; nothing for 0."""
    if not value:
        return b""
    encoded = bytearray((tag,))
    value &= (1 << 64) - 1  # negative ones have ten bytes
    while value >= 0x80:
        encoded.append(value & 127 | 128)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
