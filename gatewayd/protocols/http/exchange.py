"""
One HTTP request to executors, from its body to its answer, as JSON or protobuf.

Both forms of bodies are decoded to a Request, and the Response is encoded in the form that the client accepts
(``negotiation``). Documents in protobuf are passed on without decoding them. Large bodies are converted in a
pool thread.
"""

from __future__ import annotations

import re
from typing import Any, Final

import attrs
from twisted.internet.defer import CancelledError

from gatewayd.bounded_log import BoundedLogger
from gatewayd.errors import (
    BadRequest,
    Draining,
    ExecutorNetworkError,
    GatewayError,
    InternalError,
    NotAcceptable,
    PathNotFound,
    UnsupportedCoding,
    codes_for,
)
from gatewayd.messages import wire
from gatewayd.messages.headers import AllowList, Headers
from gatewayd.messages.request import Request, Response, content_bytes
from gatewayd.offload import here_or_offloaded, is_small
from gatewayd.protocols.backend import Backend, Dispatcher
from gatewayd.protocols.decoding import decoded_in_room
from gatewayd.protocols.failures import explained
from gatewayd.protocols.http.bodies import FIRST, Bodies
from gatewayd.protocols.http.coding import CODINGS, decoded, zipped
from gatewayd.protocols.http.errors import encode_error, encode_network_error
from gatewayd.protocols.http.grammar import members
from gatewayd.protocols.http.negotiation import Form, Media, accepts_gzip, answer_media, body_media
from gatewayd.protocols.http.request import GatewayRequest
from gatewayd.protocols.http.routes import EndpointRoute
from gatewayd.protocols.http.streaming import StreamBody, asks_for_stream, framing_for
from gatewayd.protocols.told import told
from gatewayd.streams import TOGETHER

log = BoundedLogger()

TIMEOUT_HEADER: Final = "X-Request-Timeout"

_HINT: Final = b"X-Gatewayd-Hint"
_TIMEOUT_KEY: Final = TIMEOUT_HEADER.lower().encode()
_READS: Final = (b"GET", b"HEAD")
_SECONDS: Final = re.compile(rb"[0-9]{1,9}(\.[0-9]{1,9})?")
_VARY: Final = (b"Vary", b"Accept, Accept-Encoding")
_ZIPPED: Final = (b"Content-Encoding", b"gzip")


@attrs.frozen
class Served:
    """
    What is served to HTTP's clients: the ``bodies`` of the Flow's generation of documents, and which
    endpoints stream.
    """

    bodies: Bodies = FIRST
    streaming: frozenset[str] = frozenset()


async def exchange(
    backend: Backend,
    dispatcher: Dispatcher,
    http_request: GatewayRequest,
    route: EndpointRoute,
    compress_above_bytes: int,
    served: Served,
) -> None:
    """
    Send the body of ``http_request`` to executors, and answer with their result.

    Answers from ``compress_above_bytes`` on are sent as gzip if the client accepts it; 0 for never.
    """
    try:
        outcome = await _outcome(backend, dispatcher, http_request, route, served)
        if outcome is None:
            return  # an endpoint that streams: it has been answered
        status, body, media, further = outcome
        headers = [_VARY, *further]
        if 0 < compress_above_bytes <= len(body) and accepts_gzip(http_request.header(b"accept-encoding")):
            compressed = await here_or_offloaded(backend.offload, len(body), zipped, body)
            if compressed is not None:
                body = compressed
                headers.append(_ZIPPED)
    except Exception as error:
        respond_with_error(http_request, error)
    else:
        http_request.respond(status, body, media.content_type, headers)


@attrs.frozen
class _Head:
    """What a request's headers say: what its body is, what the answer shall be, and how long it may take."""

    body_is: Media
    media: Media | None
    timeout_s: float | None


def _read_head(http_request: GatewayRequest) -> _Head:
    """
    ``media`` is None where only a stream is accepted.

    Raises OriginForbidden, ContentTypeRequired, NotAcceptable, UnsupportedCoding, BadRequest.
    """
    http_request.site.browsers.check(http_request.method, http_request.header)
    body_is = body_media(http_request.header(b"content-type"))
    media = answer_media(http_request.header(b"accept"), body_is)
    if media is None and not asks_for_stream(http_request.header(b"accept")):
        raise NotAcceptable
    _is_compressed(http_request)
    return _Head(body_is, media, _timeout_s(http_request.header(_TIMEOUT_KEY)))


def is_acceptable(http_request: GatewayRequest) -> bool:
    """Whether a request's head allows an answer; if not, it is refused whatever its body holds."""
    try:
        _read_head(http_request)
    except GatewayError:
        return False
    return True


