"""What HTTP says of misspelt endpoints and unknown paths, and the paths of all that executors bind."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest
import pytest_twisted

from gatewayd.config.model import GatewayConfig
from gatewayd.messages.discovery import Endpoints
from gatewayd.messages.request import Request, Response
from gatewayd.protocols.http.hints import hint_for
from gatewayd.protocols.http.openapi import openapi
from gatewayd.protocols.http.routes import endpoint_routes
from tests.protocols.harness import FakeDispatcher, answer_to, in_thread, served
from tests.protocols.http.test_http import call

BOUND = Endpoints({"/classify": "Says what it is.\n\nIn more words.", "/index": "Remembers.", "/default": ""})
ALL: dict[str, dict[str, Any]] = {"*": {}}
HINT = "no executor binds the endpoint '/f\u00fc'; they bind '/index'"


def hinted(request: Request) -> Response:
    return attrs.evolve(answer_to(request), hint=HINT)


def knowing(endpoints: Endpoints = BOUND) -> FakeDispatcher:
    return FakeDispatcher(endpoints=endpoints)


# -- requests that no executor works on ---------------------------------------------------------------

JSON = {"Content-Type": "application/json"}
QUERY = {"query": "{ docs { id } }"}


@pytest_twisted.ensureDeferred
async def test_an_answer_without_work_has_a_hint_in_a_header() -> None:
    async with served(dispatcher=FakeDispatcher(hinted), expose_graphql_endpoint=True) as gateway:
        for path in ("/post", "/search"):
            status, headers, _ = await in_thread(call, gateway.port, "POST", path, {})
            assert status == 200
            assert headers["x-gatewayd-hint"] == HINT.replace("\u00fc", "\\xfc")
        query = {"query": "{ a: docs { id } b: docs { id } }"}
        status, _, body = await in_thread(call, gateway.port, "POST", "/graphql", query, JSON)
        assert json.loads(body)["extensions"] == {"hints": [HINT]}


@pytest_twisted.ensureDeferred
async def test_an_ordinary_answer_has_no_hint() -> None:
    async with served(expose_graphql_endpoint=True) as gateway:
        _, headers, _ = await in_thread(call, gateway.port, "POST", "/post", {})
        assert "x-gatewayd-hint" not in headers
        _, _, body = await in_thread(call, gateway.port, "POST", "/graphql", QUERY, JSON)
        assert list(json.loads(body)) == ["data"]


@pytest_twisted.ensureDeferred
async def test_without_debug_endpoints_nothing_is_said_of_endpoints() -> None:
    settings = {"no_debug_endpoints": True, "expose_graphql_endpoint": True}
    async with served(dispatcher=FakeDispatcher(hinted, endpoints=BOUND), **settings) as gateway:
        _, headers, _ = await in_thread(call, gateway.port, "POST", "/search", {})
        assert "x-gatewayd-hint" not in headers
        _, _, body = await in_thread(call, gateway.port, "POST", "/graphql", QUERY, JSON)
        assert list(json.loads(body)) == ["data"]
        _, _, body = await in_thread(call, gateway.port, "POST", "/classify", {})
        assert json.loads(body) == {"detail": "Not Found"}


# -- unknown paths ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "PUT", "GET"])
@pytest_twisted.ensureDeferred
async def test_the_404_of_an_endpoint_without_a_path_says_how_to_reach_and_expose_it(method: str) -> None:
    async with served(dispatcher=knowing()) as gateway:
        for path in ("/classify", "/cl%61ssify"):
            status, _, body = await in_thread(call, gateway.port, method, path, {})
            found = json.loads(body)
            assert (status, found["detail"]) == (404, "Not Found")
            assert "executors bind the endpoint /classify" in found["hint"]
            for words in (
                '"execEndpoint": "/classify"',
                "expose_endpoints: all",
                'expose_endpoint("/classify")',
            ):
                assert words in found["hint"]


@pytest_twisted.ensureDeferred
async def test_the_404_of_another_path_names_the_endpoints_unless_it_is_only_read() -> None:
    async with served(dispatcher=knowing()) as gateway:
        _, _, body = await in_thread(call, gateway.port, "POST", "/clasify", {})
        assert "executors bind /classify, /index, /default. POST /post" in json.loads(body)["hint"]
        for method, path in (("GET", "/favicon.ico"), ("GET", "/%ff"), ("GET", "//classify")):
            status, _, body = await in_thread(call, gateway.port, method, path)
            assert (status, json.loads(body)) == (404, {"detail": "Not Found"})


@pytest_twisted.ensureDeferred
async def test_a_port_of_websocket_alone_gives_no_hints() -> None:
    async with served(("websocket",), knowing(), expose_endpoints=ALL) as gateway:
        status, _, body = await in_thread(call, gateway.port, "POST", "/classify", {})
        assert (status, json.loads(body)) == (404, {"detail": "Not Found"})


def test_hints_name_so_many_endpoints_and_what_is_not_known() -> None:
    many = Endpoints({f"/{number}": "" for number in range(50)} | {"/" + "x" * 500: ""}, ("late", "later"))
    for gateway in (GatewayConfig(), GatewayConfig(expose_endpoints=ALL)):
        hint = hint_for("POST", "/nope", many, endpoint_routes(gateway, many.bound))
        assert "/19 and 31 more" in hint
        assert hint.endswith("What late, later binds is not known yet")
    assert "x" * 100 not in hint_for("POST", "/" + "x" * 500, many, ())
    assert hint_for("POST", "/nope", Endpoints({}, ("late",)), ()) == ""


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_404_of_an_endpoint_with_another_path_names_that(method: str) -> None:
    exposed = {"/classify": {"http_path": "/sort", "methods": ["GET", "PUT"]}}
    routes = endpoint_routes(GatewayConfig(expose_endpoints=exposed))
    hint = "the endpoint /classify has another path: GET or PUT /sort"
    assert hint_for(method, "/classify", BOUND, routes) == hint
    assert hint_for(method, "/classify", Endpoints(), routes) == hint


# -- all exposed --------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_all_endpoints_that_executors_bind_have_paths() -> None:
    async with served(dispatcher=knowing(), expose_endpoints=ALL) as gateway:
        for path in ("/classify", "/default", "/classify/", "/cl%61ssify"):
            status, headers, body = await in_thread(call, gateway.port, "POST", path, {})
            if path.endswith("/"):
                assert (status, headers["location"]) == (307, "/classify")
            else:
                assert status == 200
                assert json.loads(body)["header"]["execEndpoint"] == path.replace("%61", "a")
        status, headers, _ = await in_thread(call, gateway.port, "GET", "/classify")
        assert (status, headers["allow"]) == (405, "OPTIONS, POST")
        _, _, body = await in_thread(call, gateway.port, "POST", "/nope", {})
        assert json.loads(body)["hint"].startswith(
            "the endpoints that executors bind have paths: /classify, "
        )


@pytest_twisted.ensureDeferred
async def test_paths_come_with_executors_and_stay() -> None:
    dispatcher = knowing(Endpoints({}, ("late",)))
    async with served(dispatcher=dispatcher, expose_endpoints=ALL) as gateway:

        async def status_of(path: str) -> int:
            status, _, _ = await in_thread(call, gateway.port, "POST", path, {})
            return int(status)

        async def described() -> list[str]:
            _, _, body = await in_thread(call, gateway.port, "GET", "/openapi.json")
            return [path for path in json.loads(body)["paths"] if path in BOUND.bound]

        assert (await status_of("/classify"), await described()) == (503, ["/index"])
        dispatcher.endpoints = BOUND
        assert (await status_of("/classify"), await described()) == (200, ["/index", "/classify", "/default"])
        dispatcher.endpoints = Endpoints({"/other": ""})
        assert [await status_of("/other"), await status_of("/classify")] == [200, 200]


@pytest_twisted.ensureDeferred
async def test_a_path_of_the_gateways_own_wins_over_an_endpoint() -> None:
    dispatcher = knowing(Endpoints({"/": "", "/status": "", "/post": "", "/docs": ""}))
    async with served(dispatcher=dispatcher, expose_endpoints=ALL) as gateway:
        for path in ("/", "/status", "/docs"):
            status, _, _ = await in_thread(call, gateway.port, "GET", path)
            assert status == 200
            assert not dispatcher.requests
        for path, endpoint in (("/", "/"), ("/status", "/status"), ("/post", "/mine")):
            await in_thread(call, gateway.port, "POST", path, {"execEndpoint": "/mine"})
            assert dispatcher.requests[-1].endpoint == endpoint


def test_options_hold_for_all_that_are_not_named() -> None:
    exposed = {"*": {"methods": ["PUT"], "tags": ["mine"]}, "/index": {"http_path": "/remember"}}
    gateway = GatewayConfig(expose_endpoints=exposed, no_crud_endpoints=True)
    routes = {route.path: route for route in endpoint_routes(gateway, BOUND.bound)}

    assert list(routes) == ["/post", "/remember", "/classify", "/default"]
    assert (routes["/classify"].methods, routes["/classify"].tags) == (("PUT",), ("mine",))
    assert (routes["/remember"].methods, routes["/remember"].endpoint) == (("POST",), "/index")


def test_endpoints_that_cannot_be_paths_are_left_out_and_crud_paths_stay_what_they_are() -> None:
    bound = ["plain", "/<x>", "/a|b", "", "/\u00fc", "/" + "x" * 2000, "/update", "/fine"]
    routes = endpoint_routes(GatewayConfig(expose_endpoints=ALL), bound)
    assert [(route.path, route.methods) for route in routes[-2:]] == [
        ("/update", ("PUT",)),
        ("/fine", ("POST",)),
    ]


# -- in the documentation -----------------------------------------------------------------------------


def test_docstrings_are_descriptions_unless_there_is_one_in_the_settings() -> None:
    exposed = {"*": {}, "/own": {"description": "mine"}}
    bound = {**BOUND.bound, "/own": "not shown"}
    paths = openapi(GatewayConfig(expose_endpoints=exposed), full=True, endpoints=Endpoints(bound))["paths"]

    assert paths["/classify"]["post"]["description"].startswith(
        "Says what it is.\n\nIn more words.\n\nAn executor"
    )
    assert paths["/index"]["post"]["description"].startswith("Remembers.\n\nAn executor")
    assert paths["/default"]["post"]["description"].startswith("An executor")
    assert paths["/own"]["post"]["description"] == "mine"
    assert "post" not in paths["/"]


def test_paths_that_endpoints_share_with_the_gateway_keep_both_descriptions() -> None:
    bound = {"/": "", "/status": "", "/graphql": ""}
    exposed = {"*": {"methods": ["GET", "PUT"]}}
    gateway = GatewayConfig(expose_endpoints=exposed, expose_graphql_endpoint=True)
    paths = openapi(gateway, full=True, endpoints=Endpoints(bound))["paths"]

    assert [sorted(paths[path]) for path in bound] == [["get", "put"], ["get", "put"], ["get", "post", "put"]]
    assert [paths[path]["get"]["operationId"] for path in bound] == ["health", "status", "graphql_get"]


@pytest.mark.parametrize(
    ("bound", "tried"),
    [({}, "/"), ({"/a": "", "/": ""}, "/"), ({"/a": "", "/default": ""}, "/"), ({"/b": "", "/a": ""}, "/b")],
)
def test_the_endpoint_that_pages_fill_in_is_one_that_executors_bind(
    bound: dict[str, str], tried: str
) -> None:
    paths = openapi(GatewayConfig(), full=True, endpoints=Endpoints(bound))["paths"]
    assert (
        paths["/post"]["post"]["requestBody"]["content"]["application/json"]["example"]["execEndpoint"]
        == tried
    )
