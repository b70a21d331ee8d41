"""
The outermost of what stands before the engine: it tells observers of every request, whatever its protocol.

Traces, the access log and recordings are observers; metrics are figures, which take less of each request. A
gateway without any has none of this in the way of its requests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from gatewayd.access.guard import Engine
from gatewayd.bounded_log import BoundedLogger
from gatewayd.deadlines import has_passed
from gatewayd.errors import DeadlineExceeded
from gatewayd.messages.caller import ANONYMOUS, Caller
from gatewayd.messages.journey import Journey
from gatewayd.messages.request import Request, Response
from gatewayd.streams import Stream

log = BoundedLogger()


class ClientsDeadline(DeadlineExceeded):
    """The client waited as long as it had said it would, and cancelled."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        super().__init__("", ())

    def explanation(self) -> str:
        return f"the request's own deadline of {self.timeout_s:.3g} s passed, and its client has left"

    summary = explanation


class Exchange:
    """
    One request, and what came of it: a ``response`` or an ``error``, neither before its end.

    Of a stream, ``response`` is the last answer, or the first that tells an error; ``answers`` counts them
    (None for what is no stream), ``answers_bytes`` their documents and parameters, and ``first_s`` is when
    the first had come. Times are seconds of the reactor's clock; ``timeout_s`` is how long the client waits,
    unless the request says it. When it ``began``, an observer may replace
    the ``request``; one that wants each answer of a stream may set ``answered``, which is called with it and
    with the seconds of the clock.
    """

    __slots__ = (
        *("answered", "answers", "answers_bytes", "began_s", "ended_s", "error", "first_s", "protocol"),
        *("request", "response", "timeout_s"),
    )

    def __init__(
        self, protocol: str, request: Request, began_s: float, timeout_s: float | None = None
    ) -> None:
        self.protocol = protocol
        self.request = request
        self.began_s = began_s
        self.timeout_s = timeout_s
        self.ended_s = began_s
        self.answered: Callable[[Response, float], None] | None = None
        self.answers: int | None = None
        self.answers_bytes = 0
        self.first_s: float | None = None
        self.response: Response | None = None
        self.error: BaseException | None = None

    @property
    def bytes_in(self) -> int:
        """Documents and parameters of the request, as protobuf."""
        return len(self.request.documents) + len(self.request.parameters)

    @property
    def bytes_out(self) -> int | None:
        """Those of the response, or of all answers of a stream; None without one."""
        if self.answers:
            return self.answers_bytes
        response = self.response
        return None if response is None else len(response.documents) + len(response.parameters or b"")

    def failed(self, error: BaseException | None) -> None:
        """
        It has ended with ``error``.

        A client whose deadline passes cancels, and may be heard before our own timer: that is a deadline.
        """
        limits_s = [each for each in (self.timeout_s, self.request.timeout_s) if each is not None]
        if limits_s and isinstance(error, CancelledError):
            limit_s = min(limits_s)
            if has_passed(self.began_s + limit_s, self.ended_s):
                error = ClientsDeadline(limit_s)
        self.error = error

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


class AtTheEnd(Protocol):
    """Is told of requests on the reactor thread, and must not wait. What it raises is logged as a bug."""

    def ended(self, exchange: Exchange) -> None:
        """It has its response, failed, or was cancelled because its client left (``CancelledError``)."""
        ...


class Observer(AtTheEnd, Protocol):
    """Is told when they begin, too."""

    def began(self, exchange: Exchange) -> None:
        """A request has been decoded, and is dispatched next."""
        ...


class Figures(AtTheEnd, Protocol):
    """
    What is counted of one protocol, however much else watches: how many requests and streams (which are
    requests, too) are ``under_way``, and what came of them.
    """

    under_way: int
    streams_under_way: int

    def answered(self, request: Request, response: Response, began_s: float, ended_s: float) -> None:
        """As ``ended``, of a request that is no stream and has its response. By the reactor's clock."""
        ...