async def _outcome(
    backend: Backend,
    dispatcher: Dispatcher,
    http_request: GatewayRequest,
    route: EndpointRoute,
    served: Served,
) -> tuple[int, bytes, Media, list[tuple[bytes, bytes]]] | None:
    """
    The status, the body, what it is, and further headers; None for a stream, which has been answered.

    Raises GatewayError, or CancelledError.
    """
    bodies = served.bodies
    head = _read_head(http_request)
    media, timeout_s = head.media, head.timeout_s
    headers = forwarded_headers(backend.forwarded, http_request) if backend.forwarded else ()
    request = await _decode(backend, http_request, route, head.body_is, bodies)
    if headers or backend.access is not None:
        request = attrs.evolve(request, headers=headers, caller=http_request.caller)
    streaming = served.streaming
    if backend.streaming.unknown:
        timeout_s = await backend.streaming.known(request, timeout_s)
        streaming = backend.endpoints().streaming
    if request.endpoint in streaming:
        if (
            media is not None
            and route.endpoint is None
            and not asks_for_stream(http_request.header(b"accept"))
        ):
            named = request.endpoint
            raise PathNotFound(f"the endpoint {named} streams: GET or POST {named} takes one document")
        await _stream(backend, dispatcher, http_request, request, timeout_s, bodies)
        return None
    if media is None:
        raise NotAcceptable
    try:
        response = await dispatcher.dispatch(request, timeout_s=timeout_s)
    except ExecutorNetworkError as error:
        size = content_bytes(request) if media.form is Form.JSON else 0
        body = await here_or_offloaded(
            backend.offload, size, encode_network_error, request, error, media.form, bodies
        )
        return told(error, "http").http, body, media, []
    further = as_http(http_request, response.headers) if response.headers else []
    if response.hint and backend.gateway.gives_hints:
        further.append((_HINT, response.hint.encode("ascii", "backslashreplace")))
    return route.status, await _encode(backend, media, response, bodies), media, further


async def stream_exchange(
    backend: Backend,
    dispatcher: Dispatcher,
    http_request: GatewayRequest,
    endpoint: str,
    served: Served,
) -> None:
    """
    Send the one document of ``http_request`` to an ``endpoint`` that streams, and answer with all that comes.

    The document of a GET is its body, as the reference's client sends it, or its query.
    """
    try:
        http_request.site.browsers.check(http_request.method, http_request.header)
        timeout_s = _timeout_s(http_request.header(_TIMEOUT_KEY))
        headers = forwarded_headers(backend.forwarded, http_request) if backend.forwarded else ()
        body = await content(backend, http_request)
        content_type = http_request.header(b"content-type")
        is_post = http_request.method == b"POST"
        if is_post and body_media(content_type).form is Form.PROTOBUF:
            request = attrs.evolve(wire.decode_request(body), endpoint=endpoint)
        else:
            options: dict[str, Any] = {
                "content_type": None if content_type is None else content_type.decode("latin-1"),
                "endpoint": endpoint,
                "request_id": http_request.given_id,
                "max_documents": backend.gateway.max_documents,
                "wrapped": is_post,
            }
            query = http_request.uri.partition(b"?")[2].decode("latin-1")
            request = await decoded_in_room(backend, served.bodies.decode_one, body, query, **options)
        http_request.request_id = request.request_id
        if headers or backend.access is not None:
            request = attrs.evolve(request, headers=headers, caller=http_request.caller)
        await _stream(backend, dispatcher, http_request, request, timeout_s, served.bodies)
    except Exception as error:
        respond_with_error(http_request, error)


async def _stream(
    backend: Backend,
    dispatcher: Dispatcher,
    http_request: GatewayRequest,
    request: Request,
    timeout_s: float | None,
    bodies: Bodies,
) -> None:
    """
    Answer with the stream of ``request``; its head goes out when the first answer, or the end, is there.

    So a stream that fails before that is answered as any other request. Raises GatewayError, CancelledError.
    """
    framing = framing_for(http_request.header(b"accept"))
    stream = dispatcher.stream(request, timeout_s=timeout_s)
    body: StreamBody | None = None
    try:
        try:
            response = await stream.receive()
        except ExecutorNetworkError as error:
            size = content_bytes(request)
            answer = await here_or_offloaded(
                backend.offload, size, bodies.encode_network_error, request, error
            )
            http_request.respond(told(error, "http").http, answer)
            return
        document = None if response is None else await _encode_one(backend, bodies, response)
        body = StreamBody(http_request, framing)
        # Those of later answers have no place: the head is gone by then.
        body.begin(as_http(http_request, response.headers) if response is not None else ())
        if document is not None:
            await body.update([document])
            while (response := await stream.receive()) is not None:
                await _update(backend, bodies, body, [response, *stream.more(TOGETHER)])
        body.end()
    except CancelledError:
        if http_request.gone or body is None:
            raise
        body.fail(str(Draining()), codes_for(Draining()).http)
    except Exception as error:
        if body is None:
            raise
        public = explained(error, request.request_id)
        if isinstance(public, InternalError):
            log.failure("the stream of request {request_id} failed", request_id=request.request_id)
        body.fail(str(public), told(public, "http").http)
    finally:
        stream.cancel()
        if body is not None:
            body.abandon()


