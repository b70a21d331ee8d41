"""``forward_headers``: headers of clients reach every executor, and theirs the client."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from docarray import Document, DocumentArray
from klein import Klein

from gatewayd import Client, Executor, Flow, requests
from gatewayd import Gateway as GatewayClass
from gatewayd.client.errors import BadServer, BadServerFlow, RequestRefused
from gatewayd.messages.methods import SINGLE, STREAM
from gatewayd.pb import DataRequestProto
from tests.paths import ROOT
from tests.processes import PROTOCOLS, Gateway, external
from tests.waiting import until

pytestmark = pytest.mark.slow

MODULE = str(ROOT / "tests" / "equivalence" / "header_executors.py")
SENT = {"X-Tenant": "a", "Authorization": "Bearer s3cret", "Y-Other": "b", "x-raw-bin": "AP8="}
GOT = {"x-tenant": "a", "authorization": "Bearer s3cret", "x-raw-bin": "AP8"}
BY = ["front", "left", "join", "right"]  # the order of routes
AROUND = {f"left.{each}" for each in ("uses_before-0", "shard-0.rep-0", "shard-1.rep-0", "uses_after-0")}
EVERYBODY = {f"{each}.rep-0" for each in ("front", "right", "join", "loose")} | AROUND


def told(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "uses": "Told", "py_modules": [MODULE], **more}


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    """A diamond with a shard's heads, a join that is not merged, and a floating executor."""
    settings = {
        "forward_headers": ["x-*", "Authorization"],
        "expose_graphql_endpoint": True,
        "cors": True,
    }
    executors = [
        told("front", replicas=1),
        told("left", needs="front", uses_before="Told", uses_after="Told", shards=2, polling="all"),
        told("right", needs="front"),
        told("join", needs=["left", "right"], no_reduce=True),
        told("loose", needs="gateway", floating=True),
    ]
    running = Gateway({"gateway": settings, "executors": executors})
    try:
        ready(running)
        yield running
    finally:
        running.stop()
    assert "s3cret" not in running.output


@pytest.fixture(scope="module")
def one() -> Iterator[Gateway]:
    running = Gateway({"gateway": {"forward_headers": "x-*, y-*"}, "executors": [told("solo")]})
    try:
        ready(running)
        yield running
    finally:
        running.stop()


def ready(gateway: Gateway) -> None:
    with Client(protocol="http", port=gateway.ports["http"]) as client:
        until(client.is_flow_ready, 60.0, lambda: "the executors")


