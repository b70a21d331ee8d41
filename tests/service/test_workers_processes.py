"""A gateway with several workers, as processes: what becomes of clients when one of these ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest

from gatewayd import Flow
from gatewayd.pb import DataRequestProto
from tests.paths import ROOT
from tests.processes import Gateway, runs
from tests.waiting import until

pytestmark = pytest.mark.slow

REC = {"name": "exec_a", "uses": "Rec", "py_modules": str(ROOT / "tests" / "executors.py")}
SLOW = """
import time
from gatewayd import Executor, requests

class Slow(Executor):
    @requests(on="/slow")
    def slow(self, **kwargs):
        print("begun", flush=True)
        time.sleep(1.0)
"""
HOST = "127.0.0.1"


def flow(**gateway: Any) -> dict[str, Any]:
    executors = gateway.pop("executors", [REC])
    return {"gateway": {"workers": 2, "grpc_server": "gatewayd", **gateway}, "executors": executors}


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    gateway = Gateway(flow())
    try:
        gateway.line(r"\bready$")
        yield gateway
    finally:
        gateway.stop()


def running(pid: int, module: str) -> list[int]:
    """The children of a process that run this module."""
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        try:
            command = Path(f"/proc/{child}/cmdline").read_bytes()
        except OSError:
            continue
        if module.encode() in command.split(b"\0") and runs(int(child)):
            found.append(int(child))
    return found


def workers(gateway: Gateway) -> list[int]:
    return running(gateway.pid, "gatewayd.service.worker")


def executors(gateway: Gateway) -> list[int]:
    return running(gateway.pid, "gatewayd.executor")


def post(port: int, endpoint: str = "/tag") -> dict[str, Any]:
    """Over a connection of its own."""
    body = json.dumps({"data": [{"id": "d0", "text": "hi"}], "execEndpoint": endpoint}).encode()
    asked = urllib.request.Request(f"http://{HOST}:{port}/post", body, {"content-type": "application/json"})
    with urllib.request.urlopen(asked, timeout=30) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def ask_grpc(port: int) -> None:
    with grpc.insecure_channel(f"{HOST}:{port}") as channel:
        call: Any = channel.unary_unary(
            "/jina.JinaSingleDataRequestRPC/process_single_data",
            request_serializer=DataRequestProto.SerializeToString,
            response_deserializer=DataRequestProto.FromString,
        )
        request = DataRequestProto()
        request.header.exec_endpoint = "/tag"
        request.data.docs.docs.add(id="d0")
        assert call(request, timeout=30).header.status.code == 0


def status(port: int) -> dict[str, str]:
    with urllib.request.urlopen(f"http://{HOST}:{port}/status", timeout=30) as answer:
        found: dict[str, str] = json.load(answer)["jina"]
        return found


def test_all_protocols_are_served_and_status_is_of_the_whole(gateway: Gateway) -> None:
    assert len(workers(gateway)) == 2
    for _ in range(4):
        assert post(gateway.ports["http"])["data"][0]["text"] == "hiA"
        ask_grpc(gateway.ports["grpc"])
    seen: list[dict[str, str]] = []

    def all_know_of_each_other() -> bool:
        # A worker hears of the others a moment after it serves itself.
        seen[:] = [status(gateway.ports["http"]) for _ in range(8)]
        return {each["gatewayd-workers"] for each in seen} == {"2 of 2 serve"}

    until(all_know_of_each_other, 30)
    assert len({(each["uid"], each["uptime"]) for each in seen}) == 1
    # What the service says once, it says once.
    assert gateway.output.count("http on 127.0.0.1") == 1
    assert "] worker-1: exec_a: " in gateway.output


def test_a_killed_worker_is_replaced_and_executors_stay(gateway: Gateway) -> None:
    victim, other = workers(gateway)
    executor = executors(gateway)
    os.kill(victim, signal.SIGKILL)
    for _ in range(4):
        post(gateway.ports["http"])
        ask_grpc(gateway.ports["grpc"])
    until(lambda: len(workers(gateway)) == 2 and victim not in workers(gateway), 60)
    until(lambda: status(gateway.ports["http"])["gatewayd-workers"] == "2 of 2 serve", 60)
    assert other in workers(gateway)
    assert executors(gateway) == executor
    gateway.line(r"worker-1 ended \(killed by SIGKILL\)")


def test_an_executor_that_starts_again_is_called_by_all_workers(gateway: Gateway) -> None:
    (executor,) = executors(gateway)
    os.kill(executor, signal.SIGKILL)
    gateway.line("serves at", count=2)
    gateway.line(r"worker-1: exec_a: \S+ connected", count=2)
    gateway.line(r"worker-2: exec_a: \S+ connected", count=2)
    for _ in range(6):
        post(gateway.ports["http"])


def test_the_end_of_the_master_ends_all(gateway: Gateway) -> None:
    everyone = [*workers(gateway), *executors(gateway)]
    assert len(everyone) == 3
    gateway.kill()
    until(lambda: not any(map(runs, everyone)), 30)
    # Nothing holds the port any longer.
    with closing(socket.create_server((HOST, gateway.ports["http"]))):
        pass


def test_workers_are_replaced_one_by_one(gateway: Gateway) -> None:
    before = workers(gateway)
    executor = executors(gateway)
    os.kill(gateway.pid, signal.SIGUSR2)
    gateway.line("all workers are replaced")
    assert len(workers(gateway)) == 2
    assert not set(before) & set(workers(gateway))
    assert executors(gateway) == executor
    post(gateway.ports["http"])
    assert gateway.stop() == 0


def test_what_is_under_way_at_sigterm_is_answered_and_nothing_is_left(tmp_path: Path) -> None:
    module = tmp_path / "slow.py"
    module.write_text(SLOW)
    gateway = Gateway(flow(executors=[{"name": "slow", "uses": "Slow", "py_modules": str(module)}]))
    try:
        gateway.line(r"\bready$")
        everyone = [*workers(gateway), *executors(gateway)]
        body = json.dumps({"data": [{"id": "d0"}], "execEndpoint": "/slow"}).encode()
        with socket.create_connection((HOST, gateway.ports["http"]), timeout=30) as client:
            client.sendall(
                b"POST /post HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
                b"content-length: %d\r\n\r\n%s" % (len(body), body)
            )
            gateway.line("begun")
            os.kill(gateway.pid, signal.SIGTERM)
            assert client.recv(1 << 16).startswith(b"HTTP/1.1 200")
        assert gateway.stop(30) == 0
        assert not [pid for pid in everyone if runs(pid)]
        assert "Traceback" not in gateway.output
    finally:
        gateway.stop()


def test_replicas_come_and_go_with_what_all_workers_have_under_way(tmp_path: Path) -> None:
    module = tmp_path / "slow.py"
    module.write_text(SLOW)
    replicas = {"min": 1, "max": 2, "target_in_flight": 2, "up_after": 0.2, "down_after": 0.5}
    slow = {"name": "slow", "uses": "Slow", "py_modules": str(module), "replicas": replicas}
    gateway = Gateway(flow(executors=[slow]))
    try:
        gateway.line(r"\bready$")
        with ThreadPoolExecutor(6) as clients:
            # Neither worker has as much by itself, most of the time.
            answers = [clients.submit(post, gateway.ports["http"], "/slow") for _ in range(12)]
            gateway.line("slow: 1 -> 2 replicas: .* 2 wanted for each")
            for each in answers:
                assert each.result()["data"][0]["id"] == "d0"
        gateway.line("slow: 2 -> 1 replicas")
        until(lambda: len(executors(gateway)) == 1)
        post(gateway.ports["http"], "/slow")
    finally:
        gateway.stop()


def test_a_gateway_class_runs_in_each_worker(tmp_path: Path) -> None:
    module = tmp_path / "front.py"
    module.write_text(
        "import os\nfrom klein import Klein\nfrom gatewayd import Gateway\n"
        "class Front(Gateway):\n    app = Klein()\n"
        "    @app.route('/pid')\n    def pid(self, request):\n        return str(os.getpid())\n"
    )
    served = flow(uses="Front", py_modules=[str(module)], executors=[])
    gateway = Gateway(served, protocols=["http"])
    try:
        gateway.line(r"\bready$")
        url = f"http://{HOST}:{gateway.ports['http']}/pid"
        seen: set[int] = set()

        def both() -> bool:
            with urllib.request.urlopen(url, timeout=30) as answer:
                seen.add(int(answer.read()))
            return len(seen) == 2

        until(both, 60)
        assert seen == set(workers(gateway))
    finally:
        gateway.stop()


def test_a_gateway_class_that_cannot_be_loaded_ends_the_service_with_code_1(tmp_path: Path) -> None:
    module = tmp_path / "front.py"
    module.write_text(
        "from gatewayd import Gateway\nclass Front(Gateway):\n    def __init__(self):\n        1/0\n"
    )
    served = flow(uses="Front", py_modules=[str(module)], executors=[])
    with pytest.raises(AssertionError, match="Front cannot be created"):
        Gateway(served, protocols=["http"])


def test_a_flow_in_python_has_workers() -> None:
    with Flow(protocol="http", workers=2).add(**REC) as served:
        answer = post(served.port)
        assert answer["data"][0]["text"] == "hiA"
        # A worker hears of the others a moment after it serves itself.
        until(lambda: status(served.port)["gatewayd-workers"] == "2 of 2 serve", 30)
