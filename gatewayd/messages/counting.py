"""How many documents a request has, seen from their lengths alone (pure)."""

from __future__ import annotations

from typing import Final

from gatewayd.errors import BadRequest
from gatewayd.messages.generations import varint
from gatewayd.messages.rope import Content

_FIRST: Final = 0x0A  # field 1, length-delimited: DataContentProto.docs, DocumentArrayProto.docs
_DOCS_BYTES: Final = 0x12
_LONG: Final = 0x80  # a length from here on takes more than one byte

# Protobuf merges lists that are there several times.
_MOST_LISTS: Final = 1000


class Uncountable(BadRequest):
    """Documents of a request that is under a rate of documents cannot be counted."""


def count_up_to(documents: Content, most: int) -> int:
    """
    The documents in a DataContentProto, without chunks and matches; ``most + 1`` if there are more.

    ``most`` bounds the work, whatever the bytes are. Raises Uncountable.
    """
    found = lists = position = 0
    whole = len(documents)
    while position < whole:
        if documents[position] == _DOCS_BYTES:
            raise Uncountable(
                "documents that Python has serialised (docs_bytes) cannot be counted for a rate; send docs"
            )
        # The usual case by hand, here and below: a small message, whose length takes one byte.
        if (
            position + 2 <= whole
            and documents[position] == _FIRST
            and (size := documents[position + 1]) < _LONG
            and position + 2 + size <= whole
        ):
            position += 2
        else:
            size, position = _field(documents, position, whole)
        lists += 1
        if lists > _MOST_LISTS:
            raise _malformed()
        end = position + size
        while position < end:
            if (
                position + 2 <= end
                and documents[position] == _FIRST
                and (size := documents[position + 1]) < _LONG
                and position + 2 + size <= end
            ):
                position += 2
            else:
                size, position = _field(documents, position, end)
            position += size
            found += 1
            if found > most:
                return found
    return found


def _field(content: Content, position: int, end: int) -> tuple[int, int]:
    """The size of field 1, which has to be at ``position``, and where its content begins."""
    if content[position] == _FIRST:
        size, begin = varint(content, position + 1, end)
        if begin + size <= end:
            return size, begin
    raise _malformed()


def _malformed() -> Uncountable:
    return Uncountable("the documents are malformed, and cannot be counted for a rate")
