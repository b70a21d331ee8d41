"""
Requests, answers and responses to and from the bytes of a DataRequestProto.

The four fields are split by hand, which makes pass-through cheap: the documents (field 4) are sliced out of
the message and put into the next one unchanged, and parameters and routes are parsed only where they are
needed. Only the header is decoded, by protobuf where ``header_codec`` finds something unusual in it. Of long
messages, which are ropes, the documents are not even copied.
Everything here is pure; the field numbers are those of proto/jina.proto.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TypeVar

from google.protobuf.message import DecodeError

from gatewayd.errors import Unparsable
from gatewayd.messages import header_codec
from gatewayd.messages.headers import Headers, joined
from gatewayd.messages.request import Answer, Request, Response, Route, check_names
from gatewayd.messages.rope import LONG_BYTES, Content, Rope, concatenated
from gatewayd.pb import HeaderProto, RouteProto

C = TypeVar("C", bound=Content)

HEADER: Final = 0x0A  # field 1, length-delimited, and so on: number << 3 | 2
PARAMETERS: Final = 0x12
ROUTE: Final = 0x1A
DATA: Final = 0x22
_FIELDS: Final = frozenset({HEADER, PARAMETERS, ROUTE, DATA})

# DataContentProto with its docs present and empty: what an answer without documents carries.
NO_DOCUMENTS: Final = b"\x0a\x00"

# A header, parameters, documents, and a route for each executor on the way: more are no message of anybody's,
# and would take long to walk through.
MOST_FIELDS: Final = 10_000
_TOO_MANY_FIELDS: Final = (
    f"not a DataRequestProto: it has more than {MOST_FIELDS} fields, of which all documents are one"
)

# A rope with more fields than this is joined: to walk through pieces is slow.
_FIELDS_OF_A_ROPE: Final = 64


class Malformed(Unparsable):
    """The bytes are not a protobuf message of the expected type."""


def decode_request(message: Content) -> Request:
    """
    Split a client's DataRequestProto. No bytes at all are an empty request.

    Its documents may be of either generation (``generations.check_generation``). Raises Malformed, and
    BadRequest for names that are too long.
    """
    header_bytes, parameters, routes, documents = (
        split(message) if isinstance(message, bytes) else _split_rope(message)
    )
    known = header_codec.read_request_header(header_bytes)
    if known is None:
        header = _header(header_bytes)
        known = header.request_id, header.exec_endpoint, header.target_executor, header.timeout
        check_names(*known[:3])
    request_id, endpoint, target, timeout_ms = known
    return Request(
        request_id,
        endpoint,
        target,
        parameters or b"",
        documents or b"",
        routes,
        timeout_ms / 1000 if timeout_ms else None,
    )


def decode_answer(message: Content, is_error: bool = False, headers: Headers = ()) -> Answer:
    """
    Split an Executor's DataRequestProto; ``is_error`` is the trailing metadata's flag.

    Raises Malformed.
    """
    header_bytes, parameters, routes, documents = (
        split(message) if isinstance(message, bytes) else _split_rope(message)
    )
    status, failed = b"", is_error
    if is_error or not header_codec.is_success(header_bytes):
        header = _header(header_bytes)
        failed = is_error or header.status.code != 0
        if failed:
            status = header.status.SerializeToString()
    return Answer(documents or b"", parameters or b"", routes, status, failed, headers)


def request_id_of(message: Content) -> str:
    """The id in a DataRequestProto, whatever its documents are. Raises Malformed."""
    header_bytes = (split(message) if isinstance(message, bytes) else _split_rope(message))[0]
    known = header_codec.read_request_header(header_bytes)
    return _header(header_bytes).request_id if known is None else known[0]


def encode_call(request_id: str, endpoint: str, answer: Answer) -> Content:
    """
    The DataRequestProto that an Executor gets: the target is always present and empty.

    ``answer`` is what came out of the node before it, or the client's own documents.
    """
    parts = header_field(request_id, endpoint, answer.status, ())
    if answer.parameters:
        parts += field(PARAMETERS, answer.parameters)
    for route in answer.routes:
        # ``field``, without a call for the usual length of one byte: this is the hot path.
        parts += (b"\x1a%c" % len(route), route) if len(route) < 0x80 else field(ROUTE, route)
    documents = answer.documents
    size = len(documents)
    if size:
        parts += (b"\x22%c" % size, documents) if size < 0x80 else field(DATA, documents)
    # Of long parameters, too, there is one copy, for however many calls at a time.
    if size > LONG_BYTES or len(answer.parameters) > LONG_BYTES:
        return concatenated(parts)
    return b"".join(parts)  # type: ignore[arg-type]


def encode_call_list(messages: Iterable[Content]) -> Content:
    """A DataRequestListProto of messages made by ``encode_call``."""
    parts: list[Content] = []
    for message in messages:
        parts += field(HEADER, message)
    return concatenated(parts)


def decode_call_list(message: bytes) -> list[bytes]:
    """
    The messages of a DataRequestListProto, of either generation.

    Raises Malformed.
    """
    messages = []
    position, end = 0, len(message)
    while position < end:
        if message[position] == HEADER:
            start, position = _length_delimited(message, position + 1)
            messages.append(message[start:position])
        else:
            position = _skip(message, position)
    return messages


def encode_request(request: Request) -> bytes:
    """What a client sends: the inverse of ``decode_request``."""
    header = HeaderProto(request_id=request.request_id, exec_endpoint=request.endpoint)
    if request.target:
        header.target_executor = request.target
    if request.timeout_s is not None:
        header.timeout = round(request.timeout_s * 1000)
    parts = [*field(HEADER, header.SerializeToString())]
    if request.parameters:
        parts += field(PARAMETERS, request.parameters)
    for route in request.routes:
        parts += field(ROUTE, route)
    if request.documents:
        parts += field(DATA, bytes(request.documents))
    return b"".join(parts)


def encode_response(response: Response) -> Content:
    """The DataRequestProto that a client gets (spec grpc.md, Answer)."""
    parts = header_field(response.request_id, response.endpoint, response.status, response.headers)
    if response.parameters is not None:
        parts += field(PARAMETERS, response.parameters)
    for route in response.routes:
        known = None
        if not route.status:
            known = header_codec.ended_route_field(route.executor, route.start_time, route.end_time)
        parts += field(ROUTE, encode_route(route)) if known is None else (known,)
    documents = response.documents or NO_DOCUMENTS
    size = len(documents)
    parts += (b"\x22%c" % size, documents) if size < 0x80 else field(DATA, documents)
    if size > LONG_BYTES:
        return concatenated(parts)
    return b"".join(parts)  # type: ignore[arg-type]


def encode_request_id(request_id: str) -> bytes:
    """A message that holds a request id only: what a broken ``Call`` yields before it ends."""
    return b"".join(field(HEADER, HeaderProto(request_id=request_id).SerializeToString()))


def encode_begun(executor: str, start_time: float) -> bytes:
    """The RouteProto of what has not ended."""
    known = header_codec.route(executor, start_time, None)
    return encode_route(Route(executor, start_time)) if known is None else known


def encode_route(route: Route) -> bytes:
    """One RouteProto."""
    if not route.status:
        known = header_codec.route(route.executor, route.start_time, route.end_time)
        if known is not None:
            return known
    message = RouteProto(executor=route.executor)
    message.start_time.ParseFromString(header_codec.timestamp(route.start_time))
    if route.end_time is not None:
        message.end_time.ParseFromString(header_codec.timestamp(route.end_time))
    if route.status:
        message.status.ParseFromString(route.status)
    return message.SerializeToString()


def header_field(request_id: str, endpoint: str, status: bytes, headers: Headers) -> list[Content]:
    """The first field of a message with these in its header, and the target empty."""
    if not status and not headers:
        known = header_codec.header_field(request_id, endpoint)
        if known is not None:
            return [known]
    header = HeaderProto(request_id=request_id, exec_endpoint=endpoint, target_executor="")
    if status:
        header.status.ParseFromString(status)
    if headers:
        header.headers.update(joined(headers))
    return [*field(HEADER, header.SerializeToString())]


def _header(data: bytes) -> HeaderProto:
    try:
        return HeaderProto.FromString(data)
    except DecodeError as error:
        raise Malformed(f"the header is not a HeaderProto: {error}") from error


def split(message: bytes) -> tuple[bytes, bytes | None, tuple[bytes, ...], bytes | None]:
    """
    Header, parameters, routes and data of a DataRequestProto, each still serialised.

    None where the message has no such field. A field that occurs twice is concatenated, which is how
    protobuf merges messages. Unknown fields are skipped. Raises Malformed, also for more than MOST_FIELDS.
    """
    header = b""
    parameters: bytes | None = None
    routes: list[bytes] = []
    documents: bytes | None = None
    fields = 0
    position, end = 0, len(message)
    while position < end:
        fields += 1
        if fields > MOST_FIELDS:
            raise Malformed(_TOO_MANY_FIELDS)
        tag = message[position]
        if tag in _FIELDS:
            start = position + 2
            # Most fields are short: a length of one byte.
            if start <= end and (length := message[start - 1]) < 0x80 and start + length <= end:
                position = start + length
            else:
                start, position = _length_delimited(message, position + 1)
            value = message[start:position]
            if tag == DATA:
                if documents:
                    return _split_merging(message)
                documents = value
            elif tag == ROUTE:
                routes.append(value)
            elif tag == HEADER:
                if header:
                    return _split_merging(message)
                header = value
            else:
                if parameters:
                    return _split_merging(message)
                parameters = value
        else:
            position = _skip(message, position)
    return header, parameters, tuple(routes), documents


def _split_merging(message: bytes) -> tuple[bytes, bytes | None, tuple[bytes, ...], bytes | None]:
    """``split`` for a message with some field twice: their parts are joined once, however many there are."""
    found: dict[int, list[bytes]] = {tag: [] for tag in _FIELDS}
    fields = 0
    position, end = 0, len(message)
    while position < end:
        fields += 1
        if fields > MOST_FIELDS:
            raise Malformed(_TOO_MANY_FIELDS)
        tag = message[position]
        if tag in _FIELDS:
            start, position = _length_delimited(message, position + 1)
            found[tag].append(message[start:position])
        else:
            position = _skip(message, position)
    parameters, documents = (b"".join(found[tag]) if found[tag] else None for tag in (PARAMETERS, DATA))
    return b"".join(found[HEADER]), parameters, tuple(found[ROUTE]), documents


def _split_rope(rope: Rope) -> tuple[bytes, bytes | None, tuple[bytes, ...], Content | None]:
    """``split``, with the documents in the pieces in which they came."""
    rest: list[bytes] = []  # all fields but the documents
    documents: list[Content] = []
    position, end = 0, len(rope)
    fields = 0
    while position < end:
        fields += 1
        if fields > _FIELDS_OF_A_ROPE:
            return split(bytes(rope))
        begin = position
        if rope[position] == DATA:
            start, position = _length_delimited(rope, position + 1)
            documents.append(rope.between(start, position))
        else:
            position = _skip(rope, position)
            rest.append(bytes(rope.between(begin, position)))
    header, parameters, routes, _ = split(b"".join(rest))
    if not documents:
        return header, parameters, routes, None
    return header, parameters, routes, documents[0] if len(documents) == 1 else concatenated(documents)


def _skip(message: Content, position: int) -> int:
    """The position after a field, by the wire types of protobuf's encoding."""
    tag, position = _varint(message, position)
    kind, number = tag & 7, tag >> 3
    if number == 0 or (1 <= number <= 4 and kind != 2):
        raise Malformed(f"not a DataRequestProto: field {number} has wire type {kind}")
    if kind == 0:
        _, position = _varint(message, position)
    elif kind == 1:
        position += 8
    elif kind == 2:
        _, position = _length_delimited(message, position)
    elif kind == 5:
        position += 4
    else:
        raise Malformed(f"not a DataRequestProto: wire type {kind} at byte {position}")
    if position > len(message):
        raise Malformed("not a DataRequestProto: it ends within a field")
    return position


def _length_delimited(message: Content, position: int) -> tuple[int, int]:
    length, start = _varint(message, position)
    stop = start + length
    if stop > len(message):
        raise Malformed("not a DataRequestProto: it ends within a field")
    return start, stop


def _varint(message: Content, position: int) -> tuple[int, int]:
    value = shift = 0
    try:
        while True:
            byte = message[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, position
            shift += 7
            if shift > 63:
                raise Malformed("not a DataRequestProto: a number has more than ten bytes")
    except IndexError:
        raise Malformed("not a DataRequestProto: it ends within a number") from None


def field(tag: int, value: C) -> tuple[bytes, C]:
    """The tag with its length, and ``value`` as it is: two parts, so that large ones are copied once."""
    length = len(value)
    if length < 0x80:
        return bytes((tag, length)), value
    prefix = bytearray((tag,))
    while length >= 0x80:
        prefix.append(length & 0x7F | 0x80)
        length >>= 7
    prefix.append(length)
    return bytes(prefix), value
