"""The whole thing as a process: ``twistd gateway`` starts, serves, drains, ends, and says what is wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.paths import ROOT
from tests.processes import Child, Gateway, environment
from tests.waiting import until

pytestmark = pytest.mark.slow

TWISTD = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]
SLOW = """
import sys, time
from gatewayd import Executor, requests

class Slow(Executor):
    @requests(on="/slow")
    def slow(self, **kwargs):
        print("begun", flush=True)
        time.sleep(1.0)
"""
REC = [{"name": "exec_a", "uses": "Rec", "py_modules": str(ROOT / "tests" / "executors.py")}]


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    gateway = Gateway({"executors": REC})
    yield gateway
    gateway.stop()


def post(port: int, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/post", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


def test_the_garbage_collector_leaves_alone_what_the_start_has_loaded(tmp_path: Path) -> None:
    module = tmp_path / "front.py"
    module.write_text(
        "import gc\nfrom klein import Klein\nfrom gatewayd import Gateway\n"
        "class Front(Gateway):\n    app = Klein()\n"
        "    @app.route('/frozen')\n    def frozen(self, request):\n"
        "        return str(gc.get_freeze_count())\n"
    )
    gateway = Gateway({"gateway": {"uses": "Front", "py_modules": [str(module)]}}, protocols=["http"])
    try:
        gateway.line("ready")
        frozen = f"http://127.0.0.1:{gateway.ports['http']}/frozen"
        until(lambda: int(urllib.request.urlopen(frozen, timeout=20).read()) > 10_000)
    finally:
        gateway.stop()


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*TWISTD, *arguments], cwd=cwd, env=environment(), capture_output=True, text=True, timeout=60
    )


def test_it_serves_what_the_flow_file_says(gateway: Gateway) -> None:
    answer = post(gateway.ports["http"], {"data": [{"id": "d0", "text": "hi"}], "execEndpoint": "/tag"})

    assert answer["data"][0]["text"] == "hiA"
    assert [route["executor"] for route in answer["routes"]] == ["gateway", "exec_a"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_code_0_and_leaves_no_process(gateway: Gateway, number: int) -> None:
    executors = children(gateway.pid)
    assert executors

    os.kill(gateway.pid, number)

    assert gateway.stop() == 0
    assert not [pid for pid in executors if alive(pid)]
    assert "Traceback" not in gateway.output


def test_what_is_under_way_at_sigterm_is_answered(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    gateway = Gateway(
        {"executors": [{"name": "slow", "uses": "Slow", "py_modules": str(tmp_path / "slow.py")}]}
    )
    try:
        _finishes_what_is_under_way(gateway)
    finally:
        gateway.stop()


def _finishes_what_is_under_way(gateway: Gateway) -> None:
    body = json.dumps({"data": [{"id": "d0"}], "execEndpoint": "/slow"}).encode()
    with socket.create_connection(("127.0.0.1", gateway.ports["http"]), timeout=20) as client:
        client.sendall(
            b"POST /post HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n%s" % (len(body), body)
        )
        gateway.line("begun", timeout_s=20)
        os.kill(gateway.pid, signal.SIGTERM)
        answer = client.recv(1 << 16)

    assert answer.startswith(b"HTTP/1.1 200")
    assert gateway.stop() == 0


def test_what_is_not_answered_within_the_grace_period_is_refused(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW.replace("1.0", "60.0"))
    executor = {"name": "slow", "uses": "Slow", "py_modules": str(tmp_path / "slow.py")}
    gateway = Gateway({"gateway": {"grace_period": 1}, "executors": [executor]})
    try:
        with socket.create_connection(("127.0.0.1", gateway.ports["http"]), timeout=20) as client:
            client.sendall(
                b'POST /post HTTP/1.1\r\nhost: x\r\ncontent-length: 25\r\n\r\n{"execEndpoint": "/slow"}'
            )
            gateway.line("begun", timeout_s=20)
            os.kill(gateway.pid, signal.SIGTERM)
            answer = client.recv(1 << 16)
    finally:
        code = gateway.stop()

    assert answer.startswith(b"HTTP/1.1 503")
    assert code == 0
    assert "grace period of 1.0 s is over" in gateway.output
    assert "Unhandled" not in gateway.output


def test_executors_end_when_their_gateway_is_killed(gateway: Gateway) -> None:
    executors = children(gateway.pid)

    gateway.kill()

    until(lambda: not [pid for pid in executors if alive(pid)])


def test_a_killed_executor_is_replaced(gateway: Gateway) -> None:
    (executor,) = children(gateway.pid)

    os.kill(executor, signal.SIGKILL)

    gateway.line("serves at", count=2)
    answer = post(gateway.ports["http"], {"data": [{"id": "d0", "text": "hi"}], "execEndpoint": "/tag"})
    assert answer["data"][0]["text"] == "hiA"


def test_a_mistake_in_the_flow_file_ends_it_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "flow.yml").write_text("jtype: Flow\ngateway:\n  protocl: http\n")

    ended = run("-n", "--pidfile=", "gateway", "--config", "flow.yml", cwd=tmp_path)

    assert ended.returncode == 1
    assert ended.stdout == ""
    assert "flow.yml:3:3: gateway.protocl: unknown key of the gateway; did you mean protocol?" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("workers", [1, 2])
def test_executors_of_another_generation_than_the_flow_end_it_by_name(tmp_path: Path, workers: int) -> None:
    (tmp_path / "flow.yml").write_text(
        f"jtype: Flow\ngateway: {{host: 127.0.0.1, docarray: 2, workers: {workers}}}\n"
        "executors: [{name: a}]\n"
    )
    ended = run("-n", "--pidfile=", "gateway", "--config", "flow.yml", cwd=tmp_path)

    assert ended.returncode == 1
    assert "the Flow file says docarray: 2, which is docarray 0.30 and later, and a (" in ended.stdout
    assert "Traceback" not in ended.stdout + ended.stderr


@pytest.mark.parametrize("protocol", ["grpc", "http", "websocket"])
def test_a_taken_port_ends_it_with_an_error_that_names_port_and_key(tmp_path: Path, protocol: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (tmp_path / "flow.yml").write_text(
            f"jtype: Flow\ngateway: {{host: 127.0.0.1, protocol: {protocol}, port: {port}}}\n"
        )
        ended = run("-n", "--pidfile=", "gateway", "--config", "flow.yml", cwd=tmp_path)

    assert ended.returncode == 1
    assert f"gateway.port: cannot listen on 127.0.0.1:{port} for {protocol}" in ended.stdout
    assert "Address already in use" in ended.stdout
    assert "Traceback" not in ended.stdout + ended.stderr


def test_it_becomes_a_daemon_with_a_pid_file_and_a_log(tmp_path: Path) -> None:
    (tmp_path / "flow.yml").write_text("jtype: Flow\ngateway: {host: 127.0.0.1, protocol: http}\n")

    started = run("gateway", "--config", "flow.yml", cwd=tmp_path)
    pid = int((tmp_path / "twistd.pid").read_text())
    try:
        until(lambda: "ready" in (tmp_path / "twistd.log").read_text())
    finally:
        os.kill(pid, signal.SIGTERM)
    until(lambda: not alive(pid))

    assert started.returncode == 0
    assert not (tmp_path / "twistd.pid").exists()


def test_a_daemon_that_cannot_start_says_so_on_the_terminal_and_leaves_no_pid_file(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (tmp_path / "flow.yml").write_text(
            f"jtype: Flow\ngateway: {{host: 127.0.0.1, protocol: http, port: {port}}}\n"
        )
        ended = run("gateway", "--config", "flow.yml", cwd=tmp_path)

    assert ended.returncode == 1
    assert "PortTaken" in ended.stderr
    assert f"cannot listen on 127.0.0.1:{port}" in (tmp_path / "twistd.log").read_text()
    # twistd's child removes the file after it has reported to the process that we waited for.
    until(lambda: not (tmp_path / "twistd.pid").exists())


def test_the_environment_of_the_flow_file_is_that_of_the_gateway(tmp_path: Path) -> None:
    (tmp_path / "flow.yml").write_text(
        "jtype: Flow\ngateway: {host: 127.0.0.1, protocol: http, env: {JINA_LOG_LEVEL: of the file}}\n"
    )
    gateway = Child([*TWISTD, "-n", "--pidfile=", "gateway", "--config", "flow.yml"], cwd=tmp_path)
    try:
        (found,) = gateway.line(r"http on 127\.0\.0\.1:(\d+)")
        with urllib.request.urlopen(f"http://127.0.0.1:{found[1]}/status", timeout=20) as answer:
            assert json.load(answer)["envs"]["JINA_LOG_LEVEL"] == "of the file"
    finally:
        gateway.stop()


def test_it_serves_and_stops_under_python_O(tmp_path: Path) -> None:
    executors = json.dumps(REC)
    (tmp_path / "flow.yml").write_text(
        f"jtype: Flow\ngateway: {{host: 127.0.0.1, protocol: [grpc, http], port: [0, 0]}}\n"
        f"executors: {executors}\n"
    )
    gateway = Child(
        [*TWISTD, "-n", "--pidfile=", "gateway", "--config", "flow.yml"],
        cwd=tmp_path,
        env=environment(PYTHONOPTIMIZE="1"),
    )
    try:
        (found,) = gateway.line(r"http on 127\.0\.0\.1:(\d+)")
        gateway.line("#info] ready")
        answer = post(int(found[1]), {"data": [{"id": "d0", "text": "hi"}], "execEndpoint": "/tag"})
        assert answer["data"][0]["text"] == "hiA"
        os.kill(gateway.pid, signal.SIGTERM)
        gateway.line("#info] stopped", timeout_s=20)
    finally:
        assert gateway.stop() == 0


def test_an_executor_that_is_still_loading_ends_when_its_gateway_is_killed(tmp_path: Path) -> None:
    (tmp_path / "endless.py").write_text(
        "import threading\nfrom gatewayd import Executor\n\n\nclass Endless(Executor):\n"
        "    def __init__(self, **kwargs):\n        print('loading', flush=True)\n"
        "        threading.Event().wait()\n"
    )
    (tmp_path / "flow.yml").write_text(
        "jtype: Flow\ngateway: {host: 127.0.0.1, protocol: http}\n"
        "executors: [{name: endless, uses: Endless, py_modules: endless.py}]\n"
    )
    gateway = Child([*TWISTD, "-n", "--pidfile=", "gateway", "--config", "flow.yml"], cwd=tmp_path)
    try:
        gateway.line("endless/rep-0: loading")
        executors = children(gateway.pid)
        assert executors
    finally:
        gateway.kill()

    until(lambda: not [pid for pid in executors if alive(pid)])


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gatewayd", "unit", "flow.yml"]
    unit = subprocess.run(
        command, env=environment(), cwd=tmp_path, capture_output=True, text=True, check=True
    )
    (tmp_path / "gatewayd.service").write_text(unit.stdout)

    ended = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / "gatewayd.service")], capture_output=True, text=True
    )

    assert (ended.returncode, ended.stderr) == (0, "")


def test_help_explains_the_options(tmp_path: Path) -> None:
    ended = run("gateway", "--help", cwd=tmp_path)

    assert ended.returncode == 0
    assert "--config" in ended.stdout
    assert "Flow file" in ended.stdout


def test_an_executor_that_cannot_start_is_logged_with_its_traceback(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(
        "from gatewayd import Executor\n\n\nclass Broken(Executor):\n"
        "    def __init__(self, **kwargs):\n        raise LookupError('no model here')\n"
    )
    (tmp_path / "flow.yml").write_text(
        "jtype: Flow\ngateway: {host: 127.0.0.1, protocol: http}\n"
        "executors: [{name: broken, uses: Broken, py_modules: broken.py}]\n"
    )
    command = [*TWISTD, "-n", "--pidfile=", "gateway", "--config", "flow.yml"]
    gateway = Child(command, cwd=tmp_path)
    try:
        gateway.line("LookupError: no model here")
        gateway.line(r"broken\.py")
        assert not [line for line in gateway.output.splitlines() if line.endswith("#info] ready")]
    finally:
        assert gateway.stop() == 0
