"""Which pages of other origins may use a port: the headers, as values, and over both kinds of port."""

from __future__ import annotations

import http.client
from typing import Any

import pytest
import pytest_twisted

from gatewayd.config import load_flow_text
from gatewayd.errors import ConfigError
from gatewayd.protocols.http.cors import Cors
from tests.protocols.harness import in_thread, served

A, B = b"https://a.example", b"https://b.example"
ALLOW = b"Access-Control-Allow-Origin"


def headers(found: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    return dict(found)


def test_without_a_setting_or_an_origin_nothing_is_said() -> None:
    assert Cors().answer({b"origin": A}.get) == []
    assert Cors(("*",)).answer({}.get) == []
    assert not Cors().is_preflight({b"origin": A, b"access-control-request-method": b"PUT"}.get)


@pytest.mark.parametrize("credentials", [b"cookie", b"authorization"])
def test_with_credentials_the_origin_is_echoed_and_varies(credentials: bytes) -> None:
    assert headers(Cors(("*",)).answer({b"origin": A}.get))[ALLOW] == b"*"
    found = headers(Cors(("*",)).answer({b"origin": A, credentials: b"x"}.get))
    assert (found[ALLOW], found[b"Vary"]) == (A, b"Origin")


def test_a_list_allows_its_origins_alone_and_always_varies() -> None:
    cors = Cors(("https://a.example",))
    asked = {b"access-control-request-method": b"PUT"}
    for found in (cors.answer({b"origin": A}.get), cors.preflight({b"origin": A, **asked}.get)):
        assert (headers(found)[ALLOW], headers(found)[b"Vary"]) == (A, b"Origin")
    for found in (cors.answer({b"origin": B}.get), cors.preflight({b"origin": B, **asked}.get)):
        assert headers(found) == {b"Vary": b"Origin"}


@pytest.mark.parametrize(
    ("text", "origins"),
    [("true", ("*",)), ("false", ()), ("[https://a, 'http://b:8080']", ("https://a", "http://b:8080"))],
)
def test_the_setting_is_a_boolean_or_a_list(text: str, origins: tuple[str, ...]) -> None:
    assert load_flow_text(f"jtype: Flow\ngateway: {{cors: {text}}}", environ={}).gateway.cors == origins


@pytest.mark.parametrize("text", ["[https://a/path]", "[a.example]", "[1]", "3"])
def test_what_is_no_origin_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"gateway\.cors.*a list of origins"):
        load_flow_text(f"jtype: Flow\ngateway: {{cors: {text}}}", environ={})


@pytest.mark.parametrize("protocols", [("http",), ("websocket",), ("http", "websocket")])
@pytest_twisted.ensureDeferred
async def test_the_http_paths_of_every_port_have_it(protocols: tuple[str, ...]) -> None:
    def ask() -> tuple[Any, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
        connection.request("GET", "/", headers={"Origin": A.decode(), "Cookie": "a=b"})
        simple = connection.getresponse()
        simple.read()
        asked = {"Origin": A.decode(), "Access-Control-Request-Method": "POST"}
        connection.request("OPTIONS", "/post", headers=asked)
        preflight = connection.getresponse()
        connection.close()
        return simple.headers, preflight.headers

    async with served(protocols, cors=("*",)) as gateway:
        simple, preflight = await in_thread(ask)

    assert simple["access-control-allow-origin"] == preflight["access-control-allow-origin"] == A.decode()
    assert simple["access-control-expose-headers"] == "X-Request-ID, X-Gatewayd-Hint"
