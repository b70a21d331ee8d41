"""The real Jina 3.34, in an interpreter of its own: its gateway before the executors of the golden data."""

import json
import os
from pathlib import Path

import pytest

from tests.docarray2.golden import SOURCE
from tests.paths import ROOT
from tests.processes import Child, environment, free_ports

PLAIN = {"JINA_LOG_NO_COLOR": "1", "JINA_LOG_LEVEL": "WARNING", "PYTHONPATH": ""}
PROTOCOLS = ("grpc", "http", "websocket")


class Jina:
    """Starts what its command line starts; ``stop`` ends all of it."""

    def __init__(self):
        path = os.environ.get("GATEWAYD_JINA34_PYTHON", str(ROOT / ".venv-jina34" / "bin" / "python"))
        if not Path(path).exists():
            pytest.fail(
                f"there is no {path}: run the suite with `make test-interop`, which installs the real Jina "
                "3.34 there, or name an interpreter that has it in GATEWAYD_JINA34_PYTHON",
                pytrace=False,
            )
        self._python = path
        self._started = []

    def executor(self, uses):
        """The port of an executor of the class ``uses``."""
        (port,) = free_ports(1)
        at = ("--name", uses.lower(), "--port", port, "--host", "127.0.0.1")
        self._run("executor", "--uses", uses, "--py-modules", SOURCE.name, *at)
        return port

    def gateway(self, name, port):
        """The ports, by protocol, of a gateway in front of the executor that listens at ``port``."""
        ports = dict(zip(PROTOCOLS, free_ports(3), strict=True))
        self._run(
            *("gateway", "--host", "127.0.0.1"),
            *("--protocol", *(protocol.upper() for protocol in PROTOCOLS)),
            *("--port", *ports.values()),
            *("--graph-description", json.dumps({"start-gateway": [name], name: ["end-gateway"]})),
            *("--deployments-addresses", json.dumps({name: [f"127.0.0.1:{port}"]})),
        )
        return ports

    def stop(self):
        for child in self._started:
            child.kill()
            child.stop()

    def _run(self, *arguments):
        command = [self._python, "-m", "jina", *(str(one) for one in arguments)]
        self._started.append(Child(command, env=environment(**PLAIN), cwd=SOURCE.parent, group=True))
