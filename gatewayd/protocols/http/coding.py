"""
Content codings: compressed request bodies, and compressed answers.

A body is inflated in pieces, and each is counted before the next is made: a decompression bomb is refused at
the limit, before memory runs out.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from typing import Final

from gatewayd.errors import BadRequest, TooLarge
from gatewayd.offload import SMALL_BYTES, Offload, is_small

# The codings accepted for bodies; zlib recognises gzip and deflate by the first bytes.
CODINGS: Final = (b"gzip", b"x-gzip", b"deflate")
_GZIP_OR_ZLIB: Final = zlib.MAX_WBITS | 32

# How much one call in a pool thread inflates: about ten milliseconds' work.
_PIECE_BYTES: Final = 4 * 1024 * 1024

# A sample is compressed first, and must shrink to this share: tensors of floats are not worth the time.
_SAMPLE_BYTES: Final = 16 * 1024
_WORTH: Final = 0.9


class _Inflation:
    """The decompression of one body."""

    def __init__(self, body: bytes) -> None:
        self._rest = body
        self._stream = zlib.decompressobj(_GZIP_OR_ZLIB)

    def piece(self, most: int) -> bytes:
        """
        The next bytes, at most ``most``; empty at the end.

        Raises BadRequest if the body is not compressed, damaged or truncated.
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
    A compressed body, inflated.

    ``hold`` is called with each piece's size before the next one is made, and may raise. Raises BadRequest,
    or TooLarge if the content is longer than ``limit_bytes``.
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
    """``body`` as gzip; None if that would save little."""
    if not is_small(len(body)):
        middle = len(body) // 2
        sample = body[middle : middle + _SAMPLE_BYTES]
        if len(zlib.compress(sample, 1)) > _WORTH * len(sample):
            return None
    # The fastest level: higher ones take far more time for few bytes less.
    found = gzip.compress(body, 1, mtime=0)
    return found if len(found) < _WORTH * len(body) else None
