"""What a protocol gets from the rest of gatewayd, as interfaces and values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import Any, Protocol

import attrs
from twisted.internet.defer import Deferred

from gatewayd.access.control import AccessControl
from gatewayd.bridge import Bridge
from gatewayd.buffers import Buffers
from gatewayd.clocks import PortReactor
from gatewayd.config.model import GatewayConfig
from gatewayd.crowd import Place
from gatewayd.health import Health
from gatewayd.messages.caller import ANONYMOUS, Caller
from gatewayd.messages.discovery import Endpoints
from gatewayd.messages.headers import AllowList
from gatewayd.messages.request import Request, Response
from gatewayd.offload import Offload
from gatewayd.protocols.admission import Admission
from gatewayd.protocols.slow_lane import SlowLane
from gatewayd.streams import Stream, StreamingEndpoints
from gatewayd.tls.credentials import TlsCredentials

StatusMaps = Mapping[str, Mapping[str, str]]


class Dispatcher(Protocol):
    """The engine. Cancelling a Deferred cancels the work behind it."""

    def dispatch(self, request: Request, *, timeout_s: float | None = None) -> Deferred[Response]: ...

    def stream(self, request: Request, *, timeout_s: float | None = None) -> Stream: ...

    def dry_run(self, documents: bytes = b"", *, caller: Caller = ANONYMOUS) -> Deferred[Response]: ...


class Ground(Protocol):
    """What of a Backend concerns connections, whatever is served over them."""

    @property
    def gateway(self) -> GatewayConfig: ...
    @property
    def reactor(self) -> PortReactor: ...
    @property
    def buffers(self) -> Buffers: ...
    @property
    def admission(self) -> Admission: ...
    @property
    def access(self) -> AccessControl | None: ...
    @property
    def tls(self) -> TlsCredentials | None: ...
    @property
    def slow_lane(self) -> SlowLane | None: ...
    @property
    def secure_headers(self) -> tuple[tuple[bytes, bytes], ...]: ...


class Extension(Protocol):
    """Routes beside the gateway's own: those of a gateway class of the user's, whose name it has."""

    @property
    def name(self) -> str: ...

    def fixed_paths(self) -> Iterable[bytes]:
        """Those of its paths that are known beforehand."""
        ...

    def render(self, http_request: Any) -> None:
        """Answer a GatewayRequest for a path that the gateway does not serve itself. Reactor thread."""
        ...


@attrs.frozen
class Backend:
    """
    What a port of any protocol is made with.

    Protocols dispatch to what ``dispatcher_for`` gives them: ``observed`` puts before the ``dispatcher`` what
    watches requests. ``status()`` makes the two maps of /status, from any thread. ``offload(function, *args,
    **kwargs)`` runs a pure function in a pool thread. ``buffers`` count the bytes held for clients, of all
    ports together, but for those that ports of our own gRPC server hold on their loop, ``held_on_loop`` by
    port number.
    ``bridge`` leads to the asyncio loop of the gateway, for protocols that need one. With ``tls`` the
    port speaks TLS only; renewed credentials come through its ``renew``. The ``extension`` gets the paths of
    HTTP and WebSocket ports that are not the gateway's own. ``endpoints()`` says what the executors bind, as
    far as it is known now, ``streaming`` which of them stream, and ``health()`` how the gateway is, on the
    reactor thread. With ``access`` control each protocol asks it who calls, before anything else.
    ``forwarded`` are the headers of requests that are read. ``admission`` counts the connections of all
    ports. Those of HTTP and WebSocket whose requests drip in are read in the ``slow_lane``, if the system has
    one. One of several workers has a ``place`` among them. ``secure_headers`` are those of every answer of
    HTTP over TLS.
    """

    gateway: GatewayConfig
    dispatcher: Dispatcher
    status: Callable[[], StatusMaps]
    offload: Offload
    reactor: PortReactor
    buffers: Buffers
    bridge: Bridge
    tls: TlsCredentials | None = None
    extension: Extension | None = None
    endpoints: Callable[[], Endpoints] = Endpoints
    access: AccessControl | None = None
    place: Place | None = None
    observed: Callable[[Dispatcher, str], Dispatcher] = lambda dispatcher, protocol: dispatcher
    streaming: StreamingEndpoints = attrs.field(factory=StreamingEndpoints)
    health: Callable[[], Health] = lambda: Health("serving", True)
    forwarded: AllowList = attrs.field(init=False)
    admission: Admission = attrs.field()
    held_on_loop: MutableMapping[int, Buffers] = attrs.field(factory=dict)
    slow_lane: SlowLane | None = attrs.field(init=False)
    secure_headers: tuple[tuple[bytes, bytes], ...] = attrs.field(init=False)

    def dispatcher_for(self, protocol: str) -> Dispatcher:
        """The dispatcher for requests that come by ``protocol``, which logs and metrics name."""
        return self.observed(self.dispatcher, protocol)

    @forwarded.default
    def _of_gateway(self) -> AllowList:
        return self.gateway.received

    @secure_headers.default
    def _where_there_is_tls(self) -> tuple[tuple[bytes, bytes], ...]:
        hsts = self.gateway.hsts
        return (
            ((b"Strict-Transport-Security", b"max-age=%d" % hsts),) if hsts and self.tls is not None else ()
        )

    @admission.default
    def _by_settings(self) -> Admission:
        return Admission.of(self.gateway, self.reactor, self.place)

    @slow_lane.default
    def _where_it_exists(self) -> SlowLane | None:
        return SlowLane(self.reactor) if SlowLane.exists() else None
