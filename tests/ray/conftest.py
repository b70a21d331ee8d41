"""A Ray cluster of three nodes on this machine, and gateways whose executors are placed on it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.processes import Child, Gateway, environment

EXECUTORS = Path(__file__).with_name("executors.py")
PROTOCOLS = ("grpc", "http", "websocket")


class RayCluster:
    """``address`` is that of its head."""

    def __init__(self) -> None:
        program = str(Path(__file__).with_name("cluster.py"))
        self.child = Child([sys.executable, program], env=environment())
        (match,) = self.child.line(r"^cluster (\S+)$")
        self.address = match[1]
        self._asked: dict[str, int] = {}

    def ask(self, word: str) -> list[str]:
        """``nodes`` but the head, or ``actors``."""
        self.child.tell(word)
        count = self._asked[word] = self._asked.get(word, 0) + 1
        found: list[str] = json.loads(self.child.line(rf"^{word} (.*)$", count=count)[-1][1])
        return found

    def kill(self, node: str) -> None:
        """Kill a node."""
        self.child.tell(f"kill {node}")
        self.child.line(f"^killed {node}$")

    def stop(self) -> None:
        process = self.child._process
        assert process.stdin is not None
        process.stdin.close()
        process.wait(30)


@pytest.fixture
def cluster() -> Iterator[RayCluster]:
    one = RayCluster()
    yield one
    one.stop()


def flow(
    address: str, *, replicas: Any = 3, executors: int = 2, detached: bool = False, **ray: Any
) -> dict[str, Any]:
    """A Flow of executors in a row, all on Ray."""
    return {
        "with": {"name": f"tests{os.getpid()}", "placement": "ray", "ray": {"address": address}},
        "executors": [
            {
                "name": name,
                "uses": "Told",
                "py_modules": [str(EXECUTORS)],
                "replicas": replicas,
                "ray": {"num_cpus": 1, "detached": detached, **ray},
            }
            for name in ("a", "b")[:executors]
        ],
    }


def gateway(description: dict[str, Any], protocols: tuple[str, ...] = PROTOCOLS) -> Gateway:
    return Gateway(description, protocols=protocols)
