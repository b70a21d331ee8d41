"""
An HTTP/2 connection to one address that is restored whenever it is lost. Reactor thread only.

    connecting ──(the server's settings)──> ready ──(lost, or GOAWAY)──> connecting
        │                                     ^
        └──(refused, or silent for too long)──┴── failed: attempts go on, streams fail at once

``Link`` owns the attempts to connect, the streams that wait for one to succeed, and what is left of
connections that their servers are ending. A stream that waits for a place in one of these is broken: the next
connection may lead to another process, of which whoever has started the stream knows nothing yet. An attempt
begins when it is its turn (``turns.py``), and may take ``connect_timeout_s`` from then on. A connection is
alive while it receives something, if only answers to pings.
"""

from __future__ import annotations

import errno
import os
import random
import socket
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, Literal

import attrs
from OpenSSL import SSL
from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError, ConnectionDone
from twisted.internet.interfaces import IHandshakeListener, IPushProducer
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from gatewayd.backoff import Backoff
from gatewayd.clocks import Connector, Timer
from gatewayd.messages.rope import Buffer
from gatewayd.rpc.gathering import HIGH_WATER_BYTES, Gathering
from gatewayd.rpc.http2 import Broken, Connection, Limits, Stream
from gatewayd.rpc.turns import HANGS_S, Line, Place, Turn, Turns
from gatewayd.schemes import socket_path
from gatewayd.tls.outgoing import CallTls

log = Logger()

State = Literal["connecting", "ready", "failed"]

# One millisecond less than executors allow between pings (spec wire.md, Options).
KEEPALIVE_S: Final = 9.999
KEEPALIVE_TIMEOUT_S: Final = 4.999
# How long a connection that we end may take to send what is still to be sent.
_GOODBYE_S: Final = 0.5

# What Twisted reads at once, and what it reads while so much is there.
_READ_BYTES: Final = 1 << 16
_MOST_READ_BYTES: Final = 1 << 18
_NEVER_FULL: Final = 1 << 62

# The kernel's own watch, where it has one: a host that is gone is noticed after 20 s, whether it owes us an
# acknowledgement or nothing. Pings notice more, such as a process that hangs, but are limited.
_TCP_OPTIONS: Final = tuple(
    (getattr(socket, name), value)
    for name, value in (
        ("TCP_KEEPIDLE", 10),
        ("TCP_KEEPINTVL", 5),
        ("TCP_KEEPCNT", 2),
        ("TCP_USER_TIMEOUT", 20_000),
    )
    if hasattr(socket, name)
)

_CLOSED: Final = "the connection was closed"
_LEFT: Final = "the server is going away"
_TIMED_OUT: Final = "connection attempt timed out before receiving SETTINGS frame"


class _Sessions(Factory):
    noisy = False  # the pool's log says which connections there are


@attrs.frozen
class LinkSettings:
    """
    How to connect to ``address``, which is ``host:port`` or ``unix:/path``.

    ``tls_name`` is the name that the server's certificate must have, None for no TLS; ``tls`` is asked before
    each connection. ``max_pings`` is how often the server is pinged while it sends no headers, 0 for no
    limit: gRPC's servers end connections that ping them more often, unless they have been set up to allow it.
    Attempts to connect wait for their turn in ``line``.
    """

    address: str
    tls_name: str | None
    tls: CallTls
    connect_timeout_s: float
    reconnect_s: float
    max_pings: int = 0
    line: Line = attrs.field(factory=lambda: Turns().line(), eq=False, repr=False)


