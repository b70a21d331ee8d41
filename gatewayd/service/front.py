"""
What stands before the graph: the ports of a gateway's settings, who may pass, and how often.

A reload that changes such settings makes another front, at copies of the same listening sockets, and has this
one's clients leave. The graph may be replaced without it: ``engine`` is a switch.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Final

import attrs

from gatewayd.access.control import AccessControl
from gatewayd.access.guard import Engine
from gatewayd.access.limited import Limited
from gatewayd.access.proxies import Proxies
from gatewayd.access.rates import Rates
from gatewayd.access.redis_store import RedisStore
from gatewayd.access.service import AccessService
from gatewayd.access.shared_rates import SharedRates
from gatewayd.bridge import Bridge
from gatewayd.buffers import Buffers
from gatewayd.clocks import Reactor
from gatewayd.config.model import GatewayConfig, Listener
from gatewayd.crowd import Place
from gatewayd.health import Health
from gatewayd.messages.discovery import Endpoints
from gatewayd.protocols.admission import Admission
from gatewayd.protocols.backend import Backend, Extension, StatusMaps
from gatewayd.protocols.port import Port, PortReport, make_port
from gatewayd.protocols.withholding import for_clients
from gatewayd.service.observing import Observing
from gatewayd.streams import StreamingEndpoints
from gatewayd.tls.credentials import TlsCredentials

# The settings of connections' limits, and of who is no client but a proxy.
_OF_ADMISSION: Final = (
    "max_connections",
    "max_connections_per_address",
    "trusted_proxies",
    "proxy_header",
)

_OF_RATES: Final = (
    *("rates", "shared_rates", "rates_store", "rates_store_timeout_s", "rates_without_store"),
    "rates_store_tls",
)


@attrs.frozen
class Held:
    """
    What clients have of a gateway now, against its limits: connections, bytes, and requests of late.

    ``on_loop`` are the bytes that ports of our own gRPC server hold, by port number.
    """

    admission: Admission
    buffers: Buffers
    on_loop: dict[int, Buffers]
    rates: Rates | SharedRates | None

    @classmethod
    def of(
        cls, settings: GatewayConfig, reactor: Reactor, place: Place | None, before: Front | None = None
    ) -> Held:
        """Under ``settings``: that of the front ``before`` where its limit is the same, or else none yet."""
        fresh = cls(
            Admission.of(settings, reactor, place),
            Buffers(settings.max_buffered_bytes),
            {},
            _rates_of(settings, reactor),
        )
        if before is None:
            return fresh
        old, there = before.settings, before.held

        def is_same(*names: str) -> bool:
            return all(getattr(old, name) == getattr(settings, name) for name in names)

        if isinstance(fresh.rates, SharedRates) and isinstance(there.rates, SharedRates):
            fresh.rates.decided = there.rates.decided
        bytes_of = there if is_same("max_buffered_bytes") else fresh
        return cls(
            (there if is_same(*_OF_ADMISSION) else fresh).admission,
            bytes_of.buffers,
            bytes_of.on_loop,
            (there if is_same(*_OF_RATES) else fresh).rates,
        )


def _rates_of(settings: GatewayConfig, reactor: Reactor) -> Rates | SharedRates | None:
    if not settings.rates:
        return None
    own = Rates(settings.rates)
    if settings.rates_store is None:
        return own
    store = RedisStore(
        settings.rates_store, reactor, settings.rates_store_timeout_s, files=settings.rates_store_tls
    )
    alone = own if settings.rates_without_store == "divide" else None
    return SharedRates(settings.shared_rates, store, alone)


class Front:
    """
    The ports of one set of settings: ``entries``, in the order of its listeners. Reactor thread only.

    It may be made in another thread.
    """

    def __init__(
        self,
        settings: GatewayConfig,
        engine: Engine,
        *,
        reactor: Reactor,
        bridge: Bridge,
        credentials: TlsCredentials | None,
        endpoints: Callable[[], Endpoints],
        streaming: StreamingEndpoints,
        health: Callable[[], Health],
        status: Callable[[], StatusMaps],
        observing: Observing,
        observed: Callable[[Engine, str], Engine],
        extension: Extension | None,
        place: Place | None,
        before: Front | None = None,
    ) -> None:
        """
        One that takes the place of another, ``before``, goes on with what clients have there. ``observed``
        puts what is ``observing`` before an engine.

        Reads the files that ``auth`` names; blocks for a moment. Raises ConfigError, and has started nothing
        then.
        """
        self.settings = settings
        self.observing = observing
        self.exposed = for_clients(engine, expose_errors=settings.expose_errors)
        engine = self.exposed
        self.held = Held.of(settings, reactor, place, before)
        self._status_of_service = status
        if self.held.rates is not None:
            engine = Limited(engine, self.held.rates, reactor)
        proxies = Proxies.of(settings)
        # Both want to know the addresses of callers.
        knows_callers = settings.rates or settings.access_log is not None
        access = AccessControl(proxies=proxies) if knows_callers else None
        self._access_service: AccessService | None = None
        if settings.auth is not None:
            self._access_service = AccessService(settings.auth, reactor, bridge.offload, proxies)
            # Who may not call does not use up what others may.
            engine = self._access_service.guarded(engine, endpoints)
            access = self._access_service.access
        self._backend = Backend(
            gateway=settings,
            dispatcher=engine,
            access=access,
            place=place,
            observed=observed,
            status=self._status,
            offload=bridge.offload,
            reactor=reactor,
            buffers=self.held.buffers,
            admission=self.held.admission,
            held_on_loop=self.held.on_loop,
            tls=credentials,
            bridge=bridge,
            extension=extension,
            endpoints=endpoints,
            streaming=streaming,
            health=health,
        )
        self.entries: list[tuple[Listener, Port]] = []

    @property
    def ports(self) -> list[Port]:
        return [port for _, port in self.entries]

    @property
    def port_reports(self) -> list[PortReport]:
        return [port.report() for port in self.ports]

    def start(self) -> None:
        """Look for changes of the files of ``auth``, and connect with the store of the rates, from now on."""
        if self._access_service is not None:
            self._access_service.start()
        if isinstance(self.held.rates, SharedRates):
            self.held.rates.start()

    def opened(self, listener: Listener, sockets: Sequence[socket.socket] = ()) -> Port:
        """A port that listens, at ``sockets`` if there are any, and is no entry yet. Raises ConfigError."""
        port = make_port(listener, self._backend)
        if sockets:
            port.listen(sockets)
        else:
            port.listen()
        return port

    def renew(self, credentials: TlsCredentials) -> None:
        """Use these for TLS from now on."""
        for port in self.ports:
            port.renew(credentials)

    def stop_looking(self) -> None:
        """Look for no changes of files, and need no store, any more."""
        if self._access_service is not None:
            self._access_service.stop()
        if isinstance(self.held.rates, SharedRates):
            self.held.rates.stop()

    def _status(self) -> StatusMaps:
        found = self._status_of_service()
        rates = self.held.rates
        if not isinstance(rates, SharedRates):
            return found
        said = "counts the rates" if rates.store.up else "cannot be used; see the log"
        return {**found, "jina": {**found["jina"], "gatewayd-rates-store": said}}
