"""What a lost connection held is freed at once, without the garbage collector."""

from __future__ import annotations

import gc
import json
import socket
import ssl
import struct
import weakref
from collections.abc import AsyncIterator, Iterator
from typing import Any

import attrs
import pytest
import pytest_twisted
from twisted.internet.task import deferLater

from gatewayd.messages.request import Request, Response
from gatewayd.messages.second.reading import Model, decode_body
from gatewayd.pb import DataContentProto
from gatewayd.protocols.slow_lane import SlowLane
from tests import certificates
from tests.golden34_data import endpoints_of, typed
from tests.protocols.harness import FakeDispatcher, Served, answer_to, in_thread, reactor, served, until
from tests.protocols.streamed import StreamingDispatcher

pytestmark = pytest.mark.slow

BODY = json.dumps({"data": [{"text": "hello"}]}).encode()
POST = (
    b"POST /post HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
) % len(BODY)
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
FRAME = b"\x81" + bytes([128 | len(BODY)]) + bytes(4) + BODY


LARGE = DataContentProto()
LARGE.docs.docs.add(text="x" * (5 << 20))


def large(request: Request) -> Response:
    """Far more than the buffers of two sockets."""
    return attrs.evolve(answer_to(request), documents=LARGE.SerializeToString())


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> certificates.Files:
    return certificates.write_files(tmp_path_factory.mktemp("tls"))


@pytest_twisted.async_yield_fixture(params=["tcp", "tls"])
async def gateway(request: pytest.FixtureRequest, files: certificates.Files) -> AsyncIterator[Served]:
    tls = files.credentials if request.param == "tls" else None
    async with served(("http", "websocket"), FakeDispatcher(large), tls=tls) as gateway:
        yield gateway


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def talk(gateway: Served, *parts: bytes, answer: bool = True) -> socket.socket:
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(10)
    connection.connect(("127.0.0.1", gateway.port))
    if gateway.web.report().tls:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = context.wrap_socket(connection)
    for part in parts:
        connection.sendall(part)
        if answer:
            connection.recv(100)
    return connection


def leave(connection: socket.socket, *, reset: bool) -> None:
    if reset:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


CASES = {
    "HTTP, nothing sent": (),
    "HTTP, half a request": (POST[:40],),
    "HTTP, half a body": (POST + BODY[:-3],),
    "HTTP, an answer not read": (POST + BODY,),
    "HTTP, refused": (b"nonsense\r\n\r\n",),
    "WebSocket, idle": (UPGRADE,),
    "WebSocket, half a frame": (UPGRADE, FRAME[:-3]),
    "WebSocket, answers not read": (UPGRADE, FRAME * 3),
    "WebSocket, against the rules": (UPGRADE, b"\xff\xff\xff"),
}


UNREAD = "HTTP, an answer not read"


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("case", CASES)
@pytest_twisted.ensureDeferred
async def test_nothing_is_left_of_a_lost_connection(
    gateway: Served, no_collector: None, case: str, reset: bool
) -> None:
    parts = CASES[case]
    client = await in_thread(talk, gateway, *parts, answer="WebSocket" in case)
    await until(lambda: len(gateway.connections) == 1)
    if "answer" in case:
        await until(lambda: gateway.dispatcher.requests)
    if case == UNREAD:
        await until(lambda: any(each.producer for one in gateway.connections for each in one.requests))
    held, unsent = _references(gateway)
    assert len(held) >= (3 if case == UNREAD else 1)
    leave(client, reset=reset)
    await until(lambda: not len(gateway.connections))
    gateway.dispatcher.requests.clear()

    await until(lambda: not any(ref() for ref in held), 5.0, lambda: f"let go of {held}")
    assert gateway.buffers.held_bytes == 0
    if (left := unsent()) is not None:  # TlsTransport tells why
        assert not left.dataBuffer
        assert not left._tempDataBuffer


DRIPS = {"HTTP": (POST, BODY), "WebSocket": (UPGRADE, FRAME)}


