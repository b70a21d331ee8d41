"""
The answers of one stream, encoded: they differ in little more than their documents.

What an answer shares with the one before it, its names, parameters and routes, is encoded once. The bytes are
those of ``wire.encode_response`` and ``single.encode_single_responses``, and so are the errors. Pure.
"""

from __future__ import annotations

from typing import Final

from gatewayd.messages.header_codec import timestamp
from gatewayd.messages.request import Response, Route
from gatewayd.messages.rope import LONG_BYTES, Content, concatenated
from gatewayd.messages.single import PART_OF_A_STREAM, document_at, encode_single_responses
from gatewayd.messages.wire import (
    DATA,
    NO_DOCUMENTS,
    PARAMETERS,
    ROUTE,
    encode_response,
    encode_route,
    field,
    header_field,
)

# Routes that have begun and are remembered: executors behind a generator begin anew with each document.
_REMEMBERED: Final = 16


class _Shared:
    """All fields of the last answer but its documents, which come behind them."""

    __slots__ = ("_begun", "_fields", "_header", "_last", "_names")

    def __init__(self) -> None:
        self._header = b""
        self._names = b""  # the header and the parameters
        self._begun: dict[tuple[str, float], bytes] = {}  # routes without their ends
        self._last: Response | None = None
        self._fields = b""

    def _shared(self, response: Response) -> bytes:
        last = self._last
        if (
            last is None
            or response.parameters != last.parameters
            or response.request_id != last.request_id
            or response.endpoint != last.endpoint
        ):
            names = [self._header_of(response, last)]
            if response.parameters is not None:
                names += field(PARAMETERS, response.parameters)
            self._names = b"".join(names)
        elif response.routes is last.routes:  # answers of the same moment have the same tuple
            return self._fields
        self._last = response
        self._fields = b"".join((self._names, *map(self._route, response.routes)))
        return self._fields

    def _route(self, route: Route) -> bytes:
        """The field; all of it but the end is the same for the next answer."""
        key = route.executor, route.start_time
        begun = self._begun.get(key)
        if begun is None or route.end_time is None or route.status:
            if len(self._begun) > _REMEMBERED:
                self._begun.clear()
            self._begun[key] = encode_route(Route(route.executor, route.start_time))
            return b"".join(field(ROUTE, encode_route(route)))
        end = timestamp(route.end_time)
        size = len(begun) + 2 + len(end)
        if size >= 0x80:
            return b"".join(field(ROUTE, encode_route(route)))
        return b"\x1a%c%b\x1a%c%b" % (size, begun, len(end), end)

    def _header_of(self, response: Response, last: Response | None) -> bytes:
        raise NotImplementedError


class SingleResponses(_Shared):
    """``encode_single_responses`` for the answers of one stream."""

    __slots__ = ()

    def __call__(self, response: Response) -> list[Content]:
        documents = response.documents
        if not isinstance(documents, bytes) or response.status or response.headers:
            return encode_single_responses(response)
        begin = document_at(documents)
        if not begin:
            return encode_single_responses(response)
        # The length of the document is encoded already.
        return [b"%b\x22%b" % (self._shared(response), documents[begin:])]

    def _header_of(self, response: Response, last: Response | None) -> bytes:
        if last is None or response.request_id != last.request_id or response.endpoint != last.endpoint:
            parts = header_field(response.request_id, response.endpoint, b"", ())
            self._header = b"".join(parts)  # type: ignore[arg-type]
        return self._header


class PartResponses(_Shared):
    """
    ``encode_response`` for the answers of one stream, of which the client knows the request.

    They have its ``request_id`` and ``endpoint``, whatever executors say, and tell that they are parts.
    """

    __slots__ = ("_endpoint", "_request_id")

    def __init__(self, request_id: str, endpoint: str) -> None:
        _Shared.__init__(self)
        self._request_id = request_id
        self._endpoint = endpoint
        parts = header_field(request_id, endpoint, b"", (PART_OF_A_STREAM,))
        self._header = b"".join(parts)  # type: ignore[arg-type]

    def __call__(self, response: Response) -> Content:
        if response.status or response.headers:
            return encode_response(self.named(response))
        documents = response.documents or NO_DOCUMENTS
        parts = (self._shared(response), *field(DATA, documents))
        return b"".join(parts) if len(documents) <= LONG_BYTES else concatenated(parts)  # type: ignore[arg-type]

    def named(self, response: Response) -> Response:
        """The same answer under the names of its request."""
        return response.part_of(self._request_id, self._endpoint, PART_OF_A_STREAM)

    def _header_of(self, response: Response, last: Response | None) -> bytes:
        return self._header
