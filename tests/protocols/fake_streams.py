"""A dispatcher whose endpoint /chat streams, for tests that play its executors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from gatewayd.messages.discovery import Endpoints
from gatewayd.messages.request import Request, Response
from gatewayd.pb import DataContentProto
from tests.protocols.harness import FakeDispatcher, FakeStream

STREAMING = Endpoints({"/chat": "", "/embed": ""}, streaming=frozenset({"/chat"}))


def of_text(request: Request, text: str, **tags: Any) -> Response:
    """An answer of one document of the first generation."""
    content = DataContentProto()
    document = content.docs.docs.add()
    document.text = text
    document.tags.update(tags)
    return Response(request.request_id, request.endpoint, content.SerializeToString())


@attrs.define
class Streaming(FakeDispatcher):
    """Its endpoint /chat streams: what ``speech`` says for a request, and then what tests put."""

    speech: Callable[[Request], list[Response | Exception | None]] = lambda request: []
    begun: list[FakeStream] = attrs.Factory(list)
    endpoints: Endpoints = STREAMING

    def stream(self, request: Request, *, timeout_s: float | None = None) -> FakeStream:
        self.requests.append(request)
        self.timeouts.append(timeout_s)
        self.begun.append(FakeStream(request))
        self.begun[-1].put(*self.speech(request))
        return self.begun[-1]
