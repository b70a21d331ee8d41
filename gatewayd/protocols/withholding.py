"""
What clients get to know of failures behind the gateway, where ``expose_errors`` is false.

All that comes back from executors passes the dispatcher of the ports: their exceptions as the status of a
Response, and failed calls as errors of the tree. ``Withholding`` takes the place of that dispatcher: the
whole failure goes into the log, and a short text with the same request id into the answer. What is wrong with
a client's own request is still explained.
"""

from __future__ import annotations

from typing import Final
from uuid import uuid4

import attrs
from google.protobuf.message import DecodeError
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from gatewayd.bounded_log import BoundedLogger, Lines
from gatewayd.errors import ExecutorNetworkError, Overloaded, WithheldNetworkError
from gatewayd.messages.caller import ANONYMOUS, Caller
from gatewayd.messages.request import Request, Response
from gatewayd.pb import StatusProto
from gatewayd.protocols.backend import Dispatcher
from gatewayd.streams import Mapped, Stream

log = BoundedLogger()

# Clients choose ids, of any length, and each executor that fails has a status.
_LONGEST_ID: Final = 100


class Withholding:
    """A Dispatcher that keeps to itself what is wrong behind ``inner``. Reactor thread only."""

    def __init__(self, inner: Dispatcher) -> None:
        self._inner = inner

    def dispatch(self, request: Request, *, timeout_s: float | None = None) -> Deferred[Response]:
        return _withheld(self._inner.dispatch(request, timeout_s=timeout_s), request.request_id)

    def stream(self, request: Request, *, timeout_s: float | None = None) -> Stream:
        request_id = request.request_id[:_LONGEST_ID]

        return Mapped(
            self._inner.stream(request, timeout_s=timeout_s),
            lambda response: _short_response(response, request_id),
            lambda failure: _short_failure(failure, request_id),
        )

    def dry_run(self, documents: bytes = b"", *, caller: Caller = ANONYMOUS) -> Deferred[Response]:
        return _withheld(self._inner.dry_run(documents, caller=caller), uuid4().hex)


def for_clients(dispatcher: Dispatcher, *, expose_errors: bool) -> Dispatcher:
    """``dispatcher`` as ports and gateway classes get it."""
    return dispatcher if expose_errors else Withholding(dispatcher)


def _withheld(work: Deferred[Response], request_id: str) -> Deferred[Response]:
    request_id = request_id[:_LONGEST_ID]
    return work.addCallbacks(
        _short_response, _short_failure, callbackArgs=(request_id,), errbackArgs=(request_id,)
    )


def _short_response(response: Response, request_id: str) -> Response:
    failures = {status for status in (response.status, *(r.status for r in response.routes)) if status}
    if not failures:
        return attrs.evolve(response, hint="") if response.hint else response
    for status in failures:
        _log_status(status, request_id)
    short = StatusProto(
        code=StatusProto.ERROR, description=f"an executor failed; the log has it as request {request_id}"
    ).SerializeToString()
    return attrs.evolve(
        response,
        status=short if response.status else b"",
        routes=tuple(attrs.evolve(r, status=short) if r.status else r for r in response.routes),
        hint="",
    )


def _log_status(serialised: bytes, request_id: str) -> None:
    try:
        status = StatusProto.FromString(serialised)
    except DecodeError:
        status = StatusProto(description="an error that is not a StatusProto")
    raised = status.exception
    log.error(
        "request {request_id} failed in {executor}: {description}{stack}",
        request_id=request_id,
        executor=raised.executor or "an executor",
        description=status.description or raised.name,
        stack=Lines("".join(raised.stacks)),
    )


def _short_failure(failure: Failure, request_id: str) -> Failure:
    error = failure.value
    if isinstance(error, ExecutorNetworkError):
        log.error("request {request_id} failed: {error}", request_id=request_id, error=str(error))
        return Failure(WithheldNetworkError(error, request_id))
    # Kinds of Overloaded that are a client's own doing are explained.
    if type(error) is Overloaded:
        log.warn("request {request_id} was refused: {error}", request_id=request_id, error=str(error))
        return Failure(Overloaded("there is no room now; try again later", error.retry_after_s))
    # What is left is a client's own mistake, the end of the gateway, or a bug, of which no client learns more
    # than the request's id.
    return failure
