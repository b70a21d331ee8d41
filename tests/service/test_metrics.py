"""Metrics of a service as Prometheus scrapes them, of one process and of several."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from gatewayd.pb import DataRequestProto
from gatewayd.telemetry.metrics import table
from tests.paths import ROOT
from tests.processes import Gateway
from tests.waiting import until

pytestmark = pytest.mark.slow

REC = {"name": "exec_a", "uses": "Rec", "py_modules": str(ROOT / "tests" / "executors.py")}
PROTOCOLS = ["grpc", "http", "websocket"]


@contextlib.contextmanager
def running(**gateway: Any) -> Iterator[tuple[Gateway, int]]:
    """The gateway, and the port of its admin site."""
    flow = {"gateway": {"admin_port": 0, **gateway}, "executors": [REC]}
    process = Gateway(flow, protocols=PROTOCOLS)
    try:
        (found,) = process.line(r"admin site on http://127.0.0.1:(\d+)")
        process.line(r"\bready$")
        yield process, int(found[1])
    finally:
        process.stop()


def get(port: int, path: str, accept: str = "text/plain") -> bytes:
    asked = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Accept": accept})
    with urllib.request.urlopen(asked, timeout=20) as answer:
        body: bytes = answer.read()
        return body


Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(port: int) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(get(port, "/metrics").decode())
        for sample in family.samples
    }


def of(samples: Samples, name: str, **labels: str) -> float:
    """The sum of those with these labels."""
    wanted = frozenset(labels.items())
    return sum(value for (found, own), value in samples.items() if found == name and wanted <= own)


def post(port: int, endpoint: str) -> int:
    body = json.dumps({"data": [{"id": "d0", "text": "hi"}], "execEndpoint": endpoint}).encode()
    asked = urllib.request.Request(
        f"http://127.0.0.1:{port}/post", body, {"content-type": "application/json"}
    )
    try:
        with urllib.request.urlopen(asked, timeout=30) as answer:
            answer.read()
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def ask_grpc(port: int, endpoint: str) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call: Any = channel.unary_unary(
            "/jina.JinaSingleDataRequestRPC/process_single_data",
            request_serializer=DataRequestProto.SerializeToString,
            response_deserializer=DataRequestProto.FromString,
        )
        request = DataRequestProto()
        request.header.exec_endpoint = endpoint
        request.data.docs.docs.add(id="d0")
        call(request, timeout=30)


def ask_websocket(port: int, endpoint: str) -> None:
    with connect(f"ws://127.0.0.1:{port}/", subprotocols=["json"], proxy=None) as client:  # type: ignore[list-item]
        client.send(json.dumps({"data": [{"id": "d0"}], "execEndpoint": endpoint}))
        client.recv(timeout=30)


@pytest.mark.parametrize("workers", [1, 2])
def test_requests_of_every_protocol_are_counted_and_what_they_pass_is_shown(workers: int) -> None:
    with running(workers=workers) as (gateway, admin):
        for _ in range(4):
            assert post(gateway.ports["http"], "/tag") == 200
            ask_grpc(gateway.ports["grpc"], "/tag")
            ask_websocket(gateway.ports["websocket"], "/tag")
        post(gateway.ports["http"], "/nobody/binds/this")
        found = scrape(admin)

        for protocol in PROTOCOLS:
            labels = {"protocol": protocol, "endpoint": "/tag"}
            assert of(found, "gatewayd_requests_total", outcome="ok", **labels) == 4
            assert of(found, "gatewayd_request_duration_seconds_count", **labels) == 4
            assert of(found, "gatewayd_request_size_bytes_sum", **labels) > 0
        assert of(found, "gatewayd_requests_total", endpoint="other") == 1
        part = {"deployment": "exec_a", "shard": "0"}
        assert of(found, "gatewayd_deployment_attempts_total", **part) >= 12
        assert of(found, "gatewayd_deployment_duration_seconds_count", deployment="exec_a") == 12
        assert of(found, "gatewayd_deployment_connected_replicas", **part) == 1
        assert of(found, "gatewayd_replica_up", replica="0", **part) == 1
        assert of(found, "gatewayd_replica_memory_bytes", replica="0", **part) > 1e6
        assert of(found, "gatewayd_connections_limit") > 100
        assert of(found, "gatewayd_bridge_crossings_total", to="reactor") > 0
        assert of(found, "gatewayd_process_cpu_seconds_total") > 0
        assert of(found, "gatewayd_ready") == 1
        lags = until(lambda: of(scrape(admin), "gatewayd_reactor_lag_seconds_count"))
        assert lags > 0
        if workers > 1:
            assert of(found, "gatewayd_worker_serves") == workers
            assert of(found, "gatewayd_silent_processes", kind="worker") == 0
        assert {name for name, _ in found} <= {name for each in table.METRICS for name in each.samples()}

        state = json.loads(get(admin, "/api/state"))
        assert (state["ready"], state["phase"]) == (True, "serving")
        (deployment,) = state["deployments"]
        assert deployment["needs"] == ["gateway"]
        assert sum(deployment["times"]["counts"]) == 12
        (replica,) = state["replicas"]
        assert (replica["state"], replica["connected"], replica["restarts"]) == ("ready", True, 0)
        assert len(state["processes"]) == (1 if workers == 1 else workers + 1)
        outcomes = {
            each["protocol"]: each["outcomes"] for each in state["requests"] if each["endpoint"] == "/tag"
        }
        assert all(each["ok"] == 4 for each in outcomes.values())


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_refused_before_its_dispatch_is_counted_too(workers: int) -> None:
    with running(workers=workers) as (gateway, admin):
        url = f"http://127.0.0.1:{gateway.ports['http']}/post"
        for body in (b"{", b'{"data": 5}'):
            asked = urllib.request.Request(url, body, {"content-type": "application/json"})
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(asked, timeout=20)
            refused.value.close()
        with grpc.insecure_channel(f"127.0.0.1:{gateway.ports['grpc']}") as channel:
            call: Any = channel.unary_unary("/jina.JinaSingleDataRequestRPC/process_single_data")
            with pytest.raises(grpc.RpcError):
                call(b"\xff\xff", timeout=20)
        with pytest.raises(InvalidStatus):
            connect(f"ws://127.0.0.1:{gateway.ports['websocket']}/nowhere", proxy=None)
        found = scrape(admin)

        assert of(found, "gatewayd_errors_told_total", error="Unparsable") >= 1
        assert of(found, "gatewayd_errors_told_total", error="UpgradeForbidden") == 1
        assert of(found, "gatewayd_errors_told_total") == 4
        assert of(found, "gatewayd_requests_total") == 0


def test_an_executor_that_is_killed_shows_in_its_figures() -> None:
    with running() as (gateway, admin):
        (found,) = gateway.line(r"exec_a/rep-0 starts as process (\d+)")
        os.kill(int(found[1]), signal.SIGKILL)
        until(lambda: of(scrape(admin), "gatewayd_replica_restarts_total", deployment="exec_a") == 1)
        until(lambda: of(scrape(admin), "gatewayd_replica_connected", deployment="exec_a", replica="0") == 1)
        assert of(scrape(admin), "gatewayd_deployment_events_total", event="lost") >= 1
        (replica,) = json.loads(get(admin, "/api/state"))["replicas"]
        assert replica["restarts"] == 1


def test_what_a_worker_had_counted_is_not_lost_with_it() -> None:
    with running(workers=2) as (gateway, admin):
        for _ in range(8):
            assert post(gateway.ports["http"], "/tag") == 200
        before = of(scrape(admin), "gatewayd_requests_total", endpoint="/tag")
        assert before == 8
        pid = int(gateway.line(r"worker-1 starts as process (\d+)")[0][1])
        os.kill(pid, signal.SIGKILL)
        until(lambda: len(re.findall(r"worker-1 starts as process", gateway.output)) == 2)
        until(lambda: of(scrape(admin), "gatewayd_worker_serves") == 2)
        until(lambda: of(scrape(admin), "gatewayd_worker_restarts_total", process="worker-1") == 1)
        assert of(scrape(admin), "gatewayd_requests_total", endpoint="/tag") == 8


def test_what_replaced_workers_had_counted_since_the_last_scrape_is_not_lost_with_them() -> None:
    with running(workers=2) as (gateway, admin):
        for _ in range(8):
            assert post(gateway.ports["http"], "/tag") == 200
        os.kill(gateway.pid, signal.SIGUSR2)
        gateway.line("all workers are replaced")
        assert of(scrape(admin), "gatewayd_requests_total", endpoint="/tag") == 8


def test_a_worker_that_hangs_is_counted_as_silent_and_holds_nobody_up() -> None:
    with running(workers=2) as (gateway, admin):
        pid = int(gateway.line(r"worker-1 starts as process (\d+)")[0][1])
        os.kill(pid, signal.SIGSTOP)
        try:
            found = scrape(admin)
            assert of(found, "gatewayd_silent_processes", kind="worker") == 1
            assert of(found, "gatewayd_ready") == 1
        finally:
            os.kill(pid, signal.SIGCONT)
        assert of(scrape(admin), "gatewayd_silent_processes", kind="worker") == 0
