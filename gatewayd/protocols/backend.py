"""What the protocols need of the rest of gatewayd, as the interfaces they are given."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, ParamSpec, Protocol, TypeVar

import attrs
from twisted.internet.defer import Deferred

from gatewayd.messages.request import Request, Response
from gatewayd.protocols.buffers import Buffers

T = TypeVar("T")
P = ParamSpec("P")

# Above this a JSON body is decoded, or an answer encoded, in a pool thread: at about 100 MB/s it would
# keep the reactor for longer than the switch to a thread costs (well under a millisecond).
OFFLOAD_BYTES: Final = 64 * 1024


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
class Needs:
    """
    What HTTP and WebSocket are given.

    ``status`` makes the two maps of /status at the time of the call; ``offload(function, *args,
    **kwargs)`` runs a pure function in a pool thread. ``buffers`` count the bytes held for clients.
    GraphQL runs on ``loop``; without one it is not served.
    """

    dispatcher: Dispatcher
    status: Callable[[], Mapping[str, Mapping[str, str]]]
    offload: Callable[..., Deferred[Any]]
    reactor: Any
    buffers: Buffers
    loop: Loop | None = None
