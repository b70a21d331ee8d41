"""
What one small request costs, in calls of Python functions: the same on every machine, and in every run.

A figure here is the most that is allowed; it is lowered when the path becomes shorter, and raised only for
something that is worth it (docs/architecture.md, The hot path).
"""

from __future__ import annotations

import gc
import json
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from types import CodeType
from typing import Final

import pytest

from gatewayd.messages.request import Response
from gatewayd.messages.wire import decode_request, encode_response
from gatewayd.pb import DataRequestProto, SingleDocumentRequestProto
from gatewayd.telemetry.metrics.requests import RequestMetrics
from tests.memory_gateway import STREAMING, MemoryGateway, WebClient, counting

# Calls of functions of ours, of Twisted and of Autobahn for one request, from the bytes of a client to the
# bytes of the answer; the executor is called over HTTP/2.
MOST: Final = {
    "grpc": 163,
    "grpc, 32 in flight": 143,
    "grpc Call": 171,
    "http": 302,
    "websocket bytes": 146,
    "websocket json": 172,
}
# Those for one document of a stream: that comes by itself, and with 31 others in one read of the executor's
# socket.
MOST_OF_A_STREAM: Final = {
    "grpc stream_doc": (74, 6),
    "grpc Call": (81, 7),
    "http events": (69, 24),
    "websocket bytes": (62, 24),
    "websocket json": (82, 46),
}
# Further ones where requests are measured: at its beginning one of ours and one of its Deferred's, at its end
# two of ours.
MOST_TO_MEASURE: Final = 4
# Those of the codec alone.
MOST_TO_DECODE: Final = 6
MOST_TO_ENCODE: Final = 6

REQUESTS: Final = 50
_LISTED: Final = 60


TOGETHER: Final = 32


def _small() -> bytes:
    request = DataRequestProto()
    request.header.request_id = "0" * 32
    request.header.exec_endpoint = "/search"
    request.data.docs.docs.add(id="d0", text="hello, world")
    return request.SerializeToString()


SMALL: Final = _small()
JSON: Final = json.dumps({"data": [{"id": "d0", "text": "hello, world"}], "execEndpoint": "/search"}).encode()
POST: Final = (
    b"POST /post HTTP/1.1\r\nHost: localhost:1\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n"
) % len(JSON) + JSON


@pytest.fixture
def gateway() -> Iterator[MemoryGateway]:
    gateway = MemoryGateway()
    yield gateway
    gateway.close()


@pytest.fixture
def measured() -> Iterator[MemoryGateway]:
    gateway = MemoryGateway(metrics=RequestMetrics(["/search"], tuple, ["executor"]))
    yield gateway
    gateway.close()


def _grpc(gateway: MemoryGateway) -> Callable[[], object]:
    client = gateway.grpc()
    return lambda: client.ask(SMALL)


def _grpc_at_once(gateway: MemoryGateway) -> Callable[[], object]:
    client = gateway.grpc()
    return lambda: client.ask(SMALL, 32)


def _stream(gateway: MemoryGateway) -> Callable[[], object]:
    send = gateway.grpc().stream()
    return lambda: send(SMALL)


def _http(gateway: MemoryGateway) -> Callable[[], object]:
    client = gateway.web()
    return lambda: client.ask(POST)


def _websocket(gateway: MemoryGateway, subprotocol: str, opcode: int, payload: bytes) -> Callable[[], object]:
    client, frame = _connected(gateway, subprotocol), _frame(opcode, payload)
    return lambda: client.ask(frame)


def _connected(gateway: MemoryGateway, subprotocol: str) -> WebClient:
    client = gateway.web()
    client.ask(
        b"GET / HTTP/1.1\r\nHost: localhost:1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Protocol: %b\r\n\r\n" % subprotocol.encode()
    )
    return client


def _frame(opcode: int, payload: bytes) -> bytes:
    # A mask of zeros is a mask: the payload goes out as it is.
    return bytes([0x80 | opcode, 0x80 | len(payload)]) + bytes(4) + payload


def _websocket_bytes(gateway: MemoryGateway) -> Callable[[], object]:
    return _websocket(gateway, "bytes", 2, SMALL)


def _websocket_json(gateway: MemoryGateway) -> Callable[[], object]:
    return _websocket(gateway, "json", 1, JSON)


CASES: Final = [
    ("grpc", _grpc, 1),
    ("grpc, 32 in flight", _grpc_at_once, 32),
    ("grpc Call", _stream, 1),
    ("http", _http, 1),
    ("websocket bytes", _websocket_bytes, 1),
    ("websocket json", _websocket_json, 1),
]


@pytest.mark.parametrize(("case", "client", "requests"), CASES)
def test_a_small_request_takes_no_more_calls_than_before(
    gateway: MemoryGateway,
    case: str,
    client: Callable[[MemoryGateway], Callable[[], object]],
    requests: int,
) -> None:
    ask = client(gateway)
    # What is remembered of the first ones is no cost of those that follow.
    assert b"executor" in _bytes(ask())
    assert b"executor" in _bytes(ask())

    with counting() as found:
        for _ in range(REQUESTS):
            ask()

    _check(found, MOST[case], REQUESTS * requests)


# -- documents of streams ------------------------------------------------------------------------------


