"""What the protocols need of the rest of gatewayd, as the interfaces they are given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import attrs
from twisted.internet.defer import Deferred

from gatewayd.protocols.buffers import Buffers
from gatewayd.request import Request, Response

# Above this a JSON body is decoded, or an answer encoded, in a pool thread: at about 100 MB/s it would
# keep the reactor for longer than the switch to a thread costs (well under a millisecond).
OFFLOAD_BYTES: Final = 64 * 1024


class Dispatcher(Protocol):
    """The engine. Cancelling a Deferred cancels the work behind it."""

    def dispatch(self, request: Request, *, timeout_s: float | None = None) -> Deferred[Response]: ...

    def dry_run(self, documents: bytes = b"") -> Deferred[Response]: ...


@attrs.frozen
class Needs:
    """
    What HTTP and WebSocket are given.

    ``status`` makes the two maps of /status at the time of the call; ``offload(function, *args,
    **kwargs)`` runs a pure function in a pool thread. ``buffers`` count the bytes held for clients.
    """

    dispatcher: Dispatcher
    status: Callable[[], Mapping[str, Mapping[str, str]]]
    offload: Callable[..., Deferred[Any]]
    reactor: Any
    buffers: Buffers
