"""The access log of whole gateways: every protocol, several processes, a file that is moved."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from docarray import Document, DocumentArray

from gatewayd import Client
from tests.paths import ROOT
from tests.processes import Gateway
from tests.waiting import until

pytestmark = pytest.mark.slow

REC = {"name": "exec_a", "uses": "Rec", "py_modules": str(ROOT / "tests" / "executors.py")}


def post(gateway: Gateway, protocol: str, endpoint: str = "/tag") -> None:
    client = Client(host="127.0.0.1", port=gateway.ports[protocol], protocol=protocol)
    documents = DocumentArray([Document(text="a secret"), Document(text="a secret")])
    client.post(endpoint, documents, parameters={"word": "a secret"})


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "access.log"


@pytest.fixture(params=[1, 2], ids=["one process", "two workers"])
def gateway(request: pytest.FixtureRequest, path: Path) -> Iterator[Gateway]:
    settings = {"access_log": {"path": str(path), "format": "json"}, "workers": request.param}
    gateway = Gateway({"gateway": settings, "executors": [REC]})
    gateway.line("#info] ready")
    yield gateway
    assert gateway.stop() == 0


def test_every_protocol_has_the_same_lines(gateway: Gateway, path: Path) -> None:
    for protocol in gateway.ports:
        post(gateway, protocol)
        with contextlib.suppress(Exception):  # as a protocol's client tells of it
            post(gateway, protocol, "/raise")
    until(lambda: len(lines(path)) == 6)

    found = lines(path)
    assert {line["protocol"] for line in found} == {"grpc", "http", "websocket"}
    for line in found:
        assert line["documents"] == 2
        assert line["address"] == "127.0.0.1"
        assert line["outcome"] == ("ok" if line["endpoint"] == "/tag" else "executor_error")
        assert line["bytes_in"] > 20
        parts = line["queue_ms"] + line["executors_ms"] + line["gateway_ms"]
        assert parts == pytest.approx(line["total_ms"], abs=0.01)
        assert 0 < line["executors_ms"] <= line["total_ms"]
    assert "secret" not in path.read_text()


def test_a_file_that_is_moved_is_opened_anew_by_every_process(gateway: Gateway, path: Path) -> None:
    post(gateway, "http")
    until(lambda: len(lines(path)) == 1)
    for number in range(3):
        path.rename(path.with_suffix(f".{number}"))
        os.kill(gateway.pid, signal.SIGUSR1)
        until(path.exists)
        for _ in range(20):
            post(gateway, "http")
        files = [path, *path.parent.glob("access.[0-9]")]
        expected = 1 + 20 * (number + 1)
        until(lambda files=files, expected=expected: sum(len(lines(each)) for each in files) == expected)


def test_without_a_file_lines_are_in_the_log(path: Path) -> None:
    settings = {
        "access_log": True,
        "log_level": "warn",
        "workers": 2,
        "log_levels": {"gatewayd.service": "info"},
    }
    gateway = Gateway({"gateway": settings, "executors": []})
    try:
        post(gateway, "http")
        (line,) = gateway.line(r"\[gatewayd.access#info\] (worker-\d: request_id=\S+ .*)")
        assert re.search(r" protocol=http endpoint=/tag documents=2 .* outcome=ok ", line[1])
    finally:
        gateway.stop()


def test_a_file_that_cannot_be_opened_ends_the_start(tmp_path: Path) -> None:
    settings = {"access_log": {"path": str(tmp_path / "none" / "access.log")}}
    with pytest.raises(AssertionError, match=r"gateway.access_log.path: .* cannot be opened: No such file"):
        Gateway({"gateway": settings})


def test_the_last_lines_are_there_when_it_has_stopped(path: Path) -> None:
    settings = {"access_log": {"path": str(path)}}
    gateway = Gateway({"gateway": settings, "executors": [REC]}, protocols=["http"])
    post(gateway, "http")
    assert gateway.stop() == 0

    (line,) = path.read_text().splitlines()
    assert " endpoint=/tag " in line
