"""Rates at work: a real gateway, asked too often over every protocol by clients of others and by our own."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
import requests
import websockets
from docarray import Document, DocumentArray
from twisted.internet.defer import succeed
from twisted.internet.task import Clock

from gatewayd import Client
from gatewayd.access.limited import Limited
from gatewayd.access.rates import Rates
from gatewayd.client.errors import RequestRefused, TryLater, Unreachable
from gatewayd.config.rates import RateRule
from gatewayd.errors import RateLimited
from gatewayd.messages import methods, wire
from gatewayd.messages.caller import Caller
from gatewayd.messages.request import Request
from gatewayd.messages.retry_info import STATUS_DETAILS, retry_after_s
from gatewayd.pb import DataContentProto, RetryInfo, RpcStatus
from tests.paths import ROOT
from tests.processes import PROTOCOLS, Gateway
from tests.protocols.harness import FakeDispatcher

REC = {"name": "exec_a", "uses": "Rec", "py_modules": str(ROOT / "tests" / "executors.py")}

# Each test asks an endpoint of its own.
ENDPOINTS = [
    "/http", "/search", "/graphql", "/grpc", "/stream", "/websocket", "/dry_run",
    *(f"/ours/{protocol}" for protocol in PROTOCOLS),
]  # fmt: skip
RATES: list[dict[str, Any]] = [
    *({"requests": 2, "per": 100, "by": "address", "endpoints": [each]} for each in ENDPOINTS),
    {"documents": 10, "per": 0.0001, "endpoints": ["/many/*"]},
]


USED_UP = "more than 2 requests in 100 s of each address (gateway.rates); try again in "


@pytest.fixture(scope="module", params=["grpcio", "gatewayd"])
def gateway(request: pytest.FixtureRequest) -> Iterator[Gateway]:
    settings = {"rates": RATES, "expose_graphql_endpoint": True, "grpc_server": request.param}
    gateway = Gateway({"gateway": settings, "executors": [REC]})
    yield gateway
    gateway.stop()


def message(endpoint: str, count: int = 1) -> bytes:
    content = DataContentProto()
    for _ in range(count):
        content.docs.docs.add(text="a")
    return wire.encode_request(Request("r", endpoint, documents=content.SerializeToString()))


def channel(gateway: Gateway) -> grpc.Channel:
    return grpc.insecure_channel(f"127.0.0.1:{gateway.ports['grpc']}")


def post(gateway: Gateway, path: str, body: Any) -> requests.Response:
    return requests.post(f"http://127.0.0.1:{gateway.ports['http']}{path}", json=body, timeout=10)


def check_http(answer: requests.Response) -> None:
    assert answer.status_code == 429
    assert 40 < int(answer.headers["Retry-After"]) <= 50
    assert answer.json()["detail"].startswith(USED_UP)


@pytest.mark.parametrize(
    ("path", "body"),
    [("/post", {"data": [{"text": "a"}], "execEndpoint": "/http"}), ("/search", {"data": [{"text": "a"}]})],
)
def test_http_answers_429_with_retry_after(gateway: Gateway, path: str, body: Any) -> None:
    assert [post(gateway, path, body).status_code for _ in range(2)] == [200, 200]
    check_http(post(gateway, path, body))
    assert post(gateway, "/post", {"execEndpoint": "/free"}).status_code == 200


def test_each_field_of_graphql_is_a_request(gateway: Gateway) -> None:
    field = 'docs(execEndpoint: "/graphql") { id }'
    answer = post(gateway, "/graphql", {"query": f"{{ a: {field} b: {field} c: {field} }}"}).json()
    assert len(answer["errors"]) == 1
    assert "more than 2 requests" in answer["errors"][0]["message"]


def test_the_dry_run_has_a_rate_of_its_own(gateway: Gateway) -> None:
    url = f"http://127.0.0.1:{gateway.ports['http']}/dry_run"
    assert requests.get(url, timeout=10).json()["code"] == 0
    with channel(gateway) as open_channel:
        ask = open_channel.unary_unary(methods.DRY_RUN)
        ask(b"", timeout=10)
        with pytest.raises(grpc.RpcError) as caught:
            ask(b"", timeout=10)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    check_http(requests.get(url, timeout=10))

    async def talk() -> None:
        async with websockets.connect(f"ws://127.0.0.1:{gateway.ports['websocket']}/dry_run") as connection:
            await connection.send("{}")
            await connection.recv()

    with pytest.raises(websockets.ConnectionClosed) as closed:
        asyncio.run(talk())
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1013


def check_grpc(error: Any) -> None:
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error.details().startswith(USED_UP)
    status = RpcStatus.FromString(dict(error.trailing_metadata())[STATUS_DETAILS])
    assert (status.code, status.message) == (8, error.details())
    (detail,) = status.details
    assert detail.type_url == "type.googleapis.com/google.rpc.RetryInfo"
    assert 40 < RetryInfo.FromString(detail.value).retry_delay.seconds <= 50


def test_grpc_answers_resource_exhausted_with_retry_info(gateway: Gateway) -> None:
    with channel(gateway) as open_channel:
        ask = open_channel.unary_unary(methods.SINGLE)
        for _ in range(2):
            ask(message("/grpc"), timeout=10)
        with pytest.raises(grpc.RpcError) as caught:
            ask(message("/grpc"), timeout=10)
        check_grpc(caught.value)
        ask(message("/free"), timeout=10)


def test_each_request_of_a_grpc_stream_counts(gateway: Gateway) -> None:
    with channel(gateway) as open_channel:
        answers = open_channel.stream_stream(methods.STREAM)(iter([message("/stream")] * 5), timeout=10)
        with pytest.raises(grpc.RpcError) as caught:
            list(answers)
        check_grpc(caught.value)


def test_a_websocket_is_closed_with_1013_and_the_reason(gateway: Gateway) -> None:
    async def talk() -> None:
        async with websockets.connect(f"ws://127.0.0.1:{gateway.ports['websocket']}/") as connection:
            for _ in range(3):
                await connection.send(json.dumps({"execEndpoint": "/websocket"}))
                await connection.recv()

    with pytest.raises(websockets.ConnectionClosed) as caught:
        asyncio.run(talk())
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1013
    assert caught.value.rcvd.reason.startswith("more than 2 requests in 100 s of each address")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_our_client_says_when_to_come_back(gateway: Gateway, protocol: str) -> None:
    client = Client(port=gateway.ports[protocol], protocol=protocol)  # type: ignore[arg-type]
    with pytest.raises(TryLater, match=r"^more than 2 requests in 100 s") as caught:
        for _ in range(3):
            client.post(f"/ours/{protocol}", Document(text="a"))
    assert isinstance(caught.value, Unreachable)
    if protocol == "websocket":
        assert caught.value.retry_after_s is None
    else:
        assert caught.value.retry_after_s is not None
        assert 40 < caught.value.retry_after_s <= 50


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_request_with_more_documents_than_any_rate_allows_is_refused_for_good(
    gateway: Gateway, protocol: str
) -> None:
    client = Client(port=gateway.ports[protocol], protocol=protocol)  # type: ignore[arg-type]
    with pytest.raises(RequestRefused, match=r"more than 10 documents; send fewer at once \(gateway\.rates"):
        client.post("/many/x", DocumentArray.empty(11))
    assert len(client.post("/many/x", DocumentArray.empty(10))) == 10


def test_the_log_has_it_in_bounded_lines(gateway: Gateway) -> None:
    for _ in range(3):
        post(gateway, "/post", {"execEndpoint": "/http"})
    gateway.line(r"a client at 127\.0\.0\.1 is refused: more than 2 requests in 100 s of each address")


def test_over_http_one_client_does_not_use_up_anothers(gateway: Gateway) -> None:
    def status(source: str) -> int:
        connection = http.client.HTTPConnection(
            "127.0.0.1", gateway.ports["http"], timeout=10, source_address=(source, 0)
        )
        connection.request("POST", "/post", '{"execEndpoint": "/http"}', {"Content-Type": "application/json"})
        found = connection.getresponse().status
        connection.close()
        return found

    assert [status("127.0.0.77") for _ in range(3)] == [200, 200, 429]
    assert status("127.0.0.78") == 200


# -- without sockets ------------------------------------------------------------------------------------


def test_time_gives_room_back() -> None:
    clock, engine = Clock(), FakeDispatcher()
    limited = Limited(engine, Rates([RateRule(requests=2, per_s=1, burst=2)]), clock)
    caller = Caller("a", "10.0.0.1", "key")

    def failure() -> Any:
        found: list[Any] = []
        limited.dispatch(Request("r", "/a", caller=caller)).addErrback(found.append)
        return found[0].value if found else None

    assert [failure() for _ in range(2)] == [None, None]
    error = failure()
    assert isinstance(error, RateLimited)
    assert error.retry_after_s == pytest.approx(0.5)
    clock.advance(0.5)
    assert failure() is None
    assert len(engine.requests) == 3


def test_a_dry_run_is_counted_for_its_caller() -> None:
    class Engine:
        def __init__(self) -> None:
            self.callers: list[Caller] = []

        def dispatch(self, request: Request, *, timeout_s: float | None = None) -> Any: ...

        def dry_run(self, documents: bytes = b"", *, caller: Caller) -> Any:
            self.callers.append(caller)
            return succeed(None)

    engine: Any = Engine()
    limited = Limited(engine, Rates([RateRule(("/dry_run",), requests=1)]), Clock())
    one, other = Caller("a"), Caller("b")
    failures: list[Any] = []
    for caller in (one, one, other):
        limited.dry_run(caller=caller).addErrback(failures.append)
    assert engine.callers == [one, other]
    assert [type(failure.value) for failure in failures] == [RateLimited]


def test_retry_info_that_is_none_is_none() -> None:
    assert retry_after_s(b"\xff") is None
    assert retry_after_s(b"") is None
    assert retry_after_s(RpcStatus(code=8).SerializeToString()) is None
