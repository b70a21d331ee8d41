"""What is compared: our gateway, Jina's, nghttpx, and executors without a gateway, each as processes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import ssl
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from bench.cases import ALONE, CHAIN, EXECUTORS, GATEWAYD, GRAPHQL, JINA, JOIN, NGHTTPX, TLS
from gatewayd.config.model import GatewayConfig
from tests.certificates import LOCAL, make
from tests.paths import ROOT
from tests.processes import Child, ExecutorProcess, Gateway, environment, external, free_ports, runs

JINA_PYTHON: Final = os.environ.get("GATEWAYD_JINA_PYTHON", str(ROOT / ".venv-jina" / "bin" / "python"))
# Which executors need which; "start" is the client.
GRAPHS: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    JOIN: {"exec_a": ("start",), "exec_b": ("start",), "exec_c": ("exec_a", "exec_b")},
    CHAIN: {"exec_a": ("start",), "exec_b": ("exec_a",), "exec_c": ("exec_b",)},
}
# A gateway's default.
GRPC_SERVER: Final[str] = attrs.fields(GatewayConfig).grpc_server.default
_SINGLE: Final[Mapping[str, tuple[str, ...]]] = {"exec_a": ("start",)}
_READY_S: Final = 60.0
# Of nghttpx: with its default of 64 KiB, it is a megabyte's windows that are measured.
_WINDOWS: Final = tuple(
    f"--{side}-http2-{scope}window-size=16777215"
    for side in ("frontend", "backend")
    for scope in ("", "connection-")
)


@attrs.frozen
class Side:
    """``pids``: the processes whose CPU time counts. ``ports`` by protocol."""

    name: str
    pids: tuple[int, ...]
    ports: Mapping[str, int]


def side(name: str, pid: int, ports: Mapping[str, int]) -> Side:
    """Of a process that is ready, and the children that it has by now."""
    return Side(name, tuple(_tree(pid)), ports)


def _tree(pid: int) -> Iterator[int]:
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            yield from _tree(int(child))


def cpu_s(pids: Iterable[int]) -> float:
    """
    User and system time of processes, all threads.

    The same sum as utime and stime in /proc/PID/stat, from the CPU clock: that has no ticks of 10 ms.
    """
    return sum(time.clock_gettime((~pid << 3) | 2) for pid in pids)


class Layout:
    """
    The sides of one layout; those that did not start are in ``missing``, with the reason.

    ``grpc_server``: which one our gateway has.
    """

    def __init__(self, name: str, wanted: tuple[str, ...], grpc_server: str = GRPC_SERVER) -> None:
        self._grpc_server = grpc_server
        self.sides: list[Side] = []
        self.missing: dict[str, str] = {}
        self._name = name
        self._wanted = wanted
        self._stack = contextlib.ExitStack()
        self._graph = GRAPHS.get(name, _SINGLE)
        self._executors: dict[str, int] = {}
        self._executor_pids: dict[str, int] = {}
        self._pair: tuple[str, str] | None = None

    def __enter__(self) -> Layout:
        try:
            if self._name == EXECUTORS:
                starts = {GATEWAYD: self._our_executor, JINA: self._jina_executor}
            else:
                self._start_executors()
                starts = {GATEWAYD: self._ours, JINA: self._jina}
                if self._graph is _SINGLE and self._name != GRAPHQL:
                    starts[NGHTTPX] = self._nghttpx
                if self._graph is _SINGLE and self._name not in (GRAPHQL, TLS):
                    starts[ALONE] = self._alone
            for name, start in starts.items():
                if name in self._wanted:
                    self._try(name, start)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _try(self, name: str, start: Callable[[], Side]) -> None:
        try:
            self.sides.append(start())
        except (OSError, AssertionError) as error:
            self.missing[name] = str(error).strip() or type(error).__name__

    def _start_executors(self) -> None:
        for name in self._graph:
            child = Child([sys.executable, "-m", "bench.executor"], cwd=ROOT)
            self._stack.callback(child.stop)
            (found,) = child.line(r"serves at (\S+)")
            self._executors[name] = int(found[1].rpartition(":")[2])
            self._executor_pids[name] = child.pid
        if self._name == TLS:
            folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))
            party = make("localhost", names=LOCAL)
            self._pair = (f"{folder}/cert.pem", f"{folder}/key.pem")
            for path, content in zip(self._pair, (party.pem, party.key_pem()), strict=True):
                Path(path).write_bytes(content)

    @property
    def _scheme(self) -> str:
        return "https" if self._pair else "http"

    def _ours(self) -> Side:
        gateway: dict[str, Any] = {"grpc_server": self._grpc_server}
        if self._name == GRAPHQL:
            gateway["expose_graphql_endpoint"] = True
        if self._pair:
            gateway["ssl_certfile"], gateway["ssl_keyfile"] = self._pair
        executors = []
        for name, needs in self._graph.items():
            more = {} if needs == ("start",) and len(self._graph) == 1 else {"needs": _ours_needs(needs)}
            executors.append(external(name, self._executors[name], **more))
        child = Gateway({"gateway": gateway, "executors": executors})
        self._stack.callback(child.stop)
        wait_until_it_answers(child.ports["http"], self._scheme, child)
        return side(GATEWAYD, child.pid, child.ports)

    def _jina(self) -> Side:
        names = ("grpc", "http", "websocket")
        ports = dict(zip(names, free_ports(3), strict=True))
        needed = {need for needs in self._graph.values() for need in needs}
        graph: dict[str, list[str]] = {}
        for name, needs in self._graph.items():
            for need in needs:
                graph.setdefault("start-gateway" if need == "start" else need, []).append(name)
            if name not in needed:
                graph[name] = ["end-gateway"]
        more = ["--expose-graphql-endpoint"] if self._name == GRAPHQL else []
        if self._pair:
            more = ["--ssl-certfile", self._pair[0], "--ssl-keyfile", self._pair[1]]
        child = self._start_jina(
            *("gateway", "--host", "127.0.0.1"),
            *("--protocol", *(name.upper() for name in names)),
            *("--port", *(str(port) for port in ports.values())),
            *("--graph-description", json.dumps(graph)),
            "--deployments-addresses",
            json.dumps({name: [f"127.0.0.1:{port}"] for name, port in self._executors.items()}),
            *more,
        )
        wait_until_it_answers(ports["http"], self._scheme, child)
        return side(JINA, child.pid, ports)

    def _start_jina(self, *arguments: str) -> Child:
        if not Path(JINA_PYTHON).exists():
            raise FileNotFoundError(f"there is no {JINA_PYTHON}; `make bench` installs the real Jina")
        variables = environment(JINA_LOG_LEVEL="ERROR", JINA_LOG_NO_COLOR="1", PYTHONPATH="")
        child = Child([JINA_PYTHON, "-m", "jina", *arguments], env=variables, cwd="/", group=True)
        self._stack.callback(child.stop)
        self._stack.callback(child.kill)
        return child

    def _nghttpx(self) -> Side:
        if shutil.which("nghttpx") is None:
            raise FileNotFoundError("nghttpx is not installed (`apt-get install nghttp2-proxy`)")
        (port,) = free_ports(1)
        command = [
            *("nghttpx", f"--frontend=127.0.0.1,{port}" + ("" if self._pair else ";no-tls")),
            f"--backend=127.0.0.1,{self._executors['exec_a']};;proto=h2",
            *("--workers=1", "--no-via", *_WINDOWS, "--conf=/dev/null", "--errorlog-file=/dev/stderr"),
            *(() if self._pair is None else (self._pair[1], self._pair[0])),
        ]
        child = Child(command, group=True)
        self._stack.callback(child.stop)
        self._stack.callback(child.kill)
        _wait_until_it_listens(port, child)
        return side(NGHTTPX, child.pid, {"grpc": port})

    def _alone(self) -> Side:
        # Its CPU time is the executor's, which every other side needs besides its own.
        return side(ALONE, self._executor_pids["exec_a"], {"grpc": self._executors["exec_a"]})

    def _our_executor(self) -> Side:
        child = ExecutorProcess("exec_a", "Same", [ROOT / "bench" / "documents.py"])
        self._stack.callback(child.stop)
        return side(GATEWAYD, child.pid, {"grpc": child.port})

    def _jina_executor(self) -> Side:
        (port,) = free_ports(1)
        child = self._start_jina(
            *("executor", "--uses", "Same", "--py-modules", str(ROOT / "bench" / "documents.py")),
            *("--name", "exec_a", "--host", "127.0.0.1", "--port", str(port)),
        )
        _wait_until_it_listens(port, child)
        return side(JINA, child.pid, {"grpc": port})


def _ours_needs(needs: tuple[str, ...]) -> list[str]:
    return ["gateway" if need == "start" else need for need in needs]


def _wait(attempt: Callable[[], object], what: str, child: Child) -> None:
    deadline = time.monotonic() + _READY_S
    while True:
        try:
            attempt()
            return
        except OSError as error:
            if not runs(child.pid):
                raise ChildProcessError(f"its process has ended: {child.output[-400:]}") from error
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what} after {_READY_S:.0f} s: {error}") from error
            time.sleep(0.1)


def _wait_until_it_listens(port: int, child: Child) -> None:
    def attempt() -> None:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()

    _wait(attempt, f"nothing listens at port {port}", child)


def wait_until_it_answers(port: int, scheme: str, child: Child) -> None:
    unchecked = ssl._create_unverified_context()
    body = b'{"data": [{"text": "hello"}], "execEndpoint": "/search"}'

    def attempt() -> None:
        url = f"{scheme}://127.0.0.1:{port}/post"
        asked = urllib.request.Request(url, body, {"content-type": "application/json"})
        with urllib.request.urlopen(asked, timeout=5, context=unchecked):
            return

    _wait(attempt, f"no answer from port {port}", child)
