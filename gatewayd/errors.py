"""
The error tree, and the table from an error to what each protocol tells its client.

    GatewayError                anything that can be explained to a client
    ├── BadRequest              the client can mend it
    │   └── TooLarge
    ├── ExecutorNetworkError    a deployment could not be reached, or not in time
    │   ├── ExecutorUnreachable
    │   ├── DeadlineExceeded
    │   └── ExecutorNotFound
    ├── Overloaded              nothing is broken, but there is no room now
    └── Draining                the gateway is about to stop
    ConfigError                 refused before anything starts
    └── PortTaken

An exception outside this tree is a bug: it is logged with its traceback, and the client is told only
the request id.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import attrs


class GatewayError(Exception):
    """Anything the gateway can explain to a client; ``str(error)`` is that explanation."""


class BadRequest(GatewayError):
    """
    The client sent something that cannot be served.

    ``problems`` are entries of an HTTP 422 body: ``{"loc": [...], "msg": ..., "type": ...}``.
    """

    def __init__(self, message: str, problems: Iterable[Mapping[str, object]] = ()) -> None:
        self.problems = tuple(problems)
        super().__init__(message)


class TooLarge(BadRequest):
    """A body or message exceeds ``limit_bytes``."""

    def __init__(self, limit_bytes: int, key: str = "gateway.max_message_bytes") -> None:
        self.limit_bytes = limit_bytes
        super().__init__(f"the message is larger than {limit_bytes} bytes; the limit is {key}")


class ExecutorNetworkError(GatewayError):
    """
    A call to a Deployment failed below the level of its Executor.

    ``details`` is gRPC's own text; ``str(error)`` is the whole explanation, worded as clients of the
    reference know it (spec grpc.md, Failures). ``code`` is the gRPC status name.
    """

    code = "UNKNOWN"

    def __init__(self, deployment: str, addresses: Iterable[str], details: str = "") -> None:
        self.deployment = deployment
        self.addresses = tuple(sorted(set(addresses)))
        self.details = details
        super().__init__(self.explanation())

    @property
    def address_set(self) -> str:
        """The addresses as the reference prints them, such as ``{'10.0.0.1:80'}``."""
        return "{" + ", ".join(f"'{address}'" for address in self.addresses) + "}"

    def explanation(self) -> str:
        if not self.addresses:
            return (
                f"{self.details} |Gateway: Communication error with deployment {self.deployment}: its "
                "executors are starting, or cannot start; the gateway's log tells which."
            )
        return (
            f"{self.details} |Gateway: Communication error with deployment {self.deployment} at "
            f"address(es) {self.address_set}. Head or worker(s) may be down."
        )

    def close_reason(self) -> str:
        """The explanation, or a short form where it exceeds a WebSocket close reason's 123 bytes."""
        text = str(self)
        if len(text.encode()) <= 123:
            return text
        return self.short_reason()

    def short_reason(self) -> str:
        return f"Network error while connecting to deployment at {self.address_set}. It may be down."


class CallFailed(ExecutorNetworkError):
    """The executor's server ended the call with a code that no other class here stands for."""

    def __init__(self, deployment: str, addresses: Iterable[str], details: str, code: str) -> None:
        self.code = code
        super().__init__(deployment, addresses, details)

    def explanation(self) -> str:
        return (
            f"{self.code}: {self.details} |Gateway: deployment {self.deployment} at "
            f"address(es) {self.address_set}."
        )


class ExecutorUnreachable(ExecutorNetworkError):
    """Nobody listens, or the connection was lost: every try failed."""

    code = "UNAVAILABLE"


class DeadlineExceeded(ExecutorNetworkError):
    """The Deployment was reached but did not answer within its deadline."""

    code = "DEADLINE_EXCEEDED"

    def explanation(self) -> str:
        return (
            f"{self.details or 'Deadline Exceeded'}|Gateway: Connection with deployment {self.deployment} at "
            f"address(es) {self.address_set} could be established, but timed out. You can increase "
            "the allowed time by setting `timeout_send` in your Flow YAML `with` block or Flow "
            "`__init__()` method."
        )

    def short_reason(self) -> str:
        return (
            f"Connection to deployment at {self.address_set} timed out. "
            "You can adjust `timeout_send` attribute."
        )


class ExecutorNotFound(ExecutorNetworkError):
    """Something answered at the address, but the executor is not behind it."""

    code = "NOT_FOUND"

    def explanation(self) -> str:
        return (
            f"{self.details}\n|Gateway: Connection error with deployment `{self.deployment}` at address(es) "
            f"{self.address_set}. Connection with {self.address_set} succeeded, but `{self.deployment}` was "
            f"not found. Possibly `{self.deployment}` is behind an API gateway but not reachable."
        )


class Overloaded(GatewayError):
    """No room now: the client may try again after ``retry_after_s`` seconds."""

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class Draining(GatewayError):
    """The gateway is stopping and takes no new requests."""

    def __init__(self) -> None:
        super().__init__("the gateway is shutting down; send the request again to another one")


class ConfigError(Exception):
    """
    A Flow file, argument or variable that cannot be used; nothing has been started.

    ``str(error)`` says where (file, line, key), what was found, and what is accepted.
    """


class PortTaken(ConfigError):
    """A port that the Flow file names cannot be bound."""

    def __init__(self, protocol: str, host: str, port: int, reason: str) -> None:
        self.port = port
        super().__init__(
            f"gateway.port: cannot listen on {host}:{port} for {protocol}: {reason}. "
            "Stop what uses it, or give another port (0 picks a free one)"
        )


@attrs.frozen
class Codes:
    """What each protocol tells its client about one kind of error."""

    http: int
    grpc: str
    websocket: int


# 1008 policy violation, 1009 too big, 1011 internal error, 1013 try again later, 1001 going away:
# RFC 6455 section 7.4.1 and the IANA registry. 1011 for network errors is what the reference's
# client turns into a ConnectionError (spec websocket.md).
_TABLE: Final[dict[type[BaseException], Codes]] = {
    TooLarge: Codes(413, "RESOURCE_EXHAUSTED", 1009),
    BadRequest: Codes(422, "INVALID_ARGUMENT", 1008),
    ExecutorUnreachable: Codes(503, "UNAVAILABLE", 1011),
    ExecutorNotFound: Codes(503, "NOT_FOUND", 1011),
    DeadlineExceeded: Codes(504, "DEADLINE_EXCEEDED", 1011),
    ExecutorNetworkError: Codes(500, "UNKNOWN", 1011),
    Overloaded: Codes(503, "RESOURCE_EXHAUSTED", 1013),
    Draining: Codes(503, "UNAVAILABLE", 1001),
}
_BUG: Final = Codes(500, "INTERNAL", 1011)


def codes_for(error: BaseException) -> Codes:
    """Look ``error`` up by its class, then its bases; what is not in the tree is a bug (500)."""
    for kind in type(error).__mro__:
        if kind in _TABLE:
            found = _TABLE[kind]
            return attrs.evolve(found, grpc=error.code) if isinstance(error, CallFailed) else found
    return _BUG
