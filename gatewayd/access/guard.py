"""
The one place that decides of every request to executors, in whatever protocol it came.

It stands before the engine, and has its interface.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Final, Protocol
from urllib.parse import quote

import attrs
from twisted.internet.defer import Deferred, fail

from gatewayd.access.control import AccessControl
from gatewayd.errors import GatewayError
from gatewayd.messages.caller import ANONYMOUS, Caller
from gatewayd.messages.discovery import Endpoints
from gatewayd.messages.headers import Headers
from gatewayd.messages.request import Request, Response
from gatewayd.streams import Failing, Stream

# Printable ASCII but for the percent sign, so that two names never become the same.
_SAFE: Final = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")


class Engine(Protocol):
    """What is guarded."""

    def dispatch(self, request: Request, *, timeout_s: float | None = None) -> Deferred[Response]: ...

    def stream(self, request: Request, *, timeout_s: float | None = None) -> Stream: ...

    def dry_run(self, documents: bytes = b"", *, caller: Caller = ANONYMOUS) -> Deferred[Response]: ...


class Guard:
    """
    Passes on what may be. Reactor thread only.

    With ``forward_identity``, a header's name, executors get the caller's name in it, and never what a client
    has sent in it.
    """

    def __init__(
        self,
        engine: Engine,
        access: AccessControl,
        forward_identity: str | None = None,
        endpoints: Callable[[], Endpoints] = Endpoints,
    ) -> None:
        """``endpoints`` gives those of the executors."""
        self._engine = engine
        self._endpoints = endpoints
        self._access = access
        self._forward_identity = forward_identity

    def dispatch(self, request: Request, *, timeout_s: float | None = None) -> Deferred[Response]:
        try:
            request = self._admitted(request)
        except GatewayError as error:
            return fail(error)
        return self._engine.dispatch(request, timeout_s=timeout_s)

    def stream(self, request: Request, *, timeout_s: float | None = None) -> Stream:
        try:
            request = self._admitted(request)
        except GatewayError as error:
            return Failing(error)
        return self._engine.stream(request, timeout_s=timeout_s)

    def dry_run(self, documents: bytes = b"", *, caller: Caller = ANONYMOUS) -> Deferred[Response]:
        """Who may do it is asked by protocols, of the access control."""
        return self._engine.dry_run(documents, caller=caller)

    def _bound(self) -> Container[str]:
        return self._endpoints().bound

    def _admitted(self, request: Request) -> Request:
        """``request`` as it is passed on. Raises GatewayError if it may not be."""
        self._access.check(request.caller, request.endpoint, self._bound)
        if self._forward_identity is None:
            return request
        headers = with_identity(request.headers, self._forward_identity, request.caller)
        return attrs.evolve(request, headers=headers)


def with_identity(headers: Headers, name: str, caller: Caller) -> Headers:
    """``headers`` with the caller's name as the only value of ``name``; without it for a stranger."""
    others = tuple(header for header in headers if not same_header(header[0], name))
    value = header_value(caller)
    return others if value is None else (*others, (name, value))


def same_header(one: str, other: str) -> bool:
    """Whether applications may take both names, in lower case, for one: WSGI's know no hyphens."""
    return one.replace("_", "-") == other.replace("_", "-")


def header_value(caller: Caller) -> str | None:
    """
    The caller's name as printable ASCII, with all else percent-encoded; None for a stranger.

    So are blanks at its ends, which are no part of a header's value: " a" must not become "a".
    """
    if caller.name is None:
        return None
    value = quote(caller.name, safe=_SAFE)
    begin, end = len(value) - len(value.lstrip(" ")), len(value.rstrip(" "))
    return "%20" * begin + value[begin:end] + "%20" * (len(value) - max(begin, end))
