"""What refusals cost and show: bodies that are not read, subprotocols, logs."""

from __future__ import annotations

import hashlib
import json
import socket
from pathlib import Path
from typing import Any

import attrs
import grpc
import pytest
import pytest_twisted
import requests
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock
from websockets.sync.client import connect

from gatewayd.access.authenticator import Authenticator
from gatewayd.access.control import AccessControl
from gatewayd.access.files import KeyFile, Rereading
from gatewayd.access.guard import header_value
from gatewayd.access.keys import BadKeyFile, KeyRing, ring_in
from gatewayd.access.rules import Rules
from gatewayd.access.tokens import BadTokenKeys, keys_in
from gatewayd.config.auth import AccessRule, AuthConfig
from gatewayd.errors import Forbidden
from gatewayd.messages.caller import Caller
from tests.access.gateway import Guarded, guarded
from tests.protocols.harness import in_thread

DIGEST = hashlib.sha256(b"secret-key").hexdigest()
AUTH = AuthConfig(api_keys={"a": (DIGEST,)})


def answer(gateway: Guarded, head: str, body: bytes = b"") -> bytes:
    """All that comes before the gateway closes."""
    with socket.create_connection(("127.0.0.1", gateway.web.report().port), 10) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
        connection.settimeout(10)
        received = b""
        while piece := connection.recv(65536):
            received += piece
        return received


@pytest_twisted.ensureDeferred
async def test_a_stranger_is_refused_before_the_body_comes() -> None:
    heads = [
        "POST /post HTTP/1.1\nHost: x\nContent-Length: 50000000",
        "POST /post HTTP/1.1\nHost: x\nContent-Length: 50000000\nExpect: 100-continue",
        "POST /post HTTP/1.1\nHost: x\nTransfer-Encoding: chunked",
        "POST /nothing HTTP/1.1\nHost: x\nContent-Length: 5000000000",
    ]
    async with guarded(AUTH) as gateway:
        for head in heads:
            found = await in_thread(answer, gateway, head, b"5\r\nhello\r\n")
            assert found.startswith(b"HTTP/1.1 401 ")
            assert found.count(b"HTTP/1.1") == 1
            assert b"Connection: close" in found


@pytest_twisted.ensureDeferred
async def test_what_strangers_are_answered_is_answered_without_their_bodies() -> None:
    heads = [
        "GET / HTTP/1.1\nHost: x\nContent-Length: 50000000",
        "HEAD / HTTP/1.1\nHost: x\nTransfer-Encoding: chunked",
        "OPTIONS /post HTTP/1.1\nHost: x\nOrigin: https://a.example\n"
        "Access-Control-Request-Method: POST\nContent-Length: 50000000",
    ]
    async with guarded(AUTH, cors=("https://a.example",)) as gateway:
        for head in heads:
            found = await in_thread(answer, gateway, head, b"5\r\nhello\r\n")
            assert found.startswith(b"HTTP/1.1 200 ")
            assert found.count(b"HTTP/1.1") == 1


# A body of 1 MB that is one field which the message does not have.
LARGE = b"\x9a\x06\x80\x80\x40" + bytes(1 << 20)


@pytest.mark.parametrize("path", ["/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"])
@pytest_twisted.ensureDeferred
async def test_strangers_cannot_have_large_messages_held_by_the_health_service(path: str) -> None:
    def ask(gateway: Guarded) -> grpc.StatusCode:
        with gateway.channel() as channel, pytest.raises(grpc.RpcError) as caught:
            list(channel.unary_stream(path)(LARGE, timeout=10))
        return caught.value.code()  # type: ignore[no-any-return,attr-defined]

    async with guarded(AUTH, grpc_server="gatewayd") as gateway:
        assert await in_thread(ask, gateway) == grpc.StatusCode.RESOURCE_EXHAUSTED


# -- names of the gateway's own pages ---------------------------------------------------------------------


