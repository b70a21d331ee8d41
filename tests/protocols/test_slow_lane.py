"""Connections whose requests drip in are read a few at a time, and the others meanwhile."""

from __future__ import annotations

import fcntl
import socket
import ssl
import struct
import termios
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import attrs
import pytest
import pytest_twisted
from twisted.internet import reactor as _reactor
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

from gatewayd.messages.request import Request, Response
from gatewayd.protocols.slow_lane import HANDFUL, SMALL_BYTES, LanedServer, Pieces, SlowLane
from tests import certificates
from tests.protocols.harness import Served, answer_to, in_thread, served, until

pytestmark = pytest.mark.skipif(not SlowLane.exists(), reason="this system has no epoll")

reactor: Any = _reactor

SMALL = SMALL_BYTES - 1


# -- who drips ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pieces", "drips"),
    [
        pytest.param([(SMALL, True)], False, id="all at once"),
        pytest.param([(SMALL, False)], False, id="the first piece"),
        pytest.param([(SMALL, False), (SMALL, True)], False, id="a head, and a body"),
        pytest.param([(SMALL, False), (1, False)], True, id="a second piece that ends nothing"),
        pytest.param([(SMALL, False), (1, False), (1, False)], True, id="a third"),
        pytest.param([(SMALL, False), (1, False), (1, True)], False, id="the end at last"),
        pytest.param([(SMALL, False), (1, False), (SMALL_BYTES, False)], False, id="faster now"),
        pytest.param([(SMALL_BYTES, False), (SMALL_BYTES, False)], False, id="a large body"),
        pytest.param([(SMALL, True), (1, False)], False, id="a new request after a complete one"),
    ],
)
def test_who_drips(pieces: list[tuple[int, bool]], drips: bool) -> None:
    connection = Pieces()
    found = [connection.drips(size, complete=complete) for size, complete in pieces]
    assert found[-1] is drips


# -- the lane -------------------------------------------------------------------------------------------


class FakeReactor:
    """What a connection and the lane have the reactor watch."""

    def __init__(self) -> None:
        self.readers: list[Any] = []
        self.writers: list[Any] = []

    def addReader(self, reader: Any) -> None:
        self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        if reader in self.readers:
            self.readers.remove(reader)

    def addWriter(self, writer: Any) -> None:
        self.writers.append(writer)

    def removeWriter(self, writer: Any) -> None:
        if writer in self.writers:
            self.writers.remove(writer)


class Taker(Protocol):
    """Takes pieces, none of which is the end of anything, unless it begins with END."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.lost: Failure | None = None
        self.taking: Callable[[], object] = lambda: None

    def dataReceived(self, data: bytes) -> None:
        self.pieces.append(data)
        if data.startswith(b"END"):
            server: Any = self.transport
            server.input_complete()
        self.taking()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason


@implementer(IHalfCloseableProtocol)
class HalfCloser(Taker):
    input_ended = False

    def readConnectionLost(self) -> None:
        self.input_ended = True

    def writeConnectionLost(self) -> None:
        """This side stays open."""


@attrs.define
class Laned:
    """Connections of one lane, and their clients' sockets."""

    reactor: FakeReactor = attrs.Factory(FakeReactor)
    lane: SlowLane = attrs.field(init=False)
    clients: list[socket.socket] = attrs.Factory(list)
    servers: list[LanedServer] = attrs.Factory(list)

    def __attrs_post_init__(self) -> None:
        self.lane = SlowLane(self.reactor)

    def connect(self, protocol: Taker | None = None, *, dripping: bool = True) -> Any:
        """One more; its protocol."""
        taker = protocol or Taker()
        client, accepted = socket.socketpair()
        server = LanedServer(accepted, taker, ("127.0.0.1", 1), None, len(self.servers), self.reactor)
        server.lane = self.lane
        self.clients.append(client)
        self.servers.append(server)
        taker.makeConnection(server)
        if dripping:
            for _ in range(2):
                client.send(b"x")
                server.doRead()
            taker.pieces.clear()
        return taker

    def close(self) -> None:
        for server in self.servers:
            server.connectionLost(Failure(ConnectionDone()))
        for client in self.clients:
            client.close()


@pytest.fixture
def laned() -> Iterator[Laned]:
    laned = Laned()
    yield laned
    laned.close()
    assert (laned.reactor.readers, laned.reactor.writers) == ([], [])
    assert laned.lane.fileno() == -1


