"""Listening on TCP with Twisted, with TLS where the gateway has a certificate."""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.error import CannotListenError

from gatewayd.clocks import ListeningPort
from gatewayd.config.model import Listener
from gatewayd.errors import PortTaken
from gatewayd.protocols.backend import Backend
from gatewayd.tls import WebTls

# Connections that wait to be accepted: Twisted's 50 make a burst of clients wait for seconds.
_BACKLOG: Final = 1024


def listen_tcp(listener: Listener, backend: Backend, factory: Any) -> ListeningPort:
    """
    Listen for ``listener`` on the gateway's host; ``factory`` is an IProtocolFactory.

    Raises PortTaken, or UnusableIdentity.
    """
    reactor, host = backend.reactor, backend.gateway.host
    try:
        if backend.identity is None:
            return reactor.listenTCP(listener.port, factory, backlog=_BACKLOG, interface=host)
        tls = WebTls(backend.identity)
        return reactor.listenSSL(listener.port, factory, tls, backlog=_BACKLOG, interface=host)
    except CannotListenError as error:
        name = "+".join(listener.protocols)
        raise PortTaken(name, host, listener.port, str(error.socketError)) from error
