"""A signal ends the process in order at any moment of its start: exit code 0, and no child is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gatewayd.service.signals import StopSignals
from tests.processes import Child, environment

pytestmark = pytest.mark.slow

FLOW = """
jtype: Flow
gateway: {protocol: [grpc, http], port: [0, 0], host: 127.0.0.1}
executors: [{name: a}, {name: b}]
"""

# Stops itself with a signal when the module is about to be imported: one moment of the start for each.
AT_IMPORT = """
import os, signal, sys
class Finder:
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), {number})
sys.meta_path.insert(0, Finder())
from gatewayd.cli import main
main(["serve", "flow.yml"])
"""
MOMENTS = [
    "twisted.scripts.twistd",  # before the command line is read
    "gatewayd.supervisor.supervisor",
    "gatewayd.service.gateway",  # executors are loading
    "gatewayd.protocols.grpc.servers",  # the gateway is half built
    "gatewayd.protocols.web_port",  # the first port listens
]


# The same as soon as Twisted has taken the signals.
AT_RUNNING = """
import os
from twisted.internet.base import ReactorBase
running = ReactorBase._reallyStartRunning
def begin(self):
    running(self)
    os.kill(os.getpid(), {number})
ReactorBase._reallyStartRunning = begin
from gatewayd.cli import main
main(["serve", "flow.yml"])
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_as_the_reactor_starts_is_not_lost(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "flow.yml").write_text(FLOW)
    code = AT_RUNNING.format(number=int(number))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, timeout=60
    )
    assert done.returncode == 0, (done.stdout + done.stderr).decode()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
@pytest.mark.parametrize("module", MOMENTS)
def test_a_signal_during_the_start_is_not_lost(tmp_path: Path, module: str, number: signal.Signals) -> None:
    (tmp_path / "flow.yml").write_text(FLOW)
    code = AT_IMPORT.format(module=module, number=int(number))
    # In a session of its own, whose members can be counted.
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    output, _ = process.communicate(timeout=60)

    assert process.returncode == 0, output.decode()
    assert b"ready" not in output
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def test_a_signal_between_two_lines_of_the_log_is_not_lost(tmp_path: Path) -> None:
    (tmp_path / "flow.yml").write_text(FLOW)
    gateway = Child([sys.executable, "-m", "gatewayd", "serve", "flow.yml"], cwd=tmp_path)
    try:
        gateway.line(r"grpc on ")
    finally:
        assert gateway.stop() == 0, gateway.output


def test_a_signal_before_anybody_listens_is_passed_on_later() -> None:
    signals = StopSignals((signal.SIGUSR1,))
    before = signal.getsignal(signal.SIGUSR1)
    stopped: list[signal.Signals] = []
    try:
        signals.install()
        signal.raise_signal(signal.SIGUSR1)
        assert signals.received is signal.SIGUSR1
        signals.connect(stopped.append)
        signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert stopped == [signal.SIGUSR1, signal.SIGUSR1]
