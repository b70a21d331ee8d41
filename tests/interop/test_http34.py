"""Our gateway over HTTP, between the real client and executors of Jina 3.34."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.interop.conftest import PLAIN
from tests.interop.test_executors34 import GOLDEN34, SIDE, python
from tests.processes import Child, Gateway, environment, external, free_ports
from tests.waiting import until

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def gateways() -> Iterator[dict[str, Gateway]]:
    """A gateway before each of the executors A and S, which the real command line serves."""
    reference = python("GATEWAYD_JINA34_PYTHON", ".venv-jina34")
    plain = environment(**PLAIN)
    started: list[Child] = []
    found: dict[str, Gateway] = {}
    try:
        ports = free_ports(2)
        for name, port in zip(("A", "S"), ports, strict=True):
            served = (
                "--uses",
                name,
                "--py-modules",
                "executors.py",
                "--name",
                name.lower(),
                "--port",
                str(port),
            )
            command = [reference, "-m", "jina", "executor", *served]
            started.append(Child(command, env=plain, cwd=str(GOLDEN34), group=True))
        for name, port in zip(("A", "S"), ports, strict=True):
            found[name] = Gateway(
                {"executors": [external(name.lower(), port)]}, protocols=("http", "websocket")
            )
            started.append(found[name])
        until(lambda: all(_has_routes(gateway) for gateway in found.values()), 90)
        yield found
    finally:
        for child in reversed(started):
            child.kill()
            child.stop()


def _has_routes(gateway: Gateway) -> bool:
    with urllib.request.urlopen(f"http://127.0.0.1:{gateway.ports['http']}/openapi.json") as answer:
        return len(json.load(answer)["paths"]) > 8


@pytest.fixture(scope="module")
def answers(gateways: dict[str, Gateway]) -> dict[str, Any]:
    """What came of each case of jina34_side/over_http.py."""
    reference = python("GATEWAYD_JINA34_PYTHON", ".venv-jina34")
    ports = [str(gateways[name].ports["http"]) for name in ("A", "S")]
    client = Child(
        [reference, str(SIDE / "over_http.py"), *ports, str(GOLDEN34)],
        env=environment(**PLAIN),
    )
    try:
        (found,) = client.line("^ANSWERS (.*)$", timeout_s=90)
        answers: dict[str, Any] = json.loads(found[1])
        return answers
    finally:
        client.kill()
        client.stop()


EXPECTED = {
    "ready": True,
    "echo": ["a!", "b!"],
    "many": 250,
    "len": [1, 1],
    "single": [1, 1],
    "rich": [[1.0, 2.0]],
    "params": "Params(top=3, scale=1.0, label=None)",
    "target": "a",
    "unbound": "a",
    "plain": "plain a",
    "stream": ["hi 0", "hi 1", "hi 2"],
    "slow": ["hi 0", "hi 1", "hi 2"],
    "stream left": ["hi 0", "hi 1"],
    "unicode": ['line1\nline2\r\nevent: update é漢 "q"'],
    "empty": [],
    # The reference repeats the stream four times, and ends it as if all was well.
    "raise at once": [],
}


@pytest.mark.parametrize("case", EXPECTED)
def test_the_client_gets_what_executors_answer(answers: dict[str, Any], case: str) -> None:
    assert answers[case] == EXPECTED[case]


@pytest.mark.parametrize(
    ("case", "error"),
    [
        ("raise", "ValueError: {'detail': \"ValueError('boom', 1)\"}"),
        ("no params", "ValueError: {'detail': [{'type': 'missing', 'loc': ['body', 'parameters', 'top']"),
        ("post to a stream", "BadClient: no such endpoint"),
    ],
)
def test_the_client_learns_what_is_wrong(answers: dict[str, Any], case: str, error: str) -> None:
    assert answers[case].startswith(error)


def test_a_stream_that_fails_on_the_way_is_an_error_to_the_client(answers: dict[str, Any]) -> None:
    assert answers["midraise"] == ["first", "second", "ClientPayloadError"]


def test_curl_reads_a_stream_and_knows_one_that_was_broken_off(gateways: dict[str, Gateway]) -> None:
    url = f"http://127.0.0.1:{gateways['S'].ports['http']}"

    def curl(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["curl", "-sN", "-m", "30", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    found = curl(f"{url}/stream?text=hi&num=2")
    assert (found.returncode, found.stdout.count("event: update"), found.stdout.count("event: end")) == (
        0,
        2,
        1,
    )
    found = curl(f"{url}/midraise?text=hi")
    assert (found.returncode, "mid boom" in found.stdout) == (18, True)
