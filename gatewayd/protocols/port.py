"""
One listening port, whatever it speaks: the interface of a protocol, and the table of those there are.

A new protocol is a folder whose module has ``make_port``, and an entry in ``MODULES``; its name stands in
``gatewayd.config`` (model.py, kinds.py). The service knows no protocol by name: tests/protocols/test_port.py
mounts one more.
"""

from __future__ import annotations

import importlib
import socket
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import attrs
from twisted.internet.defer import Deferred

from gatewayd.config import Listener
from gatewayd.messages.generations import Generation
from gatewayd.protocols.backend import Backend
from gatewayd.tls.credentials import TlsCredentials

# Protocols that can share a port name the same module. It is imported when a listener needs it: half of what
# a gateway imports is for the web, and one for gRPC alone needs none of that.
MODULES: Final[dict[str, str]] = {
    "grpc": "gatewayd.protocols.grpc.servers",
    "http": "gatewayd.protocols.web_port",
    "websocket": "gatewayd.protocols.web_port",
}

# After the grace period, for the refusals of what did not finish, and close frames, to go out.
LAST_WORDS_S: Final = 1.0

# How long a TLS handshake may take: two round trips, and on a bad network a few more.
HANDSHAKE_S: Final = 10.0


@attrs.frozen
class PortReport:
    """
    A port that listens: what it speaks, where, and how many connections are open (None if that is unknown).

    ``try_it`` is a shell command for a first request, None if there is no simple one.
    """

    protocols: tuple[str, ...]
    host: str
    port: int
    tls: bool
    connections: int | None = None
    try_it: str | None = None

    @property
    def address(self) -> str:
        """``host:port``; an address of IPv6 in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Port(Protocol):
    """A port, from its start to its end. Reactor thread only."""

    def listen(self, inherited: Sequence[socket.socket] = ()) -> None:
        """
        Bind and serve. May block for a moment: it is called while the service starts.

        With ``inherited`` sockets, which listen already, nothing is bound: other processes may accept from
        them as well. The port owns them from then on, and closes them without a shutdown.

        Raises PortTaken, or another ConfigError.
        """
        ...

    def set_serving(
        self,
        serving: bool = True,
        parts: Mapping[str, bool] = {},
        generation: Generation | None = None,
    ) -> None:
        """
        Report the port as healthy: every executor has served once.

        Or as not healthy: it has not yet, or the gateway is about to stop, and serves on for a while.
        ``parts`` are the Flow and its Deployments, by name, and whether each of them can be called now.
        ``generation`` is that of its documents, where it is known.
        """
        ...

    def renew(self, credentials: TlsCredentials) -> None:
        """
        Use these for TLS connections from now on; those there are stay as they are.

        Called only where the backend has ``tls``.
        """
        ...

    def share(self) -> list[socket.socket]:
        """
        Copies of the sockets that it listens at, for another port that takes its place.

        They listen on when this one has stopped. May block for a moment. Raises ConfigError where that cannot
        be.
        """
        ...

    def retire(self) -> None:
        """
        Take no new connections, and have clients open their next ones elsewhere; requests are served on.

        Another process or port accepts from the same sockets, or none. ``drain`` follows.
        """
        ...

    def drain(self, grace_s: float) -> Deferred[None]:
        """
        Take no new connections and requests, and let what is under way finish.

        Fires when no connection is left: at the latest a moment after ``grace_s`` seconds, when those that
        remain are closed.
        """
        ...

    def stop(self) -> Deferred[None]:
        """Release what the port holds besides connections, after ``drain``. Fires when that is done."""
        ...

    def report(self) -> PortReport:
        """What there is to say of the port now; after ``listen``."""
        ...


def make_port(listener: Listener, backend: Backend) -> Port:
    """The port of ``listener``, not listening yet. Raises ConfigError for settings that it cannot serve."""
    (module,) = {MODULES[protocol] for protocol in listener.protocols}
    port: Port = importlib.import_module(module).make_port(listener, backend)
    return port
