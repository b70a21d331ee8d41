"""Cuts what arrives of a call into gRPC's messages: a flag, four bytes of length, and the message."""

from __future__ import annotations

from gatewayd.messages.rope import LONG_BYTES, Buffer, Content, in_pieces
from gatewayd.rpc.server.stream import Held

_PREFIX_BYTES = 5


class TooLong(Exception):
    """A message is announced that is longer than the limit; ``size`` is how long."""

    def __init__(self, size: int) -> None:
        self.size = size
        super().__init__(f"a message of {size} bytes")


class NoRoom(Exception):
    """All connections together hold as much as they may."""


class NotGrpc(Exception):
    """A flag that gRPC does not know."""


class MessageReader:
    """
    The unfinished message of one call, and what follows it while it is not read.

    ``held`` counts what is kept.
    """

    __slots__ = (
        "_at",
        "_compressed",
        "_have",
        "_held",
        "_limit_bytes",
        "_need",
        "_parts",
        "_size",
        "messages",
    )

    def __init__(self, limit_bytes: int, held: Held) -> None:
        self._limit_bytes = limit_bytes
        self._held = held
        self.messages = 0  # that were complete
        self._parts: list[Buffer] = []
        self._at = 0  # where what is left of the first part begins
        self._have = 0
        # The message's size and flag, once they have arrived; until then five bytes are needed.
        self._size = -1
        self._compressed = False
        self._need = _PREFIX_BYTES

    @property
    def empty(self) -> bool:
        """Whether nothing is kept, and no message has begun."""
        return not self._have and self._size < 0

    @property
    def kept_bytes(self) -> int:
        return self._have

    @property
    def missing_bytes(self) -> int:
        """What is to come of the message that has begun, once its size is known."""
        return self._size - self._have if self._size >= 0 else 0

    def add(self, data: Buffer) -> None:
        """Keep what has arrived. Raises NoRoom."""
        if not self._held.has_room(len(data)):
            raise NoRoom
        self._held.held_bytes += len(data)
        self._parts.append(data)
        self._have += len(data)

    def next(self) -> tuple[Content, bool] | None:
        """
        The next message that is complete, and whether it is compressed.

        Raises TooLong and NotGrpc.
        """
        if self._have < self._need:
            return None
        if self._size < 0:
            head = bytes(self._take(_PREFIX_BYTES))
            size = int.from_bytes(head[1:], "big")
            if head[0] > 1:
                raise NotGrpc
            if size > self._limit_bytes:
                raise TooLong(size)
            self._compressed = head[0] == 1
            self._size = self._need = size
            if self._have < size:
                return None
        message = self._take(self._size)
        self.messages += 1
        self._size, self._need = -1, _PREFIX_BYTES
        return message, self._compressed

    def clear(self) -> None:
        """Forget everything."""
        self._held.held_bytes -= self._have
        self._at = self._have = 0
        self._parts.clear()

    def _take(self, size: int) -> Content:
        if not size:
            return b""
        self._have -= size
        self._held.held_bytes -= size
        parts, at = self._parts, self._at
        first = parts[0]
        if size <= LONG_BYTES and isinstance(first, bytes) and at + size < len(first):
            # One of several messages that came together.
            self._at = at + size
            return first[at : at + size]
        found: list[Buffer] = []
        done = 0  # parts
        while size:
            part = parts[done]
            have = len(part) - at
            if have > size:
                found.append(memoryview(part)[at : at + size])
                at += size
                break
            found.append(memoryview(part)[at:] if at else part)
            done += 1
            at = 0
            size -= have
        del parts[:done]
        self._at = at
        return in_pieces(found)
