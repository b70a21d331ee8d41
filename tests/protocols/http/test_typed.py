"""HTTP of the second generation: routes, bodies and answers by the schemas that executors tell (golden34)."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import quote

import attrs
import pytest
import pytest_twisted

from gatewayd.config.model import GatewayConfig
from gatewayd.errors import DeadlineExceeded, ExecutorUnreachable
from gatewayd.messages.discovery import Endpoints, TypedEndpoint
from gatewayd.messages.generations import Generation
from gatewayd.messages.request import Request, Response
from gatewayd.pb import StatusProto
from gatewayd.protocols.http.openapi import openapi
from gatewayd.protocols.http.schemas import referred
from tests.golden34_data import endpoints_of, golden, typed
from tests.protocols.harness import FakeDispatcher, answer_to, in_thread, served
from tests.protocols.http.test_http import call

DOCUMENT = {"id": "d", "text": "hi"}


def of_second(request: Request) -> Response:
    return attrs.evolve(answer_to(request), routes=())


def knowing(*executors: str, **more: Any) -> FakeDispatcher:
    return FakeDispatcher(of_second, endpoints=endpoints_of(*(executors or ("A",))), **more)


@pytest_twisted.ensureDeferred
async def test_each_bound_endpoint_has_a_route_that_reads_and_writes_its_documents() -> None:
    async with served(dispatcher=knowing()) as gateway:
        body = {"data": [{"id": "d", "text": "hi", "num": "7"}], "header": {"request_id": "R"}}
        status, headers, answer = await in_thread(call, gateway.port, "POST", "/echo", body)
        assert status == 200
        assert headers["content-type"] == "application/json"
        assert json.loads(answer) == {
            "data": [{"id": "d", "text": "hi", "num": 7, "price": 0.5, "flag": False, "note": None}],
            "parameters": {},
            "header": {"request_id": "R", "target_executor": ""},
        }
        (request,) = gateway.dispatcher.requests
        assert (request.endpoint, request.request_id) == ("/echo", "R")


@pytest_twisted.ensureDeferred
async def test_the_routes_of_the_first_generation_are_not_there() -> None:
    async with served(dispatcher=knowing()) as gateway:
        for path in ("/index", "/search", "/graphql", "/nope", "/default", "/_jina_dry_run_"):
            status, _, answer = await in_thread(call, gateway.port, "POST", path, {"data": [DOCUMENT]})
            assert (status, json.loads(answer)["detail"]) == (404, "Not Found"), path
        status, headers, _ = await in_thread(call, gateway.port, "GET", "/echo")
        assert (status, headers["allow"]) == (405, "OPTIONS, POST")
        status, headers, _ = await in_thread(call, gateway.port, "POST", "/echo/", {"data": []})
        assert (status, headers["location"]) == (307, "/echo")


@pytest_twisted.ensureDeferred
async def test_more_documents_than_the_reference_takes_at_once_are_one_request() -> None:
    async with served(dispatcher=knowing()) as gateway:
        body = {"data": [{"id": f"d{n}", "text": "t"} for n in range(250)]}
        _, _, answer = await in_thread(call, gateway.port, "POST", "/echo", body)
        assert [each["id"] for each in json.loads(answer)["data"]] == [f"d{n}" for n in range(250)]
        assert len(gateway.dispatcher.requests) == 1


@pytest_twisted.ensureDeferred
async def test_mistakes_are_a_422_with_their_places() -> None:
    async with served(dispatcher=knowing()) as gateway:
        status, _, answer = await in_thread(call, gateway.port, "POST", "/echo", {"data": [{"num": 1.5}]})
        assert status == 422
        assert [problem["loc"] for problem in json.loads(answer)["detail"]] == [
            ["body", "data", "list[In]", 0, "num"],
            ["body", "data", "list[In]", 0, "text"],
        ]
        for body, kind in (("", "missing"), ("{", "json_invalid"), ("[1]", "model_attributes_type")):
            status, _, answer = await in_thread(call, gateway.port, "POST", "/echo", body)
            assert (status, json.loads(answer)["detail"][0]["type"]) == (422, kind)
        many = {"data": [{"text": ""}] * 11}
    async with served(dispatcher=knowing(), max_documents=10) as gateway:
        status, _, answer = await in_thread(call, gateway.port, "POST", "/echo", many)
        assert (status, "max_documents" in json.loads(answer)["detail"]) == (413, True)


@pytest_twisted.ensureDeferred
async def test_what_an_executor_raises_is_a_500_with_its_words() -> None:
    status = StatusProto(code=StatusProto.ERROR, description="ValueError('boom', 1)").SerializeToString()
    dispatcher = knowing()
    dispatcher.behaviour = lambda request: attrs.evolve(of_second(request), status=status)
    async with served(dispatcher=dispatcher) as gateway:
        code, _, answer = await in_thread(call, gateway.port, "POST", "/raise", {"data": [DOCUMENT]})
        assert (code, answer) == (500, b'{"detail":"ValueError(\'boom\', 1)"}')


@pytest.mark.parametrize(("error", "code"), [(ExecutorUnreachable, 503), (DeadlineExceeded, 504)])
@pytest_twisted.ensureDeferred
async def test_an_executor_that_is_down_is_told_so_that_the_client_knows(error: Any, code: int) -> None:
    def fail(request: Request) -> Response:
        raise error("a", ["h:1"], "down")

    dispatcher = knowing()
    dispatcher.behaviour = fail
    async with served(dispatcher=dispatcher) as gateway:
        status, _, answer = await in_thread(call, gateway.port, "POST", "/echo", {"data": [DOCUMENT]})
        body = json.loads(answer)
        assert (status, list(body)) == (code, ["data", "parameters", "header"])
        assert body["data"][0]["id"] == "d"
        assert body["header"]["status"]["description"].startswith("down")


@pytest_twisted.ensureDeferred
async def test_post_reaches_any_endpoint_with_or_without_a_schema() -> None:
    async with served(dispatcher=knowing()) as gateway:
        body = {"data": [DOCUMENT], "exec_endpoint": "/echo", "header": {"request_id": "R"}}
        _, _, answer = await in_thread(call, gateway.port, "POST", "/post", body)
        assert json.loads(answer)["data"][0]["num"] == 3
        body = {"data": [{"a": [1, {"b": None}]}], "header": {"exec_endpoint": "/unbound"}}
        _, _, answer = await in_thread(call, gateway.port, "POST", "/post", body)
        assert json.loads(answer)["data"] == [{"a": [1, {"b": None}]}]
        assert [request.endpoint for request in gateway.dispatcher.requests] == ["/echo", "/unbound"]
        status, _, _ = await in_thread(call, gateway.port, "POST", "/post", {})  # what the log says to try
        assert status == 200


@pytest_twisted.ensureDeferred
async def test_names_that_are_odd_or_the_gateways_own_have_their_routes() -> None:
    names = [
        "/",
        "noslash",
        "/a/b",
        "/status",
        "/docs",
        "/dry_run",
        "/item/{x}",
        "/two words",
        "/default",
        "/post",
    ]
    endpoints = Endpoints(
        dict.fromkeys(names, ""),
        generation=Generation.SECOND,
        typed={name: typed("A", "/echo") for name in names},
    )
    async with served(dispatcher=FakeDispatcher(of_second, endpoints=endpoints)) as gateway:
        for name in names:
            path = quote("/" + name.strip("/"), safe="/{}")
            status, _, answer = await in_thread(call, gateway.port, "POST", path, {"data": [DOCUMENT]})
            assert (status, gateway.dispatcher.requests[-1].endpoint) == (200, name), answer
        status, _, _ = await in_thread(call, gateway.port, "POST", "/item/5", {"data": [DOCUMENT]})
        assert status == 404
        for path in ("/", "/status", "/docs", "/dry_run"):
            status, _, _ = await in_thread(call, gateway.port, "GET", path)
            assert status == 200
        _, _, answer = await in_thread(call, gateway.port, "GET", "/openapi.json")
        paths = json.loads(answer)["paths"]
        assert {"/noslash", "/a/b", "/item/%7Bx%7D", "/two words", "/default"} <= paths.keys()
        assert paths["/status"].keys() == {"get", "post"}


@pytest_twisted.ensureDeferred
async def test_routes_come_as_executors_tell_and_the_generation_with_them() -> None:
    dispatcher = FakeDispatcher(of_second, endpoints=Endpoints(unknown=("a",)))
    async with served(dispatcher=dispatcher) as gateway:
        status, headers, answer = await in_thread(call, gateway.port, "POST", "/echo", {"data": [DOCUMENT]})
        assert (status, headers["retry-after"]) == (503, "1"), "there may be such an endpoint soon"
        assert "no executor has told what it binds" in json.loads(answer)["detail"]
        status, _, answer = await in_thread(call, gateway.port, "POST", "/search", {})
        assert "routes" in json.loads(answer)
        dispatcher.endpoints = endpoints_of("A")
        status, _, answer = await in_thread(call, gateway.port, "POST", "/echo", {"data": [DOCUMENT]})
        assert (status, list(json.loads(answer))) == (200, ["data", "parameters", "header"])
        status, _, _ = await in_thread(call, gateway.port, "POST", "/search", {})
        assert status == 404
        # An executor that comes back with another class for its documents.
        again = {**dispatcher.endpoints.typed, "/echo": typed("A", "/rich")}
        dispatcher.endpoints = attrs.evolve(dispatcher.endpoints, typed=again)
        _, _, answer = await in_thread(call, gateway.port, "POST", "/echo", {"data": [{"title": "t"}]})
        assert json.loads(answer)["data"][0]["title"] == "t"


@pytest_twisted.ensureDeferred
async def test_exposed_endpoints_have_further_paths_and_post_can_be_switched_off() -> None:
    exposed: dict[str, Any] = {"/echo": {"http_path": "/other", "methods": ["PUT"], "status_code": 201}}
    async with served(dispatcher=knowing(), expose_endpoints=exposed, no_debug_endpoints=True) as gateway:
        for method, path, wanted in (("PUT", "/other", 201), ("POST", "/echo", 200), ("POST", "/post", 404)):
            status, _, _ = await in_thread(call, gateway.port, method, path, {"data": [DOCUMENT]})
            assert status == wanted


# -- OpenAPI ------------------------------------------------------------------------------------------


def described(*executors: str, **settings: Any) -> dict[str, Any]:
    return openapi(GatewayConfig(**settings), full=True, endpoints=endpoints_of(*executors))


def test_openapi_lists_every_endpoint_under_its_own_path_as_the_reference_does() -> None:
    for executor, name in (("A", "openapi_typed"), ("S", "openapi_stream")):
        ours, theirs = described(executor)["paths"], golden(name)["paths"]
        for path, item in theirs.items():
            assert item.keys() <= ours[path].keys(), path
        assert ours.keys() - theirs.keys() == {"/post"}


def test_every_reference_in_openapi_resolves_and_there_is_nothing_more() -> None:
    document = described("A", "S", "Def")
    schemas = document["components"]["schemas"]
    names = set(referred(document["paths"])) | set(referred(schemas))
    assert names == schemas.keys()
    text = json.dumps(document)
    assert text.count('"$ref"') == text.count('"$ref": "#/components/schemas/')
    assert "$defs" not in text


def test_openapi_is_valid() -> None:
    validator = pytest.importorskip("openapi_spec_validator")
    validator.validate(json.loads(json.dumps(described("A", "S", "Def"))))


def test_two_classes_of_one_name_are_two_components() -> None:
    first: dict[str, Any] = {"type": "object", "title": "Same", "properties": {"a": {"type": "string"}}}
    second: dict[str, Any] = {"type": "object", "title": "Same", "properties": {"b": {"type": "integer"}}}
    endpoints = Endpoints(
        {"/1": "", "/2": ""},
        generation=Generation.SECOND,
        typed={
            "/1": TypedEndpoint(first, first, "Same", "Same"),
            "/2": TypedEndpoint(second, second, "Same", "StatusProto"),
        },
    )
    schemas = openapi(GatewayConfig(), full=True, endpoints=endpoints)["components"]["schemas"]
    assert schemas["Same"]["properties"].keys() == {"a"}
    assert schemas["Same_2"]["properties"].keys() == {"b"}
    assert schemas["StatusProto_2"]["properties"].keys() == {"b"}


def test_one_class_of_two_executors_is_one_component_whatever_its_examples() -> None:
    names = described("A", "S")["components"]["schemas"]
    assert not [name for name in names if name.endswith("_2")]


def test_openapi_describes_streams_and_what_a_query_may_say() -> None:
    item = described("S")["paths"]["/stream"]
    for method in ("get", "post"):
        content = item[method]["responses"]["200"]["content"]
        assert content.keys() == {"text/event-stream", "application/x-ndjson"}
    names = [parameter["name"] for parameter in item["get"]["parameters"]]
    assert names == ["text", "flag", "id", "note", "num", "price"]
    assert "422" in item["get"]["responses"]


@pytest_twisted.ensureDeferred
async def test_the_pages_are_there() -> None:
    async with served(dispatcher=knowing()) as gateway:
        for path in ("/docs", "/redoc"):
            status, headers, _ = await in_thread(call, gateway.port, "GET", path)
            assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")


@pytest_twisted.ensureDeferred
async def test_a_large_body_is_read_apart_and_its_answer_compressed() -> None:
    async with served(dispatcher=knowing(), compress_above_bytes=100) as gateway:

        def ask() -> tuple[int, str | None]:
            client = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)
            body = json.dumps({"data": [{"text": "x" * 1000}] * 200})
            client.request("POST", "/echo", body, {"Accept-Encoding": "gzip"})
            answer = client.getresponse()
            answer.read()
            client.close()
            return answer.status, answer.getheader("content-encoding")

        assert await in_thread(ask) == (200, "gzip")
        assert gateway.buffers.held_bytes == 0
