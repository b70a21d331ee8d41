"""Content codings: compressed request bodies, and compressed answers."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from typing import Final

from gatewayd.errors import BadRequest
from gatewayd.inflating import Damaged, inflated
from gatewayd.offload import Offload, is_small

# The codings accepted for bodies.
CODINGS: Final = (b"gzip", b"x-gzip", b"deflate")

# A sample is compressed first, and must shrink to this share: tensors of floats are not worth the time.
_SAMPLE_BYTES: Final = 16 * 1024
_WORTH: Final = 0.9


def _damaged(reason: str) -> BadRequest:
    text = f"the body is not what its Content-Encoding says: {reason}"
    return BadRequest(text, [{"loc": ["header", "Content-Encoding"], "msg": text, "type": "value_error"}])


async def decoded(body: bytes, limit_bytes: int, hold: Callable[[int], None], offload: Offload) -> bytes:
    """The content of a body in one of CODINGS. Raises BadRequest, TooLarge, and what ``hold`` raises."""
    try:
        return await inflated(body, limit_bytes, hold, offload)
    except Damaged as error:
        raise _damaged(str(error)) from error


def zipped(body: bytes) -> bytes | None:
    """``body`` as gzip; None if that would save little."""
    if not is_small(len(body)):
        middle = len(body) // 2
        sample = body[middle : middle + _SAMPLE_BYTES]
        if len(zlib.compress(sample, 1)) > _WORTH * len(sample):
            return None
    # The fastest level: higher ones take far more time for few bytes less.
    smaller = gzip.compress(body, 1, mtime=0)
    return smaller if len(smaller) < _WORTH * len(body) else None
