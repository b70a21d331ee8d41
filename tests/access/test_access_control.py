"""What refusals cost and show: bodies that are not read, subprotocols, logs."""

from __future__ import annotations

import hashlib
import json
import socket
from pathlib import Path
from typing import Any

import pytest_twisted
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock
from websockets.sync.client import connect

from gatewayd.access.files import KeyFile, Rereading
from gatewayd.access.keys import BadKeyFile, KeyRing, ring_in
from gatewayd.config.auth import AuthConfig
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
