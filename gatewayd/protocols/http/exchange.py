"""
One HTTP request that asks executors for something: from its body to its answer, in either form.

JSON and protobuf bodies make the same Request, and a Response is written in the form that the client
accepts (``negotiation``). Documents in protobuf are passed through as they are. What takes long, for
large bodies, is done in a pool thread.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, Final

import attrs
from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from gatewayd.errors import (
    BadRequest,
    Draining,
    ExecutorNetworkError,
    GatewayError,
    Overloaded,
    TooLarge,
    codes_for,
)
from gatewayd.messages import wire
from gatewayd.messages.json_form import requests, responses
from gatewayd.messages.request import Request, Response
from gatewayd.pb import StatusProto
from gatewayd.protocols.backend import OFFLOAD_BYTES, Needs
from gatewayd.protocols.http.answer import JSON, problem
from gatewayd.protocols.http.coding import CODINGS, inflated, zipped
from gatewayd.protocols.http.negotiation import Form, Media, accepts_gzip, answer_media, body_media
from gatewayd.protocols.http.request import GatewayRequest
from gatewayd.protocols.http.routes import ExecRoute

log = Logger()

TIMEOUT_HEADER: Final = "X-Request-Timeout"

_TIMEOUT_KEY: Final = TIMEOUT_HEADER.lower().encode()
_SECONDS: Final = re.compile(rb"[0-9]{1,9}(\.[0-9]{1,9})?")
_VARY: Final = (b"Vary", b"Accept, Accept-Encoding")
_ZIPPED: Final = (b"Content-Encoding", b"gzip")


class NotAcceptable(BadRequest):
    """The client accepts none of the forms that an answer can have."""


class UnknownCoding(BadRequest):
    """The body has a Content-Encoding that nobody here can undo."""


# What HTTP tells of these two, which no other protocol knows (RFC 9110 section 15.5).
_STATUS: Final[dict[type[Exception], int]] = {NotAcceptable: 406, UnknownCoding: 415}


async def exchange(
    needs: Needs, http_request: GatewayRequest, route: ExecRoute, compress_above_bytes: int
) -> None:
    """
    Answer ``http_request`` with what executors make of its body.

    Answers of ``compress_above_bytes`` and more are sent as gzip where the client accepts it; 0 for never.
    """
    request: Request | None = None
    asked = body_media(http_request.header(b"content-type"))
    media = answer_media(http_request.header(b"accept"), asked)
    try:
        if media is None:
            raise NotAcceptable(
                "an answer is application/json or application/x-protobuf; Accept excludes both"
            )
        timeout_s = _timeout_s(http_request.header(_TIMEOUT_KEY))
        request = await _decode(needs, http_request, route, asked)
        response = await needs.dispatcher.dispatch(request, timeout_s=timeout_s)
        body = await _encode(needs, media, response)
        status = route.status
    except ExecutorNetworkError as error:
        assert request is not None  # only dispatch raises it
        assert media is not None
        body = await _encode_failure(needs, media, request, error)
        status = codes_for(error).http
    except Exception as error:
        give_up(http_request, error)
        return
    headers = [_VARY]
    if 0 < compress_above_bytes <= len(body) and accepts_gzip(http_request.header(b"accept-encoding")):
        found = await _heavy(needs, len(body), zipped, body)
        if found is not None:
            body = found
            headers.append(_ZIPPED)
    http_request.respond(status, body, media.content_type, headers)


def give_up(http_request: GatewayRequest, error: Exception) -> None:
    """Answer with an error that is not of the network."""
    headers: list[tuple[bytes, bytes]] = []
    status = _STATUS.get(type(error)) or codes_for(error).http
    if isinstance(error, TooLarge | NotAcceptable | UnknownCoding):
        body = problem(str(error))
        if isinstance(error, UnknownCoding):
            headers.append((b"Accept-Encoding", b"gzip, deflate"))
    elif isinstance(error, BadRequest):
        body = responses.encode_bad_request(error)
    elif isinstance(error, GatewayError):
        body = problem(str(error))
        if isinstance(error, Overloaded):
            headers.append((b"Retry-After", b"%d" % max(1, math.ceil(error.retry_after_s))))
    elif isinstance(error, CancelledError):
        # Mostly the client left, and this goes nowhere; else the gateway gave up on all of its work.
        status, body = 503, problem(str(Draining()))
    else:
        request_id = http_request.request_id
        log.failure("request {request_id} to {path} failed", request_id=request_id, path=http_request.path)
        body = problem(f"internal error; the log has it as request {request_id}")
    http_request.respond(status, body, JSON, headers)


async def _decode(needs: Needs, http_request: GatewayRequest, route: ExecRoute, asked: Media) -> Request:
    """Raises BadRequest, Overloaded."""
    body = await content(needs, http_request)
    if asked.form is Form.PROTOBUF:
        return _decode_protobuf(body, http_request, route)
    content_type = http_request.header(b"content-type")
    options: dict[str, Any] = {
        "content_type": None if content_type is None else content_type.decode("latin-1"),
        "endpoint": route.endpoint,
        "request_id": http_request.request_id,
    }
    if len(body) <= OFFLOAD_BYTES:
        return requests.decode_request(body, **options)
    decoded: Request = await needs.offload(requests.decode_request, body, **options)
    return decoded


async def content(needs: Needs, http_request: GatewayRequest) -> bytes:
    """The body, without its content coding. Raises BadRequest, Overloaded."""
    coding = (http_request.header(b"content-encoding") or b"identity").strip().lower()
    body = http_request.body
    if coding in (b"identity", b""):
        return body
    if coding not in CODINGS:
        raise UnknownCoding(f"a body's Content-Encoding is gzip or deflate, not {coding.decode('latin-1')!r}")
    return await inflated(body, http_request.site.limits.body_bytes, http_request.hold, needs.offload)


def _decode_protobuf(body: bytes, http_request: GatewayRequest, route: ExecRoute) -> Request:
    """A header that names the request, and a path that is an endpoint, win over what the body says."""
    request = wire.decode_request(body)
    if http_request.given_id is None and request.request_id:
        http_request.request_id = request.request_id
    endpoint = route.endpoint if route.endpoint is not None else request.endpoint or "/"
    return attrs.evolve(request, request_id=http_request.request_id, endpoint=endpoint)


def _timeout_s(header: bytes | None) -> float | None:
    """What a client is willing to wait, from its header."""
    if header is None:
        return None
    if not _SECONDS.fullmatch(header.strip()):
        text = "value is not a number of seconds"
        entry = {"loc": ["header", TIMEOUT_HEADER], "msg": text, "type": "type_error.float"}
        raise BadRequest(f"{TIMEOUT_HEADER}: {text}", [entry])
    return float(header)


async def _encode(needs: Needs, media: Media, response: Response) -> bytes:
    if media.form is Form.PROTOBUF:
        return wire.encode_response(response)
    body: bytes = await _heavy(needs, len(response.documents), responses.encode_http, response)
    return body


async def _encode_failure(needs: Needs, media: Media, request: Request, error: ExecutorNetworkError) -> bytes:
    """The request as it came, and what went wrong, in either form."""
    if media.form is Form.JSON:
        body: bytes = await _heavy(
            needs, len(request.documents), responses.encode_network_error, request, error
        )
        return body
    status = StatusProto(code=StatusProto.ERROR, description=str(error))
    status.exception.name = "InternalNetworkError"
    return wire.encode_response(
        Response(
            request_id=request.request_id,
            endpoint="",
            documents=request.documents,
            parameters=request.parameters or None,
            status=status.SerializeToString(),
        )
    )


async def _heavy(needs: Needs, size: int, function: Callable[..., Any], *args: Any) -> Any:
    """Run a pure function here, or in a pool thread where ``size`` bytes would keep the reactor for long."""
    return await needs.offload(function, *args) if size > OFFLOAD_BYTES else function(*args)
