"""Gateways, executors and clients of the fault suite. Everything is on loopback and ends with its test."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import grpc
import grpc.aio
import pytest

from gatewayd.pb import DataRequestProto
from tests.processes import Child, ExecutorProcess, Gateway, external

SINGLE = "/jina.JinaSingleDataRequestRPC/process_single_data"
EXECUTORS = Path(__file__).with_name("executors.py")

# The whole figures of the acceptance take hours of a small machine's time.
FULL = bool(os.environ.get("GATEWAYD_FAULTS_FULL"))


@attrs.define
class Outcome:
    """One request: when it was sent (monotonic), how long it took, and its gRPC code."""

    identity: str
    sent_s: float
    took_s: float
    code: str
    details: str = ""
    text: str = ""

    @property
    def good(self) -> bool:
        return self.code == "OK"


class Clients:
    """Requests to one gateway, over enough connections not to be the bottleneck."""

    def __init__(self, port: int, endpoint: str = "/count") -> None:
        self.outcomes: list[Outcome] = []
        self._port = port
        self._endpoint = endpoint
        self._number = 0

    async def __aenter__(self) -> Clients:
        options = [("grpc.use_local_subchannel_pool", 1)]
        self._channels = [grpc.aio.insecure_channel(f"127.0.0.1:{self._port}", options) for _ in range(2)]
        self._stubs = [channel.unary_unary(SINGLE) for channel in self._channels]
        return self

    async def __aexit__(self, *_: object) -> None:
        for channel in self._channels:
            await channel.close()

    async def ask(self, timeout_s: float = 20.0) -> Outcome:
        self._number += 1
        identity = f"{id(self)}-{self._number}"
        message = DataRequestProto()
        message.header.request_id = identity
        message.header.exec_endpoint = self._endpoint
        message.data.docs.docs.add(id=identity)
        began = time.monotonic()
        code, details, text = "OK", "", ""
        try:
            stub = self._stubs[self._number % len(self._stubs)]
            answer = DataRequestProto.FromString(await stub(message.SerializeToString(), timeout=timeout_s))
            if answer.header.status.code:
                code, details = "FAILED", answer.header.status.description
            text = "".join(doc.text for doc in answer.data.docs.docs)
        except grpc.aio.AioRpcError as error:
            code, details = error.code().name, error.details() or ""
        outcome = Outcome(identity, began, time.monotonic() - began, code, details, text)
        self.outcomes.append(outcome)
        return outcome

    async def work(self, count: int, until: Callable[[], bool], timeout_s: float = 20.0) -> None:
        """``count`` clients, each asking again as soon as it was answered, while ``until`` is False."""

        async def one() -> None:
            while not until():
                await self.ask(timeout_s)

        await asyncio.gather(*(one() for _ in range(count)))

    def codes(self) -> Counter[str]:
        return Counter(outcome.code for outcome in self.outcomes)

    def slowest_s(self) -> float:
        return max(outcome.took_s for outcome in self.outcomes)


class Book:
    """What the executors were asked, whichever process it was."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def entries(self) -> list[tuple[int, str]]:
        return [
            (int(pid), identity)
            for pid, identity in (line.split() for line in self.path.read_text().splitlines())
        ]

    def asked(self) -> Counter[str]:
        return Counter(identity for _, identity in self.entries())

    def by_process(self) -> Counter[int]:
        return Counter(pid for pid, _ in self.entries())


class Bench:
    """Starts what a test needs; ``stop`` ends all of it."""

    def __init__(self, folder: Path) -> None:
        self.book = Book(folder / "book")
        os.environ["BOOK"] = str(self.book.path)
        self.children: list[Child] = []

    def executor(self, port: int = 0) -> ExecutorProcess:
        child = ExecutorProcess("a", "Counted", [EXECUTORS], port=port)
        self.children.append(child)
        return child

    def gateway(self, *ports: int, pool: dict[str, Any] | None = None, **settings: Any) -> Gateway:
        child = Gateway(
            {
                "gateway": {"pool": pool or {}},
                "executors": [external("a", list(ports), **settings)],
            },
            protocols=("grpc",),
        )
        self.children.append(child)
        return child

    def supervised(self, replicas: int) -> Gateway:
        """A gateway that starts its executors itself."""
        executor = {"name": "a", "uses": "Counted", "py_modules": [str(EXECUTORS)], "replicas": replicas}
        child = Gateway({"executors": [executor]}, protocols=("grpc",))
        self.children.append(child)
        return child

    def stop(self) -> None:
        for child in reversed(self.children):
            child.stop()
        del os.environ["BOOK"]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.stop()


def rss_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found
    return int(found[1]) / 1024


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def starved_seconds(pid: int) -> float:
    """How long its threads were ready to run, and others did."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[1]) for task in tasks) / 1e9


def report(text: str) -> None:
    """A figure, for the terminal."""
    sys.stdout.write(f"\n    {text}\n")


async def until_answered(clients: Clients, timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not (await clients.ask()).good:
        assert time.monotonic() < deadline, clients.outcomes[-1]
        await asyncio.sleep(0.01)


def run(work: Awaitable[None]) -> None:
    async def main() -> None:
        await work

    asyncio.run(main())
