"""
Clients of other libraries, as programs in their languages, and the gateways that they call.

A program (programs/) reads a job, carries out its calls in turn, and prints a line of JSON for each:

    {"target": "127.0.0.1:1", "ca": null, "calls": [{
        "name": "unary", "path": "/a/b", "kind": "unary" | "server" | "bidi",
        "messages": [base64], "metadata": [[name, value, base64 where it is binary]],
        "timeout_s": null, "cancel_s": null, "answers": 0 or how many to wait for before cancelling,
        "times": 1, "at_once": false, "traceparent": false}]}

    {"name": "unary", "outcomes": [
        {"code": 0, "details": "", "answers": [base64], "trailers": [[name, value]]}]}
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests import certificates
from tests.paths import ROOT
from tests.processes import Child, Gateway, environment

HERE = Path(__file__).parent
PROGRAMS = HERE / "programs"
INSTALLED = Path(os.environ.get("GATEWAYD_GRPC_CLIENTS", ROOT / ".venv-grpc-clients"))
# What a program may take for a job. Chosen with room to spare for a busy machine.
DEADLINE_S = 180.0


@attrs.frozen
class Client:
    """One client: its program, what is needed for it, and the command that installs that."""

    command: Sequence[str | Path]
    needs: Path | None
    install: str
    variables: dict[str, str] = attrs.field(factory=dict)
    check: Sequence[str] = ()

    @property
    def is_installed(self) -> bool:
        if self.needs is not None:
            return self.needs.exists() and shutil.which(self.command[0]) is not None
        return (
            shutil.which(self.check[0]) is not None
            and not subprocess.run(self.check, capture_output=True, check=False).returncode
        )


def python(venv: str, program: str) -> Client:
    interpreter = INSTALLED / venv / "bin" / "python"
    return Client([interpreter, PROGRAMS / program], interpreter, "make test-grpc-clients")


CLIENTS = {
    **{
        f"grpcio {release}, {kind}": python(f"grpcio-{release}", f"grpcio_{kind}.py")
        for release in ("oldest", "constraint", "newest")
        for kind in ("sync", "aio")
    },
    "grpclib": python("grpclib", "with_grpclib.py"),
    "grpc-js": Client(
        ["node", PROGRAMS / "grpc_js.js"],
        INSTALLED / "node_modules" / "@grpc" / "grpc-js",
        "apt-get install nodejs npm, then make test-grpc-clients",
        {"NODE_PATH": str(INSTALLED / "node_modules")},
    ),
    "grpc-go": Client(
        [INSTALLED / "grpc_go"],
        INSTALLED / "grpc_go",
        "apt-get install golang-go golang-google-grpc-dev, then make test-grpc-clients",
    ),
    "Ruby": Client(
        ["ruby", PROGRAMS / "with_ruby.rb"],
        None,
        "apt-get install ruby-grpc",
        check=["ruby", "-e", 'require "grpc"'],
    ),
}


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> Client:
    found = CLIENTS[request.param]
    if not found.is_installed:
        pytest.skip(f"{request.param} is not installed: {found.install}")
    return found


class Running:
    """A program at work."""

    def __init__(self, client: Client, job: dict[str, Any], folder: Path) -> None:
        path = folder / "job.json"
        path.write_text(json.dumps(job))
        command = [*(str(part) for part in client.command), str(path)]
        self._child = Child(command, env=environment(PYTHONPATH="", **client.variables))

    def outcomes(self, name: str) -> list[dict[str, Any]]:
        """Those of the call ``name``, as soon as they are there."""
        (line,) = self._child.line(rf'^\{{.*"name": ?"{name}".*\}}$', timeout_s=DEADLINE_S)
        found: list[dict[str, Any]] = json.loads(line[0])["outcomes"]
        for outcome in found:
            outcome["answers"] = [base64.b64decode(each) for each in outcome["answers"]]
        return found

    def stop(self) -> None:
        self._child.stop()


@pytest.fixture
def start(client: Client, tmp_path: Path) -> Iterator[Callable[[dict[str, Any]], Running]]:
    """Starts the client's program with a job."""
    started: list[Running] = []

    def run(job: dict[str, Any]) -> Running:
        started.append(Running(client, job, tmp_path))
        return started[-1]

    yield run
    for each in started:
        each.stop()


def gateway(server: str, folder: Path, **settings: Any) -> Gateway:
    """A gateway whose gRPC server is ``server``; ``folder`` is its executor's."""
    executor = {
        "name": "answers",
        "uses": "Answers",
        "py_modules": [str(HERE / "executors.py")],
        "uses_with": {"folder": str(folder)},
    }
    return Gateway(
        {
            "gateway": {"grpc_server": server, "forward_headers": ["x-*"], **settings},
            "executors": [executor],
        },
        protocols=("grpc",),
    )


@pytest.fixture(scope="session", params=["gatewayd", "grpcio"])
def server(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def plain(server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    found = gateway(server, tmp_path_factory.mktemp("plain"))
    yield found
    assert found.stop() == 0
    assert "Traceback" not in found.output


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> certificates.Files:
    return certificates.write_files(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="session")
def secured(server: str, files: certificates.Files) -> Iterator[Gateway]:
    found = gateway(server, files.roots.parent, **files.settings)
    yield found
    assert found.stop() == 0
    assert "Traceback" not in found.output
