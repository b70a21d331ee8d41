"""Answers that come one after the other, as a protocol pulls them from the engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from gatewayd.messages.request import Request, Response

T = TypeVar("T")

# Answers that a protocol takes by ``Stream.more`` to write them together: few, so that others get their turn.
TOGETHER: Final = 31


class Stream(Protocol):
    """
    The answers to one request of an endpoint that streams. Reactor thread only.

    Whoever holds it pulls, one answer at a time, until the end, an error or ``cancel``. Nothing is read from
    executors that was not asked for, beyond the window of the Flow (docs/decisions/streams.md).
    """

    def receive(self) -> Deferred[Response | None]:
        """
        The next answer, which has one document; None at the end, and ever after.

        Fails as ``Dispatcher.dispatch`` does, and then the stream is over. Ask again only when the
        Deferred before has fired. Cancelling it cancels the stream.
        """
        ...

    def more(self, most: int) -> list[Response]:
        """
        Up to ``most`` answers that are there already, behind the last one; maybe none.

        They come without a wait and cost less than ``receive``. Errors and the end come by ``receive`` alone.
        Not while an answer is asked for.
        """
        ...

    def cancel(self) -> None:
        """End every stage: nothing more is answered. Harmless when repeated, and at the end."""
        ...


Known = Callable[[Request | None, float | None], Deferred[float | None]]


def _at_once(request: Request | None, timeout_s: float | None) -> Deferred[float | None]:
    return succeed(timeout_s)


class StreamingEndpoints:
    """
    Which endpoints of the Flow stream, as far as executors have told; ``endpoints`` is replaced as they tell.

    While ``unknown`` is True, some of those whose answers are waited for have not told it yet, and soon may.
    Who has to know it of a request then asks ``known(request, timeout_s)``: its Deferred fires when it is
    known, or has not become known within a moment, with what is left of the client's ``timeout_s``. With None
    for the request it is about all.

    For what looks at every request: ``gatewayd.messages.discovery.Endpoints`` is asked once per change.
    Reactor thread only.
    """

    __slots__ = ("endpoints", "known", "unknown")

    def __init__(
        self, endpoints: frozenset[str] = frozenset(), known: Known = _at_once, *, unknown: bool = False
    ) -> None:
        self.endpoints = endpoints
        self.unknown = unknown
        self.known = known


class Failing:
    """A Stream that fails when it is asked for the first answer."""

    def __init__(self, error: Exception) -> None:
        self._error: Exception | None = error

    def receive(self) -> Deferred[Response | None]:
        error, self._error = self._error, None
        failing: Deferred[Response | None] = Deferred()
        if error is None:
            failing.callback(None)
        else:
            failing.errback(error)
        return failing

    def more(self, most: int) -> list[Response]:
        return []

    def cancel(self) -> None:
        self._error = None


class Awaited(Generic[T]):
    """A Stream that ``begin`` makes of what ``permitted`` has fired with; it fails as that does."""

    def __init__(self, permitted: Deferred[T], begin: Callable[[T], Stream]) -> None:
        self._inner: Stream | None = None
        self._asked: Deferred[Response | None] | None = None
        self._permitted = permitted
        permitted.addCallback(begin).addCallbacks(self._began, self._refused)

    def receive(self) -> Deferred[Response | None]:
        if self._inner is not None:
            return self._inner.receive()
        asked = self._asked = Deferred(lambda _: self.cancel())
        return asked

    def more(self, most: int) -> list[Response]:
        return [] if self._inner is None else self._inner.more(most)

    def cancel(self) -> None:
        if self._inner is not None:
            self._inner.cancel()
        else:
            self._permitted.cancel()

    def _refused(self, failure: Failure) -> None:
        assert isinstance(failure.value, Exception)
        self._began(Failing(failure.value))

    def _began(self, inner: Stream) -> None:
        self._inner = inner
        asked, self._asked = self._asked, None
        if asked is not None:
            inner.receive().chainDeferred(asked)


class Mapped:
    """
    A Stream whose answers are those of ``inner``, changed.

    ``answer`` changes a Response, and ``failure`` a failure, which may raise another.
    """

    def __init__(
        self,
        inner: Stream,
        answer: Callable[[Response], Response],
        failure: Callable[[Failure], Failure],
    ) -> None:
        self._inner = inner
        self._answer = answer
        self._failure = failure

    def receive(self) -> Deferred[Response | None]:
        return self._inner.receive().addCallbacks(self._changed, self._failure)

    def more(self, most: int) -> list[Response]:
        return [self._answer(response) for response in self._inner.more(most)]

    def cancel(self) -> None:
        self._inner.cancel()

    def _changed(self, response: Response | None) -> Response | None:
        return None if response is None else self._answer(response)
