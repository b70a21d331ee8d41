"""
The outermost of what stands before the engine: it tells observers of every request, whatever its protocol.

Metrics, traces, the access log and recordings are observers. A gateway without any has none of this in the
way of its requests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from gatewayd.access.guard import Engine
from gatewayd.bounded_log import BoundedLogger
from gatewayd.messages.caller import ANONYMOUS, Caller
from gatewayd.messages.journey import Journey
from gatewayd.messages.request import Request, Response

log = BoundedLogger()


class Exchange:
    """
    One request, and what came of it: a ``response`` or an ``error``, neither before its end.

    Times are seconds of the reactor's clock. An observer may replace the ``request`` when it ``began``.
    """

    __slots__ = ("began_s", "ended_s", "error", "protocol", "request", "response")

    def __init__(self, protocol: str, request: Request, began_s: float) -> None:
        self.protocol = protocol
        self.request = request
        self.began_s = began_s
        self.ended_s = began_s
        self.response: Response | None = None
        self.error: BaseException | None = None

    @property
    def bytes_in(self) -> int:
        """Documents and parameters of the request, as protobuf."""
        return len(self.request.documents) + len(self.request.parameters)

    @property
    def bytes_out(self) -> int | None:
        """Those of the response, None without one."""
        response = self.response
        return None if response is None else len(response.documents) + len(response.parameters or b"")

    def follow(self) -> Journey:
        """
        What the engine writes down of the request: for an observer that reads it when the request has ended.

        Call it when the request ``began``; all who do get the same.
        """
        journey = self.request.journey
        if journey is None:
            journey = Journey()
            self.request = self.request.watched(self.request.headers, journey)
        return journey


class Observer(Protocol):
    """Is told of requests on the reactor thread, and must not wait. What it raises is logged as a bug."""

    def began(self, exchange: Exchange) -> None:
        """A request has been decoded, and is dispatched next."""
        ...

    def ended(self, exchange: Exchange) -> None:
        """It has its response, failed, or was cancelled because its client left (``CancelledError``)."""
        ...


class Observed:
    """An Engine, as the ports of one ``protocol`` use it. Reactor thread only."""

    def __init__(
        self, engine: Engine, protocol: str, observers: Sequence[Observer], seconds: Callable[[], float]
    ) -> None:
        self._engine = engine
        self._protocol = protocol
        self._observers = tuple(observers)
        self._seconds = seconds

    def dispatch(self, request: Request, *, timeout_s: float | None = None) -> Deferred[Response]:
        exchange = Exchange(self._protocol, request, self._seconds())
        for observer in self._observers:
            try:
                observer.began(exchange)
            except Exception:
                self._log_bug(exchange)
        return self._engine.dispatch(exchange.request, timeout_s=timeout_s).addBoth(self._ended, exchange)

    def dry_run(self, documents: bytes = b"", *, caller: Caller = ANONYMOUS) -> Deferred[Response]:
        """A question of health, which is no request of a client's: nobody is told."""
        return self._engine.dry_run(documents, caller=caller)

    def _ended(self, result: Response | Failure, exchange: Exchange) -> Response | Failure:
        exchange.ended_s = self._seconds()
        if isinstance(result, Failure):
            exchange.error = result.value
        else:
            exchange.response = result
        for observer in self._observers:
            try:
                observer.ended(exchange)
            except Exception:
                self._log_bug(exchange)
        return result

    def _log_bug(self, exchange: Exchange) -> None:
        """Whoever watches requests must not cost a client its answer."""
        log.failure("request {request_id} cannot be observed", request_id=exchange.request.request_id)
