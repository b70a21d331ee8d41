"""A replica's process without a supervisor, for tests that talk to it over a real socket."""

import contextlib
import json
import os
import select
import signal
import sys
import time

import grpc
import pytest

from gatewayd.config import ExecutorConfig
from gatewayd.executor.spec import ExecutorSpec
from tests.paths import ROOT

EXECUTORS = str(ROOT / "tests" / "executors.py")
DEADLINE_S = 20.0


class Replica:
    """One ``python -m gatewayd.executor`` process. Its standard input stays open until ``abandon``."""

    def __init__(self, spec: ExecutorSpec) -> None:
        stdin, self._stdin = os.pipe()
        self._report, report = os.pipe()
        output_read, output = os.pipe()
        self._output = output_read
        self.pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-m", "gatewayd.executor"],
            {**os.environ, "PYTHONPATH": str(ROOT)},
            file_actions=[
                # Out of the way first: the pipes may have any numbers, these among them.
                (os.POSIX_SPAWN_DUP2, stdin, 100),
                (os.POSIX_SPAWN_DUP2, output, 101),
                (os.POSIX_SPAWN_DUP2, report, 102),
                (os.POSIX_SPAWN_DUP2, 100, 0),
                (os.POSIX_SPAWN_DUP2, 101, 1),
                (os.POSIX_SPAWN_DUP2, 101, 2),
                (os.POSIX_SPAWN_DUP2, 102, 3),
                *((os.POSIX_SPAWN_CLOSE, extra) for extra in (100, 101, 102)),
            ],
        )
        for descriptor in (stdin, output, report):
            os.close(descriptor)
        self._group = self.pid
        os.write(self._stdin, spec.to_line())

    def report(self) -> dict[str, str]:
        """The one line that the process writes on descriptor 3."""
        line, deadline = b"", time.monotonic() + DEADLINE_S
        while not line.endswith(b"\n"):
            readable, _, _ = select.select([self._report], [], [], max(0, deadline - time.monotonic()))
            part = os.read(self._report, 1 << 16) if readable else b""
            assert part, f"no report; the process wrote: {self.output()}"
            line += part
        return json.loads(line)

    def channel(self) -> grpc.Channel:
        report = self.report()
        assert report["event"] == "ready", report
        return grpc.insecure_channel(report["address"])

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)

    def abandon(self) -> None:
        """End its standard input, as the death of a supervisor does."""
        os.close(self._stdin)
        self._stdin = -1

    def wait(self) -> int:
        """The exit code, or minus the signal, once the process has ended."""
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                return os.waitstatus_to_exitcode(status)
            select.select([], [], [], 0.01)
        raise AssertionError(f"the replica still runs {DEADLINE_S} s later")

    def output(self) -> str:
        """Everything it wrote to stdout and stderr; only after it ended is that complete."""
        os.set_blocking(self._output, False)
        with contextlib.suppress(BlockingIOError):
            return os.read(self._output, 1 << 20).decode()
        return ""

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # no children are left, as should be
            os.killpg(self._group, signal.SIGKILL)
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        for descriptor in (self._report, self._output, self._stdin):
            if descriptor >= 0:
                os.close(descriptor)


@pytest.fixture(scope="session")
def start_replica():
    """Starts replicas; ends them after the tests."""
    started: list[Replica] = []

    def start(
        uses: str | None = "Rec", *, name: str = "exec_a", py_modules=(EXECUTORS,), **config
    ) -> Replica:
        spec = ExecutorSpec(name, ExecutorConfig(uses=uses, py_modules=tuple(py_modules), **config))
        started.append(Replica(spec))
        return started[-1]

    yield start
    for replica in started:
        replica.close()


@pytest.fixture(scope="session")
def rec(start_replica):
    """A channel to a ``Rec`` named exec_a."""
    with start_replica().channel() as channel:
        yield channel
