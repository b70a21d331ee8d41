"""A dispatcher whose endpoints stream what a test says."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import attrs
from twisted.internet.defer import Deferred

from gatewayd.messages.request import Request, Response
from tests.protocols.harness import FakeDispatcher, answer_to


@attrs.define
class ListedStream:
    """
    Gives the ``answers`` one by one, then the end; an exception among them is raised.

    ``held`` makes it hold each until the test calls ``release``.
    """

    request: Request
    answers: list[Response | Exception]
    held: bool = False
    asked: int = 0
    cancels: int = 0
    _waiting: Deferred[Response | None] | None = None

    def receive(self) -> Deferred[Response | None]:
        assert self._waiting is None, "asked again before the answer"
        self.asked += 1
        self._waiting = waiting = Deferred(self._cancelled)
        if not self.held:
            self.release()
        return waiting

    def more(self, most: int) -> list[Response]:
        found: list[Response] = []
        while not self.held and self.answers and len(found) < most:
            following = self.answers[0]
            if isinstance(following, Exception):
                break
            found.append(following)
            self.answers.pop(0)
        self.asked += len(found)
        return found

    def release(self) -> None:
        """Answer what was asked for."""
        waiting, self._waiting = self._waiting, None
        assert waiting is not None, "not asked"
        following = self.answers.pop(0) if self.answers else None
        if isinstance(following, Exception):
            waiting.errback(following)
        else:
            waiting.callback(following)

    def fail(self, error: Exception) -> None:
        """Fail what was asked for."""
        self.answers.insert(0, error)
        self.release()

    @property
    def is_asked(self) -> bool:
        return self._waiting is not None

    def _cancelled(self, waiting: Deferred[Response | None]) -> None:
        self._waiting = None
        self.cancels += 1

    def cancel(self) -> None:
        self.cancels += 1


@attrs.define
class StreamingDispatcher(FakeDispatcher):
    """As FakeDispatcher; ``streamed`` says what streams give, and ``opened`` are those there have been."""

    streamed: Callable[[Request], Iterable[Response | Exception]] = lambda request: [answer_to(request)] * 3
    opened: list[ListedStream] = attrs.Factory(list)

    def stream(self, request: Request, *, timeout_s: float | None = None) -> Any:
        self.requests.append(request)
        self.timeouts.append(timeout_s)
        stream = ListedStream(request, list(self.streamed(request)), held=self.held)
        self.opened.append(stream)
        return stream
