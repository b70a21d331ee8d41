"""
Streams of real processes as operators see them: a line of the access log, spans, and counts for each of them,
over every protocol and however it ends.
"""

from __future__ import annotations

import contextlib
import json
import re
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import attrs
import grpc
import pytest
import requests
import websockets.sync.client
from websockets.exceptions import ConnectionClosed

from gatewayd.messages.methods import STREAM, STREAM_DOC
from gatewayd.pb import DataRequestProto, SingleDocumentRequestProto
from tests.processes import Gateway, free_ports
from tests.telemetry.collector import COLLECTORS, Collector, Recorded
from tests.waiting import until

pytestmark = pytest.mark.slow

MODULE = str(Path(__file__).with_name("streamed_executors.py"))
# How a stream ends at each endpoint, and how many of its answers the client has got by then.
ENDS = {
    "/fine": ("ok", 3),
    "/breaks": ("executor_error", 1),
    "/left": ("cancelled", 1),
    "/late": ("deadline", 1),
}
LEFT = "/left"
# What executors log of what their methods raise.
RAISED = "\tTraceback"
_WAIT_S = 20


def post(gateway: Gateway, path: str, body: Any, accept: str = "") -> None:
    answer = requests.post(
        f"http://127.0.0.1:{gateway.ports['http']}{path}",
        json=body,
        headers={"Accept": accept},
        timeout=_WAIT_S,
        stream=True,
    )
    with answer, contextlib.suppress(requests.exceptions.ChunkedEncodingError):
        for piece in answer.iter_content(None):
            if b"one" in piece and LEFT in (path, body.get("model")):
                return


def over_events(gateway: Gateway, endpoint: str) -> None:
    post(gateway, endpoint, {"data": [{"text": "hi"}]}, "text/event-stream")


def over_lines(gateway: Gateway, endpoint: str) -> None:
    post(gateway, endpoint, {"data": [{"text": "hi"}]}, "application/x-ndjson")


def over_chat(gateway: Gateway, endpoint: str) -> None:
    asked = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    post(gateway, "/v1/chat/completions", asked)


def converse(url: str, subprotocol: str, *said: str | bytes) -> Iterator[Any]:
    """What is answered, until the gateway closes the connection, or the caller does."""
    with websockets.sync.client.connect(url, subprotocols=[subprotocol], proxy=None) as session:  # type: ignore[list-item]
        for each in said:
            session.send(each)
        with contextlib.suppress(ConnectionClosed):
            while True:
                yield session.recv(timeout=_WAIT_S)


def over_websocket_json(gateway: Gateway, endpoint: str) -> None:
    asked = json.dumps({"data": [{"text": "hi"}], "execEndpoint": endpoint})
    for answer in converse(f"ws://127.0.0.1:{gateway.ports['websocket']}", "json", asked):
        if endpoint == LEFT or not json.loads(answer)["data"]:
            return


def over_websocket_bytes(gateway: Gateway, endpoint: str) -> None:
    asked = message(endpoint)
    for answer in converse(f"ws://127.0.0.1:{gateway.ports['websocket']}", "bytes", asked):
        if endpoint == LEFT or not DataRequestProto.FromString(answer).data.docs.docs:
            return


def over_graphql(gateway: Gateway, endpoint: str) -> None:
    query = f'subscription {{ doc(data: {{text: "hi"}}, execEndpoint: "{endpoint}") {{ text }} }}'
    said = [{"type": "connection_init"}, {"type": "subscribe", "id": "1", "payload": {"query": query}}]
    url = f"ws://127.0.0.1:{gateway.ports['http']}/graphql"
    for answer in converse(url, "graphql-transport-ws", *map(json.dumps, said)):
        kind = json.loads(answer)["type"]
        if kind in ("complete", "error") or (endpoint == LEFT and kind == "next"):
            return


def over_grpc(gateway: Gateway, endpoint: str, ask: Callable[[grpc.Channel], Any]) -> None:
    with (
        grpc.insecure_channel(f"127.0.0.1:{gateway.ports['grpc']}") as channel,
        contextlib.suppress(grpc.RpcError),
    ):
        for _ in ask(channel):
            if endpoint == LEFT:
                return


def over_stream_doc(gateway: Gateway, endpoint: str) -> None:
    asked = SingleDocumentRequestProto()
    asked.header.exec_endpoint = endpoint
    asked.document.text = "hi"
    sent = asked.SerializeToString()
    over_grpc(gateway, endpoint, lambda channel: channel.unary_stream(STREAM_DOC)(sent, timeout=_WAIT_S))


def over_call(gateway: Gateway, endpoint: str) -> None:
    sent = iter([message(endpoint)])
    over_grpc(gateway, endpoint, lambda channel: channel.stream_stream(STREAM)(sent, timeout=_WAIT_S))


def message(endpoint: str) -> bytes:
    asked = DataRequestProto()
    asked.header.exec_endpoint = endpoint
    asked.data.docs.docs.add(text="hi")
    return asked.SerializeToString()


WAYS: dict[str, tuple[str, Callable[[Gateway, str], None]]] = {
    "events": ("http", over_events),
    "lines": ("http", over_lines),
    "WebSocket, JSON": ("websocket", over_websocket_json),
    "WebSocket, bytes": ("websocket", over_websocket_bytes),
    "GraphQL": ("graphql", over_graphql),
    "stream_doc": ("grpc", over_stream_doc),
    "Call": ("grpc", over_call),
}


