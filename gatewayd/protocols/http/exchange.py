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

from gatewayd.bounded_log import BoundedLogger
from gatewayd.errors import (
    BadRequest,
    ExecutorNetworkError,
    GatewayError,
    InternalError,
    NotAcceptable,
    UnsupportedCoding,
)
from gatewayd.messages import wire
from gatewayd.messages.headers import AllowList, Headers
from gatewayd.messages.json_form import requests, responses
from gatewayd.messages.request import Request, Response
from gatewayd.offload import here_or_offloaded
from gatewayd.protocols.backend import Backend, Dispatcher
from gatewayd.protocols.decoding import decoded_in_room
from gatewayd.protocols.failures import explained
from gatewayd.protocols.http.coding import CODINGS, decoded, zipped
from gatewayd.protocols.http.errors import encode_error, encode_network_error
from gatewayd.protocols.http.grammar import members
from gatewayd.protocols.http.negotiation import Form, Media, accepts_gzip, answer_media, body_media
from gatewayd.protocols.http.request import GatewayRequest
from gatewayd.protocols.http.routes import EndpointRoute
from gatewayd.protocols.told import told

log = BoundedLogger()

TIMEOUT_HEADER: Final = "X-Request-Timeout"

_HINT: Final = b"X-Gatewayd-Hint"
_TIMEOUT_KEY: Final = TIMEOUT_HEADER.lower().encode()
_READS: Final = (b"GET", b"HEAD")
_SECONDS: Final = re.compile(rb"[0-9]{1,9}(\.[0-9]{1,9})?")
_VARY: Final = (b"Vary", b"Accept, Accept-Encoding")
_ZIPPED: Final = (b"Content-Encoding", b"gzip")


async def exchange(
    backend: Backend,
    dispatcher: Dispatcher,
    http_request: GatewayRequest,
    route: EndpointRoute,
    compress_above_bytes: int,
) -> None:
    """
    Send the body of ``http_request`` to executors, and answer with their result.

    Answers from ``compress_above_bytes`` on are sent as gzip if the client accepts it; 0 for never.
    """
    try:
        status, body, media, further = await _outcome(backend, dispatcher, http_request, route)
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
    media: Media
    timeout_s: float | None


def _read_head(http_request: GatewayRequest) -> _Head:
    """Raises OriginForbidden, ContentTypeRequired, NotAcceptable, UnsupportedCoding, BadRequest."""
    http_request.site.browsers.check(http_request.method, http_request.header)
    body_is = body_media(http_request.header(b"content-type"))
    media = answer_media(http_request.header(b"accept"), body_is)
    if media is None:
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
    backend: Backend, dispatcher: Dispatcher, http_request: GatewayRequest, route: EndpointRoute
) -> tuple[int, bytes, Media, list[tuple[bytes, bytes]]]:
    """The status, the body, what it is, and further headers. Raises GatewayError, or CancelledError."""
    head = _read_head(http_request)
    media, timeout_s = head.media, head.timeout_s
    headers = forwarded_headers(backend.forwarded, http_request) if backend.forwarded else ()
    request = await _decode(backend, http_request, route, head.body_is)
    if headers or backend.access is not None:
        request = attrs.evolve(request, headers=headers, caller=http_request.caller)
    try:
        response = await dispatcher.dispatch(request, timeout_s=timeout_s)
    except ExecutorNetworkError as error:
        size = len(request.documents) if media.form is Form.JSON else 0
        body = await here_or_offloaded(
            backend.offload, size, encode_network_error, request, error, media.form
        )
        return told(error, "http").http, body, media, []
    further = as_http(http_request, response.headers) if response.headers else []
    if response.hint and backend.gateway.gives_hints:
        further.append((_HINT, response.hint.encode("ascii", "backslashreplace")))
    return route.status, await _encode(backend, media, response), media, further


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
    backend: Backend, http_request: GatewayRequest, route: EndpointRoute, body_is: Media
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
    request = await decoded_in_room(backend, requests.decode_request, body, **options)
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


async def _encode(backend: Backend, media: Media, response: Response) -> bytes:
    if media.form is Form.PROTOBUF:
        return bytes(wire.encode_response(response))
    size = len(response.documents)
    return await here_or_offloaded(backend.offload, size, responses.encode_http, response)
