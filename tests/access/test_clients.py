"""Our own Client shows its credentials over every protocol, and learns why it is refused."""

from __future__ import annotations

import hashlib
import socket
from typing import Any, Final

import pytest
import pytest_twisted
import requests

from gatewayd import Client
from gatewayd.client import loop
from gatewayd.config.auth import AccessRule, AuthConfig, HookConfig
from gatewayd.excepts import AccessRefused
from tests.access.gateway import Guarded, guarded
from tests.protocols.harness import in_thread, until

AUTH = AuthConfig(
    api_keys={name: (hashlib.sha256(f"key-{name}".encode()).hexdigest(),) for name in ("a", "b")},
    rules=(AccessRule(("/search", "/dry_run"), ("a",)),),
    forward_identity="x-identity",
)
PROTOCOLS = ("grpc", "http", "websocket")
SERVER: Final = "gatewayd"


@pytest.fixture(autouse=True)
def _own_grpc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two loops of one process cannot both use grpc.aio, which other tests serve with: its poller fails."""
    monkeypatch.setattr(loop, "_grpc_was_parents", True)


def client(gateway: Guarded, protocol: str) -> Client:
    port = gateway.grpc_port if protocol == "grpc" else gateway.web.report().port
    return Client(host="127.0.0.1", port=port, protocol=protocol)


def refusal(call: Any) -> str:
    with pytest.raises(AccessRefused) as caught:
        call()
    assert isinstance(caught.value, PermissionError)
    assert "key-" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest_twisted.ensureDeferred
async def test_a_client_posts_with_its_key_and_learns_why_it_may_not(protocol: str) -> None:
    def talk(gateway: Guarded) -> list[str]:
        with client(gateway, protocol) as own:
            own.post("/search", headers={"x-api-key": "key-a"})
            own.post("/search", metadata={"x-api-key": "key-a"})
            return [
                refusal(lambda: own.post("/search")),
                refusal(lambda: own.post("/search", headers={"x-api-key": "key-x"})),
                refusal(lambda: own.post("/search", headers={"x-api-key": "key-b"})),
            ]

    async with guarded(AUTH, grpc_server=SERVER) as gateway:
        nothing, wrong, other = await in_thread(talk, gateway)
        passed = [request.headers for request in gateway.engine.requests]

    assert "know who calls" in nothing
    assert (
        "API key" in wrong or protocol == "websocket"
    )  # aiohttp does not show the body of a handshake's answer
    assert "you may not call /search" in other
    assert passed == [(("x-identity", "a"),)] * 2


@pytest_twisted.ensureDeferred
async def test_an_identity_is_never_what_a_client_says() -> None:
    def talk(gateway: Guarded) -> None:
        for protocol in PROTOCOLS:
            with client(gateway, protocol) as own:
                own.post("/search", headers={"x-api-key": "key-a", "x-identity": "root", "x-other": "1"})

    async with guarded(AUTH, grpc_server=SERVER, forward_headers=("x-*",)) as gateway:
        await in_thread(talk, gateway)
        passed = [dict(request.headers) for request in gateway.engine.requests]

    assert passed == [{"x-identity": "a", "x-other": "1"}] * 3


@pytest_twisted.ensureDeferred
async def test_the_first_request_that_the_log_shows_has_a_place_for_the_key() -> None:
    async with guarded(AUTH, grpc_server=SERVER) as gateway:
        assert (gateway.web.report().try_it or "").endswith(" -d '{}' -H 'x-api-key: KEY'")
    async with guarded(AuthConfig(hook=HookConfig("http://127.0.0.1:1/")), grpc_server=SERVER) as gateway:
        assert gateway.web.report().try_it is None


@pytest_twisted.ensureDeferred
async def test_a_client_that_is_refused_before_its_body_and_leaves_is_let_go_at_once() -> None:
    def ask(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(b"POST /post HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
            return connection.recv(1000)

    async with guarded(AUTH, grpc_server=SERVER) as gateway:
        for _ in range(3):
            answer = await in_thread(ask, gateway.web.report().port)
            assert answer.startswith(b"HTTP/1.1 401 ")
        # Lingering connections would stay for seconds, and ask for signs of life after one.
        await until(lambda: not len(gateway.web.connections), 0.9, "connections that are let go")


@pytest_twisted.ensureDeferred
async def test_no_header_that_applications_take_for_the_identity_comes_from_the_client() -> None:
    def ask(url: str) -> None:
        headers = {"X-API-Key": "key-a", "X-Identity": "root", "X_Identity": "root", "X-Other": "1"}
        requests.post(f"{url}/search", json={}, headers=headers, timeout=10)

    async with guarded(AUTH, grpc_server=SERVER, forward_headers=("*",)) as gateway:
        await in_thread(ask, gateway.url)
        (request,) = gateway.engine.requests

    assert [value for name, value in request.headers if "identity" in name] == ["a"]
