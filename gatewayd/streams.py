"""Answers that come one after the other, as a protocol pulls them from the engine."""

from __future__ import annotations

from typing import Protocol

from twisted.internet.defer import Deferred

from gatewayd.messages.request import Response


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

    def cancel(self) -> None:
        """End every stage: nothing more is answered. Harmless when repeated, and at the end."""
        ...
