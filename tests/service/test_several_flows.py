"""``twistd gateway --config a.yml --config b.yml``: two Flows of two generations, in one process."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from gatewayd.messages.methods import STREAM_DOC
from tests.golden_replay.test_streams34 import CASES, Player, contents, exchange
from tests.paths import ROOT
from tests.processes import Child, environment, external, free_ports, runs
from tests.service.test_systemd import TWISTD, Listening, systemd  # noqa: F401 - a fixture
from tests.waiting import until

pytestmark = pytest.mark.slow

MODULE = str(ROOT / "tests" / "executors.py")


def rec(letter: str, **more: Any) -> dict[str, Any]:
    return {"name": f"exec_{letter}", "uses": "Rec", "py_modules": MODULE, **more}


class Several:
    """The files ``a.yml`` and ``b.yml`` in a folder, and the process that serves both."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.http, self.grpc = free_ports(2)
        self.process: Child

    def write(self, file: str, protocol: str, port: int, executors: list[Any], **gateway: Any) -> None:
        settings = {"host": "127.0.0.1", "protocol": protocol, "port": port, **gateway}
        new = self.folder / "new.yml"
        new.write_text(yaml.safe_dump({"jtype": "Flow", "gateway": settings, "executors": executors}))
        new.replace(self.folder / file)

    def start(self, **variables: str) -> None:
        command = [*TWISTD, "-n", "--pidfile=", "gateway", "--config", "a.yml", "--config", "b.yml"]
        self.process = Child(command, cwd=self.folder, env=environment(**variables))

    def post(self) -> str:
        body = json.dumps({"data": [{"text": "hi"}], "execEndpoint": "/tag"}).encode()
        asked = urllib.request.Request(
            f"http://127.0.0.1:{self.http}/post", body, {"content-type": "application/json"}
        )
        with urllib.request.urlopen(asked, timeout=20) as answer:
            text: str = json.load(answer)["data"][0]["text"]
            return text

    def reload(self, *files: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "gatewayd", "reload", *files, "--pid", str(self.process.pid)],
            cwd=self.folder, env=environment(), capture_output=True, text=True, timeout=60,
        )  # fmt: skip


@pytest.fixture
def several(tmp_path: Path) -> Iterator[Several]:
    found = Several(tmp_path)
    yield found
    found.process.stop()


@pytest.fixture(scope="module")
def second_generation() -> Iterator[int]:
    """The port of an executor of Jina 3.34's, as it was recorded."""
    server = grpc.server(futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers([Player(CASES[0])])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(0).wait()


def test_two_generations_are_served_and_each_is_reloaded_by_itself(
    several: Several,
    second_generation: int,
    systemd: Listening,  # noqa: F811
) -> None:
    several.write("a.yml", "http", several.http, [rec("a")])
    several.write("b.yml", "grpc", several.grpc, [external("s", second_generation)])
    several.start(NOTIFY_SOCKET=systemd.address)
    systemd.wait("READY=1")
    systemd.wait("STATUS=serving 2 ports")
    with grpc.insecure_channel(f"127.0.0.1:{several.grpc}") as channel:
        (request,) = contents(CASES[0], "requests")
        streamed = len(contents(CASES[0], "responses"))

        assert several.post() == "hiA"
        assert len(exchange(channel, STREAM_DOC, request)[0]) == streamed

        several.write("a.yml", "http", several.http, [rec("a"), rec("b")])
        done = several.reload(str(several.folder / "a.yml"))
        assert done.returncode == 0, done.stderr
        assert "reloaded: a.yml: added exec_b; not touched: exec_a" in done.stdout
        assert several.post() == "hiAB"
        assert len(exchange(channel, STREAM_DOC, request)[0]) == streamed

        # All of them: a mistake in one keeps the other from nothing.
        several.write("a.yml", "http", several.http, [rec("b")])
        several.write("b.yml", "grpc", several.http, [external("s", second_generation)])
        done = several.reload()
        assert done.returncode == 1
        assert "reloaded all the same: a.yml: changed exec_b; removed exec_a" in done.stderr
        assert f"b.yml: b.yml: gateway.port: 127.0.0.1:{several.http} is gateway.port" in done.stderr
        assert several.post() == "hiB"
        assert len(exchange(channel, STREAM_DOC, request)[0]) == streamed

    done = several.reload("c.yml")
    assert (done.returncode, "there is no command 'reload /" in done.stderr) == (1, True)
    assert several.process.stop() == 0
    assert "Traceback" not in several.process.output
    assert systemd.of("STOPPING") == ["1"]


def test_sighup_reloads_all_and_an_executor_that_is_not_up_keeps_the_other_flow_from_nothing(
    several: Several,
) -> None:
    several.write("a.yml", "http", several.http, [rec("a")])
    several.write("b.yml", "grpc", several.grpc, [rec("b", env={"JINA_LOG_LEVEL": "info"}, uses="NoSuch")])
    several.start()
    several.process.line(r"a\.yml is served")
    assert several.post() == "hiA"

    several.write("a.yml", "http", several.http, [rec("b")])
    os.kill(several.process.pid, signal.SIGHUP)
    until(lambda: several.post() == "hiB")

    assert "b.yml is served" not in several.process.output
    assert several.process.stop() == 0


def test_one_that_cannot_start_ends_the_process_by_its_file_and_leaves_nothing(several: Several) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        several.write("a.yml", "http", several.http, [rec("a")])
        several.write("b.yml", "grpc", port, [])
        several.start()
        several.process.line(rf"cannot start: b\.yml: gateway\.port: cannot listen on 127\.0\.0\.1:{port} ")
        until(lambda: not runs(several.process.pid))
    assert several.process.stop() == 1


def test_what_contradicts_itself_is_told_before_anything_starts(several: Several) -> None:
    several.write("a.yml", "http", several.http, [])
    several.write("b.yml", "grpc", several.http, [], workers=2)
    several.start()
    several.process.line(r"^gatewayd: b\.yml: gateway\.workers: 2: a master of workers serves one Flow")
    several.process.line(r"^b\.yml: gateway\.port: 127\.0\.0\.1:\d+ is gateway\.port of a\.yml")
    until(lambda: not runs(several.process.pid))
    assert several.process.stop() == 1
