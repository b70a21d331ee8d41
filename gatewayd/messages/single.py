"""
Single documents to and from the bytes of a SingleDocumentRequestProto (spec 34/wire.md and streaming.md).

It has the fields of a DataRequestProto, but field 4 is one document instead of a DataContentProto. Inside the
gateway there are only DataContentProtos: one document is one in a list, which differs by two prefixes. No
document is parsed, so this holds for both generations of docarray. Everything here is pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from gatewayd.messages.documents import UnreadableDocuments
from gatewayd.messages.header_codec import is_success
from gatewayd.messages.headers import Headers
from gatewayd.messages.request import Answer, Request, Response
from gatewayd.messages.rope import LONG_BYTES, Content, concatenated
from gatewayd.messages.wire import (
    DATA,
    HEADER,
    PARAMETERS,
    ROUTE,
    Malformed,
    decode_answer,
    decode_request,
    encode_response,
    field,
    split,
)

# Field 1 of a DataContentProto is the list, field 1 of the list a document; field 2 is ``docs_bytes``.
_LIST: Final = 0x0A
_DOCUMENT: Final = 0x0A
_DOCS_BYTES: Final = 0x12

# Among the headers of an answer that is one of several to its request, over ``Call`` and WebSocket: whoever
# expects one answer must not take it for the whole.
PART_OF_A_STREAM: Final = ("gatewayd-stream", "part")


def content_of(document: bytes) -> bytes:
    """The DataContentProto with this document alone."""
    inner = b"".join(field(_DOCUMENT, document))
    return b"".join(field(_LIST, inner))


def contents_of(content: Content) -> list[Content]:
    """
    A DataContentProto for each document of ``content``, in order.

    Raises UnreadableDocuments for ``docs_bytes``, and for what is no DataContentProto.
    """
    if not content:
        return []
    raw = bytes(content)
    documents = list(_documents(raw))
    return [content] if len(documents) == 1 else [content_of(each) for each in documents]


def decode_single_request(message: Content) -> Request:
    """
    A client's SingleDocumentRequestProto; its Request has one document.

    Raises Malformed, or ForeignDocuments.
    """
    header, parameters, routes, document = split(bytes(message))
    return decode_request(_joined(header, parameters, routes, DATA, content_of(document or b"")))


def decode_single_answer(message: Content, headers: Headers = ()) -> Answer:
    """An executor's SingleDocumentRequestProto; a failed one may be without a document. Raises Malformed."""
    # The usual answer, by hand: a header without a status, and then one document of less than 16 KiB.
    if type(message) is bytes and len(message) > 3 and message[0] == HEADER and message[1] < 0x80:
        size = len(message)
        at = 2 + message[1]
        if at + 2 <= size and message[at] == DATA and is_success(message[2:at]):
            length, start = message[at + 1], at + 2
            if length >= 0x80 and start < size and 0 < message[start] < 0x80:
                length += (message[start] << 7) - 0x80
                start += 1
            inner = size - at
            if start + length != size:
                pass  # something comes behind it, or it is not whole
            elif inner < 0x80:
                return Answer(b"\x0a%c\x0a%b" % (inner, message[at + 1 :]), b"", (), b"", False, headers)
            elif inner < 0x4000:
                content = b"\x0a%c%c\x0a%b" % (inner & 0x7F | 0x80, inner >> 7, message[at + 1 :])
                return Answer(content, b"", (), b"", False, headers)
    header, parameters, routes, document = split(bytes(message))
    answer = decode_answer(_joined(header, parameters, routes, DATA, b""), False, headers)
    if document is None and answer.failed:
        return answer
    return Answer(
        content_of(document or b""),
        answer.parameters,
        answer.routes,
        answer.status,
        answer.failed,
        headers,
    )


def response_of_single(message: bytes) -> Content:
    """The DataRequestProto that says what a SingleDocumentRequestProto does. Raises Malformed."""
    header, parameters, routes, document = split(message)
    content = None if document is None else content_of(document)
    return _joined(header, parameters, routes, DATA if content is not None else 0, content or b"")


