"""
The processes that tests and benchmarks run: gateways under twistd, executors, whatever else prints lines.

Everything listens on loopback, and everything that was started is ended by ``stop``.
"""

from __future__ import annotations

import compileall
import contextlib
import itertools
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.paths import ROOT

DEADLINE_S = 60.0
PROTOCOLS = ("grpc", "http", "websocket")

_TWISTD = "from twisted.scripts.twistd import run; run()"


# Below the ports that systems take for outgoing connections and for port 0, so that neither another test's
# client nor its server takes one between the look and the use. Each process begins somewhere else.
_PORTS = range(14_000, 32_000)
_next_port = itertools.count(random.SystemRandom().randrange(len(_PORTS)))


def free_ports(count: int) -> list[int]:
    """Ports that are free now; this process gives each of them once, until all have had their turn."""
    found: list[int] = []
    while len(found) < count:
        port = _PORTS[next(_next_port) % len(_PORTS)]
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
    return found


def environment(**more: str) -> dict[str, str]:
    """This process's, with the sources in the path and without what would change the answers."""
    _compile_sources()
    kept = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "JINA_OPTOUT_TELEMETRY": "1", **more}


@cache
def _compile_sources() -> None:
    """
    Once, as the installation of a package does.

    Where the environment says PYTHONDONTWRITEBYTECODE, each process would compile them: half of its start.
    """
    compileall.compile_dir(ROOT / "gatewayd", quiet=2)


def tree(pid: int) -> list[int]:
    """A process, and all that it has started."""
    found = [pid]
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in path.read_text().split():
                found += tree(int(child))
    return found


def runs(pid: int) -> bool:
    """Whether there is such a process, and it has not ended. Its parent may not have looked yet."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


class Child:
    """
    One process; what it prints (stdout and stderr together) is kept, and can be waited for.

    ``group``: it has children of its own, which ``kill`` ends too. ``pass_fds`` are descriptors that it
    inherits.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        group: bool = False,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.command = list(command)
        self._lines: list[str] = []
        self._news = threading.Condition()
        self._ended = False
        self._group = group
        self._process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment() if env is None else dict(env),
            cwd=cwd,
            start_new_session=group,
            pass_fds=pass_fds,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def output(self) -> str:
        with self._news:
            return "".join(self._lines)

    def line(self, pattern: str, *, count: int = 1, timeout_s: float = DEADLINE_S) -> list[re.Match[str]]:
        """Wait until ``count`` lines match; AssertionError with the whole output if they do not come."""
        deadline = time.monotonic() + timeout_s
        with self._news:
            while True:
                found = [match for text in self._lines if (match := re.search(pattern, text))]
                if len(found) >= count:
                    return found
                left = deadline - time.monotonic()
                if self._ended or (not self._news.wait(left) and left <= 0):
                    raise AssertionError(
                        f"no line like {pattern!r} ({len(found)} of {count}) from {self.command}:\n"
                        + "".join(self._lines)
                    )

    def tell(self, line: str) -> None:
        """Write one line to its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self._group:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    def stop(self, grace_s: float = 15.0) -> int:
        """SIGTERM, after ``grace_s`` SIGKILL; the exit code."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(grace_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
        code = self._process.wait()
        self._reader.join(5.0)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        return code

    def _read(self) -> None:
        assert self._process.stdout is not None
        # ValueError: closed while reading, because stop() has given up on the output.
        with contextlib.suppress(ValueError), self._process.stdout:
            for text in self._process.stdout:
                with self._news:
                    self._lines.append(text)
                    self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()


class Gateway(Child):
    """
    ``twistd -n gateway`` with a Flow, in a folder of its own, ready to serve.

    ``flow`` is what the Flow file would hold, without jtype and ports. ``ports`` maps each protocol to
    the port it got. GATEWAYD_TEST_GRPC_SERVER in the environment is the ``grpc_server`` of Flows without.
    """

    def __init__(
        self,
        flow: Mapping[str, Any],
        *,
        protocols: Sequence[str] = PROTOCOLS,
        python: str = sys.executable,
        **variables: str,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="gatewayd-test-")
        self._protocols = protocols
        self.path = Path(self._folder.name) / "flow.yml"
        self.write(flow)
        command = [python, "-c", _TWISTD, "-n", "--pidfile=", "gateway", "--config", str(self.path)]
        super().__init__(command, env=environment(**variables), cwd=self._folder.name)
        self.ports: dict[str, int] = {}
        try:
            for protocol in protocols:
                (match,) = self.line(rf"\b{protocol} on \S+:(\d+)")
                self.ports[protocol] = int(match[1])
            started = [one for one in flow.get("executors", ()) if not one.get("external")]
            if started:
                self.line("serves at", count=sum(map(_first_replicas, started)))
        except AssertionError:
            self.stop()
            raise

    def write(self, flow: Mapping[str, Any]) -> None:
        """Write the Flow file, as a whole: what reads it finds the old one or the new one."""
        gateway = {
            "host": "127.0.0.1",
            "protocol": list(self._protocols),
            "port": [0] * len(self._protocols),
            "grpc_server": os.environ.get("GATEWAYD_TEST_GRPC_SERVER", "gatewayd"),
            **flow.get("gateway", {}),
        }
        new = self.path.with_suffix(".new")
        new.write_text(yaml.safe_dump({"jtype": "Flow", **flow, "gateway": gateway}, sort_keys=False))
        new.replace(self.path)

    def stop(self, grace_s: float = 15.0) -> int:
        code = super().stop(grace_s)
        self._folder.cleanup()
        return code


def _first_replicas(executor: Mapping[str, Any]) -> int:
    replicas = executor.get("replicas", 1)
    return replicas if isinstance(replicas, int) else max(1, replicas.get("min", 1))


class ExecutorProcess(Child):
    """``python -m gatewayd.executor``: our executor without a gateway of ours. ``port`` is ready."""

    def __init__(
        self,
        name: str,
        uses: str,
        modules: Sequence[str | Path],
        *,
        port: int = 0,
        python: str = sys.executable,
    ) -> None:
        spec = {
            "deployment": name,
            "port": port,
            "executor": {"uses": uses, "py_modules": [str(module) for module in modules]},
        }
        # Its report goes to descriptor 3: here simply among its other lines.
        super().__init__(["/bin/sh", "-c", 'exec "$0" -m gatewayd.executor 3>&1', python])
        self.tell(json.dumps(spec))
        try:
            (match,) = self.line(r'^\{"event".*\}$')
            report = json.loads(match[0])
            assert report["event"] == "ready", report
        except AssertionError:
            self.stop()
            raise
        self.address: str = report["address"]
        self.port = int(self.address.rpartition(":")[2])


def external(name: str, port: int | Sequence[int], **more: Any) -> dict[str, Any]:
    """The entry of an executor that runs already, on loopback."""
    return {"name": name, "external": True, "host": "127.0.0.1", "port": port, **more}
