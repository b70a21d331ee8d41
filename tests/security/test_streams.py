"""Streams without end, to clients that do not read them, leave, or read on and on; and typed bodies."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from gatewayd.messages import methods
from gatewayd.pb import DataRequestProto, SingleDocumentRequestProto
from tests.golden34_data import FOLDER, golden
from tests.processes import Gateway, external
from tests.security.conftest import MB, Bystander, Victim
from tests.security.test_readers import frame, handshake, small_receive_buffer
from tests.waiting import until

pytestmark = pytest.mark.security

CLIENTS = 20
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}


def posting(path: str, accept: str, body: Any) -> bytes:
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAccept: {accept}\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


class Streams:
    """Connections of one kind, each of which has asked for a stream; ``close`` leaves them all."""

    def __init__(self, victim: Victim, way: str, endpoint: str = "/endless") -> None:
        self._stack = contextlib.ExitStack()
        self._sockets: list[socket.socket] = []
        if way in ("stream_doc", "Call"):
            self._grpc(victim.ports["grpc"], way, endpoint)
            return
        document = {"data": [{"text": "hi"}]}
        for _ in range(CLIENTS):
            one = small_receive_buffer(victim.ports["websocket" if way == "websocket" else "http"])
            self._stack.callback(one.close)
            self._sockets.append(one)
            if way == "websocket":
                handshake(one)
                one.sendall(frame(json.dumps({**document, "execEndpoint": endpoint})))
            elif way == "chat":
                one.sendall(posting("/v1/chat/completions", "*/*", CHAT))
            else:
                accept = "text/event-stream" if way == "events" else "application/x-ndjson"
                one.sendall(posting(endpoint, accept, document))

    def _grpc(self, port: int, way: str, endpoint: str) -> None:
        single, several = SingleDocumentRequestProto(), DataRequestProto()
        single.header.exec_endpoint = several.header.exec_endpoint = endpoint
        single.document.text = several.data.docs.docs.add().text = "hi"
        for _ in range(CLIENTS):
            channel = grpc.insecure_channel(
                f"127.0.0.1:{port}",
                [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)],
            )
            self._stack.callback(channel.close)
            if way == "Call":
                asked = iter([several.SerializeToString()])
                call: Any = channel.stream_stream(methods.STREAM)(asked)
            else:
                sent: Any = single.SerializeToString()
                call = channel.unary_stream(methods.STREAM_DOC)(sent)
            self._stack.callback(call.cancel)
            next(call)

    def read(self, seconds: float) -> int:
        """Read from all of them for so long; how many bytes came."""
        found, ends = 0, time.monotonic() + seconds
        while time.monotonic() < ends:
            for one in self._sockets:
                found += len(one.recv(65536))
        return found

    def close(self) -> None:
        self._stack.close()


WAYS = ("events", "lines", "websocket", "stream_doc", "Call", "chat")


def open_streams(victim: Victim) -> int:
    """Those that the executor's generators have not ended."""
    connection = http.client.HTTPConnection("127.0.0.1", victim.ports["http"], timeout=20)
    try:
        body = json.dumps({"execEndpoint": "/open"})
        connection.request("POST", "/post", body, {"Content-Type": "application/json"})
        (result,) = json.loads(connection.getresponse().read())["parameters"]["__results__"].values()
        return int(result["streams"])
    finally:
        connection.close()


@pytest.mark.parametrize("way", WAYS)
def test_endless_streams_that_are_not_read_and_then_left(attack: Callable[..., Victim], way: str) -> None:
    victim = attack(openai={"chat": "/endless"})
    with Bystander(victim) as bystander:
        streams = Streams(victim, way)
        until(lambda: open_streams(victim) == CLIENTS, what=lambda: open_streams(victim))
        time.sleep(4.0)
        streams.close()
    assert bystander.statuses == {200}
    assert bystander.most_bytes < 150 * MB
    # What they held is let go, and their generators are ended.
    until(lambda: open_streams(victim) == 0, what=lambda: open_streams(victim))
    until(lambda: victim.grown_bytes() < 60 * MB, what=victim.grown_bytes)


@pytest.mark.parametrize("way", ["events", "lines", "websocket"])
def test_small_documents_without_end_that_are_read_on_and_on(attack: Callable[..., Victim], way: str) -> None:
    victim = attack()
    streams = Streams(victim, way, "/flood")
    with Bystander(victim) as bystander:
        received = streams.read(5.0)
    streams.close()
    assert received > 0
    assert bystander.statuses == {200}
    # The one executor has as much to do with these streams as the gateway.
    assert bystander.percentile_s(0.5) < 1.0
    assert bystander.most_bytes < 100 * MB
    until(lambda: open_streams(victim) == 0, what=lambda: open_streams(victim))