def test_a_connection_is_in_one_set(laned: Laned) -> None:
    laned.connect(dripping=False)
    (client,), (server,) = laned.clients, laned.servers
    assert laned.reactor.readers == [server]

    for piece, readers in [
        (b"x", [server]),
        (b"x", [laned.lane]),
        (b"x", [laned.lane]),
        (b"END", [server]),
        (b"x", [server]),
        (b"x", [laned.lane]),
        (bytes(SMALL_BYTES), [server]),
    ]:
        client.send(piece)
        server.doRead()
        assert laned.reactor.readers == readers
        assert len(laned.lane) == (laned.lane in readers)


def test_a_handful_is_read_in_one_turn_and_each_gets_its_turn(laned: Laned) -> None:
    takers = [laned.connect() for _ in range(3 * HANDFUL)]
    for client in laned.clients:
        client.send(b"y")

    for turn in range(1, 4):
        laned.lane.doRead()
        assert sum(len(taker.pieces) for taker in takers) == turn * HANDFUL
    laned.lane.doRead()
    assert [taker.pieces for taker in takers] == [[b"y"]] * len(takers)


def test_one_that_is_always_ready_keeps_no_other_waiting(laned: Laned) -> None:
    takers = [laned.connect() for _ in range(2 * HANDFUL)]
    for server, client in zip(laned.servers, laned.clients, strict=True):
        server.bufferSize = 1
        client.send(b"yyyy")

    laned.lane.doRead()
    laned.lane.doRead()
    assert [taker.pieces for taker in takers] == [[b"y"]] * len(takers)


def test_a_connection_that_pauses_is_not_read(laned: Laned) -> None:
    taker = laned.connect()
    (server,), (client,) = laned.servers, laned.clients
    client.send(b"y")
    server.pauseProducing()
    server.pauseProducing()
    assert (len(laned.lane), laned.reactor.readers) == (0, [])

    server.resumeProducing()
    server.resumeProducing()
    assert (len(laned.lane), laned.reactor.readers) == (1, [laned.lane])
    laned.lane.doRead()
    assert taker.pieces == [b"y"]


def test_a_connection_that_pauses_while_it_is_read_stays_so_in_whichever_set(laned: Laned) -> None:
    taker = laned.connect()
    (server,), (client,) = laned.servers, laned.clients
    taker.taking = server.pauseProducing

    client.send(b"END")
    laned.lane.doRead()
    assert (len(laned.lane), laned.reactor.readers) == (0, [])
    server.resumeProducing()
    assert (len(laned.lane), laned.reactor.readers) == (0, [server])

    for _ in range(2):
        client.send(b"x")
        server.doRead()
    assert (len(laned.lane), laned.reactor.readers) == (0, [])
    server.resumeProducing()
    assert (len(laned.lane), laned.reactor.readers) == (1, [laned.lane])


def test_the_end_of_a_connection_is_reported(laned: Laned) -> None:
    taker = laned.connect()
    laned.clients[0].close()
    laned.lane.doRead()
    assert taker.lost.check(ConnectionDone)
    assert len(laned.lane) == 0


def test_a_reset_is_reported(laned: Laned) -> None:
    taker = laned.connect()
    # A pair of Unix sockets resets where something lies unread.
    laned.servers[0].socket.send(b"unread")
    laned.clients[0].close()
    laned.lane.doRead()
    assert taker.lost.check(ConnectionLost)


def test_a_half_close_leaves_the_other_half(laned: Laned) -> None:
    taker = laned.connect(HalfCloser())
    laned.clients[0].shutdown(socket.SHUT_WR)
    laned.lane.doRead()
    assert (taker.input_ended, taker.lost) == (True, None)
    assert len(laned.lane) == 0
    laned.servers[0].write(b"still")
    assert laned.servers[0].doWrite() is None
    assert laned.clients[0].recv(10) == b"still"


def test_a_protocol_that_raises_loses_its_connection_alone(
    laned: Laned, caught_failures: list[Failure]
) -> None:
    broken, sound = laned.connect(), laned.connect()
    broken.taking = lambda: 1 / 0
    for client in laned.clients:
        client.send(b"y")
    laned.lane.doRead()
    (failure,) = caught_failures
    assert failure.check(ZeroDivisionError)
    caught_failures.clear()
    assert broken.lost.check(ZeroDivisionError)
    assert (sound.pieces, sound.lost) == ([b"y"], None)
    assert len(laned.lane) == 1


