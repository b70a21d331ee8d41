"""
Which generation of docarray serialised documents are of (pure).

The first generation, docarray up to 0.21, writes a document's id as text in field 1. The second, docarray
0.30 and later, writes a map: a document consists of field-1 entries ``{1: key, 2: value}``. The bytes of the
second parse as the first without an error, with everything lost. Empty documents are the same in both.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from gatewayd.errors import BadRequest, GenerationUnknown
from gatewayd.messages.rope import Content

_FIRST: Final = 0x0A  # field 1, length-delimited
_SECOND: Final = 0x12


class Generation(IntEnum):
    """Of documents: FIRST that of docarray up to 0.21 (Jina 3.14), SECOND of 0.30 and later (Jina 3.34)."""

    FIRST = 1
    SECOND = 2


# What each is called in sentences.
NAMED: Final = {
    Generation.FIRST: "docarray 0.21 and earlier",
    Generation.SECOND: "docarray 0.30 and later",
}
NOT_KNOWN_YET: Final = "not known yet"
_INSTALL: Final = {
    Generation.FIRST: "docarray<0.30, and Jina 3.14 or earlier",
    Generation.SECOND: "docarray>=0.40, and Jina 3.34",
}
# To pass over the millions of empty documents in 10 MB takes seconds, and nobody sends them.
_MOST_LOOKS: Final = 1000


class ForeignDocuments(BadRequest):
    """Documents in the format of the generation that is not ``served``."""

    def __init__(self, served: Generation = Generation.FIRST) -> None:
        foreign = Generation.SECOND if served == Generation.FIRST else Generation.FIRST
        super().__init__(
            f"the documents are in the format of {NAMED[foreign]}, and only that of {NAMED[served]} is "
            f"served here: install {_INSTALL[served]}, where the request is made"
        )


def check_generation(content: Content, served: Generation = Generation.FIRST) -> None:
    """
    Look at a DataContentProto's first document that is not empty.

    Raises ForeignDocuments if it is not of the generation that is ``served``.

    Malformed bytes pass, and ``docs_bytes``: whatever parses them says what is wrong.
    """
    if len(content) > 1 and content[0] == _FIRST and generation_of(content) not in (None, served):
        raise ForeignDocuments(served)


def check_told_later(content: Content, told: Generation) -> None:
    """
    As ``check_generation``, for documents that came before executors told what they speak.

    Raises GenerationUnknown: their client, or our JSON, could not know it.
    """
    found = generation_of(content)
    if found is not None and found is not told:
        raise GenerationUnknown(NAMED[found], NAMED[told])


def generation_of(content: Content) -> Generation | None:
    """
    That of a DataContentProto's first document that is not empty.

    None where there is no such document in ``docs``, or none among the first thousand, or where the bytes
    are malformed.
    """
    # Follow the lengths: the list of documents, its first document, that one's first entry and its key.
    end = len(content)
    position = looks = 0
    for depth in range(3):
        size = 0
        while size == 0:  # an empty list or document says nothing
            looks += 1
            if position >= end or looks > _MOST_LOOKS:
                return None
            if content[position] != _FIRST:
                return Generation.FIRST if depth == 2 else None
            if position + 1 < end and (size := content[position + 1]) < 0x80:
                position += 2
            else:
                size, position = varint(content, position + 1, end)
        if position + size > end:
            return None
        end = position + size
    if content[position] != _FIRST:
        return Generation.FIRST
    size, position = varint(content, position + 1, end)
    position += size
    if position >= end or content[position] != _SECOND:
        return Generation.FIRST
    size, position = varint(content, position + 1, end)
    return Generation.SECOND if position + size == end else Generation.FIRST


def varint(content: Content, position: int, end: int) -> tuple[int, int]:
    """The varint at ``position`` and the position after it; past the end of ``content`` if it is cut off."""
    value = shift = 0
    while position < end and shift < 35:
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    return end + 1, position