class Link:
    """
    Connects as soon as it may, and again until it is closed. ``on_state`` is called with each change.

    ``read`` turns the fields of a header block into what streams receive. ``limits`` are those of each
    connection.
    """

    def __init__(
        self,
        reactor: Connector,
        settings: LinkSettings,
        read: Callable[[Any], Any],
        on_state: Callable[[State], None],
        dice: Callable[[], float] = random.random,
        limits: Limits | None = None,
    ) -> None:
        self.limits = limits
        self.reactor = reactor
        self.settings = settings
        self.read = read
        self.keepalive_s = KEEPALIVE_S
        self._on_state = on_state
        self._dice = dice
        # Links that lost the same executor at the same time do not reconnect at the same time.
        self._backoff = Backoff(settings.reconnect_s, factor=1.0, low=0.8, high=1.2)
        self._state: State = "connecting"
        self._why = ""
        self._closing: Deferred[None] | None = None
        self._connecting: Deferred[Any] | None = None
        self._timer: Timer | None = None  # of an attempt, or until the next one
        self._turn: Turn | None = None  # of an attempt
        self._failed = False  # as ``Turns`` counts it
        self._began_s = 0.0
        self._trying: Session | None = None
        self._ready: Session | None = None
        self._sessions: set[Session] = set()  # all with a transport
        self._waiting: OrderedDict[Stream, None] = OrderedDict()
        on_state("connecting")
        self._connect()

    # -- streams -------------------------------------------------------------------------------------

    def start(self, stream: Stream) -> None:
        """Send a request now, or when there is a connection. ``on_broken`` may be called at once."""
        if self._ready is not None:
            self._ready.connection.start(stream)
        elif self._closing is not None:
            stream.on_broken(Broken(_CLOSED, reached=False))
        elif self._state == "failed":
            stream.on_broken(Broken(self._why, reached=False))
        else:
            self._waiting[stream] = None
            if self._turn is not None:
                self._turn.hurry()

    def cancel(self, stream: Stream) -> None:
        """The answer is no longer wanted. Harmless when repeated."""
        if stream in self._waiting:
            del self._waiting[stream]
        elif stream.connection is not None:
            stream.connection.cancel(stream)

    def break_waiting(self, why: str) -> None:
        """Break the streams that wait for a connection."""
        waiting = list(self._waiting)
        self._waiting.clear()
        for stream in waiting:
            stream.on_broken(Broken(why, reached=False))

    def close(self) -> Deferred[None]:
        """Break every stream. Fires when nothing is left of the connection."""
        if self._closing is None:
            self._closing = Deferred()
            self._ready = self._trying = None
            self._stop_timer()
            self._end_turn()
            self._set_failed(False)
            if self._connecting is not None:
                self._connecting.cancel()
            for session in tuple(self._sessions):
                session.end(_CLOSED)
            self.break_waiting(_CLOSED)
            self._look_closed()
        closed: Deferred[None] = Deferred()
        self._closing.addCallback(_tell, closed)
        return closed

    # -- attempts to connect -------------------------------------------------------------------------

    def _connect(self) -> None:
        """Begin an attempt when it is its turn, which may be now."""
        self._timer = None
        place: Place = "urgent" if self._waiting else "again" if self._state == "failed" else "first"
        self._turn = self.settings.line.turn(self._begin_attempt, place)
        self._turn.ask()

    def _begin_attempt(self) -> None:
        settings = self.settings
        self._began_s = self.reactor.seconds()
        session = self._trying = Session(self)
        self._timer = self.reactor.callLater(min(HANGS_S, settings.connect_timeout_s), self._is_slow, session)
        connecting = self._connecting = _endpoint(self.reactor, settings).connect(
            _Sessions.forProtocol(lambda: session)
        )
        connecting.addCallbacks(lambda _: None, self._refused, errbackArgs=(session,))
        connecting.addErrback(lambda failure: log.failure("connecting", failure=failure))

    def _refused(self, failure: Failure, session: Session) -> None:
        if session is self._trying:
            error = failure.value
            number = error.osError if isinstance(error, ConnectError) else None
            text = os.strerror(number) if isinstance(number, int) else str(error)
            self._attempt_failed("UNKNOWN", f"Failed to connect to remote host: {text}")
        elif self._closing is None:
            log.debug("an attempt to connect ended late: {error}", error=failure.value)

    def _is_slow(self, session: Session) -> None:
        # What has come by now is read before: where this reactor is late, no other side hangs.
        self._timer = self.reactor.callLater(0, self._hangs, session)

    def _hangs(self, session: Session) -> None:
        left_s = self._began_s + self.settings.connect_timeout_s - self.reactor.seconds()
        self._timer = self.reactor.callLater(max(0.0, left_s), self._took_too_long, session)
        if self._turn is not None:
            self._turn.hang()

    def _took_too_long(self, session: Session) -> None:
        self._timer = None
        if self._connecting is not None and session not in self._sessions:
            self._trying = None
            self._connecting.cancel()
            text = os.strerror(errno.ETIMEDOUT)
            self._attempt_failed("UNKNOWN", f"Failed to connect to remote host: {text}")
        else:
            session.abort(_TIMED_OUT)

    def _end_turn(self) -> None:
        if self._turn is not None:
            turn, self._turn = self._turn, None
            turn.end()

    def _set_failed(self, failed: bool) -> None:
        if failed != self._failed:
            self._failed = failed
            self.settings.line.turns.failed += 1 if failed else -1

    def _attempt_failed(self, code: str, why: str) -> None:
        self._trying = None
        self._stop_timer()
        address = _as_grpc_writes(self.settings.address)
        self._why = f"failed to connect to all addresses; last error: {code}: {address}: {why}"
        self._set_failed(True)
        self._connect_again()
        self._set_state("failed")
        self.break_waiting(self._why)
        self._end_turn()

    def _connect_again(self) -> None:
        pause_s = self._backoff.delay_s(1, self._dice()) * self.settings.line.turns.stretch
        left_s = self._began_s + pause_s - self.reactor.seconds()
        self._timer = self.reactor.callLater(max(0.0, left_s), self._connect)

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _set_state(self, state: State) -> None:
        if state != self._state:
            self._state = state
            self._on_state(state)

    # -- for sessions --------------------------------------------------------------------------------

    def session_opened(self, session: Session) -> bool:
        """A session has its transport. Returns False when it is no longer needed."""
        if session is not self._trying:
            return False
        self._sessions.add(session)
        return True

    def session_ready(self, session: Session) -> None:
        if session is not self._trying:
            return
        self._trying = None
        self._stop_timer()
        self._end_turn()
        self._set_failed(False)
        self._ready = session
        self._set_state("ready")
        while self._waiting and self._ready is session:
            stream, _ = self._waiting.popitem(last=False)
            session.connection.start(stream)

    def session_leaving(self, session: Session, impatient: bool) -> None:
        """Its server takes no more streams. ``impatient``: it complained about too many pings."""
        if impatient:
            self.keepalive_s *= 2
        if session is self._ready:
            self._ready = None
            waiting = session.connection.take_waiting()
            self._connect_again()
            self._set_state("connecting")
            for stream in waiting:
                stream.on_broken(Broken(_LEFT, reached=False))

    def session_failed(self, session: Session, why: str) -> None:
        """The session can no longer be used; its streams are failed next."""
        if session is self._trying:
            self._attempt_failed("UNAVAILABLE", why)
        elif session is self._ready:
            self._ready = None
            self._connect_again()
            self._set_state("connecting")

    def session_closed(self, session: Session) -> None:
        """Its transport is gone."""
        self._sessions.discard(session)
        self._look_closed()

    def _look_closed(self) -> None:
        if self._closing is not None and not self._sessions and not self._closing.called:
            self._closing.callback(None)


