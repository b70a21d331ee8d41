"""
What stands before the graph: the ports of a gateway's settings, who may pass, and how often.

A reload that changes such settings makes another front, at copies of the same listening sockets, and has this
one's clients leave. The graph may be replaced without it: ``engine`` is a switch.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence

from gatewayd.access.control import AccessControl
from gatewayd.access.guard import Engine
from gatewayd.access.limited import Limited
from gatewayd.access.proxies import Proxies
from gatewayd.access.service import AccessService
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
from gatewayd.tls.credentials import TlsCredentials


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
        health: Callable[[], Health],
        status: Callable[[], StatusMaps],
        observed: Callable[[Engine, str], Engine],
        extension: Extension | None,
        place: Place | None,
    ) -> None:
        """
        Reads the files that ``auth`` names; blocks for a moment. Raises ConfigError, and has started nothing
        then.
        """
        self.settings = settings
        self.exposed = for_clients(engine, expose_errors=settings.expose_errors)
        engine = self.exposed
        if settings.rates:
            engine = Limited(engine, settings.rates, reactor)
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
            status=status,
            offload=bridge.offload,
            reactor=reactor,
            buffers=Buffers(settings.max_buffered_bytes),
            tls=credentials,
            bridge=bridge,
            extension=extension,
            endpoints=endpoints,
            health=health,
        )
        self.entries: list[tuple[Listener, Port]] = []

    @property
    def ports(self) -> list[Port]:
        return [port for _, port in self.entries]

    @property
    def port_reports(self) -> list[PortReport]:
        return [port.report() for port in self.ports]

    @property
    def buffers(self) -> Buffers:
        """What its ports hold together."""
        return self._backend.buffers

    @property
    def admission(self) -> Admission:
        """Its connections."""
        return self._backend.admission

    def start(self) -> None:
        """Look for changes of the files of ``auth`` from now on."""
        if self._access_service is not None:
            self._access_service.start()

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
        """Look for no changes of files any more."""
        if self._access_service is not None:
            self._access_service.stop()
