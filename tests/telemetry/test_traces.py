"""Every protocol: the whole tree of a request through a diamond, with one retry, arrives at a collector."""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from docarray import Document

from gatewayd import Client, Executor, Flow, requests
from gatewayd.messages.methods import DISCOVERY, SINGLE, STREAM
from gatewayd.pb import DataRequestProto, EndpointsProto
from tests.processes import Gateway, external
from tests.telemetry.collector import COLLECTORS, Collector, Recorded, tree
from tests.waiting import until

pytestmark = pytest.mark.slow

MODULE = str(Path(__file__).with_name("traced_executors.py"))
PARENT = "00f067aa0ba902b7"


class Flaky(grpc.GenericRpcHandler):
    """An executor that is not ours: it is unavailable the first time that each trace comes to it."""

    def __init__(self) -> None:
        self._known: set[str] = set()
        self._lock = threading.Lock()
        self.parents: list[str] = []

    def service(self, details: Any) -> Any:
        if details.method == DISCOVERY:
            answer = EndpointsProto(endpoints=["/default"]).SerializeToString()
            return grpc.unary_unary_rpc_method_handler(lambda *_: answer)
        return grpc.unary_unary_rpc_method_handler(self._answer) if details.method == SINGLE else None

    def _answer(self, message: bytes, context: Any) -> bytes:
        parent = dict(context.invocation_metadata()).get("traceparent", "")
        trace_id = parent[3:35]
        with self._lock:
            self.parents.append(parent)
            is_new = trace_id not in self._known
            self._known.add(trace_id)
        if is_new and trace_id:
            context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        return message


@pytest.fixture(scope="module")
def flaky() -> Iterator[tuple[Flaky, int]]:
    handler = Flaky()
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield handler, port
    server.stop(None).wait()


@pytest.fixture(scope="module", params=["grpc", "http"])
def running(request: pytest.FixtureRequest, flaky: tuple[Flaky, int]) -> Iterator[tuple[Gateway, Collector]]:
    """A diamond; ``left`` needs a retry."""
    with COLLECTORS[request.param]() as collector:
        flow = {
            "with": {
                "name": "shop",
                "tracing": True,
                "traces_exporter_host": "127.0.0.1",
                "traces_exporter_port": collector.port,
                "traces_exporter_protocol": request.param,
                "traces_exporter_headers": {"x-token": "s3cret"},
            },
            "gateway": {"expose_graphql_endpoint": True},
            "executors": [
                traced("first"),
                external("left", flaky[1], needs="first"),
                traced("right", needs="first"),
                traced("last", needs=["left", "right"]),
            ],
        }
        gateway = Gateway(flow)
        try:
            ready(gateway)
            yield gateway, collector
        finally:
            gateway.stop()
        assert "s3cret" not in gateway.output
        assert "opentelemetry" not in gateway.output, gateway.output


def ready(gateway: Gateway) -> None:
    """Wait until all executors are connected, so that no request waits for that."""
    with Client(port=gateway.ports["grpc"]) as client:
        until(client.is_flow_ready, 60.0, "the executors")


def traced(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "uses": "Traced", "py_modules": [MODULE], **more}


def asked(endpoint: str) -> bytes:
    request = DataRequestProto()
    request.header.request_id, request.header.exec_endpoint = "r", endpoint
    request.data.docs.docs.add(id="d")
    return request.SerializeToString()


def over_grpc(gateway: Gateway, endpoint: str, headers: dict[str, str]) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{gateway.ports['grpc']}") as channel:
        channel.unary_unary(SINGLE)(asked(endpoint), metadata=tuple(headers.items()), timeout=30)


def over_call(gateway: Gateway, endpoint: str, headers: dict[str, str]) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{gateway.ports['grpc']}") as channel:
        list(
            channel.stream_stream(STREAM)(
                iter([asked(endpoint)]), metadata=tuple(headers.items()), timeout=30
            )
        )