def _tell(_: None, waiter: Deferred[None]) -> None:
    waiter.callback(None)


@implementer(IHandshakeListener, IPushProducer)
class Session(Protocol):
    """One transport and the HTTP/2 connection over it."""

    transport: Any

    def __init__(self, link: Link) -> None:
        self.connection = Connection(self, link.read, link.limits)
        self._link = link
        self._over = False  # the link has been told, and the streams have ended
        self._heard_s = 0.0
        self._timer: Timer | None = None
        self._gathering: Gathering | None = None  # over TLS everything is copied anyway
        self._full_bytes = _READ_BYTES if link.settings.tls_name is None else _NEVER_FULL

    # -- called by Twisted ---------------------------------------------------------------------------

    def connectionMade(self) -> None:
        if not self._link.session_opened(self):
            self._over = True
            self.transport.abortConnection()
            return
        if socket_path(self._link.settings.address) is None:
            self.transport.setTcpNoDelay(True)
            self.transport.setTcpKeepAlive(True)
            for option, value in _TCP_OPTIONS:
                self.transport.socket.setsockopt(socket.IPPROTO_TCP, option, value)
        if self._link.settings.tls_name is None:
            self._begin()

    def handshakeCompleted(self) -> None:
        if not self._over:
            if self.transport.negotiatedProtocol != b"h2":
                self.abort("TLS handshake failed: the server does not speak HTTP/2")
            else:
                self._begin()

    def dataReceived(self, data: bytes) -> None:
        self._heard_s = self._link.reactor.seconds()
        size = len(data)
        if size >= self._full_bytes:
            self._read_at_once(_MOST_READ_BYTES)
        elif size < _READ_BYTES >> 1 and self._full_bytes > _READ_BYTES:
            self._read_at_once(_READ_BYTES)
        self.connection.receive(data)

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        self._stop_timer()
        if self._gathering is not None:
            self._gathering.clear()
        if not self._over:
            self._end(_why_lost(reason.value))
        self._link.session_closed(self)

    def pauseProducing(self) -> None:
        self.connection.pause()

    def resumeProducing(self) -> None:
        self.connection.resume()

    def stopProducing(self) -> None:
        self.connection.pause()

    # -- called by the link --------------------------------------------------------------------------

    def abort(self, why: str) -> None:
        """Close the transport at once."""
        if not self._over:
            self._end(why)
        self.transport.abortConnection()

    def end(self, why: str) -> None:
        """Break the streams, send GOAWAY, and close the transport."""
        if not self.connection.ready:
            self.abort(why)
            return
        if not self._over:
            self.write(self.connection.goodbye())
            self._end(why)
        self._disconnect()

    # -- called by the connection (http2.StreamOwner) --------------------------------------------------

    def write(self, data: bytes) -> None:
        gathering = self._gathering
        if gathering is None:
            self.transport.write(data)
        elif gathering.waiting:
            gathering.write_all([data])
        else:
            self.transport.write(data)
            gathering.with_transport += len(data)
            if gathering.with_transport > HIGH_WATER_BYTES:
                gathering.fill()

    def write_all(self, buffers: list[Buffer]) -> None:
        if self._gathering is None:
            self.transport.write(b"".join(buffers))
        else:
            self._gathering.write_all(buffers)

    def on_ready(self) -> None:
        self._keep_alive()
        self._link.session_ready(self)

    def on_leaving(self, code: int, debug: bytes) -> None:
        self._link.session_leaving(self, debug == b"too_many_pings")

    def on_idle(self) -> None:
        self.end(_CLOSED)

    def on_failed(self, why: str) -> None:
        log.warn("{address} broke the rules of HTTP/2: {why}", address=self._link.settings.address, why=why)
        self._over = True
        self._link.session_failed(self, why)
        self._disconnect()

    # -------------------------------------------------------------------------------------------------

    def _read_at_once(self, most: int) -> None:
        """More while much arrives: fewer calls, but each makes a buffer of that size first."""
        self._full_bytes = most
        self.transport.bufferSize = most  # without TLS, Twisted's own ``abstract.FileDescriptor.bufferSize``

    def _begin(self) -> None:
        if self._link.settings.tls_name is None:
            connection = self.connection
            self._gathering = Gathering(self.transport, connection.pause, connection.resume)
            self._gathering.start()
        else:
            self.transport.registerProducer(self, True)
        self.write(self.connection.begin())

    def _end(self, why: str) -> None:
        self._over = True
        self._stop_timer()
        # The link first: a stream's callback may start another stream at once.
        self._link.session_failed(self, why)
        self.connection.lost(why)

    def _disconnect(self) -> None:
        self._stop_timer()
        if self._gathering is None:
            self.transport.unregisterProducer()
        else:
            self._gathering.finish()
        self.transport.loseConnection()
        self._timer = self._link.reactor.callLater(_GOODBYE_S, self.transport.abortConnection)

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _keep_alive(self) -> None:
        link = self._link
        self.connection.reset_noise()
        now = link.reactor.seconds()
        left_s = self._heard_s + link.keepalive_s - now
        if left_s > 0:
            self._timer = link.reactor.callLater(left_s, self._keep_alive)
        elif not self._may_ping():
            self._timer = link.reactor.callLater(link.keepalive_s, self._keep_alive)
        else:
            self.connection.ping()
            self._timer = link.reactor.callLater(KEEPALIVE_TIMEOUT_S, self._check_alive, now)

    def _may_ping(self) -> bool:
        most = self._link.settings.max_pings
        # The last one is kept for a call that is under way.
        return not most or self.connection.pings < (most if self.connection.busy else most - 1)

    def _check_alive(self, asked_s: float) -> None:
        if self._heard_s < asked_s:
            self.abort("keepalive watchdog timeout")
        else:
            self._keep_alive()


