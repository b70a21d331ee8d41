"""What the gateway's own gRPC server does on sockets, beyond what both servers do."""

from __future__ import annotations

import gc
import socket
import ssl
import struct
import time
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import grpc
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from gatewayd.bridge import Bridge
from gatewayd.config import GatewayConfig
from gatewayd.messages.request import Request, Response
from gatewayd.pb import DataContentProto
from gatewayd.protocols.admission import Admission
from gatewayd.protocols.grpc.own_port import OwnGrpcPort
from gatewayd.protocols.grpc.serving import CallServicer
from tests import certificates
from tests.protocols.grpc.test_grpc import CALL, SINGLE, ids, message
from tests.protocols.harness import FakeDispatcher, answer_to, in_thread, until
from tests.rpc.server.clients import (
    DATA,
    HEADERS,
    PING,
    PREFACE,
    RST,
    SETTINGS,
    block,
    frame,
    head,
    number,
)
from tests.rpc.server.clients import message as grpc_message

HELLO = PREFACE + frame(SETTINGS, 0, 0)
GOAWAY = 7


@attrs.define
class Own:
    """Starts ports; ``port`` and ``dispatcher`` are those of the last one."""

    bridge: Bridge
    started: list[OwnGrpcPort] = attrs.Factory(list)
    dispatcher: FakeDispatcher = attrs.Factory(FakeDispatcher)

    def start(self, *, tls: Any = None, admission: Admission | None = None, **settings: Any) -> int:
        gateway = GatewayConfig(host="127.0.0.1", **settings)
        servicer = CallServicer(
            self.bridge, self.dispatcher, dict, 1000, max_unsent_bytes=gateway.max_unsent_bytes
        )
        entrance = None if admission is None else admission.entrance()
        self.started.append(OwnGrpcPort(self.bridge, servicer, gateway, tls, admission=entrance))
        self.started[-1].listen()
        return self.started[-1].report().port

    @property
    def connections(self) -> int | None:
        return self.started[-1].report().connections


@pytest_twisted.async_yield_fixture()
async def own() -> AsyncIterator[Own]:
    bridge = Bridge(reactor)
    bridge.start()
    found = Own(bridge)
    yield found
    for port in found.started:
        await port.drain(-1.0)
    await bridge.stop()


@contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        yield connection


def received(connection: socket.socket) -> bytes:
    """Everything until the server closes."""
    found = b""
    while True:
        try:
            more = connection.recv(1 << 16)
        except ConnectionResetError:
            return found
        if not more:
            return found
        found += more


def codes(data: bytes) -> list[int]:
    """Those of every GOAWAY."""
    found, at = [], 0
    while at + 9 <= len(data):
        size = int.from_bytes(data[at : at + 3], "big")
        if data[at + 3] == GOAWAY:
            found.append(int.from_bytes(data[at + 13 : at + 17], "big"))
        at += 9 + size
    return found


def talk(port: int, *parts: bytes) -> bytes:
    """What the server says until it closes."""
    with connected(port) as connection:
        for part in parts:
            try:
                connection.sendall(part)
            except OSError:
                break
        return received(connection)


# -- the life of a connection ------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_connections_are_counted_and_given_back(own: Own) -> None:
    port = own.start()
    with connected(port) as connection:
        connection.sendall(HELLO)
        await until(lambda: own.connections == 1)
    await until(lambda: own.connections == 0)


def in_spite_of(port: int, *parts: bytes) -> bytes:
    """What the server says to the first part, to a client that sends the others before it looks."""
    with connected(port) as connection:
        connection.sendall(parts[0])
        while not codes(connection.recv(1 << 16, socket.MSG_PEEK)):
            pass
        for part in parts[1:]:
            connection.sendall(part)
        return received(connection)


@pytest.mark.parametrize(
    ("first", "code"),
    [(struct.pack(">HBBBI", 0x1000, 1, HEADERS, 4, 1), 6), (frame(PING, 0, 1, bytes(8)), 1)],
    ids=["a frame that is too long", "a PING of a stream"],
)
@pytest_twisted.ensureDeferred
async def test_a_client_that_is_still_sending_hears_why_its_connection_has_failed(
    own: Own, first: bytes, code: int
) -> None:
    port = own.start()
    assert codes(await in_thread(in_spite_of, port, HELLO + first, bytes(1 << 20), b"more")) == [code]
    await until(lambda: own.connections == 0)


