"""
Inflates compressed requests step by step.

Each piece is counted before the next is made: a decompression bomb is refused at the limit, before memory
runs out. A step takes a few milliseconds, so that other work gets its turn, and none follows once the
request is cancelled.
"""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Callable
from typing import Any, Final

from gatewayd.errors import TooLarge
from gatewayd.offload import SMALL_BYTES, is_small

# zlib recognises gzip and deflate by the first bytes.
_GZIP_OR_ZLIB: Final = zlib.MAX_WBITS | 32

# What one call in a pool thread makes, and takes, at most: about ten milliseconds' work.
_PIECE_BYTES: Final = 4 * 1024 * 1024
_STEP_BYTES: Final = 1024 * 1024
# What zlib gets at once: first of a member, and at most.
_FIRST_CHUNK_BYTES: Final = 1024 // 2
_CHUNK_BYTES: Final = 64 * 1024
# Members cost time, however little they hold. Tools write one, or one for each megabyte.
_MAX_MEMBERS: Final = 10_000


class Damaged(ValueError):
    """The bytes are not compressed, damaged, or cut short; the text says which."""


def looks_compressed(message: bytes) -> bool:
    """
    Whether a protobuf message is in fact a compressed one: by the magic number of gzip (RFC 1952) or zlib's
    first two bytes (RFC 1950). As keys of protobuf's fields, those bytes would be of kinds that no message of
    the gateway has.
    """
    if len(message) < 2:
        return False
    first, second = message[0], message[1]
    return (first == 0x1F and second == 0x8B) or (first & 0x0F == 8 and (first << 8 | second) % 31 == 0)


class Inflation:
    """
    One body on its way to its true size, in steps whose work is bounded.

    gzip's format allows one member after the other (RFC 1952), empty ones too.
    """

    def __init__(self, body: bytes) -> None:
        self._body = memoryview(body)
        self._at = 0
        self._stream = zlib.decompressobj(_GZIP_OR_ZLIB)
        self._members = 1
        self._chunk = _FIRST_CHUNK_BYTES

    @property
    def done(self) -> bool:
        """Whether all of the body is inflated."""
        return self._stream.eof and self._at == len(self._body)

    def piece(self, most: int) -> bytes:
        """
        Some of the next bytes, at most ``most``; possibly none before ``done``: much input may make little.

        Raises Damaged for what is not compressed, damaged or cut short, or has too many members.
        """
        found = b""
        until = self._at + _STEP_BYTES
        try:
            while not found and not self.done and self._at < until:
                if self._stream.eof:
                    self._next_member()
                found = self._feed(most)
        except zlib.error as error:
            raise Damaged(str(error)) from error
        return found

    def _feed(self, most: int) -> bytes:
        # What a member leaves over is copied: so the first chunk of one is small, and none is large.
        stream = self._stream
        data = self._body[self._at : self._at + self._chunk]
        self._chunk = min(2 * self._chunk, _CHUNK_BYTES)
        found = stream.decompress(data, most)
        left = len(stream.unused_data if stream.eof else stream.unconsumed_tail)
        self._at += len(data) - left
        if not found and not data and not stream.eof:
            raise Damaged("it ends too early")
        return found

    def _next_member(self) -> None:
        self._members += 1
        if self._members > _MAX_MEMBERS:
            raise Damaged(f"it has more than {_MAX_MEMBERS} gzip members")
        self._stream = zlib.decompressobj(_GZIP_OR_ZLIB)
        self._chunk = _FIRST_CHUNK_BYTES


def inflated_here(message: bytes, limit_bytes: int) -> bytes:
    """A small compressed message, inflated at once. Raises Damaged, also for more than ``limit_bytes``."""
    inflation = Inflation(message)
    found = b""
    while not inflation.done:
        found += inflation.piece(limit_bytes + 1)
        if len(found) > limit_bytes:
            raise Damaged(f"more than {limit_bytes} bytes")
    return found


async def inflated(
    body: bytes,
    limit_bytes: int,
    hold: Callable[[int], None],
    offload: Callable[..., Awaitable[Any]],
) -> bytes:
    """
    A compressed body, inflated.

    ``hold`` is called with each piece's size before the next one is made, and may raise. Raises Damaged,
    or TooLarge if the content is longer than ``limit_bytes``.
    """
    inflation = Inflation(body)
    pieces: list[bytes] = []
    size = 0
    while not inflation.done:
        if is_small(max(size, len(body))):
            piece = inflation.piece(SMALL_BYTES)
        else:
            piece = await offload(inflation.piece, _PIECE_BYTES)
        size += len(piece)
        if size > limit_bytes:
            pieces.clear()  # the exception's traceback would keep them for as long as it lives
            raise TooLarge(limit_bytes)
        hold(len(piece))
        pieces.append(piece)
    return b"".join(pieces)
