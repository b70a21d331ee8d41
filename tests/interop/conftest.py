"""The real Jina, in an interpreter of its own, and the gateways and executors it meets."""

from __future__ import annotations

import json
import os
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.paths import ROOT
from tests.processes import Child, ExecutorProcess, Gateway, environment, external, free_ports

SIDE = Path(__file__).parent / "jina_side"
SIDE34 = Path(__file__).parent / "jina34_side"
GOLDEN34 = ROOT / "tests" / "golden34"
EXECUTORS = ROOT / "tests" / "executors.py"
# It draws a picture when it starts; without colours its log can be read in a failure.
PLAIN = {
    "JINA_LOG_NO_COLOR": "1",
    "JINA_LOG_LEVEL": "WARNING",
    "JINA_OPTOUT_TELEMETRY": "1",
    "PYTHONPATH": "",
}


def _interpreter(variable: str, folder: str) -> str:
    path = os.environ.get(variable, str(ROOT / folder / "bin" / "python"))
    if not Path(path).exists():
        pytest.fail(
            f"there is no {path}: run the suite with `make test-interop`, which installs the real Jina "
            f"there, or name an interpreter that has it in {variable}",
            pytrace=False,
        )
    return path


@pytest.fixture(scope="session")
def jina_python() -> str:
    """The interpreter that has the real Jina: GATEWAYD_JINA_PYTHON, or .venv-jina as make builds it."""
    return _interpreter("GATEWAYD_JINA_PYTHON", ".venv-jina")


@pytest.fixture(scope="session")
def jina34_python() -> str:
    """That of the second generation: GATEWAYD_JINA34_PYTHON, or .venv-jina34."""
    return _interpreter("GATEWAYD_JINA34_PYTHON", ".venv-jina34")


def _commands(python: str, folder: Path) -> Iterator[Callable[..., Child]]:
    started: list[Child] = []

    def start(*arguments: object, **variables: str) -> Child:
        command = [python, "-m", "jina", *(str(one) for one in arguments)]
        started.append(Child(command, env=environment(**PLAIN, **variables), cwd=folder, group=True))
        return started[-1]

    yield start
    for child in started:
        child.kill()
        child.stop()


@pytest.fixture(scope="session")
def cli(jina_python: str) -> Iterator[Callable[..., Child]]:
    """Starts ``jina ...``, the real command line."""
    yield from _commands(jina_python, SIDE)


@pytest.fixture(scope="session")
def cli34(jina34_python: str) -> Iterator[Callable[..., Child]]:
    """That of the second generation, where the executors of tests/golden34 are."""
    yield from _commands(jina34_python, GOLDEN34)


class JinaClient:
    """The real client; ``ask`` says what came of one call (see client.py of its ``side``)."""

    def __init__(self, python: str, side: Path = SIDE, **variables: str) -> None:
        self._child = Child([python, str(side / "client.py")], env=environment(**PLAIN | variables))
        self._asked = 0

    def ask(self, **command: Any) -> dict[str, Any]:
        self._child.tell(json.dumps(command))
        self._asked += 1
        answer = self._child.line("^ANSWER (.*)$", count=self._asked, timeout_s=120)[self._asked - 1]
        found: dict[str, Any] = json.loads(answer[1])
        return found

    def stop(self) -> None:
        self._child.stop(5.0)


@pytest.fixture(scope="session")
def client(jina_python: str) -> Iterator[JinaClient]:
    one = JinaClient(jina_python)
    yield one
    one.stop()


@pytest.fixture(scope="session")
def client34(jina34_python: str) -> Iterator[JinaClient]:
    one = JinaClient(jina34_python, SIDE34)
    yield one
    one.stop()


@pytest.fixture(scope="session")
def ours() -> Iterator[dict[str, ExecutorProcess]]:
    """Our executors, without a gateway."""
    running: dict[str, ExecutorProcess] = {}
    try:
        for name in ("exec_a", "exec_b", "exec_c"):
            running[name] = ExecutorProcess(name, "Rec", [EXECUTORS])
        yield running
    finally:
        for one in running.values():
            one.stop()


