"""
HPACK's decoder (RFC 7541): a connection's header blocks, read with the table that they make. No I/O.

A block whose fields are larger than the limit is followed to its end, for what it does to the table, but its
fields are not kept. What a block can cost is bounded: its texts by its bytes, its references by ``_DECODED``.
"""

from __future__ import annotations

from typing import Final

from gatewayd.rpc.huffman import NotHuffman, decode_huffman

Field = tuple[bytes, bytes]

# What a receiver's table holds at most, as long as we announce no other size (section 6.5.2 of RFC 9113).
TABLE_BYTES: Final = 4096
# A text of so many bytes is larger than the table even if it is Huffman-coded, at 30 bits a character.
_LONG_TEXT_BYTES: Final = TABLE_BYTES * 30 // 8
# What a field counts besides its texts (section 4.1).
_FIELD_BYTES: Final = 32
# What we still follow of a block that is too large, as a multiple of what we accept.
_DECODED: Final = 4
# An integer of more octets than this (of seven bits) is larger than anything that we accept.
_INTEGER_OCTETS: Final = 4
# A table's size changes at most so often before a block (section 4.2).
_RESIZES: Final = 2


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


class Decoder:
    """
    Decodes the blocks of one connection, in order.

    ``limit_bytes`` bounds the fields of a block, as SETTINGS_MAX_HEADER_LIST_SIZE counts them (RFC 9113
    section 6.5.2). ``changed`` is whether the last block has changed the table.
    """

    __slots__ = ("_limit_bytes", "_table", "_table_bytes", "_table_limit", "changed")

    def __init__(self, limit_bytes: int) -> None:
        self.changed = False
        self._limit_bytes = limit_bytes
        self._table: list[Field] = []  # the newest is the last
        self._table_bytes = 0
        self._table_limit = TABLE_BYTES

    def decode(self, block: bytes) -> list[Field]:
        """The fields of a block. Raises Unreadable and BlockTooLarge."""
        self.changed = False
        try:
            return self._decode(block)
        except IndexError as error:
            raise Unreadable("the block ends too early") from error

    def _decode(self, block: bytes) -> list[Field]:
        table, limit_bytes = self._table, self._limit_bytes
        fields: list[Field] = []
        at, end, size, resizes = 0, len(block), 0, 0
        while at < end:
            first = block[at]
            at += 1
            if first & 0x80:  # an indexed field (section 6.1)
                index = first & 0x7F
                if index == 0x7F:
                    index, at = _integer(block, at, 0x7F)
                field = _STATIC[index] if 0 < index < _DYNAMIC else self._entry(index)
                size += _FIELD_BYTES + len(field[0]) + len(field[1])
            elif first & 0xE0 == 0x20:  # another size of the table (section 6.3)
                resizes += 1
                if size or resizes > _RESIZES:
                    raise Unreadable("the table's size changes in the middle of a block, or too often")
                new = first & 0x1F
                if new == 0x1F:
                    new, at = _integer(block, at, 0x1F)
                self._resize(new)
                continue
            else:  # a literal (section 6.2): the table takes it, or does not
                most = 0x3F if first & 0x40 else 0x0F
                index = first & most
                if index == most:
                    index, at = _integer(block, at, most)
                # Texts that are not kept are decoded only for the table, which takes short ones.
                if size <= limit_bytes:
                    longest = max(limit_bytes, _LONG_TEXT_BYTES)
                else:
                    longest = _LONG_TEXT_BYTES if most == 0x3F else -1
                name: bytes | None
                if not index:
                    name, at = _text(block, at, longest)
                elif index < _DYNAMIC:
                    name = _STATIC[index][0]
                else:
                    name = self._entry(index)[0]
                value, at = _text(block, at, longest)
                if name is None or value is None:
                    size = max(size, limit_bytes + 1) + _FIELD_BYTES
                    if most == 0x3F:
                        self._evict(self._table_limit + 1)
                else:
                    field = name, value
                    bytes_of = _FIELD_BYTES + len(name) + len(value)
                    size += bytes_of
                    if most == 0x3F and self._evict(bytes_of):
                        table.append(field)
                        self._table_bytes += bytes_of
            if size <= limit_bytes:
                fields.append(field)
            elif size > _DECODED * limit_bytes:
                raise Unreadable("the fields of a block are too large", oversized=True)
        if size > limit_bytes:
            raise BlockTooLarge
        return fields

    def _entry(self, index: int) -> Field:
        """What the index refers to in our table."""
        if not index or index - _DYNAMIC >= len(self._table):
            raise Unreadable(f"the table has no entry {index}")
        return self._table[_DYNAMIC - 1 - index]

    def _resize(self, limit: int) -> None:
        if limit > TABLE_BYTES:
            raise Unreadable(f"a table of {limit} bytes")
        self._table_limit = limit
        self._evict(0)

    def _evict(self, coming: int) -> bool:
        """Make room for a new entry of this size (section 4.4); False if none can be made."""
        self.changed = True
        table, most = self._table, self._table_limit - coming
        if most < 0:
            table.clear()
            self._table_bytes = 0
            return False
        while self._table_bytes > most:
            name, value = table.pop(0)
            self._table_bytes -= _FIELD_BYTES + len(name) + len(value)
        return True


