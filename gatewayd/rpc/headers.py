"""
Header blocks of HTTP/2 (RFC 7541): we send literals, and remember what we have decoded.

We send only literals without indexing: such a block depends on no table, so it is made once and sent on any
connection. Servers repeat themselves with every answer, and the blocks that we receive soon add nothing to
the table. As long as the table does not change, equal bytes mean equal fields.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, Generic, TypeVar

from hpack import Decoder, HPACKError, OversizedHeaderListError

T = TypeVar("T")

Field = tuple[bytes, bytes]

_MAX_REMEMBERED: Final = 64
_MAX_REMEMBERED_BYTES: Final = 128

# What a receiver's table holds at most, as long as we announce no other size (section 6.5.2 of RFC 9113).
_TABLE_BYTES: Final = 4096
# A text of so many bytes is larger than the table even if it is Huffman-coded, at 30 bits a character.
_LONG_TEXT_BYTES: Final = _TABLE_BYTES * 30 // 8
# What we still decode of a block whose long texts are cut, as a multiple of what we accept.
_DECODED: Final = 4


class Unreadable(Exception):
    """
    A block cannot be decoded; the table, and so the connection, can no longer be used.

    ``oversized`` is True when only the size of its fields was in the way.
    """

    def __init__(self, why: str, *, oversized: bool = False) -> None:
        self.oversized = oversized
        super().__init__(why)


class BlockTooLarge(Exception):
    """The fields of a block are larger than the limit. The table has followed: only this block is lost."""


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
    section 6.5.2); that is advice to the server, so larger blocks are decoded too, but not kept.
    """

    def __init__(self, read: Callable[[Sequence[Field]], T], limit_bytes: int) -> None:
        self._read = read
        self._limit_bytes = limit_bytes
        self._decoder = Decoder(_DECODED * limit_bytes)
        self._known: dict[bytes, T] = {}

    def decode(self, block: bytes) -> T:
        """
        Decode a block. All of a connection's have to be decoded, in order.

        Raises Unreadable and BlockTooLarge.
        """
        known = self._known.get(block)
        if known is not None:
            return known
        limit_bytes = self._limit_bytes
        try:
            # Decoding a text takes a microsecond for four bytes; nobody reads those of a block this large.
            content = block if len(block) <= limit_bytes else _without_long_texts(block)
            fields = [(bytes(name), bytes(value)) for name, value in self._decoder.decode(content, raw=True)]
        except (HPACKError, IndexError) as error:
            oversized = isinstance(error, OversizedHeaderListError)
            raise Unreadable(str(error), oversized=oversized) from error
        if content is not block or sum(len(name) + len(value) + 32 for name, value in fields) > limit_bytes:
            self._known.clear()
            raise BlockTooLarge
        made = self._read(fields)
        changed = _changes_table(block)
        if changed or len(self._known) >= _MAX_REMEMBERED:
            self._known.clear()
        if not changed and len(block) <= _MAX_REMEMBERED_BYTES:
            self._known[block] = made
        return made


def _without_long_texts(block: bytes) -> bytes:
    """
    ``block`` with its long names and values replaced by others that have the same effect on the table: none,
    or that it becomes empty. Raises IndexError when the block ends too early.
    """
    kept, at, end = bytearray(), 0, len(block)
    while at < end:
        begin, kind = at, block[at]
        if kind & 0x80 or kind & 0xE0 == 0x20:  # an indexed field, or another size of the table
            at, _ = _integer(block, at, 7 if kind & 0x80 else 5)
            kept += block[begin:at]
            continue
        at, index = _integer(block, at, 6 if kind & 0x40 else 4)
        kept += block[begin:at]
        for _ in range(1 if index else 2):
            begin = at
            at, size = _integer(block, at, 7)
            at += size
            if size <= _LONG_TEXT_BYTES:
                kept += block[begin:at]
            else:
                text = bytes(_TABLE_BYTES)
                kept += _length(text) + text
    if at > end:
        raise IndexError("the block ends in the middle of a text")
    return bytes(kept)


def _changes_table(block: bytes) -> bool:
    """Whether a valid block adds to the table or changes its size (section 6)."""
    at, end = 0, len(block)
    while at < end:
        kind = block[at]
        if kind & 0x80:
            at, _ = _integer(block, at, 7)
        elif kind & 0x60:
            return True
        else:
            at, index = _integer(block, at, 4)
            for _ in range(1 if index else 2):
                at, size = _integer(block, at, 7)
                at += size
    return False


def _integer(block: bytes, at: int, bits: int) -> tuple[int, int]:
    """The inverse of ``_length``: where the integer ends, and its value."""
    most = (1 << bits) - 1
    number = block[at] & most
    at += 1
    if number == most:
        shift, more = 0, True
        while more:
            number += (block[at] & 127) << shift
            more = block[at] > 127
            shift += 7
            at += 1
    return at, number
