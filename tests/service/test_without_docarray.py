"""An installation without extras: a gateway serves external executors, and says what installs the rest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.equivalence.asking import (
    Answered,
    Question,
    over_call,
    over_http_json,
    over_unary,
    over_websocket_json,
)
from tests.paths import ROOT
from tests.processes import ExecutorProcess, Gateway, environment, external

pytestmark = pytest.mark.slow

# For an interpreter in whose environment `pip install .` put gatewayd, and nothing else (make test-core).
CORE_PYTHON = os.environ.get("GATEWAYD_CORE_PYTHON", "")
# What docarray brings.
ABSENT = ("docarray", "hubble", "jina_hubble_sdk", "docker", "jose", "ecdsa", "rsa", "requests", "pathspec")
BLOCKING = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
"""


@pytest.fixture(scope="module")
def variables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of processes without docarray: they read sitecustomize when they start."""
    if CORE_PYTHON:
        return {"PYTHONPATH": ""}
    folder = tmp_path_factory.mktemp("blocking")
    (folder / "sitecustomize.py").write_text(BLOCKING)
    return {"PYTHONPATH": f"{folder}:{ROOT}"}


@pytest.fixture(scope="module")
def executor() -> Iterator[ExecutorProcess]:
    executor = ExecutorProcess("exec_a", "Rec", [ROOT / "tests" / "executors.py"])
    yield executor
    executor.stop()


@pytest.fixture(scope="module")
def gateway(executor: ExecutorProcess, variables: dict[str, str]) -> Iterator[Gateway]:
    flow = {
        "gateway": {"expose_graphql_endpoint": True},
        "executors": [external("exec_a", executor.port), external("exec_b", executor.port)],
    }
    gateway = Gateway(flow, python=CORE_PYTHON or sys.executable, **variables)
    yield gateway
    assert gateway.stop() == 0


def python(code: str, variables: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [CORE_PYTHON or sys.executable, "-c", code],
        env=environment(**variables), cwd=cwd, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def url(gateway: Gateway, path: str) -> str:
    return f"http://127.0.0.1:{gateway.ports['http']}{path}"


@pytest.mark.parametrize("ask", [over_unary, over_call, over_http_json, over_websocket_json])
def test_every_protocol_is_served(gateway: Gateway, ask: object) -> None:
    documents = ({"id": "d0", "text": "hi", "tags": {"x": 1.5}}, {"id": "d1", "text": "", "tags": {}})

    answer = ask(gateway, Question("/tag", documents))  # type: ignore[operator]

    assert isinstance(answer, Answered)
    assert [(name, text) for name, text, _ in answer.documents] == [("d0", "hiAA"), ("d1", "AA")]


def test_arrays_blobs_scores_and_nested_documents_have_their_json(gateway: Gateway) -> None:
    document = {
        "id": "d0",
        "embedding": [0.5, 1.5],
        "tensor": [[1, 2], [3, 4]],
        "blob": "AAE=",
        "scores": {"cosine": {"value": 0.25}},
        "matches": [{"id": "m0", "text": "a match"}],
    }
    body = json.dumps({"execEndpoint": "/identity", "data": [document]}).encode()
    asked = urllib.request.Request(url(gateway, "/post"), body, {"content-type": "application/json"})

    with urllib.request.urlopen(asked, timeout=20) as response:
        (found,) = json.load(response)["data"]

    assert (found["embedding"], found["tensor"]) == (document["embedding"], document["tensor"])
    assert found["scores"]["cosine"]["value"] == 0.25
    assert found["matches"][0]["text"] == "a match"


def test_graphql_is_served(gateway: Gateway) -> None:
    query = 'mutation { docs(data: {text: "hi"}, execEndpoint: "/tag") { text } }'
    body = json.dumps({"query": query}).encode()
    asked = urllib.request.Request(url(gateway, "/graphql"), body, {"content-type": "application/json"})

    with urllib.request.urlopen(asked, timeout=20) as response:
        assert json.load(response) == {"data": {"docs": [{"text": "hiAA"}]}}


@pytest.mark.parametrize("path", ["/status", "/openapi.json", "/docs", "/dry_run"])
def test_its_pages_are_served(gateway: Gateway, path: str) -> None:
    with urllib.request.urlopen(url(gateway, path), timeout=20) as response:
        assert response.status == 200


@pytest.mark.parametrize(
    ("code", "extra"),
    [
        ("from gatewayd import Document", "client"),
        ("from gatewayd import DocumentArray", "client"),
        ("from gatewayd import Client", "client"),
        ("import gatewayd; gatewayd.Client", "client"),
        ("from gatewayd.client.client import AsyncClient; AsyncClient()", "client"),
        ("from gatewayd import Flow; Flow().add(external=True, port=1).post", None),
        ("from gatewayd import Executor", "executor"),
        ("from gatewayd import requests", "executor"),
        ("import gatewayd.executor.runtime", "executor"),
        ("import gatewayd.testing", "executor"),
        (
            "import sys; sys.argv = ['gatewayd', 'executor']; from gatewayd.cli import main; main()",
            "executor",
        ),
    ],
)
def test_what_needs_docarray_says_how_to_install_it(
    variables: dict[str, str], tmp_path: Path, code: str, extra: str | None
) -> None:
    ended = python(code, variables, tmp_path)

    if extra is None:
        assert ended.returncode == 0, ended.stderr
    else:
        assert ended.returncode == 1
        last = ended.stderr.strip().splitlines()[-1]
        assert f"docarray 0.21, and it is not installed: pip install 'gatewayd[{extra}]'" in last


SERVING = """
import sys; sys.argv = ["twistd", *{0!r}, "gateway", "-c", "flow.yml"]
from twisted.scripts.twistd import run; run()
"""
IN_PYTHON = "from gatewayd import Flow\nwith Flow.load_config('flow.yml'): pass"


@pytest.mark.parametrize(
    "code",
    [SERVING.format(["-n", "--pidfile="]), SERVING.format([]), IN_PYTHON],
    ids=["twistd -n", "twistd as a daemon", "Flow"],
)
@pytest.mark.parametrize(
    "executor",
    ["{name: a}", "{name: a, external: true, port: 1}, {name: b}", "{name: a, shards: 2, uses_before: X}"],
)
def test_a_flow_with_executors_of_its_own_is_refused_before_anything_starts(
    variables: dict[str, str], tmp_path: Path, code: str, executor: str
) -> None:
    (tmp_path / "flow.yml").write_text(f"jtype: Flow\nexecutors: [{executor}]\n")

    ended = python(code, variables, tmp_path)

    assert ended.returncode == 1
    assert "an executor that is started here needs docarray 0.21" in ended.stderr
    assert "pip install 'gatewayd[executor]'" in ended.stderr
    assert not (tmp_path / "twistd.pid").exists()
    assert "starts as process" not in ended.stderr + ended.stdout


@pytest.mark.parametrize(
    ("name", "version", "extra"),
    [("Executor", "0.35.0", "executor"), ("Client", "0.35.0", "client"), ("Document", "0.40.0", "client")],
)
def test_documents_of_another_kind_are_told_from_none(
    tmp_path: Path, name: str, version: str, extra: str
) -> None:
    (tmp_path / "docarray").mkdir()
    (tmp_path / "docarray" / "__init__.py").touch()
    (tmp_path / f"docarray-{version}.dist-info").mkdir()
    (tmp_path / f"docarray-{version}.dist-info" / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: docarray\nVersion: {version}\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", f"from gatewayd import {name}"],
        env=environment(PYTHONPATH=f"{tmp_path}:{ROOT}"), capture_output=True, text=True, timeout=60,
    )  # fmt: skip

    assert ended.returncode == 1
    told = f"docarray 0.21, and {version} is installed, whose documents are of another kind"
    assert f"{told}: pip install 'gatewayd[{extra}]'" in ended.stderr


@pytest.mark.skipif(not CORE_PYTHON, reason="needs an installation without extras (make test-core)")
def test_an_installation_without_extras_has_nothing_of_what_docarray_brings(tmp_path: Path) -> None:
    code = f"from importlib.util import find_spec; print([n for n in {ABSENT!r} if find_spec(n)])"
    assert python(code, {"PYTHONPATH": ""}, tmp_path).stdout.strip() == "[]"
