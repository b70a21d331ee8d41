"""Errors as clients of OpenAI's API know them: ``{"error": {message, type, param, code}}``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs
import orjson

from gatewayd.errors import (
    BadRequest,
    DeadlineExceeded,
    Draining,
    ExecutorNetworkError,
    ExecutorRaised,
    Forbidden,
    GatewayError,
    InvalidField,
    MethodNotAllowed,
    Overloaded,
    PathNotFound,
    ProtocolRefusal,
    RateLimited,
    Unauthenticated,
    UnknownModel,
    codes_of,
)
from gatewayd.messages.openai.answers import UnfitAnswer
from gatewayd.messages.openai.embeddings import NoEmbedding
from gatewayd.protocols.http.answer import JSON
from gatewayd.protocols.http.errors import ErrorResponse, response_to
from gatewayd.protocols.told import told

_REQUEST: Final = "invalid_request_error"
_SERVER: Final = "server_error"

# Type and code of each error, or of its nearest base; types and codes of clients' mistakes are OpenAI's.
_KINDS: Final[Mapping[type[GatewayError], tuple[str, str | None]]] = {
    GatewayError: (_SERVER, None),
    BadRequest: (_REQUEST, None),
    ProtocolRefusal: (_REQUEST, None),
    UnknownModel: (_REQUEST, "model_not_found"),
    PathNotFound: (_REQUEST, "unknown_url"),
    MethodNotAllowed: (_REQUEST, "method_not_supported"),
    Unauthenticated: (_REQUEST, "invalid_api_key"),
    Forbidden: (_REQUEST, "permission_denied"),
    Overloaded: (_SERVER, "overloaded"),
    RateLimited: ("rate_limit_error", "rate_limit_exceeded"),
    Draining: (_SERVER, "shutting_down"),
    ExecutorNetworkError: (_SERVER, "executor_unreachable"),
    DeadlineExceeded: (_SERVER, "timeout"),
    ExecutorRaised: (_SERVER, "executor_failed"),
    UnfitAnswer: (_SERVER, "executor_failed"),
    NoEmbedding: (_SERVER, "executor_failed"),
}


def error_object(error: GatewayError) -> dict[str, Any]:
    """What an answer, or an event in mid-stream, says of ``error``."""
    kind, code = next(_KINDS[base] for base in type(error).__mro__ if base in _KINDS)
    param = error.param if isinstance(error, InvalidField) else None
    if isinstance(error, UnknownModel):
        param = "model"
    return {"error": {"message": str(error), "type": kind, "param": param, "code": code}}


def encode_error(error: GatewayError) -> ErrorResponse:
    """The whole answer; it is counted (``protocols/told.py``)."""
    told(error, "http")
    response = response_to(error)
    # What is wrong with a body is 400 here, and 422 elsewhere.
    status = codes_of(InvalidField).http if isinstance(error, BadRequest) else response.status
    body = orjson.dumps(error_object(error))
    return attrs.evolve(response, status=status, body=body, content_type=JSON)
