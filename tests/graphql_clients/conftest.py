"""
GraphQL clients of other people, as programs that carry out jobs over one connection of graphql-transport-ws.

    {"url": "ws://127.0.0.1:1/graphql", "at_once": false,
     "operations": [{"query": "...", "variables": {}, "most": null or after how many results to leave}]}

    {"connections": 1, "operations": [{"results": [{"data": {}}], "errors": null or a list}]}
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.paths import ROOT
from tests.processes import environment

PROGRAMS = Path(__file__).parent / "programs"
INSTALLED = Path(os.environ.get("GATEWAYD_GRAPHQL_CLIENTS", ROOT / ".venv-graphql-clients"))
DEADLINE_S = 60.0


@attrs.frozen
class Client:
    """One of them: its command, and what has to be there for it."""

    command: Sequence[str | Path]
    needs: Path
    install: str = "make test-graphql-clients"

    @property
    def is_installed(self) -> bool:
        return self.needs.exists() and shutil.which(self.command[0]) is not None

    def carry_out(self, port: int, operations: Sequence[dict[str, Any]], *, at_once: bool = False) -> Any:
        """What became of ``operations``. Blocks."""
        job = {"url": f"ws://127.0.0.1:{port}/graphql", "operations": operations, "at_once": at_once}
        done = subprocess.run(
            [*self.command, json.dumps(job)],
            env=environment(PYTHONPATH="", NODE_PATH=str(INSTALLED / "node_modules")),
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert found["connections"] == 1
        return found["operations"]


CLIENTS = {
    "graphql-ws": Client(
        ["node", PROGRAMS / "with_graphql_ws.js"],
        INSTALLED / "node_modules" / "graphql-ws",
        "apt-get install nodejs npm, then make test-graphql-clients",
    ),
    "gql": Client([INSTALLED / "bin" / "python", PROGRAMS / "with_gql.py"], INSTALLED / "bin" / "python"),
}


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> Client:
    found = CLIENTS[request.param]
    if not found.is_installed:
        pytest.skip(f"{request.param} is not installed: {found.install}")
    return found