def test_a_stop_with_streams_open_in_every_form(attack: Callable[..., Victim]) -> None:
    victim = attack(openai={"chat": "/endless"}, grace_period=2)
    streams = [Streams(victim, way) for way in WAYS]
    assert victim.gateway.stop(30.0) == 0
    for each in streams:
        each.close()


# -- typed bodies ----------------------------------------------------------------------------------------


class TypedExecutor(grpc.GenericRpcHandler):
    """One of the second generation, as it was recorded, which answers with what it gets."""

    def service(self, details: Any) -> Any:
        if details.method == methods.DISCOVERY:
            told = (FOLDER / golden("endpoints_proto")["executor A"]["file"]).read_bytes()
            return grpc.unary_unary_rpc_method_handler(lambda _message, _context: told)
        return grpc.unary_unary_rpc_method_handler(lambda message, _context: message)


@pytest.fixture
def typed() -> Iterator[Victim]:
    server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.max_receive_message_length", -1)])
    server.add_generic_rpc_handlers([TypedExecutor()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    gateway = Gateway(
        {
            "gateway": {"grace_period": 5, "max_buffered_bytes": 400 * MB},
            "executors": [external("typed", port)],
        },
        MALLOC_MMAP_THRESHOLD_="65536",
        MALLOC_ARENA_MAX="2",
    )
    try:
        victim = TypedVictim(gateway)
        # JSON is not read before the executor has told which documents it takes.
        until(lambda: victim.post() == 200, what=victim.post)
        victim.rest_bytes = victim.resident_bytes()
        yield victim
    finally:
        code = gateway.stop(30.0)
        server.stop(0)
    assert code == 0


class TypedVictim(Victim):
    def post(self, *, timeout_s: float = 20.0, body: Any = None) -> int:
        return super().post(timeout_s=timeout_s, body={"data": [{"text": "hi"}], "execEndpoint": "/echo"})


def deep(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


HOSTILE: dict[str, tuple[bytes, set[int]]] = {
    "a million documents": (b'{"data":[' + b",".join([b'{"text":"a"}'] * 1_000_000) + b"]}", {413, 503}),
    "a million wrong ones": (b'{"data":[' + b",".join([b"{}"] * 1_000_000) + b"]}", {413, 503}),
    "ninety thousand wrong ones": (b'{"data":[' + b",".join([b"{}"] * 90_000) + b"]}", {422}),
    "unknown fields": (
        b'{"data":[{"text":"a",' + b",".join(b'"k%d":1' % n for n in range(300_000)) + b"}]}",
        {200, 413, 422},
    ),
    "nested": (b'{"data":[{"text":' + deep(100_000) + b"}]}", {422}),
    "nested parameters": (b'{"data":[{"text":"a"}],"parameters":{"a":' + deep(5_000) + b"}}", {200, 422}),
    "small values": (
        b'{"data":[{"text":"a"}],"parameters":{"a":[' + b"[]," * 2_000_000 + b"1]}}",
        {200, 413, 422, 503},
    ),
    "one long text": (b'{"data":[{"text":"' + b"\\u00e9" * 3_000_000 + b'"}]}', {200}),
    "numbers of many digits": (b'{"data":[{"text":"a","num":' + b"9" * 1_000_000 + b"}]}", {422}),
    "twice the same key": (b'{"data":[{"text":"a"' + b',"text":"b"' * 500_000 + b"}]}", {200, 413, 422}),
}


@pytest.mark.parametrize("body", HOSTILE)
def test_typed_bodies(typed: Victim, body: str) -> None:
    content, expected = HOSTILE[body]

    def ask(path: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", typed.ports["http"], timeout=60)
        try:
            connection.request("POST", path, content, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            return answer.status
        finally:
            connection.close()

    before = typed.cpu_s()
    with Bystander(typed) as bystander, ThreadPoolExecutor(3) as clients:
        statuses = set(clients.map(ask, ["/echo"] * 3))
        time.sleep(0.3)  # for the other client, where nothing took long
    assert statuses <= expected
    assert typed.cpu_s() - before < 30
    assert bystander.statuses == {200}
    assert bystander.percentile_s(0.99) < 2.0
    assert bystander.most_bytes < 500 * MB
