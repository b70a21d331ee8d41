"""The service under a systemd that runs: it starts, is changed, hangs and is upgraded as the guide says."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.paths import ROOT
from tests.processes import free_ports
from tests.waiting import until

# A systemd in namespaces of its own, without a journal. What it starts sees the files and the network.
INIT = """
mount --make-rprivate / && mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system /run/lock || exit 1
mkdir -p /sys/fs/cgroup/systemd
mount -t cgroup -o none,name=systemd,xattr systemd /sys/fs/cgroup/systemd 2>/dev/null
cp "$0"/gatewayd.service "$0"/gatewayd.socket "$0"/idle.target /run/systemd/system/
export container=other
exec /lib/systemd/systemd --system --unit=idle.target --log-target=null --show-status=no
"""
SERVICE = """
[Unit]
DefaultDependencies=no
[Service]
Type=notify
WatchdogSec=5
WorkingDirectory={folder}
Environment=PYTHONPATH={root}
ExecStart={python} -c "from twisted.scripts.twistd import run; run()" -n --pidfile= gateway --config flow.yml
ExecReload={python} -P -m gatewayd reload --pid $MAINPID
Restart=on-failure
RestartSec=0
KillMode=mixed
StandardOutput=append:{folder}/log
StandardError=append:{folder}/log
"""
SOCKET = """
[Unit]
DefaultDependencies=no
[Socket]
ListenStream=127.0.0.1:{port}
"""
HANGS = """
import time
from klein import Klein
from gatewayd import Gateway

class Front(Gateway):
    app = Klein()

    @app.route("/hang")
    def hang(self, request):
        time.sleep(600)
"""
NAMESPACES = ["--pid", "--mount-proc", "--mount", "--uts", "--ipc"]


def can_run() -> bool:
    if os.geteuid() != 0 or not Path("/lib/systemd/systemd").exists() or shutil.which("unshare") is None:
        return False
    tried = subprocess.run(["unshare", "--fork", *NAMESPACES, "true"], capture_output=True, check=False)
    return tried.returncode == 0


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not can_run(), reason="no systemd can be run in namespaces here"),
]


class Systemd:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (self.port,) = free_ports(1)
        self.flow()
        (folder / "front.py").write_text(HANGS)
        (folder / "gatewayd.service").write_text(
            SERVICE.format(folder=folder, root=ROOT, python=sys.executable)
        )
        (folder / "gatewayd.socket").write_text(SOCKET.format(port=self.port))
        (folder / "idle.target").write_text("[Unit]\nDescription=Nothing\n")
        self._process = subprocess.Popen(
            ["unshare", "--fork", "--kill-child=KILL", *NAMESPACES, "sh", "-c", INIT, str(folder)],
            stdin=subprocess.DEVNULL,
        )
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        self._init = until(lambda: int(children.read_text() or "0"))
        until(lambda: self.ctl("is-active", "idle.target").returncode == 0)

    def flow(self, **gateway: object) -> None:
        settings = {"host": "127.0.0.1", "protocol": "http", "port": self.port, **gateway}
        executor = {"name": "a", "uses": "Rec", "py_modules": [str(ROOT / "tests" / "executors.py")]}
        flow = {"jtype": "Flow", "gateway": settings, "executors": [executor]}
        (self.folder / "flow.yml").write_text(json.dumps(flow))

    def ctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["nsenter", f"--target={self._init}", "--mount", "--pid", "systemctl", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def done(self, *arguments: str) -> None:
        ended = self.ctl(*arguments)
        assert ended.returncode == 0, ended.stderr + self.log

    def show(self, name: str) -> str:
        return self.ctl("show", "--value", f"--property={name}", "gatewayd.service").stdout.strip()

    @property
    def log(self) -> str:
        path = self.folder / "log"
        return path.read_text() if path.exists() else ""

    def post(self) -> int:
        body = json.dumps({"data": [{"id": "d0"}], "execEndpoint": "/tag"}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/post",
            body,
            {"content-type": "application/json", "connection": "close"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            status: int = answer.status
            return status

    def stop(self) -> None:
        self.ctl("stop", "gatewayd.service", "gatewayd.socket")
        # The kernel ends all processes of the namespace with its first one.
        os.kill(self._init, signal.SIGKILL)
        self._process.wait()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    systemd = Systemd(tmp_path)
    yield systemd
    systemd.stop()


def test_it_starts_is_changed_and_stops_as_systemd_is_told(systemd: Systemd) -> None:
    systemd.done("start", "gatewayd.service")
    # It has come back when executors serve.
    assert systemd.show("StatusText") == "serving 1 port"
    assert systemd.show("ActiveState") == "active"
    assert systemd.post() == 200

    systemd.flow(title="Changed")
    systemd.done("reload", "gatewayd.service")
    (systemd.folder / "flow.yml").write_text("jtype: Flow\ngateway: {protocl: http}\n")
    assert systemd.ctl("reload", "gatewayd.service").returncode != 0
    assert "gateway.protocl: unknown key" in systemd.show("StatusText")
    assert systemd.post() == 200

    systemd.done("stop", "gatewayd.service")
    assert systemd.show("Result") == "success"


def test_a_restart_refuses_no_client(systemd: Systemd) -> None:
    systemd.done("start", "gatewayd.socket")
    over, answered, wrong = threading.Event(), [0], list[object]()

    def load() -> None:
        while not over.is_set():
            try:
                assert systemd.post() == 200
                answered[0] += 1
            except Exception as error:
                wrong.append(error)

    clients = [threading.Thread(target=load) for _ in range(4)]
    for client in clients:
        client.start()  # the first of them has it started
    try:
        for _ in range(2):
            before = answered[0]
            until(lambda before=before: answered[0] >= before + 20, timeout_s=60)
            systemd.done("restart", "gatewayd.service")
        before = answered[0]
        until(lambda: answered[0] > before)
    finally:
        over.set()
        for client in clients:
            client.join()
    assert wrong == []


def test_one_that_hangs_is_started_again_and_the_log_says_where_it_hung(systemd: Systemd) -> None:
    systemd.flow(uses="Front", py_modules=[str(systemd.folder / "front.py")])
    systemd.done("start", "gatewayd.service")
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", systemd.port)) as client:
        client.sendall(b"GET /hang HTTP/1.1\r\nhost: localhost\r\n\r\n")
        client.recv(1)

    until(lambda: systemd.show("NRestarts") == "1" and systemd.show("SubState") == "running", timeout_s=60)
    assert "in hang" in systemd.log
    assert systemd.post() == 200