def test_one_that_is_closed_by_another_of_its_handful_is_not_read(laned: Laned) -> None:
    takers = [laned.connect(), laned.connect()]
    for each, other in (takers, reversed(takers)):
        each.taking = other.transport.abortConnection
    laned.reactor.callLater = lambda *_: None  # type: ignore[attr-defined]
    for client in laned.clients:
        client.send(b"y")
    laned.lane.doRead()
    assert sum(len(taker.pieces) for taker in takers) == 1


def test_the_end_of_the_reactor_is_the_end_of_all(laned: Laned) -> None:
    takers = [laned.connect(), laned.connect()]
    laned.lane.connectionLost(Failure(ConnectionLost()))
    assert all(taker.lost.check(ConnectionLost) for taker in takers)


def test_without_a_lane_the_reactor_reads(laned: Laned) -> None:
    taker = laned.connect(dripping=False)
    (server,), (client,) = laned.servers, laned.clients
    server.lane = None
    for _ in range(3):
        client.send(b"x")
        server.doRead()
    assert (len(taker.pieces), laned.reactor.readers) == (3, [server])


# -- over sockets ---------------------------------------------------------------------------------------

HEAD = b"POST /post HTTP/1.1\r\nHost: x\r\n"
BODY = b'{"data": [{"text": "hello"}]}'
FIELDS = b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(BODY)
CHUNKED = b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
FRAME = b"\x81" + bytes([128 | len(BODY)]) + bytes(4) + BODY
FRAGMENTS = b"\x01\x81" + bytes(4) + BODY[:1]
FRAGMENTS += b"".join(b"\x00\x81" + bytes(4) + BODY[at : at + 1] for at in range(1, len(BODY) - 1))
FRAGMENTS += b"\x80\x81" + bytes(4) + BODY[-1:]

