"""What our gateway has recorded is answered the same by the real one, before the same executors."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from docarray import Document

from gatewayd.client.client import Client
from tests.interop.conftest import Theirs
from tests.interop.test_our_client import CHAIN, wait_until_ready
from tests.paths import ROOT
from tests.processes import PROTOCOLS, Gateway, environment

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def recording(theirs: Theirs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recorded") / "requests.jsonl"
    flow = {"gateway": {"record": str(path)}, "executors": [theirs("exec_a"), theirs("exec_b")]}
    gateway = Gateway(flow)
    try:
        wait_until_ready(gateway.ports)
        for protocol in PROTOCOLS:
            with Client(protocol=protocol, port=gateway.ports[protocol]) as client:
                for endpoint in ("/tag", "/identity"):
                    client.post(endpoint, Document(id="d", text="x"), parameters={"a": 1})
                client.post("/raise", Document(id="d"), continue_on_error=True)
    finally:
        gateway.stop()
    return path


@pytest.fixture(scope="module")
def ports(their_gateway: Callable[..., dict[str, int]], theirs: Theirs) -> dict[str, int]:
    addresses = {name: f"127.0.0.1:{theirs.ports[name]}" for name in ("exec_a", "exec_b")}
    return wait_until_ready(their_gateway(CHAIN, addresses))


@pytest.mark.parametrize(("protocol", "scheme"), [("grpc", "grpc"), ("http", "http"), ("websocket", "ws")])
def test_the_real_gateway_answers_the_same(
    recording: Path, ports: dict[str, int], protocol: str, scheme: str
) -> None:
    command = [sys.executable, "-m", "gatewayd", "replay", str(recording)]
    done = subprocess.run(
        [*command, f"{scheme}://127.0.0.1:{ports[protocol]}"],
        env=environment(COLUMNS="160"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert (done.returncode, "9 of 9 answers are the same" in done.stdout) == (0, True), done.stdout