async def _update(backend: Backend, bodies: Bodies, body: StreamBody, responses: list[Response]) -> None:
    """Write ``responses`` together; those before one that has no JSON form are written all the same."""
    documents: list[bytes] = []
    try:
        for each in responses:
            if is_small(len(each.documents)):
                documents.append(bodies.encode_one(each))
            else:
                documents.append(await _encode_one(backend, bodies, each))
    except Exception:
        body.write(documents)
        raise
    await body.update(documents)


async def _encode_one(backend: Backend, bodies: Bodies, response: Response) -> bytes:
    size = len(response.documents)
    return await here_or_offloaded(backend.offload, size, bodies.encode_one, response)


def forwarded_headers(forwarded: AllowList, http_request: GatewayRequest) -> Headers:
    """The headers of ``http_request`` that executors get. Raises IllegalHeader, HeadersTooLarge."""
    return forwarded.of_request(
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, values in http_request.requestHeaders.getAllRawHeaders()
        for value in values
    )


def as_http(http_request: GatewayRequest, headers: Headers) -> list[tuple[bytes, bytes]]:
    """Executors' headers as those of an answer, for scripts of other origins as well where CORS is on."""
    found = [(name.encode(), value.encode()) for name, value in headers]
    if found and http_request.site.cors.origins:
        names = b", ".join(dict.fromkeys(name for name, _ in found))
        found.append((b"Access-Control-Expose-Headers", names))
    return found


def respond_with_error(http_request: GatewayRequest, error: Exception) -> None:
    """Answer with ``error``, and log it if it is a bug. Call this while the exception is handled."""
    public = explained(error, http_request.request_id)
    if isinstance(public, InternalError):
        log.failure(
            "request {request_id} to {path} failed",
            request_id=http_request.request_id,
            path=http_request.path,
        )
    http_request.respond_with(encode_error(public))


async def _decode(
    backend: Backend, http_request: GatewayRequest, route: EndpointRoute, body_is: Media, bodies: Bodies
) -> Request:
    """Raises the errors of ``content``."""
    body = await content(backend, http_request)
    if body_is.form is Form.PROTOBUF:
        return _decode_protobuf(body, http_request, route)
    if not body and http_request.method in _READS:
        body = b"{}"  # browsers send no body with these
    content_type = http_request.header(b"content-type")
    options: dict[str, Any] = {
        "content_type": None if content_type is None else content_type.decode("latin-1"),
        "endpoint": route.endpoint,
        "request_id": http_request.given_id,
        "max_documents": backend.gateway.max_documents,
    }
    request = await decoded_in_room(backend, bodies.decode, body, **options)
    http_request.request_id = request.request_id
    return request


async def content(backend: Backend, http_request: GatewayRequest) -> bytes:
    """The body, without its content coding. Raises BadRequest, UnsupportedCoding, TooLarge, Overloaded."""
    body = http_request.body
    if not _is_compressed(http_request):
        return body
    return await decoded(body, http_request.site.limits.body_bytes, http_request.hold, backend.offload)


def _is_compressed(http_request: GatewayRequest) -> bool:
    """Raises UnsupportedCoding for an unknown coding, and for several codings."""
    header = http_request.header(b"content-encoding")
    if header is None:
        return False
    codings = [coding for coding in members([header]) if coding != b"identity"]
    if len(codings) > 1 or not set(codings) <= set(CODINGS):
        raise UnsupportedCoding(b", ".join(codings).decode("latin-1"))
    return bool(codings)


def _decode_protobuf(body: bytes, http_request: GatewayRequest, route: EndpointRoute) -> Request:
    """A request id in a header, and an endpoint in the path, override those in the body."""
    request = wire.decode_request(body)
    if http_request.given_id is None and request.request_id:
        http_request.request_id = request.request_id
    endpoint = route.endpoint if route.endpoint is not None else request.endpoint or "/"
    return attrs.evolve(request, request_id=http_request.request_id, endpoint=endpoint)


def client_timeout_s(http_request: GatewayRequest) -> float | None:
    """The client's own deadline in seconds, None without one. Raises BadRequest."""
    return _timeout_s(http_request.header(_TIMEOUT_KEY))


def _timeout_s(header: bytes | None) -> float | None:
    """The client's deadline in seconds, from its header."""
    if header is None:
        return None
    if not _SECONDS.fullmatch(header.strip()):
        text = "value is not a number of seconds"
        entry = {"loc": ["header", TIMEOUT_HEADER], "msg": text, "type": "type_error.float"}
        raise BadRequest(f"{TIMEOUT_HEADER}: {text}", [entry])
    return float(header)


async def _encode(backend: Backend, media: Media, response: Response, bodies: Bodies) -> bytes:
    if media.form is Form.PROTOBUF:
        return bytes(wire.encode_response(response))
    size = len(response.documents) + len(response.parameters or b"")
    return await here_or_offloaded(backend.offload, size, bodies.encode, response)
