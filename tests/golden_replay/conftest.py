"""Gateways of ours in front of executors of ours, one per topology, started when first asked for."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator

import pytest

from tests.golden_replay.flows import EXECUTORS, flow
from tests.golden_replay.speaking import http_exchange
from tests.processes import ExecutorProcess, Gateway, free_ports
from tests.waiting import until

# The tests come grouped by topology; a few gateways at a time keep the memory low.
_KEPT = 3
_SKIPPED = {"method": "POST", "path": "/post", "json": {"execEndpoint": "/nobody", "data": [{"id": "x"}]}}
# Until the executors have told their generation, paths that may be typed routes are answered with 503.
_NOWHERE = {"method": "GET", "path": "/nowhere"}


@pytest.fixture(scope="session")
def executor_ports() -> Iterator[dict[str, int]]:
    """The addresses of the recordings' executors; nothing listens at exec_x."""
    running: list[ExecutorProcess] = []
    try:
        ports = {"exec_x": free_ports(1)[0]}
        for key in ("exec_a", "exec_b", "exec_c", "echo", "slow"):
            name, uses = ("exec_a" if key == "slow" else key), ("Echo" if key == "echo" else "Rec")
            running.append(ExecutorProcess(name, uses, [EXECUTORS]))
            ports[key] = running[-1].port
        yield ports
    finally:
        for one in running:
            one.stop()


@pytest.fixture(scope="session")
def gateway_for(executor_ports: dict[str, int]) -> Iterator[Callable[..., Gateway]]:
    running: OrderedDict[tuple[str, str], Gateway] = OrderedDict()

    def find(name: str, grpc_server: str = "gatewayd") -> Gateway:
        key = name, grpc_server
        if key not in running:
            while len(running) >= _KEPT:
                running.popitem(last=False)[1].stop()
            described = flow(name, executor_ports)
            described["gateway"] = {**described.get("gateway", {}), "grpc_server": grpc_server}
            running[key] = Gateway(described)
            if name not in ("empty", "down", "echo", "bare"):
                _wait_until_discovered(running[key])
            elif name in ("echo", "bare"):
                until(lambda: http_exchange(running[key].ports["http"], _NOWHERE)[0]["status"] == 404)
        running.move_to_end(key)
        return running[key]

    yield find
    for gateway in running.values():
        gateway.stop()


def _wait_until_discovered(gateway: Gateway) -> None:
    # Until a gateway knows the endpoints of its executors it calls them all; the recordings are of
    # one that knows.
    def discovered() -> bool:
        answer, _ = http_exchange(gateway.ports["http"], _SKIPPED)
        return all(route["endTime"] is None for route in answer["json"]["routes"][1:])

    until(discovered)