@pytest.mark.skipif(not SlowLane.exists(), reason="this system has no epoll")
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("case", DRIPS)
@pytest_twisted.ensureDeferred
async def test_nothing_is_left_of_a_lost_connection_that_dripped(
    gateway: Served, no_collector: None, case: str, reset: bool
) -> None:
    head, rest = DRIPS[case]
    client = await in_thread(talk, gateway, head, answer=case == "WebSocket")
    for at in range(len(rest) - 1):
        client.sendall(rest[at : at + 1])
        await deferLater(reactor, 0)
    await until(lambda: len(gateway.lane) == 1)
    held, _ = _references(gateway)
    leave(client, reset=reset)
    await until(lambda: not len(gateway.connections))

    await until(lambda: not any(ref() for ref in held), 5.0, lambda: f"let go of {held}")
    assert len(gateway.lane) == 0
    assert gateway.buffers.held_bytes == 0


def _document(text: str) -> bytes:
    """Of the second generation, in an answer."""
    model = Model.of(typed("S", "/stream"))
    made = Model("Out", model.answers, model.answers)
    return bytes(decode_body(json.dumps({"data": [{"text": text}]}).encode(), made, "/stream").documents)


def _frame(value: object) -> bytes:
    payload = json.dumps(value).encode()
    assert len(payload) < 126
    return b"\x81" + bytes([128 | len(payload)]) + bytes(4) + payload


ASKED = (b"GET /stream?text=a HTTP/1.1\r\nHost: x\r\n", b"\r\n")
SPOKEN = {"data": [{"text": "a"}], "header": {"exec_endpoint": "/stream"}}
STREAMS: dict[str, tuple[bytes, ...]] = {
    "events": (b"".join(ASKED),),
    "lines": (b"Accept: application/x-ndjson\r\n".join(ASKED),),
    "WebSocket": (UPGRADE, _frame(SPOKEN)),
}


@pytest.mark.parametrize("when", ["before the first answer", "between answers", "while it does not read"])
@pytest.mark.parametrize("case", STREAMS)
@pytest_twisted.ensureDeferred
async def test_nothing_is_left_of_a_connection_that_is_lost_with_a_stream(
    no_collector: None, case: str, when: str
) -> None:
    many = 500 if when == "while it does not read" else 2
    answer = _document("x" * (50_000 if many > 2 else 5))
    engine = StreamingDispatcher(
        endpoints=endpoints_of("S"),
        streamed=lambda request: [attrs.evolve(answer_to(request), documents=answer)] * many,
        held=many == 2,
    )
    async with served(("http", "websocket"), engine) as gateway:
        client = await in_thread(talk, gateway, STREAMS[case][0], answer=case == "WebSocket")
        client.sendall(b"".join(STREAMS[case][1:]))
        await until(lambda: engine.opened and engine.opened[0].asked)
        if when == "between answers":
            engine.opened[0].release()
            await until(lambda: engine.opened[0].asked == 2)
            await in_thread(client.recv, 100)
        held, _ = _references(gateway)
        held.append(weakref.ref(engine.opened[0]))
        asked = engine.opened[0].asked
        leave(client, reset=True)
        await until(lambda: not len(gateway.connections))
        assert asked < many + 1
        assert engine.opened[0].cancels
        engine.opened.clear()
        engine.requests.clear()
        await until(lambda: not any(ref() for ref in held), 5.0, lambda: f"let go of {held}")
        assert gateway.buffers.held_bytes == 0


def _references(gateway: Served) -> tuple[list[weakref.ref[Any]], weakref.ref[Any]]:
    """To all that one connection consists of, and to its socket's transport."""
    (connection,) = gateway.connections
    held = [weakref.ref(connection)]
    for http_request in getattr(connection, "requests", ()):
        held.append(weakref.ref(http_request))
        if http_request.producer is not None:
            held.append(weakref.ref(http_request.producer))
    if gateway.web.report().tls:
        return held, weakref.ref(connection.transport.transport)
    unsent = weakref.ref(connection.transport)
    return [*held, unsent], unsent
