# mypy: disable-error-code="no-untyped-call"
"""Bodies that come in chunks (RFC 9112 section 7.1): twisted.web's decoder, strict where that is lenient."""

from __future__ import annotations

from typing import Final

from twisted.web.http import _ChunkedTransferDecoder

from gatewayd.errors import InvalidHttp
from gatewayd.protocols.http.grammar import check_field_line, chunk_size

_MAX_LINE: Final = 1024


class ChunkedBody(_ChunkedTransferDecoder):
    """
    One body. ``dataReceived`` raises InvalidHttp besides what twisted.web's does.

    It accepts blanks before a chunk's extensions. It refuses sizes of more than 16 digits, and trailers that
    are not headers. What trailers say is dropped.
    """

    def _dataReceived_CHUNK_LENGTH(self) -> bool:
        end = self._buffer.find(b"\r\n", self._start)
        if max(end, len(self._buffer) if end < 0 else 0) > _MAX_LINE:
            raise InvalidHttp(f"the first line of a chunk has more than {_MAX_LINE} bytes")
        if end < 0:
            self._start = max(len(self._buffer) - 1, 0)  # the last byte may be half of the line's end
            return False
        self.length = chunk_size(self._buffer[:end])
        self.state = "BODY" if self.length else "TRAILER"
        del self._buffer[: end + 2]
        self._start = 0
        return True

    def _dataReceived_TRAILER(self) -> bool:
        goes_on = super()._dataReceived_TRAILER()
        for line in self._trailerHeaders:
            check_field_line(bytes(line), "trailer")
        self._trailerHeaders.clear()
        return goes_on