@attrs.frozen
class Watched:
    gateway: Gateway
    collector: Collector
    lines: Callable[[], list[dict[str, Any]]]
    metrics: Callable[[], str]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    path = tmp_path_factory.mktemp("log") / "access.log"
    (admin_port,) = free_ports(1)
    with COLLECTORS["http"]() as collector:
        flow = {
            "with": {
                "tracing": True,
                "traces_exporter_host": "127.0.0.1",
                "traces_exporter_port": collector.port,
                "traces_exporter_protocol": "http",
            },
            "gateway": {
                "access_log": {"path": str(path), "format": "json"},
                "admin_port": admin_port,
                "expose_graphql_endpoint": True,
                "openai": {"chat": "/fine"},
                "timeout_send": 3000,
            },
            "executors": [
                {"name": "words", "uses": "Streams", "py_modules": [MODULE]},
                {"name": "behind", "uses": "Behind", "py_modules": [MODULE]},
            ],
        }
        gateway = Gateway(flow)
        gateway.line(r"\bready$")

        def lines() -> list[dict[str, Any]]:
            return [json.loads(line) for line in path.read_text().splitlines()]

        def metrics() -> str:
            with urllib.request.urlopen(f"http://127.0.0.1:{admin_port}/metrics", timeout=_WAIT_S) as answer:
                text: str = answer.read().decode()
                return text

        yield Watched(gateway, collector, lines, metrics)
        assert gateway.stop() == 0
        assert "Traceback" not in gateway.output.replace(RAISED, ""), gateway.output


KEYS = ("protocol", "endpoint", "outcome", "answers")


def test_every_stream_is_seen_to_its_end(watched: Watched) -> None:
    asked = [(protocol, ask, endpoint) for protocol, ask in WAYS.values() for endpoint in ENDS]
    asked.append(("http", over_chat, "/fine"))
    with ThreadPoolExecutor(len(asked)) as threads:
        for done in [threads.submit(ask, watched.gateway, endpoint) for _, ask, endpoint in asked]:
            done.result(_WAIT_S)
    expected = Counter((protocol, endpoint, *ENDS[endpoint]) for protocol, _, endpoint in asked)

    until(lambda: len(watched.lines()) >= len(asked), what="a line for each")
    lines = watched.lines()
    assert Counter(tuple(line[key] for key in KEYS) for line in lines) == expected
    for line in lines:
        assert line["documents"] == 1
        assert line["bytes_in"] > 5
        assert line["bytes_out"] >= 5 * line["answers"]
        assert 0 < line["first_ms"] <= line["total_ms"]

    until(lambda: len(_requests(watched)) >= len(asked), what="a span for each")
    spans = watched.collector.spans
    found = [tuple(span.attributes[f"gatewayd.{key}"] for key in KEYS) for span in _requests(watched)]
    assert Counter(found) == expected
    for request in _requests(watched):
        outcome, answers = (request.attributes[f"gatewayd.{key}"] for key in ("outcome", "answers"))
        parts = {span.name: span for span in spans if span.parent_id == request.span_id}
        assert {"words", "behind"} == set(parts)
        assert parts["words"].attributes["gatewayd.outcome"] == outcome
        assert parts["behind"].attributes["gatewayd.outcome"] == "ok"
        assert parts["behind"].attributes.get("gatewayd.calls", 1) == answers
        calls = [span for span in spans if span.parent_id == parts["behind"].span_id]
        assert len(calls) == answers
        assert {span.attributes["gatewayd.attempt"] for span in calls} == {1}

    text = watched.metrics()
    counted = {
        tuple(sorted(re.findall(r'"([^"]*)"', labels))): float(number)
        for labels, number in re.findall(r"^gatewayd_requests_total\{(.*)\} (\S+)", text, re.M)
    }
    assert {key: count for key, count in counted.items() if count} == Counter(
        tuple(sorted(each[:3])) for each in expected.elements()
    )
    assert re.search(r"^gatewayd_streams_under_way 0.0$", text, re.M), text
    broken = sum(outcome == "executor_error" for _, _, outcome, _ in expected.elements())
    (errors,) = re.findall(r'^gatewayd_deployment_errors_total\{deployment="words"\} (\S+)', text, re.M)
    assert float(errors) == broken


def _requests(watched: Watched) -> list[Recorded]:
    """The spans of whole requests."""
    return [
        span
        for span in watched.collector.spans
        if span.service == "gateway" and "gatewayd.protocol" in span.attributes
    ]


def test_of_a_long_stream_the_first_calls_behind_it_are_traced(watched: Watched) -> None:
    before = {span.trace_id for span in watched.collector.spans}
    over_stream_doc(watched.gateway, "/many")

    until(lambda: [span for span in _requests(watched) if span.name == "/many"])
    (request,) = (span for span in _requests(watched) if span.name == "/many")
    spans = [span for span in watched.collector.spans if span.trace_id == request.trace_id]
    assert request.trace_id not in before
    (behind,) = (span for span in spans if span.name == "behind")
    assert behind.attributes["gatewayd.calls"] == 300
    until(lambda: len(_below(watched, behind)) >= 64)
    assert len([span for span in _below(watched, behind) if span.name == "attempt"]) <= 64
    # No executor has spans below one that is not there.
    ids = {span.span_id for span in watched.collector.spans}
    assert not [span for span in spans if span.parent_id and span.parent_id not in ids]


def _below(watched: Watched, parent: Recorded) -> list[Recorded]:
    return [span for span in watched.collector.spans if span.parent_id == parent.span_id]
