"""Listening on TCP with Twisted, with TLS where the gateway has a certificate."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import connectionDone
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.python.log import callWithContext

from gatewayd.clocks import ListeningPort, PortReactor
from gatewayd.config.model import Listener
from gatewayd.errors import PortTaken
from gatewayd.protocols.backend import Backend
from gatewayd.protocols.binding import FREE_PORT_TRIES, addresses_of
from gatewayd.tls import WebTls

# Connections that wait to be accepted: Twisted's 50 make a burst of clients wait for seconds.
_BACKLOG: Final = 1024


class TlsTransport(BufferingTLSTransport):
    """
    A TLS connection that lets go of what it has not sent when it is lost.

    Twisted keeps the failure of a connection that was cut off in a frame that its traceback refers to, so
    that both transports wait for the garbage collector. They are small without their buffers.
    """

    transport: Any

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self._appSendBuffer.clear()
        self.transport.dataBuffer = b""
        self.transport._tempDataBuffer.clear()


class ListeningPorts:
    """Sockets of one listener: the same port at every address of its host."""

    def __init__(self, ports: Sequence[ListeningPort]) -> None:
        self._ports = tuple(ports)

    def getHost(self) -> Any:
        """The address of the first."""
        return self._ports[0].getHost()

    def stopListening(self) -> Deferred[None]:
        """Fires when all are closed."""
        closing = [maybeDeferred(port.stopListening) for port in self._ports]
        return gatherResults(closing).addCallback(lambda _: None)


def listen_tcp(listener: Listener, backend: Backend, factory: Any) -> ListeningPort:
    """
    Listen for ``listener`` on the gateway's host; ``factory`` is an IProtocolFactory.

    Raises PortTaken, or UnusableIdentity.
    """
    host = backend.gateway.host
    if backend.identity is not None:
        secured = TLSMemoryBIOFactory(WebTls(backend.identity), False, factory)
        secured.protocol = TlsTransport
        factory = secured
    tries = 1 if listener.port else FREE_PORT_TRIES
    addresses = addresses_of(host)
    for left in reversed(range(tries)):
        opened: list[ListeningPort] = []
        try:
            for address in addresses:
                port = opened[0].getHost().port if opened else listener.port
                opened.append(_listen(backend.reactor, address, port, factory))
            return ListeningPorts(opened)
        except CannotListenError as error:
            ListeningPorts(opened).stopListening()
            if not left:
                name = "+".join(listener.protocols)
                raise PortTaken(name, host, listener.port, str(error.socketError)) from error
    raise AssertionError("unreachable")


def _listen(reactor: PortReactor, address: str, port_number: int, factory: Any) -> ListeningPort:
    """Listen without Twisted's own log lines about the port: the service's say what listens where."""
    # An event without a format has no text, and observers write nothing.
    quiet = {"log_format": None}
    options = {"backlog": _BACKLOG, "interface": address}
    port: Any = callWithContext(quiet, reactor.listenTCP, port_number, factory, **options)
    port._logConnectionLostMsg = lambda: None
    found: ListeningPort = port
    return found


def limit_writes(transport: Any, limit_s: float) -> None:
    """
    Have the kernel end a connection whose client takes nothing of what is sent for ``limit_s`` seconds.

    Without effect where the kernel has no TCP_USER_TIMEOUT (RFC 5482).
    """
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        transport.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(limit_s * 1000))
