"""
Builds the parts of a running gateway from its config, starts them in order, and drains them on stop.

Start: bridge, pool, dispatcher, ports; the processes of the executors are started by the service. Stop
goes outside in: take nothing new, let what is under way finish within the grace period, then close the
client connections, the executors, the channels to them, and the loop thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.error import CannotListenError
from twisted.logger import Logger

from gatewayd.bridge import Bridge
from gatewayd.config import FlowConfig, Listener
from gatewayd.dispatch.dispatcher import Dispatcher
from gatewayd.dispatch.topology import Topology
from gatewayd.errors import PortTaken
from gatewayd.pool.pool import Pool
from gatewayd.protocols.buffers import Buffers
from gatewayd.protocols.grpc.server import GrpcServer
from gatewayd.protocols.grpc.servicer import Servicer
from gatewayd.status import status_maps
from gatewayd.supervisor.supervisor import Supervisor
from gatewayd.tls import Identity, WebTls, load_identity

log = Logger()

# Connections that wait to be accepted: Twisted's 50 make a burst of clients wait for seconds.
_BACKLOG = 1024
_LAST_WORDS_S = 1.0


class Gateway:
    """
    One running gateway. Reactor thread only.

    ``ports`` holds the port that each of the config's listeners got, in their order, once started.
    """

    def __init__(self, flow: FlowConfig, reactor: Any, supervisor: Supervisor) -> None:
        """Tell ``replica_up`` and ``replica_down`` what ``supervisor`` tells; ``stop`` stops it too."""
        self.flow = flow
        self.ports: list[int] = []
        self._reactor = reactor
        self._bridge = Bridge(reactor)
        # Long queries keep a loop busy, and gRPC's calls must not wait for them.
        self._queries = Bridge(reactor, "graphql loop") if flow.gateway.expose_graphql_endpoint else None
        self._pool = Pool.over(self._bridge, flow.gateway, flow.deployments, reactor)
        self._dispatcher = Dispatcher(
            Topology.from_deployments(flow.deployments), self._pool, reactor, self._bridge.offload
        )
        self._supervisor = supervisor
        self._buffers = Buffers(flow.gateway.max_buffered_bytes)
        self._addresses: dict[tuple[str, int, int], str] = {}
        self._identity: Identity | None = None  # with one, every port speaks TLS only
        self._grpc: list[GrpcServer] = []
        self._web: list[tuple[Any, Any]] = []  # Twisted's listening port, and the site behind it

    def start(self) -> None:
        """
        Listen. Raises ConfigError: the process is then to end.

        Blocks for a moment while the certificate is read and gRPC binds its ports.
        """
        for warning in self.flow.warnings:
            log.warn("{warning}", warning=warning)
        settings = self.flow.gateway
        self._identity = load_identity(settings.ssl_certfile, settings.ssl_keyfile)
        self._bridge.start()
        if self._queries is not None:
            self._queries.start()
        for listener in self.flow.gateway.listeners:
            self.ports.append(self._listen(listener))
        self._announce()

    async def stop(self) -> None:
        """Fires when everything has ended; takes little longer than the grace period at most."""
        grace_s = self.flow.gateway.grace_period_s
        started = self._reactor.seconds()
        self._dispatcher.close()
        over = self._reactor.callLater(grace_s, self._grace_over)
        # The connections stay a moment longer, for the refusals of what didn't finish.
        closing: list[Deferred[Any]] = [server.stop(grace_s + _LAST_WORDS_S) for server in self._grpc]
        for port, site in self._web:
            closing += [port.stopListening(), site.close_all(grace_s + _LAST_WORDS_S)]
        await DeferredList([*closing, self._dispatcher.drain()], consumeErrors=True)
        if over.active():
            over.cancel()
        left_s = max(1.0, grace_s - (self._reactor.seconds() - started))
        await self._supervisor.stop(left_s)
        self._pool.close()
        await self._bridge.stop()
        if self._queries is not None:
            await self._queries.stop()
        log.info("stopped")

    def _grace_over(self) -> None:
        log.warn(
            "the grace period of {grace_s} s is over; refused are {count} requests that were under way",
            grace_s=self.flow.gateway.grace_period_s,
            count=self._dispatcher.in_flight,
        )
        self._dispatcher.abandon()

    # -- ports ---------------------------------------------------------------------------------------

    def _listen(self, listener: Listener) -> int:
        if listener.protocols == ("grpc",):
            server = GrpcServer(
                self._bridge,
                Servicer(
                    self._bridge,
                    self._dispatcher,
                    self._status,
                    self.flow.gateway.prefetch,
                    self._buffers,
                ),
                self.flow.gateway,
                self._identity,
            )
            port = server.listen(listener.port)
            self._grpc.append(server)
            return port
        # Half of all that a gateway imports, and nothing that one for gRPC alone would need.
        from gatewayd.protocols.web_port import build_site

        site = build_site(
            listener.protocols,
            self.flow.gateway,
            self._dispatcher,
            self._status,
            self._bridge.offload,
            self._reactor,
            buffers=self._buffers,
            loop=self._queries,
        )
        host = self.flow.gateway.host
        try:
            if self._identity is None:
                listening = self._reactor.listenTCP(listener.port, site, backlog=_BACKLOG, interface=host)
            else:
                tls = WebTls(self._identity)
                listening = self._reactor.listenSSL(listener.port, site, tls, interface=host)
        except CannotListenError as error:
            raise PortTaken(
                "+".join(listener.protocols), host, listener.port, str(error.socketError)
            ) from error
        self._web.append((listening, site))
        return int(listening.getHost().port)

    def _status(self) -> Mapping[str, Mapping[str, str]]:
        jina, envs = status_maps()
        return {"jina": jina, "envs": envs}

    def _announce(self) -> None:
        host = self.flow.gateway.host
        for listener, port in zip(self.flow.gateway.listeners, self.ports, strict=True):
            log.info(
                "{protocols} on {host}:{port}{tls}",
                protocols="+".join(listener.protocols),
                host=host,
                port=port,
                tls=" with TLS" if self._identity else "",
            )

    def ready(self) -> None:
        """Every executor has served once: tell health checkers, and whoever reads the log."""
        for server in self._grpc:
            server.set_serving()
        log.info("ready")
        for listener, port in zip(self.flow.gateway.listeners, self.ports, strict=True):
            if "http" in listener.protocols:
                host = self.flow.gateway.host
                log.info(
                    "try: curl {options} {scheme}://{host}:{port}/post "
                    "-H 'content-type: application/json' -d '{{}}'",
                    # Whether the certificate is one for this name is not known here.
                    options="-sk" if self._identity else "-s",
                    scheme="https" if self._identity else "http",
                    host="localhost" if host in ("0.0.0.0", "::", "") else host,
                    port=port,
                )

    # -- executors -----------------------------------------------------------------------------------

    def replica_up(self, deployment: str, shard: int, replica: int, address: str) -> None:
        self._addresses[deployment, shard, replica] = address
        self._pool.replica_up(deployment, address, shard)

    def replica_down(self, deployment: str, shard: int, replica: int) -> None:
        address = self._addresses.pop((deployment, shard, replica), None)
        if address is not None:
            self._pool.replica_down(deployment, address, shard)