def _why_lost(error: BaseException | None) -> str:
    """As gRPC words it, where it does."""
    if isinstance(error, ConnectionDone):
        return "Socket closed"
    if isinstance(error, SSL.Error) and error.args and error.args[0]:
        return f"TLS handshake failed: {error.args[0][-1][-1]}"
    number = getattr(error, "osError", None)
    if number is None and error is not None and isinstance(error.__cause__, OSError):
        number = error.__cause__.errno
    return f"recvmsg:{os.strerror(number)}" if isinstance(number, int) else f"Socket closed: {error}"


def _as_grpc_writes(address: str) -> str:
    if socket_path(address) is not None:
        return address
    host, _, port = address.rpartition(":")
    if host.startswith("["):
        return f"ipv6:%5B{host[1:-1]}%5D:{port}"
    return f"ipv4:{'127.0.0.1' if host.endswith('localhost') else host}:{port}"


def _endpoint(reactor: Connector, settings: LinkSettings) -> Any:
    # Our own timer, which also covers TLS and the server's settings, fires first.
    timeout_s = settings.connect_timeout_s + 1.0
    path = socket_path(settings.address)
    if path is not None:
        return UNIXClientEndpoint(reactor, path, timeout_s)
    host, _, port = settings.address.rpartition(":")
    endpoint: Any = HostnameEndpoint(reactor, host.strip("[]"), int(port), timeout_s, attemptDelay=0.1)
    if settings.tls_name is None:
        return endpoint
    try:
        tls = settings.tls.connection_to(settings.tls_name)
    except UnicodeError as error:
        return _Unusable(f"{settings.tls_name!r} cannot be the name of a certificate: {error}")
    return wrapClientTLS(tls, endpoint)


class _Unusable:
    """An endpoint that always fails to connect."""

    def __init__(self, why: str) -> None:
        self._why = why

    def connect(self, factory: Factory) -> Deferred[Any]:
        return fail(ConnectError(string=self._why))
