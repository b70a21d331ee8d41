"""Each page and method that asks the gateway about itself has a switch; ``production`` turns all off."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
import requests
import websockets.sync.client
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from websockets.exceptions import InvalidStatus

from gatewayd.config import load_flow_text
from gatewayd.messages import methods
from tests.processes import Gateway

SERVERS = ("grpcio", "gatewayd")
EVERYTHING = {
    "http /status",
    "http /dry_run",
    "http /docs",
    "http /redoc",
    "http /openapi.json",
    "http GraphiQL",
    "websocket port /status",
    "websocket port /dry_run",
    "websocket port /docs",
    "websocket /dry_run",
    "grpc _status",
    "grpc dry_run",
    "grpc reflection",
}
BY_KEY = {
    "expose_status": {"http /status", "websocket port /status", "grpc _status"},
    "expose_dry_run": {"http /dry_run", "websocket port /dry_run", "websocket /dry_run", "grpc dry_run"},
    "expose_docs": {"http /docs", "http /redoc", "http /openapi.json", "websocket port /docs"},
    "expose_reflection": {"grpc reflection"},
    "expose_graphiql": {"http GraphiQL"},
}


@pytest.fixture(scope="module")
def gateway() -> Iterator[Callable[..., Gateway]]:
    running: list[Gateway] = []

    def start(**keys: Any) -> Gateway:
        running.append(Gateway({"gateway": {"expose_graphql_endpoint": True, **keys}}))
        return running[-1]

    yield start
    for one in running:
        one.stop()


def found(gateway: Gateway) -> set[str]:
    """What a stranger gets from ``gateway``."""
    shown: set[str] = set()
    for protocol, name in (("http", "http"), ("websocket", "websocket port")):
        for path in ("/status", "/dry_run", "/docs", "/redoc", "/openapi.json"):
            answer = requests.get(f"http://127.0.0.1:{gateway.ports[protocol]}{path}", timeout=20)
            assert answer.status_code in (200, 404)
            if answer.status_code == 200:
                shown.add(f"{name} {path}")
    page = requests.get(
        f"http://127.0.0.1:{gateway.ports['http']}/graphql", headers={"Accept": "text/html"}, timeout=20
    )
    assert page.status_code in (200, 400)
    if page.status_code == 200:
        shown.add("http GraphiQL")
    address = f"ws://127.0.0.1:{gateway.ports['websocket']}/dry_run"
    with contextlib.suppress(InvalidStatus), websockets.sync.client.connect(address, proxy=None):
        shown.add("websocket /dry_run")
    with grpc.insecure_channel(f"127.0.0.1:{gateway.ports['grpc']}") as channel:
        for path in (methods.STATUS, methods.DRY_RUN):
            call: Any = channel.unary_unary(path).future(b"", timeout=20)
            assert call.code() in (grpc.StatusCode.OK, grpc.StatusCode.UNIMPLEMENTED)
            if call.code() is grpc.StatusCode.OK:
                shown.add(f"grpc {path.rpartition('/')[2]}")
        with contextlib.suppress(grpc.RpcError):
            assert "jina.JinaRPC" in ProtoReflectionDescriptorDatabase(channel).get_services()
            shown.add("grpc reflection")
    return shown & EVERYTHING


def still_works(gateway: Gateway) -> bool:
    """Whether requests, GraphQL's queries and health checks are answered."""
    url = f"http://127.0.0.1:{gateway.ports['http']}"
    posted = requests.post(f"{url}/post", json={"data": [{"text": "a"}]}, timeout=20)
    queried = requests.post(f"{url}/graphql", json={"query": "{ docs { id } }"}, timeout=20)
    with grpc.insecure_channel(f"127.0.0.1:{gateway.ports['grpc']}") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        check = health.Check(health_pb2.HealthCheckRequest(), timeout=20, wait_for_ready=True)
        message = channel.unary_unary(methods.SINGLE)(b"", timeout=20)
    alive = requests.get(url, timeout=20)
    return (
        [posted.status_code, queried.json(), alive.json()] == [200, {"data": {"docs": []}}, {}]
        and check.status == health_pb2.HealthCheckResponse.SERVING
        and bool(message)
    )


@pytest.mark.parametrize("server", SERVERS)
def test_all_of_it_is_there_by_default(gateway: Callable[..., Gateway], server: str) -> None:
    assert found(gateway(grpc_server=server)) == EVERYTHING


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("key", BY_KEY)
def test_a_key_turns_off_what_it_names_on_every_protocol(
    gateway: Callable[..., Gateway], key: str, server: str
) -> None:
    one = gateway(**{key: False, "grpc_server": server})

    assert EVERYTHING - found(one) == BY_KEY[key]
    assert still_works(one)


@pytest.mark.parametrize("server", SERVERS)
def test_nothing_is_there_in_production(gateway: Callable[..., Gateway], server: str) -> None:
    one = gateway(production=True, grpc_server=server)

    assert found(one) == set()
    assert still_works(one)


def test_a_key_that_is_set_wins_over_production(gateway: Callable[..., Gateway]) -> None:
    one = gateway(production=True, expose_dry_run=True, expose_reflection=True)

    assert found(one) == BY_KEY["expose_dry_run"] | BY_KEY["expose_reflection"]


def test_the_documentation_describes_what_is_there(gateway: Callable[..., Gateway]) -> None:
    one = gateway(expose_status=False)

    paths = requests.get(f"http://127.0.0.1:{one.ports['http']}/openapi.json", timeout=20).json()["paths"]
    assert "/dry_run" in paths
    assert "/status" not in paths


@pytest.mark.parametrize("where", ["gateway", "with"])
def test_production_may_stand_in_the_gateway_or_in_with(where: str) -> None:
    config = load_flow_text(f"jtype: Flow\n{where}: {{production: true}}\n").gateway

    assert config.production
    assert not config.expose_docs


def test_no_answer_names_a_version_of_a_library(gateway: Callable[..., Gateway]) -> None:
    one = gateway(production=True)
    url = f"http://127.0.0.1:{one.ports['http']}"

    for answer in (
        requests.get(url, timeout=20),
        requests.get(f"{url}/nothing", timeout=20),
        requests.put(f"{url}/post", timeout=20),
        requests.post(f"{url}/post", data=b"{", timeout=20),
        requests.post(f"{url}/graphql", data=b"{", timeout=20),
    ):
        shown = f"{answer.headers} {answer.text}".lower()
        assert answer.headers["Server"] == "gatewayd"
        assert not any(word in shown for word in ("twisted", "autobahn", "klein", "python", "traceback"))