def results(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {name: answer["headers"] for name, answer in parameters["__results__"].items()}


class Asynchronous:
    """The asynchronous client's ``post``, waited for."""

    def __init__(self, **where: Any) -> None:
        self._where = where

    def post(self, *arguments: Any, **keywords: Any) -> list[Any]:
        async def collect() -> list[Any]:
            async with Client(asyncio=True, **self._where) as client:
                return [each async for each in client.post(*arguments, **keywords)]

        return asyncio.run(collect())


@pytest.fixture(params=["waits", "asyncio"])
def kind(request: pytest.FixtureRequest) -> Any:
    return Client if request.param == "waits" else Asynchronous


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("keyword", ["headers", "metadata"])
@pytest.mark.parametrize("endpoint", ["/tell", "/tell_async"])
def test_every_executor_gets_what_a_client_sends(
    gateway: Gateway, protocol: str, keyword: str, endpoint: str, kind: Any, tmp_path: Path
) -> None:
    sent: dict[str, Any] = dict(SENT)
    if keyword == "metadata":
        sent = {name.lower(): value for name, value in SENT.items()} | {"x-raw-bin": b"\x00\xff"}
    client = kind(protocol=protocol, port=gateway.ports[protocol])

    (answer,) = client.post(
        endpoint,
        Document(),
        parameters={"file": str(tmp_path / "got")},
        return_responses=True,
        **{keyword: sent},
    )

    found = results(answer.parameters)
    assert list(found.values()) == [GOT] * len(found)
    for name in EVERYBODY:
        until((tmp_path / f"got.{name}").exists, 30.0, name)
        assert (tmp_path / f"got.{name}").read_text() in ("", repr(sorted(GOT.items())))
    assert answer.headers["x-by"] == ", ".join(BY)
    assert answer.headers["x-raw-bin"] == "AP8"
    assert "y-hidden" not in answer.headers


@pytest.mark.parametrize("stream", [True, False])
def test_each_answer_over_grpc_has_its_own_headers(one: Gateway, stream: bool) -> None:
    with Client(port=one.ports["grpc"]) as client:
        answers = client.post(
            "/tell",
            DocumentArray.empty(6),
            request_size=2,
            headers=SENT,
            stream=stream,
            return_responses=True,
        )

    assert [answer.headers["x-by"] for answer in answers] == ["solo"] * 3


def test_a_client_of_grpc_alone_finds_them_in_the_trailing_metadata(gateway: Gateway) -> None:
    request = DataRequestProto()
    request.header.request_id, request.header.exec_endpoint = "r", "/tell"
    message, metadata = request.SerializeToString(), [("x-tenant", "a"), ("x-raw-bin", b"\xff"), ("y", "b")]
    with grpc.insecure_channel(f"127.0.0.1:{gateway.ports['grpc']}") as channel:
        answer, call = channel.unary_unary(SINGLE).with_call(message, metadata=metadata, timeout=30)
        stream = channel.stream_stream(STREAM)(iter([message, message]), metadata=metadata, timeout=30)
        answers = list(stream)

    for each in (answer, *answers):
        found = DataRequestProto.FromString(each)
        told = results({"__results__": dict(found.parameters["__results__"].items())})
        assert {tuple(sorted(one.items())) for one in told.values()} == {
            (("x-raw-bin", "/w"), ("x-tenant", "a"))
        }
    for trailing in (call.trailing_metadata(), stream.trailing_metadata()):
        assert [value for key, value in trailing if key == "x-by"] == BY
        assert [value for key, value in trailing if key == "x-raw-bin"] == [b"\x00\xff"]


def http(gateway: Gateway, path: str, body: Any, headers: Mapping[str, str]) -> tuple[int, Any, Any]:
    asked = urllib.request.Request(
        f"http://127.0.0.1:{gateway.ports['http']}{path}",
        json.dumps(body).encode(),
        {"Content-Type": "application/json", **headers},
    )
    try:
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return answer.status, answer.headers, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, error.headers, json.loads(error.read())


def test_http_has_them_as_headers_which_scripts_of_other_origins_may_read(gateway: Gateway) -> None:
    status, headers, body = http(gateway, "/post", {"execEndpoint": "/tell"}, {**SENT, "Origin": "http://a"})

    assert status == 200
    assert results(body["parameters"])["front/rep-0"] == GOT
    assert headers.get_all("x-by") == BY
    exposed = ", ".join(headers.get_all("Access-Control-Expose-Headers"))
    assert set(exposed.split(", ")) >= {"X-Request-ID", "x-by", "x-raw-bin"}
    assert "headers" not in body["header"]


def test_graphql_sends_them_with_every_field(gateway: Gateway) -> None:
    query = '{ a: docs(execEndpoint: "/tell") { id } b: docs(execEndpoint: "/tell") { id } }'

    status, headers, body = http(gateway, "/graphql", {"query": query}, SENT)

    assert (status, "errors" in body) == (200, False)
    assert headers.get_all("x-by") == BY
    status, _, body = http(gateway, "/graphql", {"query": query}, {"x-big": "v" * 5000})
    assert (status, body["detail"][:22]) == (431, "the headers to forward")


def test_a_websockets_handshake_has_them_for_all_its_requests(gateway: Gateway) -> None:
    async def converse() -> list[Any]:
        url = f"ws://127.0.0.1:{gateway.ports['websocket']}/"
        async with aiohttp.ClientSession() as session, session.ws_connect(url, headers=SENT) as socket:
            for _ in range(2):
                await socket.send_json({"execEndpoint": "/tell"})
            return [await socket.receive_json(timeout=30) for _ in range(2)]

    for frame in asyncio.run(converse()):
        assert results(frame["parameters"])["join/rep-0"] == GOT
        assert frame["header"]["headers"] == {"x-by": ", ".join(BY), "x-raw-bin": "AP8"}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_failed_request_brings_headers_back_as_well(one: Gateway, protocol: str) -> None:
    with Client(protocol=protocol, port=one.ports[protocol]) as client:
        with pytest.raises(BadServer) as failed:
            client.post("/raise", Document())
        with pytest.raises(BadServer, match="'x-split' cannot be forwarded") as refused:
            client.post("/illegal", Document())

    assert failed.value.response.headers["x-retry"] == "no"
    assert "x-other" not in refused.value.response.headers


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_too_much_is_refused_on_the_way_in_and_dropped_on_the_way_back(one: Gateway, protocol: str) -> None:
    with Client(protocol=protocol, port=one.ports[protocol]) as client:
        with pytest.raises((RequestRefused, BadServerFlow), match=r"431|the headers to forward"):
            client.post("/tell", Document(), headers={"x-big": "v" * 5000})
        (answer,) = client.post("/much", Document(), return_responses=True)

    assert answer.headers["x-little"] == "1"
    assert "x-much" not in answer.headers
    one.line("headers of executors are more than 4096 bytes .* does not get x-much")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_method_that_names_no_headers_gets_the_keywords_of_the_reference(
    one: Gateway, protocol: str
) -> None:
    with Client(protocol=protocol, port=one.ports[protocol]) as client:
        (answer,) = client.post("/keywords", Document(), headers=SENT, return_responses=True)

    (found,) = answer.parameters["__results__"].values()
    assert found["keywords"] == ["docs_map", "docs_matrix", "parameters", "tracing_context"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_batch_holds_requests_of_equal_headers_only(one: Gateway, protocol: str) -> None:
    async def ask() -> list[Any]:
        async with Client(asyncio=True, protocol=protocol, port=one.ports[protocol]) as client:

            async def post(tenant: str) -> Any:
                headers = {"x-tenant": tenant}
                (answer,) = [each async for each in client.post(
                    "/batched", Document(), headers=headers, return_responses=True
                )]  # fmt: skip
                return answer

            return await asyncio.gather(*map(post, "aab"))

    answers = asyncio.run(ask())

    assert [answer.docs[0].tags["x-tenant"] for answer in answers] == ["a", "a", "b"]
    assert answers[2].headers["x-size"] == "1"


class Names(Executor):
    """A Flow in Python sends it by value."""

    @requests
    def names(self, headers, response_headers, **kwargs):
        response_headers["x-seen"] = "yes"
        return {"headers": headers}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_flow_in_python_forwards_what_it_lists_and_nothing_by_default(protocol: str) -> None:
    for settings, got in (({"forward_headers": ["x-tenant"]}, {"x-tenant": "a"}), ({}, {})):
        with Flow(protocol=protocol, **settings).add(name="solo", uses=Names) as flow:
            (answer,) = flow.post("/", Document(), headers=SENT, return_responses=True)
        assert results(answer.parameters) == {"solo/rep-0": got}
        assert "x-seen" not in answer.headers


class Trusted(GatewayClass):
    """Tells executors who the client is, under a name that clients cannot use."""

    app = Klein()

    @app.route("/ask")
    async def ask(self, request: Any) -> str:
        headers = {"user": "ann", "x-raw-bin": b"\xff"}
        answer = await self.post("/", Document(), headers=headers, return_responses=True)
        try:
            await self.post("/", headers={"content-type": "text/plain"})
        except RequestRefused as error:
            return (
                f"{json.dumps(results(answer.parameters), sort_keys=True)} {answer.headers['x-seen']} {error}"
            )
        return "not refused"


def test_a_gateway_class_sends_headers_that_clients_cannot() -> None:
    flow = Flow(protocol="http", forward_headers="x-*").config_gateway(uses=Trusted)
    with flow.add(name="solo", uses=Names) as flow:
        (answer,) = flow.post("/", Document(), headers={"user": "bob"}, return_responses=True)
        with urllib.request.urlopen(f"http://127.0.0.1:{flow.port}/ask", timeout=30) as asked:
            told = asked.read().decode()

    assert results(answer.parameters) == {"solo/rep-0": {}}
    assert told == (
        '{"solo/rep-0": {"user": "ann", "x-raw-bin": "/w"}} yes the header \'content-type\' cannot be '
        "forwarded: this name belongs to gRPC, HTTP or the gateway"
    )


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_they_pass_through_a_gateway_behind_the_gateway(one: Gateway, protocol: str) -> None:
    settings = {"forward_headers": ["x-tenant", "x-by"]}
    running = Gateway({"gateway": settings, "executors": [external("inner", one.ports["grpc"])]})
    try:
        ready(running)
        with Client(protocol=protocol, port=running.ports[protocol]) as client:
            (answer,) = client.post("/tell", Document(), headers=SENT, return_responses=True)
    finally:
        running.stop()

    assert results(answer.parameters) == {"solo/rep-0": {"x-tenant": "a"}}
    assert answer.headers["x-by"] == "solo"
    assert "x-raw-bin" not in answer.headers


def test_a_larger_bound_holds_on_the_whole_way() -> None:
    settings = {"forward_headers": ["x-*"], "forward_headers_max_bytes": 40_000}
    running = Gateway({"gateway": settings, "executors": [told("solo")]})
    try:
        ready(running)
        for protocol in PROTOCOLS:
            with Client(protocol=protocol, port=running.ports[protocol]) as client:
                # A line of HTTP may have 16 KiB.
                sent = {f"x-{number}": "v" * 7000 for number in range(5)}
                (answer,) = client.post("/much", Document(), return_responses=True)
                assert len(answer.headers["x-much"]) == 20_000
                (answer,) = client.post("/tell", Document(), headers=sent, return_responses=True)
            assert results(answer.parameters) == {"solo/rep-0": sent}
    finally:
        running.stop()
