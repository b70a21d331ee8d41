"""Listening on TCP with Twisted, with TLS where the gateway has a certificate."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.internet.tcp import Server
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.python.log import callWithContext

from gatewayd.binding import FREE_PORT_TRIES, addresses_of
from gatewayd.clocks import ListeningPort, PortReactor, Timer
from gatewayd.config.model import Listener
from gatewayd.crowd import YIELD_S, Courtesy
from gatewayd.errors import Overloaded, PortTaken
from gatewayd.protocols.admission import Entrance
from gatewayd.protocols.backend import Ground
from gatewayd.protocols.http.answer import head
from gatewayd.protocols.http.errors import encode_error
from gatewayd.protocols.port import HANDSHAKE_S
from gatewayd.protocols.slow_lane import LanedServer, SlowLane
from gatewayd.tls.credentials import TlsCredentials
from gatewayd.tls.web import WebTls

# Connections that wait to be accepted: Twisted's 50 make a burst of clients wait for seconds.
_BACKLOG: Final = 1024
# Connections accepted in one turn of the reactor. One that is refused has a descriptor until the next turn,
# and Twisted takes a hundred, then more: a burst would leave nothing of the descriptors in reserve.
_ACCEPTED_A_TURN: Final = 16
# An event without a format has no text, and observers write nothing.
_QUIET: Final = {"log_format": None}


class TlsTransport(BufferingTLSTransport):
    """
    A TLS connection that has to be through with its handshake in time, and lets go of what it has not sent
    when it is lost.

    Twisted keeps the failure of a connection that was cut off in a frame that its traceback refers to, so
    that both transports wait for the garbage collector. They are small without their buffers.
    """

    factory: TLSMemoryBIOFactory
    transport: Any
    _handshake_limit: Timer | None = None

    def makeConnection(self, transport: Any) -> None:
        self._handshake_limit = self.factory._clock.callLater(HANDSHAKE_S, self._end_half_open)
        super().makeConnection(transport)  # type: ignore[no-untyped-call]

    def _end_half_open(self) -> None:
        self._handshake_limit = None
        if not self._handshakeDone:
            self.transport.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        was_done = self._handshakeDone
        super().dataReceived(data)  # type: ignore[no-untyped-call]
        if self._handshakeDone and not was_done:
            self.transport.input_complete()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        if self._handshake_limit is not None:
            self._handshake_limit.cancel()
            self._handshake_limit = None
        self._appSendBuffer.clear()
        self.transport.dataBuffer = b""
        self.transport._tempDataBuffer.clear()


class Refused(Protocol):
    """A connection too many: it is told so, and closed at once."""

    transport: Any

    def connectionMade(self) -> None:
        response = encode_error(Overloaded("the gateway has as many connections as it may; try again later"))
        parts = head(response.status, response.content_type, len(response.body))
        headers = b"".join(b"%s: %s\r\n" % header for header in response.headers)
        self.transport.writeSequence([*parts, headers, b"Connection: close\r\n\r\n", response.body])
        self.transport.loseConnection()


class AdmittingFactory(ServerFactory):
    """
    Asks ``admission`` before ``factory`` gets a connection, which its transport gives back.

    Connections that drip are read in ``lane``, if there is one.
    """

    noisy = False

    def __init__(self, factory: Any, admission: Entrance, lane: SlowLane | None, *, secure: bool) -> None:
        self._factory = factory
        self._admission = admission
        self._lane = lane
        self._secure = secure

    def doStart(self) -> None:
        self._factory.doStart()

    def doStop(self) -> None:
        self._factory.doStop()

    def buildProtocol(self, addr: Any) -> Any:
        host: str = addr.host
        if not self._admission.admit(host):
            return None if self._secure else Refused()
        protocol = self._factory.buildProtocol(addr)
        if protocol is None:
            self._admission.give_back(host)
        return protocol

    def transport(self, accepted: Any, protocol: Any, client: Any, *more: Any) -> Server:
        """The transport of an accepted connection, in place of Twisted's."""
        if isinstance(protocol, Refused):
            return Server(accepted, protocol, client, *more)
        transport = CountedServer(accepted, protocol, client, *more)
        transport.admission = self._admission
        transport.lane = self._lane
        return transport


class CountedServer(LanedServer):
    """A connection that was admitted. It is given back once, when its descriptor is closed."""

    admission: Entrance | None = None

    def connectionLost(self, reason: Failure) -> None:
        super().connectionLost(reason)
        if self.admission is not None:
            self.admission.give_back(str(self.client[0]))
            self.admission = None


