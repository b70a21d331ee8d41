"""Stands before the engine and refuses requests that come too fast, in whatever protocol."""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from gatewayd.access.control import DRY_RUN
from gatewayd.access.guard import Engine
from gatewayd.access.rates import Rates
from gatewayd.access.shared_rates import SharedRates
from gatewayd.bounded_log import BoundedLogger
from gatewayd.clocks import Clock
from gatewayd.errors import GatewayError, RateLimited
from gatewayd.messages.caller import ANONYMOUS, Caller
from gatewayd.messages.counting import count_up_to
from gatewayd.messages.request import Request, Response
from gatewayd.messages.rope import Content
from gatewayd.streams import Awaited, Failing, Stream

log = BoundedLogger()


class Limited:
    """
    Passes on what the ``rates`` allow. Reactor thread only.

    Those that gateways share are asked first, and the request waits for their answer.
    """

    def __init__(self, engine: Engine, rates: Rates | SharedRates, clock: Clock) -> None:
        self._engine = engine
        self._rates = rates
        self._clock = clock

    def dispatch(self, request: Request, *, timeout_s: float | None = None) -> Deferred[Response]:
        try:
            asked = self._take(request.caller, request.endpoint, request.documents)
        except GatewayError as error:
            return fail(error)
        if asked is None:
            return self._engine.dispatch(request, timeout_s=timeout_s)
        return asked.addCallback(lambda _: self._engine.dispatch(request, timeout_s=timeout_s))

    def stream(self, request: Request, *, timeout_s: float | None = None) -> Stream:
        """One request, however long its stream is."""
        try:
            asked = self._take(request.caller, request.endpoint, request.documents)
        except GatewayError as error:
            return Failing(error)
        if asked is None:
            return self._engine.stream(request, timeout_s=timeout_s)
        return Awaited(asked, lambda _: self._engine.stream(request, timeout_s=timeout_s))

    def dry_run(self, documents: bytes = b"", *, caller: Caller = ANONYMOUS) -> Deferred[Response]:
        try:
            asked = self._take(caller, DRY_RUN, documents)
        except GatewayError as error:
            return fail(error)
        if asked is None:
            return self._engine.dry_run(documents, caller=caller)
        return asked.addCallback(lambda _: self._engine.dry_run(documents, caller=caller))

    def _take(self, caller: Caller, endpoint: str, documents: Content) -> Deferred[None] | None:
        """
        None if it may pass at once; or what fires when it may.

        Raises RateLimited, TooManyForRate, or BadRequest for documents that cannot be counted; fails with
        RateLimited, or Overloaded.
        """
        try:
            asked = self._rates.take(
                caller, endpoint, lambda most: count_up_to(bytes(documents), most), self._clock.seconds()
            )
        except RateLimited as error:
            _tell(caller, error)
            raise
        if asked is None:
            return None

        def failed(failure: Failure) -> Failure:
            if isinstance(failure.value, RateLimited):
                _tell(caller, failure.value)
            return failure

        return asked.addErrback(failed)


def _tell(caller: Caller, error: RateLimited) -> None:
    log.info(
        "{name} at {address} is refused: {error}",
        name=caller.name or "a client",
        address=caller.address or "an unknown address",
        error=error,
    )
