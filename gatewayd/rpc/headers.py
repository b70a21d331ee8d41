"""
Header blocks of HTTP/2 (RFC 7541): we send literals, and remember what we have decoded.

We send only literals without indexing: such a block depends on no table, so it is made once and sent on any
connection. Servers repeat themselves with every answer, and the blocks that we receive soon add nothing to
the table. As long as the table does not change, equal bytes mean equal fields.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, Generic, TypeVar

from gatewayd.rpc.hpack import BlockTooLarge, Decoder, Field, Unreadable

__all__ = ("BlockTooLarge", "Blocks", "Field", "Unreadable", "encode")

T = TypeVar("T")

_MAX_REMEMBERED: Final = 64
_MAX_REMEMBERED_BYTES: Final = 128


def encode(fields: Iterable[Field]) -> bytes:
    """A part of a header block: literals without indexing, without Huffman (RFC 7541 section 6.2.2)."""
    return b"".join(b"\0" + _length(name) + name + _length(value) + value for name, value in fields)


def _length(text: bytes) -> bytes:
    # An integer with a prefix of 7 bits (section 5.1); the eighth would say that the text is Huffman-coded.
    rest = len(text)
    if rest < 127:
        return bytes((rest,))
    encoded = bytearray((127,))
    rest -= 127
    while rest >= 128:
        encoded.append(rest & 127 | 128)
        rest >>= 7
    encoded.append(rest)
    return bytes(encoded)


class Blocks(Generic[T]):
    """
    Decodes the blocks of one connection; ``read`` turns the fields of each into its result.

    ``limit_bytes`` bounds the fields of a block, as SETTINGS_MAX_HEADER_LIST_SIZE counts them (RFC 9113
    section 6.5.2); that is advice to the peer, so larger blocks are decoded too, but not kept.
    """

    def __init__(self, read: Callable[[Sequence[Field]], T], limit_bytes: int) -> None:
        self._read = read
        self._decoder = Decoder(limit_bytes)
        self._known: dict[bytes, T] = {}

    def decode(self, block: bytes) -> T:
        """
        Decode a block. All of a connection's have to be decoded, in order.

        Raises Unreadable and BlockTooLarge.
        """
        known = self._known.get(block)
        if known is not None:
            return known
        decoder = self._decoder
        try:
            fields = decoder.decode(block)
        finally:
            # Equal bytes mean other fields from now on.
            if decoder.changed:
                self._known.clear()
        made = self._read(fields)
        if not decoder.changed and len(block) <= _MAX_REMEMBERED_BYTES:
            if len(self._known) >= _MAX_REMEMBERED:
                self._known.clear()
            self._known[block] = made
        return made