class SingleCalls:
    """
    A SingleDocumentRequestProto for each document of a DataRequestProto, with its header, parameters and
    routes.

    Each is made, and its document looked for, when its turn has come: all of them together may be very much
    larger than the request, and to find millions of empty ones takes seconds.
    """

    __slots__ = ("_documents", "_following", "_header", "_parameters", "_routes")

    def __init__(self, message: Content) -> None:
        """Raises Malformed, or UnreadableDocuments."""
        self._header, self._parameters, self._routes, content = split(bytes(message))
        self._documents = _documents(content or b"")
        self._following = next(self._documents, None)

    def __bool__(self) -> bool:
        return self._following is not None

    def take(self) -> Content:
        """The next one. Raises Malformed, or UnreadableDocuments, if what comes behind it is no document."""
        document, self._following = self._following, next(self._documents, None)
        assert document is not None, "there is none"
        return _joined(self._header, self._parameters, self._routes, DATA, document)


def encode_single_calls(message: Content) -> list[Content]:
    """The SingleCalls of ``message`` at once. Raises as they do."""
    calls, found = SingleCalls(message), list[Content]()
    while calls:
        found.append(calls.take())
    return found


def encode_single_responses(response: Response) -> list[Content]:
    """
    The SingleDocumentRequestProtos that a client gets: one for each document.

    A response without documents is one message without a document. Raises UnreadableDocuments.
    """
    header, parameters, routes, content = split(bytes(encode_response(response)))
    documents = list(_documents(content or b""))
    if not documents:
        return [_joined(header, parameters, routes, 0, b"")]
    return [_joined(header, parameters, routes, DATA, document) for document in documents]


def document_at(content: bytes) -> int:
    """
    Where the length of the document begins in a DataContentProto that is one document and nothing else.

    0 where it is anything else, or has three bytes of length.
    """
    size = len(content)
    if size < 4 or content[0] != _LIST:
        return 0
    length, inner = content[1], 2
    if length >= 0x80:
        second = content[2]
        if not 0 < second < 0x80:
            return 0
        length += (second << 7) - 0x80
        inner = 3
    if inner + length != size or length < 2 or content[inner] != _DOCUMENT:
        return 0
    inner += 1
    length, start = content[inner], inner + 1
    if length >= 0x80:
        if start == size or not 0 < content[start] < 0x80:
            return 0
        length += (content[start] << 7) - 0x80
        start += 1
    return inner if start + length == size else 0


def _joined(
    header: bytes, parameters: bytes | None, routes: tuple[bytes, ...], tag: int, data: bytes
) -> Content:
    parts: list[Content] = [*field(HEADER, header)]
    if parameters is not None:
        parts += field(PARAMETERS, parameters)
    for route in routes:
        parts += field(ROUTE, route)
    if tag:
        parts += field(tag, data)
    if len(data) > LONG_BYTES or len(parameters or b"") > LONG_BYTES:
        return concatenated(parts)
    return b"".join(parts)  # type: ignore[arg-type]


def _documents(content: bytes) -> Iterator[bytes]:
    """Each document of a DataContentProto, serialised."""
    for tag, found in _fields(content):
        if tag == _DOCS_BYTES:
            raise UnreadableDocuments(
                "these documents are serialised by Python (docs_bytes), which the gateway never opens: an "
                "endpoint that streams takes documents as protobuf"
            )
        if tag == _LIST:
            for inner, document in _fields(found):
                if inner == _DOCUMENT:
                    yield document


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """The length-delimited fields of ``message``, with their tags."""
    position, end = 0, len(message)
    while position < end:
        tag = message[position]
        position += 1
        size = shift = 0
        while True:
            if position >= end or shift > 63:
                raise Malformed("the documents are not a DataContentProto: they end within a length")
            byte = message[position]
            position += 1
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        if tag & 7 != 2 or tag >= 0x80:
            raise Malformed(f"the documents are not a DataContentProto: a field has the tag {tag}")
        if position + size > end:
            raise Malformed("the documents are not a DataContentProto: they end within a field")
        yield tag, message[position : position + size]
        position += size
