"""Gateways under attack: real processes, watched from outside, with an ordinary client at work."""

from __future__ import annotations

import http.client
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.processes import ExecutorProcess, Gateway, external
from tests.security import figures

EXECUTORS = Path(__file__).with_name("executors.py")
MB = 1_000_000

pytestmark = pytest.mark.security


class Victim:
    """A gateway process in front of one executor. Memory is resident bytes."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.ports = gateway.ports
        self.rest_bytes = self.resident_bytes()

    def resident_bytes(self) -> int:
        status = Path(f"/proc/{self.gateway.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.gateway.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100

    def open_files(self) -> int:
        return len(os.listdir(f"/proc/{self.gateway.pid}/fd"))

    def grown_bytes(self) -> int:
        """How much more memory than at rest it holds."""
        return self.resident_bytes() - self.rest_bytes

    def post(self, *, timeout_s: float = 20.0, body: Any = None) -> int:
        """One ordinary request over HTTP; the status."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports["http"], timeout=timeout_s)
        try:
            document = {"data": [{"text": "hello"}], "execEndpoint": "/"} if body is None else body
            connection.request("POST", "/post", json.dumps(document), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            return answer.status
        finally:
            connection.close()


class Bystander:
    """A client that asks again and again, and remembers how long each answer took."""

    def __init__(self, victim: Victim, pause_s: float = 0.02) -> None:
        self._victim = victim
        self._pause_s = pause_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.took_s: list[float] = []
        self.statuses: set[int | str] = set()
        self.most_bytes = 0

    def __enter__(self) -> Bystander:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        figures.record(
            memory=f"+{self.most_bytes / MB:.0f} MB",
            p50=f"{1000 * self.percentile_s(0.5):.0f}",
            p99=f"{1000 * self.percentile_s(0.99):.0f}",
        )

    def _run(self) -> None:
        while not self._stop.wait(self._pause_s):
            began = time.monotonic()
            try:
                self.statuses.add(self._victim.post())
            except OSError as error:
                self.statuses.add(repr(error))
            self.took_s.append(time.monotonic() - began)
            self.most_bytes = max(self.most_bytes, self._victim.grown_bytes())

    def percentile_s(self, share: float) -> float:
        ordered = sorted(self.took_s)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    if report.when == "call" or (report.outcome != "passed" and report.when == "setup"):
        figures.finish(item.nodeid, _in_words(item), report.outcome)
    return report


def _in_words(item: pytest.Item) -> str:
    """An attack as its test is called, and which of its cases this is."""
    name, _, case = item.name.removeprefix("test_").partition("[")
    words = (
        name.replace("_", " ").replace("grpc", "gRPC").replace("tls", "TLS").replace("websocket", "WebSocket")
    )
    return f"{words}: {case[:-1]}" if case else words


@pytest.fixture(scope="session")
def executor() -> Iterator[ExecutorProcess]:
    process = ExecutorProcess("target", "Target", [EXECUTORS])
    yield process
    process.stop()


@pytest.fixture
def attack(executor: ExecutorProcess) -> Iterator[Callable[..., Victim]]:
    """Starts a gateway with the given keys of ``gateway``; all end with exit code 0 after the test."""
    victims: list[Victim] = []

    def start(**keys: Any) -> Victim:
        protocols = keys.pop("protocols", ("grpc", "http", "websocket"))
        flow = {
            "gateway": {"grace_period": 5, **keys},
            "executors": [external("target", executor.port)],
        }
        # What is freed goes back to the system at once, so that resident memory tells what is held.
        gateway = Gateway(flow, protocols=protocols, MALLOC_MMAP_THRESHOLD_="65536", MALLOC_ARENA_MAX="2")
        victim = Victim(gateway)
        victims.append(victim)
        if "http" in protocols and "ssl_certfile" not in keys:
            # From here on it is connected with the executor, and has what the first request loads.
            victim.post()
            victim.rest_bytes = victim.resident_bytes()
        return victim

    yield start
    codes = [victim.gateway.stop(30.0) for victim in victims]
    assert codes == [0] * len(victims)
