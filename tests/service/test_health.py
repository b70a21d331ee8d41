"""Health as a process tells it, on the admin port, over HTTP and over gRPC: starting, unwell, draining."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.paths import ROOT
from tests.processes import Gateway, runs
from tests.waiting import until

pytestmark = pytest.mark.slow

REC = {"name": "exec_a", "uses": "Rec", "py_modules": str(ROOT / "tests" / "executors.py")}
# It starts when the test says so.
LATE = """
import os, time
from gatewayd import Executor, requests

class Late(Executor):
    def __init__(self, path, **kwargs):
        super().__init__(**kwargs)
        while not os.path.exists(path):
            time.sleep(0.02)
"""


def ask(port: int, path: str) -> tuple[int, list[str]]:
    """The status, and the words of the reasons."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
            status, body = answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            status, body = error.code, error.read()
    return status, [each["reason"] for each in json.loads(body)["reasons"]]


def grpc_health(port: int, *services: str) -> list[str]:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        found = []
        for service in services:
            try:
                answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=20)
            except grpc.RpcError as error:
                found.append(error.code().name)
            else:
                found.append(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
        return found


@contextlib.contextmanager
def running(executor: dict[str, Any], **gateway: Any) -> Iterator[tuple[Gateway, int]]:
    """The gateway, and the port of its admin site."""
    # "deployments" is the other name of the list: it is not waited for what is in it.
    flow = {
        "gateway": {"admin_port": 0, "expose_health": True, **gateway},
        "with": {"name": "shop"},
        "deployments": [executor],
    }
    process = Gateway(flow, protocols=["grpc", "http"])
    try:
        (found,) = process.line(r"admin site on http://127.0.0.1:(\d+)")
        yield process, int(found[1])
    finally:
        process.stop()


def is_ready(port: int) -> None:
    until(lambda: ask(port, "/readyz") == (200, []), what=lambda: f"ready: {ask(port, '/readyz')}")


@pytest.mark.parametrize("workers", [1, 2])
def test_one_whose_executor_starts_is_alive_and_no_more(tmp_path: Path, workers: int) -> None:
    module, go = tmp_path / "late.py", tmp_path / "go"
    module.write_text(LATE)
    late = {"name": "exec_a", "uses": "Late", "py_modules": str(module), "uses_with": {"path": str(go)}}
    with running(late, workers=workers) as (gateway, admin):
        ports = (admin, gateway.ports["http"])
        for port in ports:
            assert ask(port, "/livez") == (200, [])
            assert ask(port, "/startupz") == (503, ["starting"])
            assert ask(port, "/readyz") == (503, ["starting"])
        assert grpc_health(gateway.ports["grpc"], "", "shop", "exec_a") == ["NOT_SERVING"] * 3
        go.touch()
        for port in ports:
            is_ready(port)
            assert ask(port, "/startupz") == (200, [])
        assert grpc_health(gateway.ports["grpc"], "", "shop", "exec_a") == ["SERVING"] * 3


@pytest.mark.parametrize(
    "settings", [{}, {"workers": 2}, {"grpc_server": "grpcio"}], ids=["one process", "workers", "grpcio"]
)
def test_one_that_loses_its_executor_is_not_ready_until_it_is_back(settings: dict[str, Any]) -> None:
    with running(REC, **settings) as (gateway, admin):
        is_ready(admin)
        (found,) = gateway.line(r"exec_a/rep-0 starts as process (\d+)")
        # Stopped, it does not serve; its connection is lost only when it is killed.
        os.kill(int(found[1]), signal.SIGKILL)
        port = gateway.ports["grpc"]
        until(lambda: grpc_health(port, "exec_a", "shop") == ["NOT_SERVING"] * 2 or restarted(gateway))
        assert grpc_health(port, "", "nobody") == ["SERVING", "NOT_FOUND"]
        gateway.line(r"exec_a/rep-0 starts as process", count=2)
        for each in (admin, gateway.ports["http"]):
            is_ready(each)
        until(lambda: grpc_health(port, "exec_a", "shop") == ["SERVING"] * 2)


def restarted(gateway: Gateway) -> bool:
    return len(re.findall(r"exec_a/rep-0 serves at", gateway.output)) > 1


def test_a_replica_that_cannot_come_back_is_named(tmp_path: Path) -> None:
    module, go = tmp_path / "late.py", tmp_path / "go"
    module.write_text(LATE)
    go.touch()
    late = {"name": "exec_a", "uses": "Late", "py_modules": str(module), "uses_with": {"path": str(go)}}
    with running(late) as (gateway, admin):
        is_ready(admin)
        go.unlink()
        (found,) = gateway.line(r"exec_a/rep-0 starts as process (\d+)")
        os.kill(int(found[1]), signal.SIGKILL)
        for port in (admin, gateway.ports["http"]):
            until(lambda port=port: ask(port, "/readyz") == (503, ["no_replica"]))  # type: ignore[misc]
            assert ask(port, "/livez") == (200, [])
            assert ask(port, "/startupz") == (200, [])
        until(lambda: grpc_health(gateway.ports["grpc"], "", "exec_a") == ["SERVING", "NOT_SERVING"])
        go.touch()
        is_ready(admin)


@pytest.mark.parametrize("workers", [1, 2])
def test_one_that_stops_is_seen_not_ready_while_it_serves_on(workers: int) -> None:
    with running(REC, workers=workers, drain_delay=1.5) as (gateway, admin):
        is_ready(admin)
        os.kill(gateway.pid, signal.SIGTERM)
        port = gateway.ports["http"]
        for each in (admin, port):
            until(lambda each=each: ask(each, "/readyz") == (503, ["draining"]))  # type: ignore[misc]
        assert grpc_health(gateway.ports["grpc"], "", "exec_a") == ["NOT_SERVING"] * 2
        body = json.dumps({"data": [{"text": "hi"}], "execEndpoint": "/tag"}).encode()
        asked = urllib.request.Request(
            f"http://127.0.0.1:{port}/post", body, {"content-type": "application/json"}
        )
        with urllib.request.urlopen(asked, timeout=20) as answer:
            assert json.load(answer)["data"][0]["text"] == "hiA"
        pid = gateway.pid
        gateway.line("stopped$")
        until(lambda: not runs(pid))  # a second signal would find nobody who waits for it
        assert gateway.stop() == 0


def test_the_name_of_a_part_is_not_told_to_strangers() -> None:
    with running(REC, production=True, expose_health=False) as (gateway, admin):
        is_ready(admin)
        assert grpc_health(gateway.ports["grpc"], "", "exec_a", "shop") == [
            "SERVING",
            "NOT_FOUND",
            "NOT_FOUND",
        ]


def test_an_admin_port_that_is_taken_is_found_before_anything_starts() -> None:
    with running(REC) as (_, admin):
        flow = {"gateway": {"admin_port": admin}}
        with pytest.raises(AssertionError, match=r"gateway\.admin_port: cannot listen on 127\.0\.0\.1"):
            Gateway(flow, protocols=["grpc"])
