"""What a protocol gets from the rest of gatewayd, as interfaces and values."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, ParamSpec, Protocol, TypeVar

import attrs
from twisted.internet.defer import Deferred

from gatewayd.config.model import GatewayConfig
from gatewayd.messages.request import Request, Response
from gatewayd.offload import Offload
from gatewayd.protocols.buffers import Buffers
from gatewayd.tls import Identity

T = TypeVar("T")
P = ParamSpec("P")

StatusMaps = Mapping[str, Mapping[str, str]]


class Dispatcher(Protocol):
    """The engine. Cancelling a Deferred cancels the work behind it."""

    def dispatch(self, request: Request, *, timeout_s: float | None = None) -> Deferred[Response]: ...

    def dry_run(self, documents: bytes = b"") -> Deferred[Response]: ...


class Loop(Protocol):
    """An asyncio loop in a thread of its own, as ``gatewayd.bridge.Bridge``."""

    def on_loop(
        self, work: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]: ...

    def on_reactor(
        self, start: Callable[P, Deferred[T]], *args: P.args, **kwargs: P.kwargs
    ) -> asyncio.Future[T]: ...

    def tell_reactor(self, function: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None: ...


@attrs.frozen
class Backend:
    """
    What a port of any protocol is made with.

    ``status()`` makes the two maps of /status, from any thread. ``offload(function, *args, **kwargs)``
    runs a pure function in a pool thread. ``buffers`` count the bytes held for clients, of all ports
    together. With an ``identity`` the port speaks TLS only. ``bridge`` is the door to gRPC's loop, and
    ``loop`` the one on which GraphQL runs; without it GraphQL is not served.
    """

    gateway: GatewayConfig
    dispatcher: Dispatcher
    status: Callable[[], StatusMaps]
    offload: Offload
    reactor: Any
    buffers: Buffers
    identity: Identity | None = None
    bridge: Any = None
    loop: Loop | None = None
