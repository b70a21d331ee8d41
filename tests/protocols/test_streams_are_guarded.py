"""Streams of a real gateway: what is withheld of their failures, in all forms, and that rates count them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import requests
import websockets.frames
import websockets.sync.client
from websockets.exceptions import ConnectionClosed

from gatewayd.messages import methods
from gatewayd.pb import DataRequestProto, SingleDocumentRequestProto
from tests.processes import Gateway

pytestmark = pytest.mark.slow

MODULE = Path(__file__).with_name("streaming_executors.py")
INNER = ("Traceback", "streaming_executors", "RuntimeError", "canary", "/srv/", "127.0.0.1", "10.1.2.3")
FAILING = ("/breaks", "/fails")


def start(**keys: Any) -> Gateway:
    executor = {"name": "words", "uses": "Streams", "py_modules": [str(MODULE)]}
    return Gateway({"gateway": keys, "executors": [executor]})


@pytest.fixture(scope="module", params=["grpcio", "gatewayd"])
def closed(request: pytest.FixtureRequest) -> Iterator[Gateway]:
    rates = [
        {"requests": 2, "per": 100, "by": "address", "endpoints": ["/fine"]},
    ]
    running = start(
        expose_errors=False, grpc_server=request.param, rates=rates, openai={"chat": "/breaks"}, retries=0
    )
    running.line("ready")
    yield running
    assert running.stop() == 0


def over_http(gateway: Gateway, endpoint: str, accept: str) -> tuple[str, bytes]:
    """The status and the whole answer, broken off or not."""
    answer = requests.post(
        f"http://127.0.0.1:{gateway.ports['http']}{endpoint}",
        json={"data": [{"text": "hi"}]},
        headers={"Accept": accept},
        timeout=20,
        stream=True,
    )
    return f"{answer.status_code}", rest_of(answer)


def rest_of(answer: requests.Response) -> bytes:
    found = b""
    try:
        for piece in answer.iter_content(None):
            found += piece
    except (requests.exceptions.ChunkedEncodingError, requests.exceptions.ConnectionError):
        found += b"<broken off>"
    return found


def as_events(gateway: Gateway, endpoint: str) -> tuple[str, bytes]:
    return over_http(gateway, endpoint, "text/event-stream")


def as_lines(gateway: Gateway, endpoint: str) -> tuple[str, bytes]:
    return over_http(gateway, endpoint, "application/x-ndjson")


def as_chat(gateway: Gateway, endpoint: str) -> tuple[str, bytes]:
    asked = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    url = f"http://127.0.0.1:{gateway.ports['http']}/v1/chat/completions"
    answer = requests.post(url, json=asked, timeout=20, stream=True)
    return f"{answer.status_code}", rest_of(answer)


def over_websocket(gateway: Gateway, endpoint: str, subprotocol: str = "json") -> tuple[str, bytes]:
    frame: str | bytes = json.dumps({"data": [{"text": "hi"}], "execEndpoint": endpoint})
    if subprotocol == "bytes":
        frame = message(endpoint).SerializeToString()
    found: list[Any] = []
    address = f"ws://127.0.0.1:{gateway.ports['websocket']}"
    with websockets.sync.client.connect(address, subprotocols=[subprotocol], proxy=None) as session:  # type: ignore[list-item]
        session.send(frame)
        try:
            while True:
                found.append(session.recv(timeout=20))
                if subprotocol == "json" and not json.loads(found[-1])["data"]:
                    return "whole", repr(found).encode()
                if subprotocol == "bytes" and not DataRequestProto.FromString(found[-1]).data.docs.docs:
                    return "whole", repr(found).encode()
        except ConnectionClosed as end:
            said = end.rcvd or websockets.frames.Close(0, "lost")
            return str(said.code), repr([*found, said.reason]).encode()


def over_websocket_bytes(gateway: Gateway, endpoint: str) -> tuple[str, bytes]:
    return over_websocket(gateway, endpoint, "bytes")


def message(endpoint: str) -> DataRequestProto:
    asked = DataRequestProto()
    asked.header.exec_endpoint = endpoint
    asked.data.docs.docs.add(text="hi")
    return asked


def over_grpc(gateway: Gateway, ask: Callable[[grpc.Channel], Any]) -> tuple[str, bytes]:
    found = []
    with grpc.insecure_channel(f"127.0.0.1:{gateway.ports['grpc']}") as channel:
        try:
            found = list(ask(channel))
        except grpc.RpcError as error:
            rest: Any = error
            said = f"{rest.details()} {rest.initial_metadata()} {rest.trailing_metadata()}"
            return str(rest.code()), said.encode()
    return "whole", b"".join(found)


def over_stream_doc(gateway: Gateway, endpoint: str) -> tuple[str, bytes]:
    asked = SingleDocumentRequestProto()
    asked.header.exec_endpoint = endpoint
    asked.document.text = "hi"
    sent = asked.SerializeToString()
    return over_grpc(gateway, lambda channel: channel.unary_stream(methods.STREAM_DOC)(sent, timeout=20))


def over_call(gateway: Gateway, endpoint: str) -> tuple[str, bytes]:
    sent = message(endpoint).SerializeToString()
    return over_grpc(gateway, lambda channel: channel.stream_stream(methods.STREAM)(iter([sent]), timeout=20))


WAYS: dict[str, Callable[[Gateway, str], tuple[str, bytes]]] = {
    "events": as_events,
    "lines": as_lines,
    "chat": as_chat,
    "websocket json": over_websocket,
    "websocket bytes": over_websocket_bytes,
    "stream_doc": over_stream_doc,
    "Call": over_call,
}


@pytest.mark.parametrize("endpoint", FAILING)
@pytest.mark.parametrize("way", WAYS)
def test_a_stream_that_fails_is_told_by_its_request_id_alone(
    closed: Gateway, way: str, endpoint: str
) -> None:
    _, answer = WAYS[way](closed, endpoint)
    assert b"the log has it as request" in answer
    assert [word for word in INNER if word.encode() in answer] == []


@pytest.mark.parametrize("way", [way for way in WAYS if way != "chat"])
def test_each_stream_is_one_request_of_the_rates(closed: Gateway, way: str) -> None:
    found = [WAYS[way](closed, "/fine") for _ in range(3)]
    status, answer = found[-1]
    assert b"more than 2 requests in 100 s of each address" in answer
    assert status in ("429", "1013", "StatusCode.RESOURCE_EXHAUSTED")
