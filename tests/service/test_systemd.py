"""The whole process as systemd runs it: it says what it does, and listens at sockets that it is given."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.paths import ROOT
from tests.processes import Child, environment, free_ports, runs
from tests.waiting import until

pytestmark = pytest.mark.slow

TWISTD = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]
SERVE = [*TWISTD, "--nodaemon", "--pidfile=", "gateway", "--config", "flow.yml"]
EXECUTORS = str(ROOT / "tests" / "executors.py")
# Becomes the command with these descriptors as systemd passes them.
LAUNCH = """
import fcntl, os, sys
given = [int(each) for each in sys.argv[1].split(",")]
apart = [fcntl.fcntl(each, fcntl.F_DUPFD, 100) for each in given]
for number, each in enumerate(apart, 3):
    os.dup2(each, number)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(given)), LISTEN_FDNAMES=sys.argv[2])
os.execv(sys.argv[3], sys.argv[3:])
"""


def write(folder: Path, **gateway: Any) -> Path:
    """A Flow file with one executor, on loopback."""
    executor = {"name": "exec_a", "uses": "Rec", "py_modules": [EXECUTORS]}
    flow = {"jtype": "Flow", "gateway": {"host": "127.0.0.1", **gateway}, "executors": [executor]}
    (folder / "flow.yml").write_text(json.dumps(flow))
    return folder


def post(port: int) -> int:
    body = json.dumps({"data": [{"id": "d0"}], "execEndpoint": "/tag"}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/post", body, {"content-type": "application/json", "connection": "close"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        status: int = answer.status
        return status


class Listening:
    """Systemd's end of NOTIFY_SOCKET: the lines of all messages, in their order, with the time of each."""

    def __init__(self, path: Path) -> None:
        self.address = str(path)
        self.lines: list[tuple[float, str]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address)
        self._thread = threading.Thread(target=self._receive)
        self._thread.start()

    def _receive(self) -> None:
        while (message := self._socket.recv(1 << 16)) != b"end":
            self.lines += [(time.monotonic(), line) for line in message.decode().splitlines()]

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"end", self.address)
        self._thread.join()
        self._socket.close()

    def of(self, name: str) -> list[str]:
        return [text.partition("=")[2] for _, text in list(self.lines) if text.partition("=")[0] == name]

    def wait(self, line: str) -> None:
        until(
            lambda: line in [text for _, text in list(self.lines)],
            timeout_s=60,
            what=lambda: f"{line} in {self.lines}",
        )


@pytest.fixture
def systemd() -> Iterator[Listening]:
    folder = Path(f"/tmp/gatewayd-notify-{os.getpid()}")  # a short path, for a socket
    folder.mkdir()
    listening = Listening(folder / "notify")
    yield listening
    listening.close()
    shutil.rmtree(folder)


@pytest.mark.parametrize("workers", [1, 2])
def test_it_tells_its_state_from_the_start_to_the_end(
    systemd: Listening, tmp_path: Path, workers: int
) -> None:
    write(tmp_path, protocol=["http", "grpc"], port=[0, 0], workers=workers)
    gateway = Child(
        SERVE, cwd=tmp_path, env=environment(NOTIFY_SOCKET=systemd.address, WATCHDOG_USEC="1000000")
    )
    try:
        systemd.wait("READY=1")
        assert systemd.of("MAINPID") == [str(gateway.pid)]
        until(lambda: len(systemd.of("WATCHDOG")) >= 4)
        # As with Type=notify-reload.
        os.kill(gateway.pid, signal.SIGHUP)
        until(lambda: len(systemd.of("READY")) == 2)
        (since_us,) = systemd.of("MONOTONIC_USEC")
        assert 0 <= time.monotonic_ns() // 1000 - int(since_us) < 60e6
        children = Path(f"/proc/{gateway.pid}/task/{gateway.pid}/children").read_text().split()
        assert len(children) == (1 if workers == 1 else 3)
        for child in children:
            assert b"NOTIFY_SOCKET" not in Path(f"/proc/{child}/environ").read_bytes()
    finally:
        assert gateway.stop() == 0

    statuses = systemd.of("STATUS")
    assert statuses[0] == "starting"
    assert "starting: 1 of 1 replicas are ready" in statuses
    assert "serving 2 ports" in statuses
    assert statuses[-1].startswith("draining")
    assert systemd.of("STOPPING") == ["1"]
    assert systemd.of("RELOADING") == ["1"]
    assert "told nothing" not in gateway.output


def test_a_daemon_names_its_own_process(systemd: Listening, tmp_path: Path) -> None:
    write(tmp_path, protocol="http")
    command = [*TWISTD, "gateway", "--config", "flow.yml"]
    env = environment(NOTIFY_SOCKET=systemd.address)
    subprocess.run(command, cwd=tmp_path, env=env, check=True, capture_output=True, timeout=60)
    pid = int((tmp_path / "twistd.pid").read_text())
    try:
        systemd.wait("READY=1")
        assert systemd.of("MAINPID") == [str(pid)]
    finally:
        os.kill(pid, signal.SIGTERM)
        until(lambda: not runs(pid))


