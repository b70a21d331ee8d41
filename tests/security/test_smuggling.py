"""
Smuggled requests: the gateway directly, and behind HAProxy, which keeps its connections and shares them.

HAProxy marks each request that it sees. One without the mark at the gateway was hidden in another, and one
that gets another's answer shows that the two lost step.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_twisted

from gatewayd.messages.request import Request
from tests.protocols.harness import in_thread, read_all, served
from tests.security.smuggling import attacks
from tests.waiting import until

pytestmark = pytest.mark.security

HAPROXY = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
ATTACKS = dict(attacks())

CONFIG = """
global
    maxconn 100
defaults
    mode http
    timeout connect 5s
    timeout client 5s
    timeout server 5s
    timeout http-request 5s
    option http-keep-alive
    http-reuse always
    retries 0
frontend all
    bind fd@{fd}
    {option}
    http-request set-header X-Via haproxy
    default_backend gateway
backend gateway
    server one 127.0.0.1:{port} maxconn 1
"""


def send(port: int, attack: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        try:
            client.sendall(attack)
            client.shutdown(socket.SHUT_WR)
            return read_all(client)
        except OSError:  # it was refused before it was sent
            return b""


def ask(port: int, text: str) -> str:
    """The text in the answer to an ordinary client, on a connection of its own."""
    body = json.dumps({"data": [{"text": text}], "execEndpoint": "/"}).encode()
    head = b"POST /post HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
    answer = send(port, head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    try:
        return str(json.loads(answer.partition(b"\r\n\r\n")[2])["data"][0]["text"])
    except (ValueError, LookupError):
        return repr(answer)


@contextmanager
def haproxy(folder: Path, gateway_port: int, option: str) -> Iterator[int]:
    """HAProxy before the gateway; its port."""
    assert HAPROXY is not None
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = folder / "haproxy.cfg"
        config.write_text(CONFIG.format(fd=listening.fileno(), port=gateway_port, option=option))
        process = subprocess.Popen(
            [HAPROXY, "-q", "-db", "-f", str(config)],
            pass_fds=[listening.fileno()],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            port = listening.getsockname()[1]
            until(lambda: ask(port, "ready") == "ready")
            yield port
        finally:
            process.kill()
            process.wait()


def marked(request: Request) -> bool:
    return ("x-via", "haproxy") in request.headers


@pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed (a package of Debian)")
@pytest.mark.parametrize("option", ["", "option accept-invalid-http-request"], ids=["strict", "lax"])
@pytest_twisted.ensureDeferred
async def test_nothing_is_smuggled_past_haproxy(option: str, tmp_path: Path) -> None:
    def attack_all(gateway_port: int) -> list[str]:
        failures = []
        with haproxy(tmp_path, gateway_port, option) as port:
            for number, (name, attack) in enumerate(ATTACKS.items()):
                send(port, attack)
                text = f"client {number}"
                if (got := ask(port, text)) != text:
                    failures.append(f"{name}: the next client got {got[:200]}")
        return failures

    async with served(forward_headers=("x-via",)) as gateway:
        failures = await in_thread(attack_all, gateway.port)
        assert failures == []
        hidden = [request for request in gateway.dispatcher.requests if not marked(request)]
        assert hidden == []
        # The proxy does see some of them: what comes after a request that ends for both.
        assert len(gateway.dispatcher.requests) > len(ATTACKS)


@pytest_twisted.ensureDeferred
async def test_what_is_not_refused_has_one_end() -> None:
    """Directly: after a refusal nothing more is answered, so that whatever follows cannot be a request."""

    def attack_all(port: int) -> list[str]:
        failures = []
        for name, attack in ATTACKS.items():
            answers = send(port, attack).split(b"HTTP/1.1 ")[1:]
            refused = [number for number, answer in enumerate(answers) if answer.startswith(b"400")]
            if refused and refused[0] != len(answers) - 1:
                failures.append(f"{name}: answers after a refusal")
            if any(answer.startswith(b"500") for answer in answers):
                failures.append(f"{name}: 500")
            if not answers:
                failures.append(f"{name}: no answer")
        return failures

    async with served() as gateway:
        failures = await in_thread(attack_all, gateway.port)
        assert failures == []
