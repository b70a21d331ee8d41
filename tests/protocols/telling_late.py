"""Executors that tell what they bind when the test says so."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from gatewayd.messages.discovery import Endpoints
from gatewayd.messages.request import Request
from gatewayd.streams import StreamingEndpoints


class ToldLate(StreamingEndpoints):
    """Who asks what is known waits until ``tell``, or ``give_up``; ``asked`` is what it was asked about."""

    def __init__(self) -> None:
        super().__init__(known=self._wait, unknown=True)
        self.asked: list[Request | None] = []
        self.waiting: dict[Deferred[float | None], float | None] = {}

    def tell(self, endpoints: Endpoints, dispatcher: Any = None) -> None:
        """``dispatcher`` is a FakeDispatcher, where ports ask it what is bound."""
        if dispatcher is not None:
            dispatcher.endpoints = endpoints
        self.endpoints, self.unknown = endpoints.streaming, False
        self._go_on()

    def give_up(self) -> None:
        """It has taken too long: nothing is known yet."""
        self._go_on()

    def _go_on(self) -> None:
        waiting, self.waiting = self.waiting, {}
        for each, left_s in waiting.items():
            each.callback(left_s)

    def _wait(self, request: Request | None, timeout_s: float | None) -> Deferred[float | None]:
        self.asked.append(request)
        waiting: Deferred[float | None] = Deferred(self.waiting.pop)
        self.waiting[waiting] = timeout_s
        return waiting