# What is sent at once and answered, and what drips after that until it is complete.
DRIPS = {
    "a head": (b"", HEAD + FIELDS + BODY),
    "a body": (b"", HEAD + FIELDS + BODY),
    "chunks": (b"", HEAD + CHUNKED + b"1\r\n" + BODY[:1] + b"\r\n1c\r\n" + BODY[1:] + b"\r\n0\r\n\r\n"),
    "a second request": (HEAD + FIELDS + BODY, HEAD + FIELDS + BODY),
    "a frame": (UPGRADE, FRAME),
    "fragments": (UPGRADE, FRAGMENTS),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> certificates.Files:
    return certificates.write_files(tmp_path_factory.mktemp("tls"))


@pytest_twisted.async_yield_fixture(params=["tcp", "tls"])
async def gateway(request: pytest.FixtureRequest, files: certificates.Files) -> AsyncIterator[Served]:
    tls = files.credentials if request.param == "tls" else None
    async with served(("http", "websocket"), tls=tls) as gateway:
        yield gateway


def trusting() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def connect(gateway: Served) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", gateway.port), 10)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if gateway.web.report().tls:
        connection = trusting().wrap_socket(connection)
    return connection


async def drip(gateway: Served, client: socket.socket, data: bytes) -> None:
    """Send ``data`` byte by byte, with a turn of the reactor after each, until it is read in the lane."""
    for at in range(len(data)):
        client.sendall(data[at : at + 1])
        await deferLater(reactor, 0)
    await until(lambda: len(gateway.lane) == 1)


@pytest.mark.parametrize("case", DRIPS)
@pytest_twisted.ensureDeferred
async def test_what_drips_is_read_in_the_lane_and_served_when_it_is_complete(
    gateway: Served, case: str
) -> None:
    before, data = DRIPS[case]
    client = await in_thread(connect, gateway)
    with client:
        if before:
            client.sendall(before)
            await in_thread(client.recv, 1000)
        if case == "a body":
            client.sendall(data[: -len(BODY)])
            data = BODY
        await drip(gateway, client, data[:-1])

        client.sendall(data[-1:])
        answer = await in_thread(client.recv, 10_000)
        assert b"hello" in answer
        assert len(gateway.lane) == 0
    await until(lambda: not len(gateway.connections))


@pytest.mark.parametrize("before", [b"", UPGRADE], ids=["HTTP", "WebSocket"])
@pytest_twisted.ensureDeferred
async def test_ordinary_clients_are_never_in_the_lane(gateway: Served, before: bytes) -> None:
    laned: list[int] = []

    def look(request: Request) -> Response:
        laned.append(len(gateway.lane))
        return answer_to(request)

    gateway.dispatcher.behaviour = look
    parts = (
        (before, *[FRAME] * 3) if before else (HEAD + FIELDS + BODY, HEAD + FIELDS, BODY, HEAD, FIELDS + BODY)
    )
    client = await in_thread(connect, gateway)
    with client:
        for part in parts:
            client.sendall(part)
            if part.endswith(BODY) or part is before:
                await in_thread(client.recv, 10_000)
            else:
                await until(lambda: not any(unread(each) for each in gateway.connections))
            laned.append(len(gateway.lane))
    assert set(laned) == {0}
    await until(lambda: not len(gateway.connections))


@pytest_twisted.ensureDeferred
async def test_what_comes_after_a_refusal_is_dropped_in_the_lane(gateway: Served) -> None:
    client = await in_thread(connect, gateway)
    with client:
        client.sendall(b"nonsense\r\n\r\n")
        assert b" 400 " in await in_thread(client.recv, 1000)
        await drip(gateway, client, b"more")
    await until(lambda: not len(gateway.connections))
    assert len(gateway.lane) == 0


@pytest_twisted.ensureDeferred
async def test_records_of_tls_that_drip_are_read_in_the_lane(files: certificates.Files) -> None:
    async with served(tls=files.credentials) as gateway:
        raw = await in_thread(socket.create_connection, ("127.0.0.1", gateway.port), 10)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        received, to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = trusting().wrap_bio(received, to_send)
        with raw:
            with pytest.raises(ssl.SSLWantReadError):
                client.do_handshake()
            hello = to_send.read()
            await drip(gateway, raw, hello[:-1])
            raw.sendall(hello[-1:])

            def shake_hands() -> None:
                while True:
                    received.write(raw.recv(10_000))
                    try:
                        client.do_handshake()
                    except ssl.SSLWantReadError:
                        continue
                    raw.sendall(to_send.read())
                    return

            await in_thread(shake_hands)
            await until(lambda: not len(gateway.lane))

            client.write(HEAD + FIELDS + BODY)
            record = to_send.read()
            await drip(gateway, raw, record[:-1])
            raw.sendall(record[-1:])
            await until(lambda: gateway.dispatcher.requests)
            assert len(gateway.lane) == 0


def unread(connection: Any) -> int:
    """How many bytes lie in the socket of a gateway's connection."""
    transport = connection.transport
    transport = getattr(transport, "transport", transport)
    (count,) = struct.unpack("i", fcntl.ioctl(transport.socket, termios.FIONREAD, bytes(4)))
    return int(count)


@pytest_twisted.ensureDeferred
async def test_a_request_waits_for_a_handful_of_drips_not_for_all(gateway: Served) -> None:
    drippers = [await in_thread(connect, gateway) for _ in range(4 * HANDFUL)]
    for dripper in drippers:
        dripper.sendall(HEAD)
    laned = len(drippers)
    while len(gateway.lane) < laned:  # a piece was read after another one
        for dripper in drippers:
            dripper.sendall(b"a: b\r\n")
        await until(lambda: not any(unread(each) for each in gateway.connections))
    ordinary = await in_thread(connect, gateway)
    await until(lambda: len(gateway.connections) == laned + 1)
    dripping = [each for each in gateway.connections if each.requests]
    assert len(dripping) == laned
    still_unread: list[int] = []

    def count(request: Request) -> Response:
        still_unread.append(sum(1 for each in dripping if unread(each)))
        return answer_to(request)

    gateway.dispatcher.behaviour = count
    # All at the same instant, the ordinary client last.
    for dripper in drippers:
        dripper.sendall(b"c: d\r\n")
    ordinary.sendall(HEAD + FIELDS + BODY)
    assert b"hello" in await in_thread(ordinary.recv, 10_000)
    assert still_unread[0] >= laned - HANDFUL
    await until(lambda: not any(unread(each) for each in dripping))

    for client in (*drippers, ordinary):
        client.close()
    await until(lambda: not len(gateway.connections))
    assert len(gateway.lane) == 0