def test_a_start_that_fails_says_why(systemd: Listening, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        write(tmp_path, protocol="http", port=taken.getsockname()[1])
        gateway = Child(SERVE, cwd=tmp_path, env=environment(NOTIFY_SOCKET=systemd.address))
        gateway.line("cannot listen on")
        until(lambda: not runs(gateway.pid))
        assert gateway.stop() == 1
    assert systemd.of("STATUS")[-1].startswith("cannot start: gateway.port: cannot listen on 127.0.0.1")


def test_a_reactor_that_hangs_has_no_pulse_and_says_where_when_it_is_killed(
    systemd: Listening, tmp_path: Path
) -> None:
    module = tmp_path / "front.py"
    module.write_text(
        "import time\nfrom klein import Klein\nfrom gatewayd import Gateway\n"
        "class Front(Gateway):\n    app = Klein()\n"
        "    @app.route('/hang')\n    def hang_here(self, request):\n"
        "        print('it hangs')\n        time.sleep(600)\n"
    )
    write(tmp_path, protocol="http", uses="Front", py_modules=[str(module)])
    env = environment(NOTIFY_SOCKET=systemd.address, WATCHDOG_USEC="400000")
    gateway = Child(SERVE, cwd=tmp_path, env=env)
    try:
        (found,) = gateway.line(r"http on 127\.0\.0\.1:(\d+)")
        systemd.wait("READY=1")
        with socket.create_connection(("127.0.0.1", int(found[1]))) as client:
            client.sendall(b"GET /hang HTTP/1.1\r\nhost: x\r\n\r\n")
            gateway.line("it hangs")

            def silent() -> bool:
                return time.monotonic() - systemd.lines[-1][0] > 2.0

            until(silent)
            os.kill(gateway.pid, signal.SIGABRT)  # what systemd sends then
            gateway.line("in hang_here")
    finally:
        gateway.stop()


# -- sockets ---------------------------------------------------------------------------------------------


def start(folder: Path, sockets: Sequence[socket.socket], names: Sequence[str]) -> Child:
    descriptors = [each.fileno() for each in sockets]
    given = ",".join(map(str, descriptors))
    command = [sys.executable, "-c", LAUNCH, given, ":".join(names), *SERVE]
    return Child(command, cwd=folder, pass_fds=descriptors)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_restart_refuses_no_connection_and_loses_no_request(tmp_path: Path, workers: int) -> None:
    write(tmp_path, protocol=["grpc", "http"], port=[0, 0], workers=workers)
    with contextlib.ExitStack() as stack:
        grpc, http = (stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2))
        port, grpc_port = http.getsockname()[1], grpc.getsockname()[1]
        over, answered, wrong = threading.Event(), [0], list[object]()

        def load() -> None:
            while not over.is_set():
                try:
                    assert post(port) == 200
                    answered[0] += 1
                    socket.create_connection(("127.0.0.1", grpc_port), timeout=20).close()
                except Exception as error:
                    wrong.append(error)

        clients = [threading.Thread(target=load) for _ in range(4)]
        gateway = start(tmp_path, [grpc, http], ["grpc", "http"])
        for client in clients:
            client.start()  # before anybody accepts
        try:
            for _ in range(3):
                gateway.line("#info] ready")
                before = answered[0]
                until(lambda before=before: answered[0] >= before + 20, timeout_s=60)
                assert gateway.stop() == 0
                gateway = start(tmp_path, [grpc, http], ["grpc", "http"])
            gateway.line("#info] ready")
        finally:
            over.set()
            for client in clients:
                client.join()
            assert gateway.stop() == 0
    assert wrong == []
    assert f"http on 127.0.0.1:{port}" in gateway.output
    assert f"grpc on 127.0.0.1:{grpc_port}" in gateway.output


def test_clients_do_not_wait_for_an_executor_that_cannot_start(tmp_path: Path) -> None:
    executor = {"name": "exec_a", "uses": "Missing", "py_modules": [EXECUTORS]}
    flow = {"jtype": "Flow", "gateway": {"host": "127.0.0.1", "protocol": "http"}, "executors": [executor]}
    (tmp_path / "flow.yml").write_text(json.dumps(flow))
    with socket.create_server(("127.0.0.1", 0)) as http:
        gateway = start(tmp_path, [http], ["http"])
        try:
            with pytest.raises(urllib.error.HTTPError, match="503"):
                post(http.getsockname()[1])
            gateway.line("could not start")
        finally:
            assert gateway.stop() == 0


def test_a_socket_that_no_port_wants_is_named(tmp_path: Path) -> None:
    write(tmp_path, protocol="http")
    with contextlib.ExitStack() as stack:
        admin, http = (stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2))
        gateway = start(tmp_path, [admin, http], ["front", "http"])
        try:
            gateway.line(rf"is for no port of the Flow.*: front \(port {admin.getsockname()[1]}\)")
            gateway.line("ready")
            assert post(http.getsockname()[1]) == 200
        finally:
            gateway.stop()


def test_a_port_that_systemd_holds_is_not_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as http:
        port = http.getsockname()[1]
        gateway = start(write(tmp_path, protocol="http", port=port), [http], ["gatewayd.socket"])
        try:
            gateway.line("ready")
            assert post(port) == 200
        finally:
            assert gateway.stop() == 0


@pytest.mark.skipif(shutil.which("systemd-socket-activate") is None, reason="there is no systemd here")
def test_the_first_client_has_it_started_by_systemd_itself(tmp_path: Path) -> None:
    grpc, http = free_ports(2)
    write(tmp_path, protocol=["http", "grpc"], port=[http, grpc])
    command = ["systemd-socket-activate", "-l", f"127.0.0.1:{http}", "-l", f"127.0.0.1:{grpc}"]
    passed = ["-E", f"PYTHONPATH={ROOT}", "-E", "PYTHONUNBUFFERED=1"]
    gateway = Child([*command, *passed, *SERVE], cwd=tmp_path)
    try:
        gateway.line(f"Listening on 127.0.0.1:{grpc} as")
        assert post(http) == 200
        gateway.line(f"http on 127.0.0.1:{http}")
        gateway.line("ready")
    finally:
        assert gateway.stop() == 0
    assert not re.search("Traceback|is for no port", gateway.output)
