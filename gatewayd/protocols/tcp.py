"""Listening on TCP with Twisted, with TLS where the gateway has a certificate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.python.log import callWithContext

from gatewayd.clocks import ListeningPort, PortReactor
from gatewayd.config.model import Listener
from gatewayd.errors import PortTaken
from gatewayd.protocols.backend import Backend
from gatewayd.protocols.binding import FREE_PORT_TRIES, addresses_of
from gatewayd.tls import WebTls

# Connections that wait to be accepted: Twisted's 50 make a burst of clients wait for seconds.
_BACKLOG: Final = 1024


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
    tls = None if backend.identity is None else WebTls(backend.identity)
    tries = 1 if listener.port else FREE_PORT_TRIES
    addresses = addresses_of(host)
    for left in reversed(range(tries)):
        opened: list[ListeningPort] = []
        try:
            for address in addresses:
                port = opened[0].getHost().port if opened else listener.port
                opened.append(_listen(backend.reactor, address, port, factory, tls))
            return ListeningPorts(opened)
        except CannotListenError as error:
            ListeningPorts(opened).stopListening()
            if not left:
                name = "+".join(listener.protocols)
                raise PortTaken(name, host, listener.port, str(error.socketError)) from error
    raise AssertionError("unreachable")


def _listen(reactor: PortReactor, address: str, port: int, factory: Any, tls: WebTls | None) -> ListeningPort:
    if tls is None:
        return _quietly(reactor.listenTCP, port, factory, backlog=_BACKLOG, interface=address)
    return _quietly(reactor.listenSSL, port, factory, tls, backlog=_BACKLOG, interface=address)


def _quietly(listen: Callable[..., ListeningPort], *args: Any, **options: Any) -> ListeningPort:
    """Listen without Twisted's own log lines about the port: the service's say what listens where."""
    # An event without a format has no text, and observers write nothing.
    port: Any = callWithContext({"log_format": None}, listen, *args, **options)
    port._logConnectionLostMsg = lambda: None
    found: ListeningPort = port
    return found
