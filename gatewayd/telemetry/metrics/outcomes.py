"""How a request ended, as one of a few words: a label of metrics, which takes few values (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from twisted.internet.defer import CancelledError

from gatewayd.errors import (
    AuthorizationUnavailable,
    BadRequest,
    DeadlineExceeded,
    Draining,
    ExecutorNetworkError,
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

OK: Final = "ok"
EXECUTOR_ERROR: Final = "executor_error"  # an executor raised: the answer says so

_WORDS: Final[Mapping[type[BaseException], str]] = {
    BadRequest: "bad_request",
    ProtocolRefusal: "bad_request",
    Unauthenticated: "unauthenticated",
    Forbidden: "forbidden",
    AuthorizationUnavailable: "unavailable",
    ExecutorNetworkError: "unavailable",
    DeadlineExceeded: "deadline",
    Overloaded: "overloaded",
    RateLimited: "rate_limited",
    Draining: "draining",
    InternalError: "internal",
    GatewayError: "internal",
    CancelledError: "cancelled",
    BaseException: "internal",
}
OUTCOMES: Final = (OK, EXECUTOR_ERROR, *dict.fromkeys(_WORDS.values()))
_LATE: Final = codes_of(DeadlineExceeded)


def outcome_of(error: BaseException) -> str:
    """The word for a request that failed with ``error``."""
    if isinstance(error, WithheldNetworkError) and error.codes == _LATE:
        return _WORDS[DeadlineExceeded]
    return next(_WORDS[base] for base in type(error).__mro__ if base in _WORDS)