@pytest.fixture(scope="session")
def gateway() -> Iterator[Callable[..., Gateway]]:
    """Our gateways, one per Flow, kept for all tests."""
    running: dict[str, Gateway] = {}

    def find(flow: Mapping[str, Any]) -> Gateway:
        key = json.dumps(flow, sort_keys=True)
        if key not in running:
            running[key] = Gateway(flow)
        return running[key]

    yield find
    for one in running.values():
        one.stop()


class Theirs:
    """Where the real executors listen, by name; ``processes`` are those that a test may kill."""

    def __init__(self) -> None:
        self.ports: dict[str, int] = {}
        self.processes: dict[str, Child] = {}

    def __call__(self, name: str, **more: Any) -> dict[str, Any]:
        """The entry of a Flow file for the executor ``name``."""
        return external(name, self.ports[name], **more)


@pytest.fixture(scope="session")
def theirs(cli: Callable[..., Child]) -> Theirs:
    """The real Jina's executors: exec_a, b and c; two replicas r0, r1; exec_s with shards behind its head."""
    them = Theirs()
    names = ("exec_a", "exec_b", "exec_c", "r0", "r1", "exec_s")
    for name, port in zip(names, free_ports(len(names)), strict=True):
        them.ports[name] = port
        if name == "exec_s":
            them.processes[name] = cli("deployment", "--uses", "shards.yml", SHARDS_PORT=str(port))
        else:
            at = ("--name", name, "--port", port, "--host", "127.0.0.1")
            them.processes[name] = cli("executor", "--uses", "Rec", "--py-modules", "executors.py", *at)
    return them


@pytest.fixture(scope="session")
def theirs34(cli34: Callable[..., Child]) -> Callable[..., dict[str, Any]]:
    """
    The entry of a Flow file for one of tests/golden34/executors.py, by its class, which is started once.

    It is ready when it listens, which gateways of ours wait for.
    """
    ports: dict[str, int] = {}

    def find(uses: str, **more: Any) -> dict[str, Any]:
        if uses not in ports:
            (ports[uses],) = free_ports(1)
            at = ("--name", uses.lower(), "--port", ports[uses], "--host", "127.0.0.1")
            cli34("executor", "--uses", uses, "--py-modules", "executors.py", *at)
            _listens(ports[uses])
        return external(uses.lower(), ports[uses], **more)

    return find


def _listens(port: int, within_s: float = 60.0) -> None:
    deadline = time.monotonic() + within_s
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
        except OSError:
            assert time.monotonic() < deadline, f"nothing listens at port {port}"
            time.sleep(0.1)
        else:
            return


@pytest.fixture(scope="session")
def their_gateway(cli: Callable[..., Child]) -> Callable[..., dict[str, int]]:
    """Starts the real gateway with all protocols; its port by protocol."""

    def start(graph: Mapping[str, list[str]], addresses: Mapping[str, str]) -> dict[str, int]:
        names = ("grpc", "http", "websocket")
        ports = dict(zip(names, free_ports(3), strict=True))
        cli(
            *("gateway", "--host", "127.0.0.1"),
            *("--protocol", *(name.upper() for name in names)),
            *("--port", *ports.values()),
            *("--graph-description", json.dumps(graph)),
            *("--deployments-addresses", json.dumps({name: [at] for name, at in addresses.items()})),
        )
        return ports

    return start


def post(
    port: int, endpoint: str, data: list[dict[str, Any]] | None = None, path: str = "/post", **more: Any
) -> dict[str, Any]:
    """One HTTP request to a gateway; the parsed answer, with its HTTP status as ``http``."""
    body = json.dumps({"execEndpoint": endpoint, "data": data or [], **more}).encode()
    asked = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", body, {"content-type": "application/json"}
    )
    try:
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return {**json.load(answer), "http": answer.status}
    except urllib.error.HTTPError as error:
        return {**json.load(error), "http": error.code}
