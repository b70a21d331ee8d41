"""Errors as HTTP responses."""

from __future__ import annotations

import json
import math
from typing import Final

import attrs

from gatewayd.errors import (
    BadRequest,
    ExecutorNetworkError,
    GatewayError,
    InvalidQuery,
    MethodNotAllowed,
    Overloaded,
    PathNotFound,
    Unauthenticated,
    UnsupportedCoding,
    codes_for,
)
from gatewayd.messages import wire
from gatewayd.messages.json_form import responses
from gatewayd.messages.request import Request, Response
from gatewayd.protocols.failures import failure_status
from gatewayd.protocols.http.answer import JSON
from gatewayd.protocols.http.bodies import FIRST, Bodies
from gatewayd.protocols.http.negotiation import Form
from gatewayd.protocols.told import told

_TEXT: Final = b"text/plain; charset=utf-8"


@attrs.frozen
class ErrorResponse:
    """An HTTP response without the headers that every response has."""

    status: int
    body: bytes = attrs.field(repr=False)
    content_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


def encode_error(error: GatewayError) -> ErrorResponse:
    """What a client is told: as ``response_to``, and counted (``protocols/told.py``)."""
    told(error, "http")
    return response_to(error)


def response_to(error: GatewayError) -> ErrorResponse:
    """
    The response to a request that failed with ``error``.

    Its body is ``{"detail": text}``, or the list of problems where the request itself is at fault. What the
    reference answers to an invalid GraphQL request is plain text (golden: graphql.json).
    """
    status = codes_for(error).http
    if isinstance(error, BadRequest):
        return ErrorResponse(status, responses.encode_bad_request(error))
    if isinstance(error, InvalidQuery):
        return ErrorResponse(status, str(error).encode(), _TEXT)
    detail = {"detail": str(error)}
    if isinstance(error, PathNotFound) and error.hint:
        detail["hint"] = error.hint
    body = json.dumps(detail, separators=(",", ":")).encode()
    return ErrorResponse(status, body, headers=_headers(error))


def encode_network_error(
    request: Request, error: ExecutorNetworkError, form: Form, bodies: Bodies = FIRST
) -> bytes:
    """
    The body of the response if an executor could not be reached: ``request`` as it was sent, and the error.

    Raises GatewayError if its documents have no JSON form.
    """
    if form is Form.JSON:
        return bodies.encode_network_error(request, error)
    response = Response(
        request_id=request.request_id,
        endpoint="",
        documents=request.documents,
        parameters=request.parameters or None,
        status=failure_status(error),
    )
    return bytes(wire.encode_response(response))


def _headers(error: GatewayError) -> tuple[tuple[bytes, bytes], ...]:
    if isinstance(error, Overloaded):
        return ((b"Retry-After", b"%d" % max(1, math.ceil(error.retry_after_s))),)
    if isinstance(error, MethodNotAllowed):
        return ((b"Allow", error.allowed.encode()),)
    if isinstance(error, Unauthenticated):
        return ((b"WWW-Authenticate", error.challenge.encode()),)
    if isinstance(error, UnsupportedCoding):
        return ((b"Accept-Encoding", b"gzip, deflate"),)
    return ()