@pytest.mark.parametrize("endpoint", ["/docs", "docs", "/status", "/dry_run"])
@pytest_twisted.ensureDeferred
async def test_a_rule_for_a_page_opens_no_method_of_executors(endpoint: str) -> None:
    """Those that answer every endpoint which no other method binds."""
    rules = (AccessRule(("/docs", "/status", "/dry_run"), ("anonymous",)),)
    asked = {"data": [], "execEndpoint": endpoint}

    def ask(gateway: Guarded) -> list[int]:
        pages = [f"{gateway.url}/docs", f"{gateway.url}/status"]
        return [
            requests.post(f"{gateway.url}/post", json=asked, timeout=10).status_code,
            *(requests.get(page, timeout=10).status_code for page in pages),
        ]

    async with guarded(attrs.evolve(AUTH, rules=rules)) as gateway:
        assert await in_thread(ask, gateway) == [401, 200, 200]
        assert not gateway.engine.requests


def test_an_endpoint_that_executors_bind_by_the_name_of_a_page_is_for_those_who_may() -> None:
    rules = Rules((AccessRule(("/status",), ("a",)),))
    access = AccessControl(Authenticator(AUTH), rules)
    known, other = Caller("a", means="key"), Caller("b", means="key")
    access.check(known, "/status", lambda: {"/status"})
    for caller, endpoint, bound in [(other, "/status", "/status"), (known, "status", "/status")]:
        with pytest.raises(Forbidden):
            access.check(caller, endpoint, lambda bound=bound: {bound})  # type: ignore[misc]


def test_two_callers_are_not_one_to_executors() -> None:
    names = ["admin", " admin", "admin ", "%20admin", "  ", " ", "a b"]
    values = [header_value(Caller(name, means="token")) for name in names]
    received = [value.strip() for value in values if value]
    assert len(set(received)) == len(names)
    assert received[0] == "admin"
    assert received[-1] == "a b"


@pytest_twisted.ensureDeferred
async def test_a_page_may_show_its_key_as_a_subprotocol() -> None:
    def talk(gateway: Guarded) -> Any:
        with connect(gateway.ws_url, subprotocols=["json", "bearer.secret-key"], proxy=None) as connection:  # type: ignore[list-item]
            connection.send(json.dumps({"data": [], "execEndpoint": "/x"}))
            connection.recv(10)
            return connection.subprotocol

    async with guarded(AUTH) as gateway:
        assert await in_thread(talk, gateway) == "json"
        assert [request.caller.name for request in gateway.engine.requests] == ["a"]


# -- files that change -----------------------------------------------------------------------------------


def line(key: str) -> str:
    return f"a:sha256:{hashlib.sha256(key.encode()).hexdigest()}\n"


def test_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path, clock = tmp_path / "keys", Clock()
    rings: list[KeyRing] = []
    path.write_text(line("one"))
    file = KeyFile("gateway.auth.api_keys_file", str(path), ring_in, rings.append, (BadKeyFile,))
    offload: Any = maybeDeferred
    rereading = Rereading([file], clock, offload)
    file.load()
    rereading.start()

    clock.advance(2)
    assert [ring.owner("one") for ring in rings] == ["a"]

    path.write_text(line("three") + line("four"))
    clock.advance(2)
    assert rings[-1].owner("one") is None
    assert rings[-1].owner("three") == "a"

    path.write_text("nonsense")
    clock.advance(2)
    path.unlink()
    clock.advance(2)
    assert len(rings) == 2

    path.write_text(line("five"))
    clock.advance(2)
    assert rings[-1].owner("five") == "a"
    rereading.stop()
    assert not clock.getDelayedCalls()


@pytest.mark.parametrize(
    "odd", ['{"keys": [{"kty": "oct", "k": "%s", "kid": []}]}' % ("a" * 43), "[" * 100_000]
)
def test_no_content_of_a_file_ends_the_looking_at_it(odd: str, tmp_path: Path) -> None:
    path, clock, found = tmp_path / "keys", Clock(), list[Any]()
    offload: Any = maybeDeferred
    path.write_text(json.dumps({"keys": [{"kty": "oct", "k": "b" * 43, "kid": "1"}]}))
    file = KeyFile("k", str(path), lambda content: keys_in(content, ["HS256"]), found.append, (BadTokenKeys,))
    rereading = Rereading([file], clock, offload)
    file.load()
    rereading.start()
    path.write_text(odd)
    clock.advance(2)
    assert len(found) == 1
    path.write_text(json.dumps({"keys": [{"kty": "oct", "k": "c" * 43, "kid": "22"}]}))
    clock.advance(2)
    assert [key.key_id for key in found[-1]] == ["22"]
    rereading.stop()
