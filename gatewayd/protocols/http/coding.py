"""
Content codings: bodies that come compressed, and answers that go out so.

A body is inflated piece by piece, each piece counted before the next is made: a few kilobytes can
stand for gigabytes, and whoever sends such is refused when the limit is passed, not when memory is.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from typing import Final

from gatewayd.errors import BadRequest, TooLarge
from gatewayd.offload import SMALL_BYTES, Offload, is_small

# The codings that a body may have; zlib tells gzip from deflate by the first bytes.
CODINGS: Final = (b"gzip", b"x-gzip", b"deflate")
_GZIP_OR_ZLIB: Final = zlib.MAX_WBITS | 32

# What one trip to a pool thread inflates: ten milliseconds or so.
_PIECE_BYTES: Final = 4 * 1024 * 1024

# A sample, and the share of it that compressing must save: tensors of floats are not worth the time.
_SAMPLE_BYTES: Final = 16 * 1024
_WORTH: Final = 0.9


class _Inflation:
    """One body on its way to its true size."""

    def __init__(self, body: bytes) -> None:
        self._rest = body
        self._stream = zlib.decompressobj(_GZIP_OR_ZLIB)

    def piece(self, most: int) -> bytes:
        """
        The next bytes, at most ``most``, none at the end.

        Raises BadRequest for what is not compressed, damaged or cut short.
        """
        found = b""
        try:
            while not found and (self._rest or not self._stream.eof):
                if self._stream.eof:  # gzip's format allows one member after the other (RFC 1952)
                    self._stream = zlib.decompressobj(_GZIP_OR_ZLIB)
                before = len(self._rest)
                found = self._stream.decompress(self._rest, most)
                self._rest = self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail
                if not found and not self._stream.eof and len(self._rest) in (0, before):
                    raise _damaged("it ends too early")
        except zlib.error as error:
            raise _damaged(str(error)) from error
        return found


def _damaged(reason: str) -> BadRequest:
    text = f"the body is not what its Content-Encoding says: {reason}"
    return BadRequest(text, [{"loc": ["header", "Content-Encoding"], "msg": text, "type": "value_error"}])


async def inflated(body: bytes, limit_bytes: int, hold: Callable[[int], None], offload: Offload) -> bytes:
    """
    The true content of a compressed body.

    ``hold`` is told of each piece's size before the next one is made, and may raise. Raises BadRequest,
    TooLarge where there are more than ``limit_bytes``.
    """
    inflation = _Inflation(body)
    pieces: list[bytes] = []
    size = 0
    while True:
        if is_small(max(size, len(body))):
            piece = inflation.piece(SMALL_BYTES)
        else:
            piece = await offload(inflation.piece, _PIECE_BYTES)
        if not piece:
            return b"".join(pieces)
        size += len(piece)
        if size > limit_bytes:
            raise TooLarge(limit_bytes)
        hold(len(piece))
        pieces.append(piece)


def zipped(body: bytes) -> bytes | None:
    """``body`` as gzip, None where that would save little."""
    if not is_small(len(body)):
        middle = len(body) // 2
        sample = body[middle : middle + _SAMPLE_BYTES]
        if len(zlib.compress(sample, 1)) > _WORTH * len(sample):
            return None
    # The fastest level: the next ones cost far more time than they save bytes.
    found = gzip.compress(body, 1, mtime=0)
    return found if len(found) < _WORTH * len(body) else None
