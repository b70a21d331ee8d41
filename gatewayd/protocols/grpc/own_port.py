"""
The gRPC port on a server of our own (``rpc/server/``), with the interface of ``port.py``'s.

The reactor thread starts and stops it; everything else happens on the loop thread.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Final

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from gatewayd.bridge import Bridge
from gatewayd.buffers import Buffers
from gatewayd.config import GatewayConfig, Listener
from gatewayd.errors import TooSlow
from gatewayd.messages.generations import Generation
from gatewayd.pb import POOL
from gatewayd.protocols.admission import Entrance
from gatewayd.protocols.arrival import ArrivalLimits
from gatewayd.protocols.binding import bound_sockets
from gatewayd.protocols.grpc.errors import status_of
from gatewayd.protocols.grpc.options import Options, exposed_services, options_of, pool_of, served_methods
from gatewayd.protocols.grpc.serving import CallServicer
from gatewayd.protocols.port import LAST_WORDS_S, PortReport
from gatewayd.rpc.server.call import CallSettings
from gatewayd.rpc.server.health import Health
from gatewayd.rpc.server.listener import Listener as GrpcListener
from gatewayd.rpc.server.loop_clock import LoopClock
from gatewayd.rpc.server.reflecting import Reflection
from gatewayd.rpc.server.stream import Limits
from gatewayd.rpc.server.transport import ConnectionSettings
from gatewayd.rpc.timeouts import Timeouts
from gatewayd.tls.asyncio import ssl_context_of
from gatewayd.tls.credentials import TlsCredentials

log = Logger()

_START_TIMEOUT_S: Final = 10.0
# The channel arguments that have a meaning here.
_KNOWN: Final = frozenset(
    f"grpc.{name}"
    for name in (
        "max_concurrent_streams",
        "per_message_decompression",
        "max_send_message_length",
        "max_receive_message_length",
        "server_handshake_timeout_ms",
        "keepalive_time_ms",
        "keepalive_timeout_ms",
        "keepalive_permit_without_calls",
        "http2.max_pings_without_data",
        "http2.min_time_between_pings_ms",
        "http2.min_ping_interval_without_data_ms",
        "so_reuseport",
        "max_metadata_size",
        "max_connection_idle_ms",
        "max_connection_age_ms",
        "max_connection_age_grace_ms",
    )
)


class OwnGrpcPort:
    """One listening gRPC port. Reactor thread only, but for the methods named ``_on_loop``."""

    def __init__(
        self,
        bridge: Bridge,
        servicer: CallServicer,
        gateway: GatewayConfig,
        tls: TlsCredentials | None = None,
        port: int = 0,
        admission: Entrance | None = None,
        held: MutableMapping[int, Buffers] | None = None,
    ) -> None:
        """
        With ``tls`` the port speaks TLS only; ``port`` 0 is a free one. ``held`` has what is held for each
        port number, and goes on with that of a port before this one. Raises UnusableTlsFile.
        """
        self._bridge = bridge
        self._servicer = servicer
        self._gateway = gateway
        # Read by the loop thread before each handshake, and replaced as a whole.
        self._tls = None if tls is None else ssl_context_of(tls, "h2")
        self._port = port
        self._admission = admission
        self._all_held: MutableMapping[int, Buffers] = {} if held is None else held
        self._held = Buffers(gateway.max_buffered_bytes)  # loop thread only, but for a number
        # What health knows: the server as a whole, and each service that reflection lists (spec wire.md).
        self._services = exposed_services(gateway)
        self._health = Health(("", *self._services))  # loop thread only
        self._reflection = Reflection(self._services, POOL)  # loop thread only
        self._listener: GrpcListener | None = None  # loop thread only, but for a number

    def listen(self, inherited: Sequence[socket.socket] = ()) -> None:
        """Bind and serve, or serve at ``inherited`` sockets. Raises PortTaken."""
        options = options_of(self._gateway)
        for name in sorted(self._gateway.grpc_server_options.keys() - _KNOWN):
            log.warn("gateway.grpc_server_options: {name} means nothing to this server", name=name)
        sockets = list(inherited) or bound_sockets(self._gateway.host, Listener(("grpc",), self._port))
        self._port = int(sockets[0].getsockname()[1])
        self._held = self._all_held.setdefault(self._port, self._held)

        async def listen() -> None:
            self._listen_on_loop(sockets, options, shared=bool(inherited))

        self._bridge.run_on_loop(listen, _START_TIMEOUT_S)

    def set_serving(
        self,
        serving: bool = True,
        parts: Mapping[str, bool] = {},
        generation: Generation | None = None,
    ) -> None:
        """Tell health checkers whether it serves, and each of the ``parts``; reflection shows the rest."""
        services = exposed_services(self._gateway, generation)
        known = {**parts, **dict.fromkeys(set(services).difference(self._services), True)}

        async def serve() -> None:
            self._health.set_serving(serving, known)
            self._reflection.show(services, pool_of(generation))

        self._bridge.on_loop(serve).addErrback(lambda failure: failure.trap(CancelledError))

    def renew(self, credentials: TlsCredentials) -> None:
        """Use these for connections from now on. Raises UnusableTlsFile."""
        assert self._tls is not None, "renew without TLS"
        self._tls = ssl_context_of(credentials, "h2")

    def share(self) -> list[socket.socket]:
        """Copies of its sockets. Blocks until the loop thread has made them."""

        async def copies() -> list[socket.socket]:
            return [] if self._listener is None else self._listener.copies()

        return self._bridge.run_on_loop(copies, _START_TIMEOUT_S)

    def retire(self) -> None:
        """Take no new connections, and ask clients to leave."""

        async def retire() -> None:
            if self._listener is not None:
                self._listener.retire()

        self._close_entrance()
        self._bridge.on_loop(retire).addErrback(lambda failure: failure.trap(CancelledError))

    def drain(self, grace_s: float) -> Deferred[None]:
        """
        Tell health checkers, take no new calls, and fire when those under way have ended.

        What has not ended shortly after ``grace_s`` seconds is cancelled.
        """
        self._close_entrance()
        return self._bridge.on_loop(self._drain_on_loop, grace_s + LAST_WORDS_S)

    def _close_entrance(self) -> None:
        if self._admission is not None:
            self._admission.close()

    def stop(self) -> Deferred[None]:
        """Nothing is left to release after ``drain``."""
        return succeed(None)

    def report(self) -> PortReport:
        """What the port speaks, and where."""
        open_now = self._listener.connections if self._listener is not None else 0
        return PortReport(
            ("grpc",),
            self._gateway.host,
            self._port,
            self._tls is not None,
            open_now,
        )

    def _listen_on_loop(self, sockets: list[socket.socket], options: Options, *, shared: bool) -> None:
        loop = asyncio.get_running_loop()
        self._listener = GrpcListener(
            loop,
            sockets,
            self._settings(loop, options),
            _Admissions(self._bridge, self._admission),
            lambda: self._tls,
            shared=shared,
            should_yield=lambda: self._admission is not None and self._admission.should_yield,
        )
        self._listener.start()

    async def _drain_on_loop(self, grace_s: float) -> None:
        self._health.stop_serving()
        if self._listener is not None:
            ending = asyncio.ensure_future(self._listener.drain(grace_s))
            # One turn of the loop first: clients learn of the stop before their streams end.
            await asyncio.sleep(0)
            self._servicer.drain()
            await ending

    def _settings(self, loop: asyncio.AbstractEventLoop, options: Options) -> ConnectionSettings:
        def number(name: str, default: int) -> int:
            return int(options.get(f"grpc.{name}", default))

        def seconds(name: str, default_s: float = float("inf")) -> float:
            found = options.get(f"grpc.{name}")
            # The largest number of 32 bits is gRPC's infinity.
            return default_s if found is None or int(found) >= 2**31 - 1 else int(found) / 1e3

        gateway, most_sent = self._gateway, number("max_send_message_length", -1)
        most_received = number("max_receive_message_length", -1)
        # gRPC's own server begins to refuse at its limit, at random, and refuses all a little above it.
        headers_bytes = number("max_metadata_size", 8192) * 2
        calls = CallSettings(
            methods={
                **self._servicer.methods(served_methods(gateway)),
                **self._health.methods(),
                **(self._reflection.methods() if gateway.expose_reflection else {}),
            },
            held=self._held,
            timeouts=Timeouts(LoopClock(loop)),
            seconds=loop.time,
            max_received_bytes=(1 << 32) - 1 if most_received < 0 else most_received,
            max_sent_bytes=None if most_sent < 0 else most_sent,
            max_headers_bytes=headers_bytes,
            full=self._held.full,
            too_slow=status_of(TooSlow())[:2],
            identify=self._servicer.identify if self._servicer.asks_who_calls else None,
        )
        limits = Limits(
            headers_bytes=headers_bytes,
            block_bytes=4 * headers_bytes,
            streams=number("max_concurrent_streams", 0),
            ping_interval_s=seconds("http2.min_ping_interval_without_data_ms", 300.0),
        )
        return ConnectionSettings(
            calls,
            limits,
            max_unsent_bytes=gateway.max_unsent_bytes,
            handshake_s=seconds("server_handshake_timeout_ms", 120.0),
            write_timeout_s=gateway.write_timeout_s,
            keepalive_s=seconds("keepalive_time_ms", 7200.0),
            keepalive_timeout_s=seconds("keepalive_timeout_ms", 20.0),
            max_idle_s=seconds("max_connection_idle_ms"),
            max_age_s=seconds("max_connection_age_ms"),
            age_grace_s=seconds("max_connection_age_grace_ms"),
            arrival_s=ArrivalLimits.of(gateway).allowed_s,
            soon=self._bridge.call_soon,
        )


class _Admissions:
    """Asks the gateway's ``admission``, which belongs to the reactor thread; None admits everybody."""

    def __init__(self, bridge: Bridge, admission: Entrance | None) -> None:
        self._bridge = bridge
        self._admission = admission

    def ask(self, host: str, answer: Callable[[bool], object]) -> None:
        admission = self._admission
        if admission is None:
            answer(True)
            return

        def done(found: bool | Failure) -> None:
            answer(found is True)

        self._bridge.ask_reactor(done, lambda: succeed(admission.admit(host)))

    def give_back(self, host: str) -> None:
        if self._admission is not None:
            self._bridge.tell_reactor(self._admission.give_back, host)
