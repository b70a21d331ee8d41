"""
The one place that decides of every request to executors, in whatever protocol it came.

It stands before the engine, and has its interface.
"""

from __future__ import annotations

from typing import Protocol

from twisted.internet.defer import Deferred, fail

from gatewayd.errors import GatewayError
from gatewayd.messages.caller import ANONYMOUS, Caller
from gatewayd.messages.request import Request, Response


class Engine(Protocol):
    """What is guarded."""

    def dispatch(self, request: Request, *, timeout_s: float | None = None) -> Deferred[Response]: ...

    def dry_run(self, documents: bytes = b"", *, caller: Caller = ANONYMOUS) -> Deferred[Response]: ...


class Guard:
    """Passes on what may be. Reactor thread only."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def dispatch(self, request: Request, *, timeout_s: float | None = None) -> Deferred[Response]:
        try:
            request = self._admitted(request)
        except GatewayError as error:
            return fail(error)
        return self._engine.dispatch(request, timeout_s=timeout_s)

    def dry_run(self, documents: bytes = b"", *, caller: Caller = ANONYMOUS) -> Deferred[Response]:
        """Who may do it is asked by protocols, of their ``Door``."""
        return self._engine.dry_run(documents, caller=caller)

    def _admitted(self, request: Request) -> Request:
        """``request`` as it is passed on. Raises GatewayError if it may not be."""
        return request