def _integer(block: bytes, at: int, prefix: int) -> tuple[int, int]:
    """An integer whose ``prefix`` was full (section 5.1), and where it ends."""
    number, shift = prefix, 0
    for _ in range(_INTEGER_OCTETS):
        octet = block[at]
        at += 1
        number += (octet & 0x7F) << shift
        if octet < 0x80:
            return number, at
        shift += 7
    raise Unreadable("an integer is too large")


def _text(block: bytes, at: int, longest: int) -> tuple[bytes | None, int]:
    """A text (section 5.2), None if it takes more than ``longest`` bytes; and where it ends."""
    first = block[at]
    at += 1
    size = first & 0x7F
    if size == 0x7F:
        size, at = _integer(block, at, 0x7F)
    end = at + size
    if end > len(block):
        raise Unreadable("a text goes beyond the end of its block")
    if size > longest:
        return None, end
    if first < 0x80:
        return block[at:end], end
    try:
        return decode_huffman(block[at:end]), end
    except NotHuffman as error:
        raise Unreadable(f"a text is not Huffman-coded: {error}") from error


# Appendix A. Entries are counted from 1.
_STATIC: Final[tuple[Field, ...]] = (
    (b"", b""),
    (b":authority", b""),
    (b":method", b"GET"),
    (b":method", b"POST"),
    (b":path", b"/"),
    (b":path", b"/index.html"),
    (b":scheme", b"http"),
    (b":scheme", b"https"),
    (b":status", b"200"),
    (b":status", b"204"),
    (b":status", b"206"),
    (b":status", b"304"),
    (b":status", b"400"),
    (b":status", b"404"),
    (b":status", b"500"),
    (b"accept-charset", b""),
    (b"accept-encoding", b"gzip, deflate"),
    (b"accept-language", b""),
    (b"accept-ranges", b""),
    (b"accept", b""),
    (b"access-control-allow-origin", b""),
    (b"age", b""),
    (b"allow", b""),
    (b"authorization", b""),
    (b"cache-control", b""),
    (b"content-disposition", b""),
    (b"content-encoding", b""),
    (b"content-language", b""),
    (b"content-length", b""),
    (b"content-location", b""),
    (b"content-range", b""),
    (b"content-type", b""),
    (b"cookie", b""),
    (b"date", b""),
    (b"etag", b""),
    (b"expect", b""),
    (b"expires", b""),
    (b"from", b""),
    (b"host", b""),
    (b"if-match", b""),
    (b"if-modified-since", b""),
    (b"if-none-match", b""),
    (b"if-range", b""),
    (b"if-unmodified-since", b""),
    (b"last-modified", b""),
    (b"link", b""),
    (b"location", b""),
    (b"max-forwards", b""),
    (b"proxy-authenticate", b""),
    (b"proxy-authorization", b""),
    (b"range", b""),
    (b"referer", b""),
    (b"refresh", b""),
    (b"retry-after", b""),
    (b"server", b""),
    (b"set-cookie", b""),
    (b"strict-transport-security", b""),
    (b"transfer-encoding", b""),
    (b"user-agent", b""),
    (b"vary", b""),
    (b"via", b""),
    (b"www-authenticate", b""),
)
# The first index of a connection's own table.
_DYNAMIC: Final = len(_STATIC)
