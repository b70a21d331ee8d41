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
from types import CodeType
from typing import Final

import pytest

from gatewayd.messages.request import Response
from gatewayd.messages.wire import decode_request, encode_response
from gatewayd.pb import DataRequestProto
from gatewayd.telemetry.metrics.requests import RequestMetrics
from tests.memory_gateway import MemoryGateway, counting

# Calls of functions of ours, of Twisted and of Autobahn for one request, from the bytes of a client to the
# bytes of the answer; the executor is called over HTTP/2.
MOST: Final = {
    "grpc": 172,
    "grpc, 32 in flight": 153,
    "grpc Call": 179,
    "http": 318,
    "websocket bytes": 157,
    "websocket json": 187,
}
# Further ones where requests are measured: the look at its beginning and at its end, for all observers
# together, and the metrics' own.
MOST_TO_MEASURE: Final = 9
# Those of the codec alone.
MOST_TO_DECODE: Final = 6
MOST_TO_ENCODE: Final = 11

REQUESTS: Final = 50
_LISTED: Final = 60


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
    gateway = MemoryGateway([RequestMetrics(["/search"], tuple, ["executor"])])
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
    client = gateway.web()
    client.ask(
        b"GET / HTTP/1.1\r\nHost: localhost:1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Protocol: %b\r\n\r\n" % subprotocol.encode()
    )
    # A mask of zeros is a mask: the payload goes out as it is.
    frame = bytes([0x80 | opcode, 0x80 | len(payload)]) + bytes(4) + payload
    return lambda: client.ask(frame)


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
