"""
What a Client raises.

    BadClient                     the call cannot be made as it was asked for
    ├── BadClientInput            ... because of ``inputs``
    ├── BadClientCallback         a callback of the user raised
    ├── NoSuchEndpoint            the server has no such path (also a ConnectionError)
    └── RequestRefused            the gateway refused the request (also a ValueError and a BadServerFlow)
        ├── QueryRefused          ... a GraphQL query (also a ConnectionError)
        └── AccessRefused         ... because of who sent it (also a PermissionError)
    BadServer                     an executor failed; holds its traceback
    └── ExecutorError             in a gateway class (also a RuntimeError)
    BadServerFlow                 the gateway answered something that it should not have
    ├── BrokenAnswer              over HTTP (also a ValueError)
    └── WrongReturnType           its documents are not of the class that was asked for (also a ValueError)
    NetworkError                  no answer at all (a ConnectionError)
    ├── Unreachable               nothing listens there, or the connection was lost
    │   ├── NotFound              the executor is not behind its address
    │   └── TryLater              the gateway takes no request of this client now, but will
    └── TimedOut                  no answer in time (also a TimeoutError)

The same failure raises the same class over every protocol. Some are also of the classes that the reference
raises over one of them: of aiohttp's for connections over HTTP and WebSocket (transports/session.py).
"""

from __future__ import annotations

from typing import Any, Final

from gatewayd.errors import BaseJinaException

# How a gateway's own words begin; what stands before them is what it was told by or saw of an executor.
GATEWAY: Final = "|Gateway:"

_TOO_LARGE: Final = ("larger than", "larger message", "too large")


class BadClient(Exception, BaseJinaException):
    """The call cannot be made as it was asked for."""


class BadClientInput(BadClient):
    """``inputs`` is nothing that documents can be made of."""


class BadClientCallback(BadClient):
    """A callback of the user raised; its exception is the ``__cause__``."""


class NoSuchEndpoint(BadClient, ConnectionError):
    """The server has no such path."""


class BadServer(Exception, BaseJinaException):
    """
    An executor failed. ``str(error)`` ends with the executor's own traceback.

    ``header`` is the answer's HeaderProto, ``request_id`` its request. ``executor`` is the class that
    failed, ``name`` and ``args_text`` are its exception's, ``stacks`` the lines of its traceback; each is
    empty if the answer lacks it. ``response`` is the whole answer.
    """

    def __init__(self, header: Any, response: Any = None) -> None:
        # The header comes first, and is what args[0] holds, as in the reference.
        super().__init__(header)
        exception = header.status.exception
        self.header = header
        self.response = response
        self.request_id: str = header.request_id
        self.description: str = header.status.description
        self.executor: str = exception.executor
        self.name: str = exception.name
        self.args_text: tuple[str, ...] = tuple(exception.args)
        self.stacks: tuple[str, ...] = tuple(exception.stacks)

    def __str__(self) -> str:
        where = f"{self.executor}: " if self.executor else ""
        what = self.description or self.name or "the executor failed and did not say why"
        text = f"{where}{what} (request {self.request_id})"
        if self.stacks:
            text += "\n\nThe executor's traceback:\n" + "".join(self.stacks).rstrip()
        return text


class ExecutorError(BadServer, RuntimeError):
    """An executor failed on a request of a gateway class."""


class BadServerFlow(Exception, BaseJinaException):
    """
    The gateway ended the call with a status that no other class here stands for.

    ``code`` is gRPC's status name, None over other protocols.
    """

    def __init__(self, message: str, code: str | None = None) -> None:
        self.code = code
        super().__init__(message)


class RequestRefused(BadClient, BadServerFlow, ValueError):
    """
    The gateway found a mistake in the request.

    ``status`` is the HTTP status, WebSocket's close code, or the name of gRPC's status; ``body`` what the
    gateway said to it.
    """

    def __init__(self, message: str, status: int | str, body: str) -> None:
        self.status = status
        self.body = body
        BadServerFlow.__init__(self, message, status if isinstance(status, str) else None)


class QueryRefused(RequestRefused, ConnectionError):
    """The gateway found a mistake in a GraphQL query."""


class BrokenAnswer(BadServerFlow, ValueError):
    """
    The gateway answered with a server error, or with a body that is not a response.

    ``status`` is the HTTP status, ``body`` what came with it, cut where it is long.
    """

    def __init__(self, message: str, status: int, body: str) -> None:
        self.status = status
        self.body = body
        super().__init__(message)


class WrongReturnType(BadServerFlow, ValueError):
    """
    The answer's documents do not fit the class of ``return_type``.

    ``kind`` is its name. The cause is pydantic's ValidationError, or what docarray says of an array.
    """

    def __init__(self, kind: str, error: Exception) -> None:
        self.kind = kind
        super().__init__(
            f"the answer's documents are no {kind} (give a return_type whose fields are those of what the "
            f"endpoint answers, or none): {error}"
        )


class NetworkError(ConnectionError):
    """
    The gateway, or an executor behind it, could not be reached or did not answer.

    ``code`` is gRPC's status name, the HTTP status, or WebSocket's close code; None where the
    connection was never made. ``details`` is the text that came with it.
    """

    def __init__(self, details: str, code: str | int | None = None) -> None:
        self.details = details
        self.code = code
        super().__init__(details)


class Unreachable(NetworkError):
    """Nobody listens, or the connection was lost; or that is what the gateway says of an executor."""


class TryLater(Unreachable):
    """
    The gateway has no room for the request, or the client asks more often than it may.

    ``retry_after_s`` is how long the gateway says to wait; None if it doesn't say.
    """

    def __init__(
        self, details: str, code: str | int | None = None, retry_after_s: float | None = None
    ) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(details, code)


class TimedOut(NetworkError, TimeoutError):
    """No answer within the client's ``timeout``, or within the gateway's for one of its executors."""


class NotFound(Unreachable):
    """Something answers at an executor's address, but it is not the executor."""


class AccessRefused(RequestRefused, PermissionError):
    """The gateway does not know who calls, or who calls may not do this."""

    def __init__(self, status: int | str, body: str, shown: str = "") -> None:
        super().__init__(f"the gateway refused access ({status}): {shown or body}", status, body)


# The statuses of it over HTTP and gRPC, and how the reasons of close frames begin.
UNKNOWN_OR_FORBIDDEN: Final = (401, 403, "UNAUTHENTICATED", "PERMISSION_DENIED")
REFUSES_ACCESS: Final = ("the gateway has to know who calls", "you may not call")


def error_of(code: str, details: str, retry_after_s: float | None = None) -> Exception:
    """What a gateway's gRPC status becomes, by the status's name, and by when it says to come back."""
    if code == "UNAVAILABLE":
        return Unreachable(details, code)
    if code == "DEADLINE_EXCEEDED":
        return TimedOut(details, code)
    if code == "NOT_FOUND":
        return NotFound(details, code)
    if GATEWAY not in details:
        if code in UNKNOWN_OR_FORBIDDEN:
            return AccessRefused(code, details)
        too_large = any(words in details for words in _TOO_LARGE)
        if code == "INVALID_ARGUMENT" or (code == "RESOURCE_EXHAUSTED" and too_large):
            return RequestRefused(f"the gateway refused the request ({code}): {details}", code, details)
        if code == "RESOURCE_EXHAUSTED":  # as over HTTP, where the gateway says to come back later
            return TryLater(details, code, retry_after_s)
    return BadServerFlow(f"gRPC error: {code} {details}", code)