@pytest_twisted.ensureDeferred
async def test_a_failed_connection_that_its_client_leaves_open_is_closed_in_seconds(own: Own) -> None:
    port = own.start()
    with connected(port) as connection:
        connection.sendall(HELLO + frame(PING, 0, 1, bytes(8)))
        assert codes(await in_thread(received, connection)) == [1]
        await until(lambda: own.connections == 0)


@pytest_twisted.ensureDeferred
async def test_what_is_not_http2_is_closed_at_once(own: Own) -> None:
    port = own.start()
    assert codes(await in_thread(talk, port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")) == [1]
    await until(lambda: own.connections == 0)


@pytest_twisted.ensureDeferred
async def test_a_client_that_says_nothing_has_the_handshakes_time(own: Own) -> None:
    port = own.start(grpc_server_options={"grpc.server_handshake_timeout_ms": 500})
    began = time.monotonic()
    await in_thread(talk, port, PREFACE)
    assert time.monotonic() - began < 10


@pytest_twisted.ensureDeferred
async def test_a_client_that_does_not_answer_pings_is_gone(own: Own) -> None:
    options = {"grpc.keepalive_time_ms": 500, "grpc.keepalive_timeout_ms": 500}
    port = own.start(grpc_server_options=options)
    data = await in_thread(talk, port, HELLO)
    assert frame(PING, 0, 0, b"gatewayd") in data


@pytest_twisted.ensureDeferred
async def test_connections_beyond_those_admitted_are_closed(own: Own) -> None:
    admission = Admission(10, 2, reactor)
    port = own.start(admission=admission)
    with connected(port) as first, connected(port) as second:
        first.sendall(HELLO)
        second.sendall(HELLO)
        await until(lambda: own.connections == 2)
        assert await in_thread(talk, port) == b""
        assert admission.open == 2
    await until(lambda: admission.open == 0)
    with connected(port) as third:
        third.sendall(HELLO)
        await until(lambda: own.connections == 1)


@pytest_twisted.ensureDeferred
async def test_a_connection_that_is_old_or_idle_is_asked_to_leave(own: Own) -> None:
    for name in ("grpc.max_connection_age_ms", "grpc.max_connection_idle_ms"):
        port = own.start(grpc_server_options={name: 500})
        assert codes(await in_thread(talk, port, HELLO)) == [0, 0]


@pytest_twisted.ensureDeferred
async def test_a_channel_survives_the_age_of_its_connections(own: Own) -> None:
    port = own.start(grpc_server_options={"grpc.max_connection_age_ms": 500})

    def ask() -> int:
        answered, until_s = 0, time.monotonic() + 3
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            while time.monotonic() < until_s:
                assert ids([channel.unary_unary(SINGLE)(message("r"), timeout=5)]) == ["r"]
                answered += 1
        return answered

    assert await deferToThread(ask)


# -- hostile clients ---------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_rapid_reset_ends_the_connection_and_nothing_stays(own: Own) -> None:
    port = own.start()
    own.dispatcher.held = True
    request = grpc_message(message("r"))
    reset = [
        frame(HEADERS, 4, stream_id, block(head(__path=SINGLE)))
        + frame(DATA, 1, stream_id, request)
        + frame(RST, 0, stream_id, number(8))
        for stream_id in range(1, 20_001, 2)
    ]
    assert codes(await in_thread(talk, port, HELLO, b"".join(reset)))[-1:] in ([11], [])
    await until(lambda: own.connections == 0 and not own.dispatcher.waiting)


@pytest_twisted.ensureDeferred
async def test_floods_end_their_connection_and_others_are_served(own: Own) -> None:
    port = own.start()
    for flood in (frame(PING, 0, 0, bytes(8)), frame(SETTINGS, 0, 0), frame(SETTINGS, 1, 0)):
        await in_thread(talk, port, HELLO, flood * 60_000)
    await until(lambda: own.connections == 0)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        answer = await deferToThread(lambda: channel.unary_unary(SINGLE)(message("r"), timeout=10))
    assert ids([answer]) == ["r"]


LARGE = DataContentProto()
LARGE.docs.docs.add(text="x" * (1 << 22))


def large(request: Request) -> Response:
    return attrs.evolve(answer_to(request), documents=LARGE.SerializeToString())


@pytest_twisted.ensureDeferred
async def test_a_client_that_reads_nothing_is_closed_after_a_time(own: Own) -> None:
    port = own.start(write_timeout_s=1.0)
    own.dispatcher.behaviour = large
    window = frame(SETTINGS, 0, 0, b"\0\4" + number(2**31 - 1)) + frame(8, 0, 0, number(2**30))
    asked = b"".join(
        frame(HEADERS, 4, stream_id, block(head(__path=SINGLE)))
        + frame(DATA, 1, stream_id, grpc_message(message("r")))
        for stream_id in range(1, 21, 2)
    )
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", port))
    try:
        connection.sendall(HELLO + window + asked)
        await until(lambda: own.dispatcher.requests)
        await until(lambda: own.connections == 0)
    finally:
        connection.close()


@pytest_twisted.ensureDeferred
async def test_a_client_that_grants_no_window_loses_its_streams_after_a_time(own: Own) -> None:
    port = own.start(write_timeout_s=1.0, grpc_server_options={"grpc.keepalive_time_ms": 2_000})
    own.dispatcher.behaviour = large
    asked = frame(HEADERS, 4, 1, block(head(__path=SINGLE))) + frame(DATA, 1, 1, grpc_message(message("r")))
    data = await in_thread(talk, port, HELLO + asked)
    assert frame(RST, 0, 1, number(8)) in data
    assert own.started[-1]._held.held_bytes == 0


@pytest_twisted.ensureDeferred
async def test_calls_wait_for_a_client_that_does_not_read_and_then_go_on(own: Own) -> None:
    port = own.start(max_unsent_bytes=1 << 20)
    own.dispatcher.behaviour = large

    def ask() -> list[str]:
        options = [("grpc.max_receive_message_length", -1)]
        with grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel:
            calls = [channel.unary_unary(SINGLE).future(message(f"r{n}"), timeout=60) for n in range(30)]
            return ids([call.result() for call in calls])

    assert await deferToThread(ask) == [f"r{n}" for n in range(30)]


# -- TLS ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> certificates.Files:
    return certificates.write_files(tmp_path_factory.mktemp("tls"))


def handshake(port: int, files: certificates.Files, protocols: list[str]) -> str | None:
    context = ssl.create_default_context(cafile=str(files.roots))
    if protocols:
        context.set_alpn_protocols(protocols)
    with connected(port) as plain, context.wrap_socket(plain, server_hostname="localhost") as connection:
        connection.settimeout(10)
        if not connection.recv(1):
            return "closed"
        return connection.selected_alpn_protocol()


@pytest_twisted.ensureDeferred
async def test_tls_agrees_on_http2_by_alpn_and_on_nothing_else(own: Own, files: certificates.Files) -> None:
    port = own.start(tls=files.credentials)
    assert await in_thread(handshake, port, files, ["http/1.1", "h2"]) == "h2"
    assert await in_thread(handshake, port, files, ["http/1.1"]) == "closed"
    assert await in_thread(handshake, port, files, []) == "closed"

    def ask() -> list[str]:
        trust = grpc.ssl_channel_credentials(files.roots.read_bytes())
        with grpc.secure_channel(f"localhost:{port}", trust) as channel:
            return ids([channel.unary_unary(SINGLE)(message("r"), timeout=10)])

    assert await deferToThread(ask) == ["r"]


@pytest_twisted.ensureDeferred
async def test_a_client_that_is_still_sending_over_tls_hears_why_its_connection_has_failed(
    own: Own, files: certificates.Files
) -> None:
    def ask(port: int) -> list[int]:
        context = ssl.create_default_context(cafile=str(files.roots))
        context.set_alpn_protocols(["h2"])
        found = b""
        with connected(port) as plain, context.wrap_socket(plain, server_hostname="localhost") as connection:
            connection.sendall(HELLO + frame(PING, 0, 1, bytes(8)))
            for _ in range(64):
                connection.sendall(bytes(1 << 16))
            while not codes(found) and (more := connection.recv(1 << 16)):
                found += more
        return codes(found)

    port = own.start(tls=files.credentials)
    assert await in_thread(ask, port) == [1]
    await until(lambda: own.connections == 0)


@pytest_twisted.ensureDeferred
async def test_half_a_tls_handshake_has_little_time_and_counts(own: Own, files: certificates.Files) -> None:
    admission = Admission(10, 0, reactor)
    options = {"grpc.server_handshake_timeout_ms": 1000}
    port = own.start(tls=files.credentials, admission=admission, grpc_server_options=options)
    with connected(port) as connection:
        connection.sendall(b"\x16\x03\x01")
        await until(lambda: admission.open == 1)
        assert await in_thread(received, connection) == b""
    assert await in_thread(talk, port, b"nonsense" * 10) is not None
    await until(lambda: admission.open == 0)


# -- slow requests -----------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_message_that_arrives_byte_by_byte_fails_its_call_and_no_other(own: Own) -> None:
    port = own.start(receive_timeout_s=1.0, min_receive_rate=1000)
    whole = grpc_message(message("r"))
    with connected(port) as connection:
        connection.sendall(HELLO)
        for stream_id, path in ((1, SINGLE), (3, CALL), (5, SINGLE), (7, CALL)):
            connection.sendall(frame(HEADERS, 4, stream_id, block(head(__path=path))))
        connection.sendall(frame(DATA, 0, 1, whole[:7]) + frame(DATA, 0, 3, whole[:7]))
        connection.sendall(frame(DATA, 0, 7, whole))  # and then nothing, as streams may
        await until(lambda: own.dispatcher.requests)

        def ended() -> set[int]:
            found, streams = b"", set[int]()
            while not {1, 3, 5} <= streams:
                found += connection.recv(1 << 16)
                at, streams = 0, set()
                while at + 9 <= len(found):
                    size, stream_id = (
                        int.from_bytes(found[at : at + 3]),
                        int.from_bytes(found[at + 5 : at + 9]),
                    )
                    if found[at + 3] == HEADERS and found[at + 4] & 1:
                        assert b"arrives too slowly" in found[at + 9 : at + 9 + size]
                        streams.add(stream_id)
                    at += 9 + size
            return streams

        assert await in_thread(ended) == {1, 3, 5}


# -- what stays --------------------------------------------------------------------------------------------

STATES = {
    "nothing": b"",
    "half a preface": PREFACE[:10],
    "a greeting": HELLO,
    "half a frame": HELLO + frame(DATA, 0, 1, bytes(100))[:50],
    "half a message": HELLO
    + frame(HEADERS, 4, 1, block(head(__path=SINGLE)))
    + frame(DATA, 0, 1, grpc_message(message("r"))[:8]),
    "a call under way": HELLO
    + frame(HEADERS, 4, 1, block(head(__path=SINGLE, grpc_timeout="99S")))
    + frame(DATA, 1, 1, grpc_message(message("r"))),
    "a stream under way": HELLO
    + frame(HEADERS, 4, 1, block(head(__path=CALL)))
    + frame(DATA, 0, 1, grpc_message(message("r")) + grpc_message(message("s"))),
    "an answer that is not read": HELLO
    + frame(SETTINGS, 0, 0, b"\0\4" + number(0))
    + frame(HEADERS, 4, 1, block(head(__path=SINGLE)))
    + frame(DATA, 1, 1, grpc_message(message("big"))),
}


@pytest.mark.parametrize("state", STATES)
@pytest_twisted.ensureDeferred
async def test_nothing_is_left_of_a_lost_connection(own: Own, state: str) -> None:
    port = own.start()
    own.dispatcher.held = "under way" in state
    own.dispatcher.behaviour = large
    with connected(port) as connection:
        connection.sendall(STATES[state])
        opened = own.started[-1]._listener._open  # type: ignore[union-attr]
        await until(lambda: len(opened) == 1)
        if "way" in state or "answer" in state:
            await until(lambda: own.dispatcher.requests)
        (protocol,) = opened
        found = weakref.ref(protocol), weakref.ref(protocol._connection)
        del protocol
        gc.collect()
        gc.disable()
    try:
        await until(lambda: own.connections == 0 and not own.dispatcher.waiting)
        own.dispatcher.requests.clear()
        await until(lambda: not any(ref() for ref in found), 10.0)
    finally:
        gc.enable()
    assert own.started[-1]._held.held_bytes == 0