class ListeningPorts:
    """Sockets of one listener: the same port at every address of its host, and the TLS of all."""

    def __init__(self, ports: Sequence[ListeningPort], entrance: Entrance, tls: WebTls | None = None) -> None:
        self._ports: tuple[Any, ...] = tuple(ports)
        self._entrance = entrance
        self._tls = tls
        self._host = self._ports[0].getHost()

    def getHost(self) -> Any:
        """The address of the first; also when it is closed, which figures may be asked for then."""
        return self._host

    def renew(self, credentials: TlsCredentials) -> None:
        """Use these for connections from now on."""
        assert self._tls is not None, "renew without TLS"
        self._tls.renew(credentials)

    def share(self) -> list[socket.socket]:
        """Copies of the sockets; to stop listening does not shut them down any more."""
        copies = []
        for port in self._ports:
            # As Twisted does it for sockets that it adopts: shutdown would end the copies as well.
            port._shouldShutdown = False
            copies.append(port.socket.dup())
        return copies

    def stopListening(self) -> Deferred[None]:
        """Fires when all are closed."""
        self._entrance.close()
        return _closed(self._ports)


def _closed(ports: Iterable[Any]) -> Deferred[None]:
    """Fires when all are closed."""
    closing = [maybeDeferred(port.stopListening) for port in ports]
    return gatherResults(closing).addCallback(lambda _: None)


def listen_tcp(
    listener: Listener, backend: Ground, factory: Any, inherited: Sequence[socket.socket] = ()
) -> ListeningPorts:
    """
    Listen for ``listener`` on the gateway's host, or at ``inherited`` sockets; ``factory`` is an
    IProtocolFactory.

    Raises PortTaken, or UnusableTlsFile.
    """
    host = backend.gateway.host
    tls = None
    if backend.tls is not None:
        clock: Any = backend.reactor
        tls = WebTls(backend.tls)
        secured = TLSMemoryBIOFactory(tls, False, factory, clock)
        secured.protocol = TlsTransport
        factory = secured
    entrance = backend.admission.entrance()
    factory = AdmittingFactory(factory, entrance, backend.slow_lane, secure=tls is not None)
    if inherited:
        adopted = [_adopt(backend.reactor, each, factory, entrance) for each in inherited]
        return ListeningPorts(adopted, entrance, tls)
    tries = 1 if listener.port else FREE_PORT_TRIES
    addresses = addresses_of(host)
    for left in reversed(range(tries)):
        opened: list[ListeningPort] = []
        try:
            for address in addresses:
                port = opened[0].getHost().port if opened else listener.port
                opened.append(_listen(backend.reactor, address, port, factory))
            return ListeningPorts(opened, entrance, tls)
        except CannotListenError as error:
            _closed(opened)
            if not left:
                entrance.close()
                name = "+".join(listener.protocols)
                raise PortTaken(name, host, listener.port, str(error.socketError)) from error
    raise AssertionError("unreachable")


def _listen(reactor: PortReactor, address: str, port_number: int, factory: AdmittingFactory) -> ListeningPort:
    options = {"backlog": _BACKLOG, "interface": address}
    found: Any = callWithContext(_QUIET, reactor.listenTCP, port_number, factory, **options)
    accept = found.doRead

    def accept_some() -> None:
        found.numberAccepts = _ACCEPTED_A_TURN
        accept()

    found.doRead = accept_some
    return _quiet(found, factory)


def _adopt(
    reactor: PortReactor, inherited: socket.socket, factory: AdmittingFactory, admission: Entrance
) -> ListeningPort:
    """Accept from a socket that listens already, and that other processes may accept from as well."""
    inherited.setblocking(False)
    with inherited:  # Twisted takes a copy of the descriptor
        found: Any = callWithContext(
            _QUIET, reactor.adoptStreamPort, inherited.fileno(), inherited.family, factory
        )
    accept = found.doRead
    courtesy = Courtesy(lambda: admission.should_yield)

    def accept_one() -> None:
        if not courtesy.takes():
            found.stopReading()
            reactor.callLater(YIELD_S, go_on)
            return
        # Twisted takes up to a hundred in one turn: another process is to get its share of a burst.
        found.numberAccepts = 1
        accept()

    def go_on() -> None:
        courtesy.waited()
        if found.connected and not found.disconnecting:
            found.startReading()

    found.doRead = accept_one
    return _quiet(found, factory)


def _quiet(port: Any, factory: AdmittingFactory) -> ListeningPort:
    """Listen without Twisted's own log lines about the port: the service's say what listens where."""
    port._logConnectionLostMsg = lambda: None
    port.transport = factory.transport
    found: ListeningPort = port
    return found


def limit_writes(transport: Any, limit_s: float) -> None:
    """
    Have the kernel end a connection whose client takes nothing of what is sent for ``limit_s`` seconds.

    Without effect where the kernel has no TCP_USER_TIMEOUT (RFC 5482).
    """
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        transport.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(limit_s * 1e3))