def post(gateway: Gateway, path: str, body: Any, headers: dict[str, str]) -> None:
    request = urllib.request.Request(
        f"http://127.0.0.1:{gateway.ports['http']}{path}",
        json.dumps(body).encode(),
        {"Content-Type": "application/json", **headers},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert "errors" not in json.loads(answer.read())


def over_http(gateway: Gateway, endpoint: str, headers: dict[str, str]) -> None:
    post(gateway, "/post", {"execEndpoint": endpoint, "data": [{"id": "d"}]}, headers)


def over_graphql(gateway: Gateway, endpoint: str, headers: dict[str, str]) -> None:
    query = f'mutation {{ docs(execEndpoint: "{endpoint}", data: [{{id: "d"}}]) {{ id }} }}'
    post(gateway, "/graphql", {"query": query}, headers)


def over_websocket(gateway: Gateway, endpoint: str, headers: dict[str, str]) -> None:
    async def converse() -> None:
        url = f"ws://127.0.0.1:{gateway.ports['websocket']}/"
        async with aiohttp.ClientSession() as session, session.ws_connect(url, headers=headers) as socket:
            await socket.send_json({"execEndpoint": endpoint, "data": [{"id": "d"}]})
            await socket.receive_json(timeout=30)

    asyncio.run(converse())


WAYS: dict[str, tuple[str, Callable[[Gateway, str, dict[str, str]], None]]] = {
    "gRPC": ("grpc", over_grpc),
    "Call": ("grpc", over_call),
    "HTTP": ("http", over_http),
    "GraphQL": ("graphql", over_graphql),
    "WebSocket": ("websocket", over_websocket),
}

_METHOD = [("first", "/work", [("first", "inside", [])])]


def below_attempt(name: str) -> list[Any]:
    return [("gateway", "attempt", [(name, "/work", [(name, "inside", [])])])]


@pytest.mark.parametrize("way", WAYS)
def test_the_whole_tree_arrives(running: tuple[Gateway, Collector], way: str) -> None:
    gateway, collector = running
    protocol, ask = WAYS[way]
    trace_id = secrets.token_hex(16)
    ask(gateway, "/work", {"traceparent": f"00-{trace_id}-{PARENT}-01", "tracestate": "rojo=1"})

    spans = collector.trace(trace_id, 17)
    (request,) = (span for span in spans if span.parent_id == PARENT)
    (first, *sides, last) = tree(spans, request.span_id)

    assert (request.name, request.service, request.kind, request.state) == (
        "/work", "gateway", "server", "rojo=1",
    )  # fmt: skip
    assert request.attributes["gatewayd.protocol"] == protocol
    assert request.attributes["gatewayd.outcome"] == "ok"
    assert first == ("gateway", "first", below_attempt("first"))
    assert last == ("gateway", "last", below_attempt("last"))
    assert sorted(sides) == [
        ("gateway", "left", [("gateway", each, []) for each in ("attempt", "backoff", "attempt")]),
        ("gateway", "right", below_attempt("right")),
    ]
    assert len(spans) == 17
    (one, other) = of(spans, "left")
    assert (one.error, one.attributes["error.type"]) == ("UNAVAILABLE: not now", "UNAVAILABLE")
    assert (other.error, other.attributes["gatewayd.attempt"]) == (None, 2)
    for span in spans:
        assert request.began_ns <= span.began_ns <= span.ended_ns
    assert collector.metadata["x-token"] == "s3cret"


def of(spans: list[Recorded], deployment: str) -> list[Recorded]:
    """The attempts at a deployment."""
    found = [
        span
        for span in spans
        if span.name == "attempt" and span.attributes["gatewayd.deployment"] == deployment
    ]
    return sorted(found, key=lambda span: span.began_ns)


def test_an_executor_that_is_not_ours_is_told_which_attempt_it_is(
    running: tuple[Gateway, Collector], flaky: tuple[Flaky, int]
) -> None:
    gateway, collector = running
    trace_id = secrets.token_hex(16)
    over_grpc(gateway, "/await", {"traceparent": f"00-{trace_id}-{PARENT}-01"})

    spans = collector.trace(trace_id, 17)
    told = [parent for parent in flaky[0].parents if trace_id in parent]

    assert told == [f"00-{trace_id}-{span.span_id}-01" for span in of(spans, "left")]
    assert [span.name for span in spans if span.service == "right"] == ["inside", "/await"]


def test_a_trace_that_is_not_kept_is_told_of_but_not_recorded(
    running: tuple[Gateway, Collector], flaky: tuple[Flaky, int]
) -> None:
    gateway, collector = running
    trace_id, later = secrets.token_hex(16), secrets.token_hex(16)
    over_grpc(gateway, "/work", {"traceparent": f"00-{trace_id}-{PARENT}-00"})
    over_grpc(gateway, "/work", {"traceparent": f"00-{later}-{PARENT}-01"})
    collector.trace(later, 17)

    told = [parent for parent in flaky[0].parents if trace_id in parent]
    assert [parent[-3:] for parent in told] == ["-00", "-00"]
    assert not [span for span in collector.spans if span.trace_id == trace_id]


def test_an_executor_that_raises(running: tuple[Gateway, Collector]) -> None:
    gateway, collector = running
    trace_id = secrets.token_hex(16)
    over_grpc(gateway, "/raise", {"traceparent": f"00-{trace_id}-{PARENT}-01"})

    spans = collector.trace(trace_id, 4)
    errors = {(span.service, span.name): span.error for span in spans}

    assert errors == {
        ("gateway", "/raise"): "ValueError('boom')",
        ("gateway", "first"): "the executor raised",
        ("gateway", "attempt"): "the executor raised",
        ("first", "/raise"): "ValueError: boom",
    }


def test_a_request_without_a_trace_begins_one(running: tuple[Gateway, Collector]) -> None:
    gateway, collector = running
    before = {span.trace_id for span in collector.spans}
    over_http(gateway, "/raise", {"traceparent": "00-unreadable"})

    until(lambda: any(span.trace_id not in before and not span.parent_id for span in collector.spans))


def test_the_requests_of_a_batch_are_linked_to_it(flaky: tuple[Flaky, int]) -> None:
    with COLLECTORS["grpc"]() as collector:
        flow = {
            "with": {"tracing": True, "traces_exporter_host": "127.0.0.1"},
            "executors": [traced("solo")],
        }
        flow["with"]["traces_exporter_port"] = collector.port  # type: ignore[index]
        gateway = Gateway(flow, protocols=["grpc"])
        ids = [secrets.token_hex(16) for _ in range(2)]
        try:
            with ThreadPoolExecutor(2) as threads:
                for each in ids:
                    headers = {"traceparent": f"00-{each}-{PARENT}-01"}
                    threads.submit(over_grpc, gateway, "/batched", headers)
            # Its last spans are sent when it stops.
        finally:
            gateway.stop()
        spans = collector.spans
        handled = [span for span in spans if span.service == "solo" and span.parent_id in attempts(spans)]
        (batch,) = (span for span in spans if "gatewayd.batch_requests" in span.attributes)
        (inside,) = (span for span in spans if span.name == "inside")

    assert {span.trace_id for span in handled} == set(ids)
    assert {*batch.links} == {span.span_id for span in handled}
    assert {span.links for span in handled} == {(batch.span_id,)}
    assert batch.parent_id in {span.span_id for span in handled}
    assert batch.attributes["gatewayd.batch_requests"] == 2
    assert inside.parent_id == batch.span_id


def attempts(spans: list[Recorded]) -> set[str]:
    return {span.span_id for span in spans if span.name == "attempt"}


def test_a_collector_that_is_down_holds_nothing_up() -> None:
    flow = {"with": {"tracing": True, "traces_exporter_port": 1}, "executors": [traced("solo")]}
    gateway = Gateway(flow, protocols=["grpc"])
    ready(gateway)
    for _ in range(20):
        over_grpc(gateway, "/work", {})

    assert gateway.stop(grace_s=30.0) == 0
    assert "Traceback" not in gateway.output, gateway.output


@pytest.mark.parametrize("settings", [{"workers": 2}, {"grpc_server": "grpcio"}], ids=str)
def test_workers_and_the_librarys_server_send_the_same(settings: dict[str, Any]) -> None:
    with COLLECTORS["http"]() as collector:
        tracing = {
            "tracing": True,
            "traces_exporter_host": "http://127.0.0.1",
            "traces_exporter_port": collector.port,
            "traces_exporter_protocol": "http",
        }
        flow = {"with": tracing, "gateway": settings, "executors": [traced("solo")]}
        gateway = Gateway(flow, protocols=["grpc"])
        ids = [secrets.token_hex(16) for _ in range(8)]
        try:
            # Connections of their own, which come to any worker.
            for each in ids:
                over_grpc(gateway, "/work", {"traceparent": f"00-{each}-{PARENT}-01"})
        finally:
            gateway.stop()
        found = [[span for span in collector.spans if span.trace_id == each] for each in ids]

    # A worker may not be connected to the executor yet when its first request comes.
    names = [sorted(span.name for span in spans if span.name != "queue") for spans in found]
    assert names == [["/work", "/work", "attempt", "inside", "solo"]] * len(ids)


class Marked(Executor):
    """Sent by value to its process."""

    @requests(on="/mark")
    def mark(self, docs, **kwargs):
        with self.tracer.start_as_current_span("inside"):
            docs[0].text = self.runtime_args.tracer_provider.resource.attributes["service.name"]


def test_a_flow_in_python_is_traced_as_in_the_reference() -> None:
    with COLLECTORS["grpc"]() as collector:
        flow = Flow(
            tracing=True, traces_exporter_host="http://127.0.0.1", traces_exporter_port=collector.port
        ).add(name="marked", uses=Marked)
        with flow:
            (answer,) = flow.post("/mark", Document())
        spans = collector.spans

    assert answer.text == "marked"
    assert sorted((span.service, span.name) for span in spans) == [
        ("gateway", "/mark"),
        ("gateway", "attempt"),
        ("gateway", "marked"),
        ("marked", "/mark"),
        ("marked", "inside"),
    ]
    assert len({span.trace_id for span in spans}) == 1
