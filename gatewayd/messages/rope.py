"""
Long messages in the pieces in which they came, so that documents that only pass are never copied.

A ``Rope`` takes the place of ``bytes`` in what is longer than ``LONG_BYTES``; shorter contents stay bytes,
because a copy costs less there than a list of pieces. Both have a length, bytes at their positions, and
``bytes(content)``: of bytes that is the same object, of a rope its bytes, joined the first time that they are
needed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Final, TypeAlias

Buffer: TypeAlias = bytes | memoryview

# Up to here a message is copied into one piece. Chosen by feel: a copy of so little costs some microseconds,
# as do the views and lists of a rope.
LONG_BYTES: Final = 1 << 16


class Rope:
    """
    Bytes in pieces, in order; it never changes, and may be sent as often as wanted.

    Its pieces must not change, either. Equal to a rope, or to bytes, with the same content.
    """

    __slots__ = ("_ends", "_size", "pieces")

    def __init__(self, pieces: Iterable[Buffer]) -> None:
        self.pieces: tuple[Buffer, ...] = tuple([piece for piece in pieces if piece])
        self._size = sum(map(len, self.pieces))
        # Some pieces and where each of them ends: of another thread's, they may not be the present ones.
        self._ends: tuple[tuple[Buffer, ...], list[int]] | None = None

    def __len__(self) -> int:
        return self._size

    def __bytes__(self) -> bytes:
        pieces = self.pieces
        if len(pieces) != 1 or type(pieces[0]) is not bytes:
            # The pieces are let go: nobody holds the same bytes twice.
            joined = b"".join(pieces)
            self._ends = None
            self.pieces = (joined,)
            return joined
        return pieces[0]

    def __getitem__(self, position: int) -> int:
        """The byte at ``position``, which is not negative. Raises IndexError."""
        pieces = self.pieces
        index, start = self._find(pieces, position)
        if index == len(pieces):
            raise IndexError(position)
        return pieces[index][position - start]

    def __iter__(self) -> Iterator[int]:
        return iter(bytes(self))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (Rope, bytes)):
            return NotImplemented
        return len(self) == len(other) and bytes(self) == bytes(other)

    def __hash__(self) -> int:
        return hash(bytes(self))

    def __repr__(self) -> str:
        return f"<Rope of {self._size} bytes in {len(self.pieces)}>"

    def between(self, start: int, stop: int) -> Content:
        """The bytes from ``start`` up to ``stop``, without a copy if they are many; 0 <= start <= stop."""
        stop = min(stop, self._size)
        found: list[Buffer] = []
        pieces = self.pieces
        index, begin = self._find(pieces, start)
        while begin < stop and index < len(pieces):
            piece = pieces[index]
            end = begin + len(piece)
            if begin < start or end > stop:
                piece = memoryview(piece)[max(0, start - begin) : stop - begin]
            found.append(piece)
            begin = end
            index += 1
        return in_pieces(found)

    def _find(self, pieces: tuple[Buffer, ...], position: int) -> tuple[int, int]:
        """Which of ``pieces`` holds ``position``, and where it begins."""
        known = self._ends
        if known is None or known[0] is not pieces:
            known = self._ends = pieces, list(accumulate(map(len, pieces)))
        ends = known[1]
        index = bisect_right(ends, position)
        return index, ends[index - 1] if index else 0


Content: TypeAlias = bytes | Rope


def in_pieces(pieces: list[Buffer]) -> Content:
    """
    What ``pieces`` are together: a rope if that is long, and otherwise bytes.

    It keeps at most twice its own size in memory.
    """
    if sum(map(len, pieces)) <= LONG_BYTES:
        return b"".join(pieces)
    return Rope(_owned(pieces))


def concatenated(contents: Iterable[Content]) -> Content:
    """All of ``contents`` as one; long ones are not copied, what is between them is joined."""
    pieces: list[Buffer] = []
    short: list[Buffer] = []
    size = 0
    for content in contents:
        size += len(content)
        if len(content) <= LONG_BYTES:
            short.append(bytes(content))
            continue
        if short:
            pieces.append(b"".join(short))
            short.clear()
        if isinstance(content, Rope):
            pieces += content.pieces
        else:
            pieces.append(content)
    if size <= LONG_BYTES:
        return b"".join(short)
    if short:
        pieces.append(b"".join(short))
    return Rope(pieces)


def _owned(pieces: list[Buffer]) -> list[Buffer]:
    """
    ``pieces`` without those that keep far more in memory than they hold.

    A view keeps the whole of what it looks at. Views of one object, which are neighbours here, are copied
    if they are less than half of it together.
    """
    found: list[Buffer] = []
    at = 0
    while at < len(pieces):
        piece = pieces[at]
        after = at + 1
        if type(piece) is not memoryview:
            found.append(piece)
        else:
            size, whole = len(piece), piece.obj
            while after < len(pieces):
                following = pieces[after]
                if type(following) is not memoryview or following.obj is not whole:
                    break
                size += len(following)
                after += 1
            seen = pieces[at:after]
            found += [b"".join(seen)] if 2 * size < len(whole) else seen  # type: ignore[arg-type]
        at = after
    return found