class Observed:
    """
    An Engine, as the ports of one ``protocol`` use it. Reactor thread only.

    Besides ``observers``, which are told of every request, there may be ``figures``, and ``of_failures``,
    which are told at the end of those that failed. Where there are but these, no Exchange is made of a
    request that is answered: this is on the hot path of each gateway that is measured.
    """

    def __init__(
        self,
        engine: Engine,
        protocol: str,
        observers: Sequence[Observer],
        seconds: Callable[[], float],
        *,
        figures: Figures | None = None,
        of_failures: Sequence[AtTheEnd] = (),
    ) -> None:
        self._engine = engine
        self._protocol = protocol
        self._observers = tuple(observers)
        self._seconds = seconds
        self._figures = figures
        self._of_failures = tuple(of_failures)
        self._at_the_end: tuple[AtTheEnd, ...] = self._observers
        if figures is not None:
            self._at_the_end = (figures, *self._observers)

    def dispatch(self, request: Request, *, timeout_s: float | None = None) -> Deferred[Response]:
        figures, began_s = self._figures, self._seconds()
        if figures is not None:
            figures.under_way += 1
            if not self._observers:
                return self._engine.dispatch(request, timeout_s=timeout_s).addBoth(
                    self._counted, figures, request, began_s, timeout_s
                )
        exchange = Exchange(self._protocol, request, began_s, timeout_s)
        for observer in self._observers:
            try:
                observer.began(exchange)
            except Exception:
                self._log_bug(exchange.request)
        return self._engine.dispatch(exchange.request, timeout_s=timeout_s).addBoth(self._ended, exchange)

    def stream(self, request: Request, *, timeout_s: float | None = None) -> Stream:
        """One request, which ends with its stream."""
        exchange = self._stream_began(request, timeout_s)
        return _ObservedStream(
            self._engine.stream(exchange.request, timeout_s=timeout_s), exchange, self._ended, self._seconds
        )

    def dry_run(self, documents: bytes = b"", *, caller: Caller = ANONYMOUS) -> Deferred[Response]:
        """A question of health, which is no request of a client's: nobody is told."""
        return self._engine.dry_run(documents, caller=caller)

    def _stream_began(self, request: Request, timeout_s: float | None) -> Exchange:
        exchange = Exchange(self._protocol, request, self._seconds(), timeout_s)
        exchange.answers = 0  # observers know it for a stream from its beginning on
        if self._figures is not None:
            self._figures.under_way += 1
            self._figures.streams_under_way += 1
        for observer in self._observers:
            try:
                observer.began(exchange)
            except Exception:
                self._log_bug(exchange.request)
        return exchange

    def _counted(
        self,
        result: Response | Failure,
        figures: Figures,
        request: Request,
        began_s: float,
        timeout_s: float | None,
    ) -> Response | Failure:
        """One that nobody observes has ended."""
        if isinstance(result, Failure) or result.status:
            return self._ended(result, Exchange(self._protocol, request, began_s, timeout_s))
        figures.under_way -= 1
        try:
            figures.answered(request, result, began_s, self._seconds())
        except Exception:
            self._log_bug(request)
        return result

    def _ended(self, result: Response | Failure, exchange: Exchange) -> Response | Failure:
        exchange.ended_s = self._seconds()
        figures = self._figures
        if figures is not None:
            figures.under_way -= 1
            if exchange.answers is not None:
                figures.streams_under_way -= 1
        if isinstance(result, Failure):
            exchange.failed(result.value)
            failed = True
        else:
            exchange.response = result
            failed = bool(result.status)
        for each in (*self._at_the_end, *self._of_failures) if failed else self._at_the_end:
            try:
                each.ended(exchange)
            except Exception:
                self._log_bug(exchange.request)
        return result

    def _log_bug(self, request: Request) -> None:
        """Whoever watches requests must not cost a client its answer."""
        log.failure("request {request_id} cannot be observed", request_id=request.request_id)


class _ObservedStream:
    """A Stream that writes down what comes of it."""

    def __init__(
        self,
        inner: Stream,
        exchange: Exchange,
        ended: Callable[[Response | Failure, Exchange], object],
        seconds: Callable[[], float],
    ) -> None:
        self._inner = inner
        self._exchange: Exchange | None = exchange  # None at the end
        self._ended = ended
        self._seconds = seconds

    def receive(self) -> Deferred[Response | None]:
        return self._inner.receive().addCallbacks(self._answered, self._failed)

    def more(self, most: int) -> list[Response]:
        responses = self._inner.more(most)
        for response in responses:
            self._answered(response)
        return responses

    def cancel(self) -> None:
        self._inner.cancel()
        self._end(Failure(CancelledError()))

    def _answered(self, response: Response | None) -> Response | None:
        exchange = self._exchange
        if exchange is None:
            return response
        if response is None:
            request = exchange.request
            self._end(exchange.response or Response(request.request_id, request.endpoint, b""))
            return None
        if not exchange.answers:
            exchange.first_s = self._seconds()
        exchange.answers = (exchange.answers or 0) + 1
        exchange.answers_bytes += len(response.documents) + len(response.parameters or b"")
        if exchange.response is None or not exchange.response.status:
            exchange.response = response
        if exchange.answered is not None:
            exchange.answered(response, self._seconds())
        return response

    def _failed(self, failure: Failure) -> Failure:
        self._end(failure)
        return failure

    def _end(self, result: Response | Failure) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            if isinstance(result, Failure):
                exchange.response = None
            self._ended(result, exchange)
