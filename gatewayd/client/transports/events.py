"""
Server-sent events, cut out of what a socket gave (the WHATWG's HTML standard, 9.2.6).

Lines end with CR LF, LF or CR, wherever reads cut them; comments and fields that are unknown are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import attrs

_LINE_END: Final = re.compile(rb"\r\n|\r|\n")
_BOM: Final = b"\xef\xbb\xbf"


@attrs.frozen
class Event:
    """``name`` is "message" where the server gave none."""

    name: str
    data: bytes


class EventParser:
    """The events of one body."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0  # no line ends before it
        self._begun = False
        self._after_cr = False
        self._name = ""
        self._data: list[bytes] = []

    def feed(self, content: bytes) -> Iterator[Event]:
        """The events that ``content`` completes."""
        self._buffer += content
        if not self._begun:
            if len(self._buffer) < len(_BOM) and _BOM.startswith(self._buffer):
                return
            self._begun = True
            if self._buffer.startswith(_BOM):
                del self._buffer[: len(_BOM)]
        if self._after_cr and self._buffer:
            # The LF of a CR that ended the read before.
            if self._buffer[0] == 0x0A:
                del self._buffer[:1]
            self._after_cr = False
        start = 0
        while end := _LINE_END.search(self._buffer, max(start, self._searched)):
            self._after_cr = end.group() == b"\r" and end.end() == len(self._buffer)
            line = bytes(self._buffer[start : end.start()])
            start = end.end()
            self._searched = start
            if (event := self._read(line)) is not None:
                yield event
        del self._buffer[:start]
        self._searched = len(self._buffer)

    def _read(self, line: bytes) -> Event | None:
        """Take up a line; the event that it ends, if it is empty and ends one."""
        if not line:
            name, data = self._name or "message", self._data
            self._name, self._data = "", []
            # One without data is none to the standard, but "end" has none.
            return Event(name, b"\n".join(data)) if data or name != "message" else None
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"event":
            self._name = value.decode("utf-8", "replace")
        elif field == b"data":
            self._data.append(value)
        return None