def _asking() -> tuple[bytes, bytes]:
    """A request of one document to the endpoint that streams, as ``stream_doc`` and as all others take it."""
    single, request = SingleDocumentRequestProto(), DataRequestProto()
    for each in (single, request):
        each.header.request_id = "0" * 32
        each.header.exec_endpoint = STREAMING
    single.document.text = request.data.docs.docs.add().text = "hello"
    return single.SerializeToString(), request.SerializeToString()


ASKING_SINGLE, ASKING = _asking()
ASKING_JSON: Final = json.dumps({"data": [{"text": "hello"}], "execEndpoint": STREAMING}).encode()
EVENTS: Final = f"GET {STREAMING}?text=hello HTTP/1.1\r\nHost: localhost:1\r\n\r\n".encode()

Say = Callable[[int], object]


def _stream_doc(gateway: MemoryGateway) -> Say:
    return gateway.grpc().stream_doc(ASKING_SINGLE)


def _streaming_call(gateway: MemoryGateway) -> Say:
    return gateway.grpc().streaming_call(ASKING)


def _events(gateway: MemoryGateway) -> Say:
    client = gateway.web()
    client.ask(EVENTS)
    return client.after


def _streaming_websocket(gateway: MemoryGateway, subprotocol: str, opcode: int, payload: bytes) -> Say:
    client = _connected(gateway, subprotocol)
    client.ask(_frame(opcode, payload))
    return client.after


STREAMS: Final[list[tuple[str, Callable[[MemoryGateway], Say]]]] = [
    ("grpc stream_doc", _stream_doc),
    ("grpc Call", _streaming_call),
    ("http events", _events),
    ("websocket bytes", lambda gateway: _streaming_websocket(gateway, "bytes", 2, ASKING)),
    ("websocket json", lambda gateway: _streaming_websocket(gateway, "json", 1, ASKING_JSON)),
]


@pytest.mark.parametrize("together", [1, TOGETHER])
@pytest.mark.parametrize(("case", "client"), STREAMS)
def test_a_document_of_a_stream_takes_no_more_calls_than_before(
    gateway: MemoryGateway, case: str, client: Callable[[MemoryGateway], Say], together: int
) -> None:
    # As time passes, routes that end with an answer are not those of the one before.
    gateway.dispatcher.wall_clock = count(1.7e9, 0.001).__next__
    say = client(gateway)
    say(together)
    for _ in range(2):
        assert _bytes(say(together)).count(b"hello, world") == together

    with counting() as found:
        for _ in range(REQUESTS):
            say(together)

    _check(found, MOST_OF_A_STREAM[case][together > 1], REQUESTS * together)


@pytest.mark.parametrize(("case", "client"), STREAMS)
def test_documents_of_a_stream_leave_nothing_for_the_garbage_collector(
    gateway: MemoryGateway, case: str, client: Callable[[MemoryGateway], Say]
) -> None:
    say = client(gateway)
    say(TOGETHER)
    check_for_garbage(lambda: say(TOGETHER), case)


@pytest.mark.parametrize(("case", "client", "requests"), CASES)
def test_metrics_take_few_calls(
    measured: MemoryGateway,
    case: str,
    client: Callable[[MemoryGateway], Callable[[], object]],
    requests: int,
) -> None:
    ask = client(measured)
    ask()
    ask()

    with counting() as found:
        for _ in range(REQUESTS):
            ask()

    _check(found, MOST[case] + MOST_TO_MEASURE, REQUESTS * requests)


@pytest.mark.parametrize(("case", "client", "requests"), CASES)
def test_metrics_leave_nothing_for_the_garbage_collector(
    measured: MemoryGateway,
    case: str,
    client: Callable[[MemoryGateway], Callable[[], object]],
    requests: int,
) -> None:
    check_for_garbage(client(measured), case)


@pytest.mark.parametrize(("case", "client", "requests"), CASES)
def test_a_request_leaves_nothing_for_the_garbage_collector(
    gateway: MemoryGateway,
    case: str,
    client: Callable[[MemoryGateway], Callable[[], object]],
    requests: int,
) -> None:
    check_for_garbage(client(gateway), case)


def test_a_message_is_decoded_and_encoded_in_few_calls(gateway: MemoryGateway) -> None:
    with counting() as found:
        request = decode_request(SMALL)
    _check(found, MOST_TO_DECODE, 1)
    responses: list[Response] = []
    gateway.dispatcher.dispatch(request).addCallback(responses.append)
    gateway.run()

    with counting() as found:
        encode_response(responses[0])
    _check(found, MOST_TO_ENCODE, 1)


def check_for_garbage(ask: Callable[[], object], case: str) -> None:
    """Requests leave nothing for the garbage collector, after a first one."""
    ask()
    gc.collect()
    gc.disable()
    try:
        for _ in range(REQUESTS):
            ask()
        found = gc.collect()
    finally:
        gc.enable()

    # twisted.web's requests, channels and headers refer to each other.
    assert not found or case == "http", f"{found} objects"


def _bytes(answer: object) -> bytes:
    if isinstance(answer, bytes):
        return answer
    assert isinstance(answer, list)
    return b"".join(answer)


def _check(found: Counter[CodeType], most: int, requests: int) -> None:
    # Rounded down: what happens once a second, such as the date of HTTP's answers, is no cost of a request.
    total = sum(found.values()) // requests
    assert total <= most, "\n".join(
        [f"{total} calls a request, and at most {most} are allowed:"]
        + [
            f"{count / requests:6.1f} {code.co_filename}:{code.co_firstlineno} {code.co_name}"
            for code, count in found.most_common(_LISTED)
        ]
    )
