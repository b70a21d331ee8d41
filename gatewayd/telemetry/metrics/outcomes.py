"""
How a request ended, as one of a few words (pure).

They are the same in metrics, where a label takes few values, in the access log, in spans and in recordings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from twisted.internet.defer import CancelledError

from gatewayd import errors
from gatewayd.errors import (
    AuthorizationUnavailable,
    BadRequest,
    CallFailed,
    DeadlineExceeded,
    Draining,
    ExecutorNetworkError,
    ExecutorRaised,
    Forbidden,
    GatewayError,
    InternalError,
    Overloaded,
    ProtocolRefusal,
    RateLimited,
    Unauthenticated,
    WithheldNetworkError,
    codes_of,
)
from gatewayd.messages.request import Response

OK: Final = "ok"
CANCELLED: Final = "cancelled"  # its client has left
EXECUTOR_ERROR: Final = "executor_error"  # an executor raised: the answer says so, or its call's status

_WORDS: Final[Mapping[type[BaseException], str]] = {
    BadRequest: "bad_request",
    ProtocolRefusal: "bad_request",
    Unauthenticated: "unauthenticated",
    Forbidden: "forbidden",
    AuthorizationUnavailable: "unavailable",
    ExecutorNetworkError: "unavailable",
    ExecutorRaised: EXECUTOR_ERROR,
    DeadlineExceeded: "deadline",
    Overloaded: "overloaded",
    RateLimited: "rate_limited",
    Draining: "draining",
    InternalError: "internal",
    GatewayError: "internal",
    CancelledError: CANCELLED,
    BaseException: "internal",
}
OUTCOMES: Final = tuple(dict.fromkeys((OK, EXECUTOR_ERROR, *_WORDS.values())))
_CALLS: Final[Mapping[str, str]] = {
    "OK": OK,
    "CANCELLED": CANCELLED,
    "UNKNOWN": EXECUTOR_ERROR,
    "DEADLINE_EXCEEDED": _WORDS[DeadlineExceeded],
}
_LATE: Final = codes_of(DeadlineExceeded)
# What servers of gRPC say where a method has raised, and gives no status of its own: streams end with it.
_RAISED: Final = "UNKNOWN"


def outcome_of(error: BaseException) -> str:
    """The word for a request that failed with ``error``."""
    if isinstance(error, WithheldNetworkError):
        if error.codes == _LATE:
            return _WORDS[DeadlineExceeded]
        if error.codes.grpc == _RAISED:
            return EXECUTOR_ERROR
    if isinstance(error, CallFailed) and error.code == _RAISED:
        return EXECUTOR_ERROR
    return _of_class(type(error))


def ended_as(response: Response | None, error: BaseException | None) -> str:
    """The word for a request that has this response, or failed with ``error``."""
    if error is not None:
        return outcome_of(error)
    return EXECUTOR_ERROR if response is not None and response.status else OK


def outcome_of_class(name: str) -> str:
    """The word for what failed with an error of which the class's name alone is known."""
    found = getattr(errors, name, None)
    return _of_class(found if isinstance(found, type) else BaseException)


def outcome_of_code(code: str) -> str:
    """The word for a call to an executor that has ended with this status of gRPC, by its name."""
    return _CALLS.get(code, _WORDS[ExecutorNetworkError])


def _of_class(kind: type) -> str:
    return next((_WORDS[base] for base in kind.__mro__ if base in _WORDS), _WORDS[BaseException])
