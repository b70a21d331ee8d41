"""A dispatcher whose endpoint /chat streams, for tests that play its executors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.defer import Deferred

from gatewayd.messages.discovery import Endpoints
from gatewayd.messages.request import Request, Response
from gatewayd.pb import DataContentProto
from tests.protocols.harness import FakeDispatcher

STREAMING = Endpoints({"/chat": "", "/embed": ""}, streaming=frozenset({"/chat"}))


def of_text(request: Request, text: str, **tags: Any) -> Response:
    """An answer of one document of the first generation."""
    content = DataContentProto()
    document = content.docs.docs.add()
    document.text = text
    document.tags.update(tags)
    return Response(request.request_id, request.endpoint, content.SerializeToString())


class FakeStream:
    """A Stream whose answers a test gives, or has ``given`` beforehand; the last may be an error."""

    def __init__(self, request: Request, given: list[Response | Exception]) -> None:
        self.request = request
        self.asked = 0
        self.cancelled = False
        self._given = given
        self._waiting: Deferred[Response | None] | None = None

    def receive(self) -> Deferred[Response | None]:
        self.asked += 1
        if self._given:
            return self._settle(Deferred(), self._given.pop(0))
        self._waiting = Deferred(lambda _: self.cancel())
        return self._waiting

    def cancel(self) -> None:
        self.cancelled = True

    def answer(self, answer: Response | Exception | None) -> None:
        """What whoever waits gets; None for the end."""
        waiting, self._waiting = self._waiting, None
        assert waiting is not None, "nobody waits"
        self._settle(waiting, answer)

    @property
    def waits(self) -> bool:
        return self._waiting is not None

    @staticmethod
    def _settle(work: Deferred[Response | None], answer: Response | Exception | None) -> Deferred[Any]:
        if isinstance(answer, Exception):
            work.errback(answer)
        else:
            work.callback(answer)
        return work


@attrs.define
class Streaming(FakeDispatcher):
    """Its endpoint /chat streams: what ``speech`` says for a request, and then what tests give."""

    speech: Callable[[Request], list[Response | Exception]] = lambda request: []
    streams: list[FakeStream] = attrs.Factory(list)
    endpoints: Endpoints = STREAMING

    def stream(self, request: Request, *, timeout_s: float | None = None) -> FakeStream:
        self.requests.append(request)
        self.timeouts.append(timeout_s)
        self.streams.append(FakeStream(request, self.speech(request)))
        return self.streams[-1]
