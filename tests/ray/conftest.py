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
from tests.waiting import until

EXECUTORS = Path(__file__).with_name("executors.py")
PROTOCOLS = ("grpc", "http", "websocket")


class RayCluster:
    """``address`` is that of its head, ``client`` that of Ray's client."""

    def __init__(self, *arguments: str) -> None:
        program = str(Path(__file__).with_name("cluster.py"))
        self.child = Child([sys.executable, program, *arguments], env=environment())
        (match,) = self.child.line(r"^cluster (\S+) (\S+)$")
        self.address, self.client = match[1], match[2]
        self._asked: dict[str, int] = {}

    def ask(self, word: str) -> list[str]:
        """``nodes`` but the head, or ``actors``."""
        self.child.tell(word)
        count = self._asked[word] = self._asked.get(word, 0) + 1
        found: list[str] = json.loads(self.child.line(rf"^{word} (.*)$", count=count)[-1][1])
        return found

    def kill(self, node: str, how: str = "kill") -> None:
        """Kill a node's own process; ``cut`` kills all that run there."""
        self.child.tell(f"{how} {node}")
        self.child.line(f"^killed {node}$")

    def restore(self) -> None:
        """Have as many nodes as in the beginning, and no actors."""
        count = self._asked["restore"] = self._asked.get("restore", 0) + 1
        self.child.tell("restore")
        self.child.line("^restored", count=count)

    def stop(self) -> None:
        process = self.child._process
        assert process.stdin is not None
        process.stdin.close()
        process.wait(30)


@pytest.fixture
def with_dashboard() -> Iterator[RayCluster]:
    """Of one node."""
    one = RayCluster("dashboard")
    yield one
    one.stop()


@pytest.fixture(scope="session")
def _started() -> Iterator[RayCluster]:
    one = RayCluster()
    yield one
    one.stop()


@pytest.fixture
def cluster(_started: RayCluster) -> RayCluster:
    """Of three nodes, on which nothing runs."""
    _started.restore()
    until(lambda: _started.ask("actors") == [], timeout_s=30.0, what="what the test before has left ended")
    return _started


def flow(
    address: str | dict[str, Any],
    *,
    replicas: Any = 3,
    executors: int = 2,
    detached: bool = False,
    **ray: Any,
) -> dict[str, Any]:
    """A Flow of executors in a row, all on Ray; ``address`` may be all of what it says of the cluster."""
    at = {"address": address} if isinstance(address, str) else address
    return {
        "with": {"name": f"tests{os.getpid()}", "placement": "ray", "ray": at},
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
