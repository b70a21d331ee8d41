"""Rates of callers who show who they are: each has its own, over all protocols together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
import requests
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from gatewayd.messages import methods, wire
from gatewayd.messages.request import Request
from tests.paths import ROOT
from tests.processes import Gateway

REC = {"name": "exec_a", "uses": "Rec", "py_modules": str(ROOT / "tests" / "executors.py")}
KEYS = {name: f"the-key-of-{name}-{'x' * 32}" for name in ("team-a", "team-b")}
DIGESTS = {name: f"sha256:{hashlib.sha256(key.encode()).hexdigest()}" for name, key in KEYS.items()}


@pytest.fixture(scope="module", params=["grpcio", "gatewayd"])
def gateway(request: pytest.FixtureRequest) -> Iterator[Gateway]:
    settings = {
        "auth": {"api_keys": DIGESTS},
        "rates": [{"requests": 3, "per": 1000, "endpoints": ["/all"]}],
        "grpc_server": request.param,
    }
    gateway = Gateway({"gateway": settings, "executors": [REC]})
    yield gateway
    gateway.stop()


def over_http(gateway: Gateway, key: str) -> int:
    url = f"http://127.0.0.1:{gateway.ports['http']}/post"
    return requests.post(
        url, json={"execEndpoint": "/all"}, headers={"X-API-Key": key}, timeout=10
    ).status_code


def over_grpc(gateway: Gateway, key: str) -> str:
    with grpc.insecure_channel(f"127.0.0.1:{gateway.ports['grpc']}") as channel:
        try:
            message = wire.encode_request(Request("r", "/all"))
            channel.unary_unary(methods.SINGLE)(message, timeout=10, metadata=[("x-api-key", key)])
        except grpc.RpcError as error:
            return str(error.code().name)  # type: ignore[attr-defined]
        return "OK"


def over_websocket(gateway: Gateway, key: str) -> int:
    url, headers = f"ws://127.0.0.1:{gateway.ports['websocket']}/", {"X-API-Key": key}
    with connect(url, additional_headers=headers) as connection:
        connection.send(json.dumps({"execEndpoint": "/all"}))
        try:
            connection.recv(timeout=10)
        except ConnectionClosed as closed:
            return 0 if closed.rcvd is None else closed.rcvd.code
        return 1000


def test_each_identity_has_one_rate_over_all_protocols(gateway: Gateway) -> None:
    def all_of(name: str) -> list[Any]:
        return [ask(gateway, KEYS[name]) for ask in (over_http, over_grpc, over_websocket)]

    assert all_of("team-a") == [200, "OK", 1000]
    assert all_of("team-a") == [429, "RESOURCE_EXHAUSTED", 1013]
    assert all_of("team-b") == [200, "OK", 1000]
    gateway.line(r"team-a at 127\.0\.0\.1 is refused: more than 3 requests in 1000 s of each caller")


def test_who_is_not_known_uses_up_no_rate(gateway: Gateway) -> None:
    assert [over_http(gateway, "wrong") for _ in range(5)] == [401] * 5
