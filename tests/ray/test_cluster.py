"""Executors on a Ray cluster: nodes that die, gateways that are restarted, and what is left in the end."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from docarray import Document

from gatewayd import Client
from tests.faults.conftest import report
from tests.processes import Child, Gateway, runs
from tests.ray.conftest import PROTOCOLS, RayCluster, flow, gateway
from tests.waiting import until

pytestmark = pytest.mark.ray

SERVES = re.compile(r"(\w+/rep-\d+) serves at (\S+:\d+), (?:found again )?on Ray's node (\w+)")


def placed(child: Child) -> dict[str, tuple[str, str]]:
    """The address and the node of each replica, as the log said last."""
    return {name: (address, node) for name, address, node in SERVES.findall(child.output)}


def connected_through(child: Child) -> str:
    (match,) = child.line(r"connected through Ray's node (\w+)")
    return match[1]


async def ask(client: Any) -> str:
    """The text of one answered document: the processes that it went through."""
    async for answered in client.post("/", Document(text="")):
        return str(answered[0].text)
    raise AssertionError("no answer")


async def work(one: Gateway, count: int, until_: Callable[[], bool]) -> tuple[Counter[str], list[str]]:
    """``count`` clients of all protocols ask until then: processes that answered, and what failed."""
    processes: Counter[str] = Counter()
    failed: list[str] = []

    async def client(protocol: str) -> None:
        made: Any = Client(host="127.0.0.1", port=one.ports[protocol], protocol=protocol, asyncio=True)
        async with made as asking:
            while not until_():
                try:
                    processes.update((await ask(asking)).split())
                except Exception as error:
                    failed.append(f"{protocol}: {error!r}")

    await asyncio.gather(*(client(PROTOCOLS[number % 3]) for number in range(count)))
    return processes, failed


def test_a_node_that_dies_fails_no_request_and_its_replicas_are_back_within_ten_seconds(
    cluster: RayCluster,
) -> None:
    one = gateway(flow(cluster.address))
    try:
        before = placed(one)
        assert len(before) == 6
        nodes = Counter(node for _, node in before.values())
        assert len(nodes) == 3, nodes
        # The machine of the gateway itself, which its driver needs, stays.
        victim = next(each for each in cluster.ask("nodes") if each != connected_through(one))
        lost = {name for name, (_, node) in before.items() if node == victim}
        assert lost
        times: dict[str, float] = {}

        def back() -> bool:
            now = placed(one)
            return all(now[name][1] != victim for name in lost)

        async def scenario() -> tuple[Counter[str], list[str]]:
            over = False
            working = asyncio.create_task(work(one, 50, lambda: over))
            await asyncio.sleep(1.0)
            times["killed"] = time.monotonic()
            await asyncio.to_thread(cluster.kill, victim)
            await asyncio.to_thread(until, back)
            times["back"] = time.monotonic()
            await asyncio.sleep(1.0)
            over = True
            return await working

        processes, failed = asyncio.run(scenario())
        took_s = times["back"] - times["killed"]
        report(
            f"{sum(processes.values()) // 2} requests, {len(failed)} failed; "
            f"{len(lost)} replicas lost and back after {took_s:.1f} s"
        )
        assert not failed, failed[:3]
        assert took_s < 10.0
        assert len(processes) == 6 + len(lost)
    finally:
        assert one.stop(30.0) == 0
    assert cluster.ask("actors") == []
    assert not [pid for pid in processes if runs(int(pid))]


def test_detached_replicas_outlive_their_gateway_and_the_next_one_finds_them(cluster: RayCluster) -> None:
    description = flow(cluster.address, replicas=2, detached=True)
    first = gateway(description, ("grpc",))
    before = placed(first)
    assert first.stop(30.0) == 0
    actors = [each for each in cluster.ask("actors") if not each.endswith(":owner")]
    assert len(actors) == 4
    second = gateway(description, ("grpc",))
    try:
        assert placed(second) == before
        assert "found again" in second.output
        processes = asyncio.run(_some(second))
        assert len(processes) == 4
        found = [each for each in cluster.ask("actors") if not each.endswith(":owner")]
        assert found == actors
    finally:
        second.stop(30.0)
    # One that has fewer of them ends the others, and a gateway without any ends with its own.
    last = gateway(flow(cluster.address, replicas=1, executors=1, detached=True), ("grpc",))
    try:
        until(lambda: len(cluster.ask("actors")) == 2)
    finally:
        last.stop(30.0)


async def _some(one: Gateway) -> Counter[str]:
    made: Any = Client(host="127.0.0.1", port=one.ports["grpc"], protocol="grpc", asyncio=True)
    processes: Counter[str] = Counter()
    async with made as asking:
        for _ in range(40):
            processes.update((await ask(asking)).split())
    return processes


def test_a_gateway_that_is_killed_leaves_nothing_that_is_not_detached(cluster: RayCluster) -> None:
    one = gateway(flow(cluster.address, replicas=1), ("grpc",))
    processes = asyncio.run(_some(one))
    one.kill()
    one.stop()

    until(lambda: cluster.ask("actors") == [], timeout_s=30)
    until(lambda: not [pid for pid in processes if runs(int(pid))], timeout_s=30)


def test_a_reload_replaces_replicas_as_it_does_local_ones(cluster: RayCluster) -> None:
    description = flow(cluster.address, replicas=1, executors=1)
    one = gateway(description, ("grpc",))
    try:
        before = placed(one)
        description["executors"][0]["env"] = {"ANOTHER": "1"}
        one.write(description)
        one._process.send_signal(1)
        one.line("reloaded: changed a")
        assert placed(one) != before
        processes = asyncio.run(_some(one))
        assert len(processes) == 1
        until(lambda: len(cluster.ask("actors")) == 1)
    finally:
        one.stop(30.0)


def test_only_the_gateway_may_call_its_replicas(cluster: RayCluster) -> None:
    one = gateway(flow(cluster.address, replicas=1, executors=1), ("grpc",))
    try:
        address, _ = placed(one)["a/rep-0"]
        host, _, port = address.rpartition(":")
        stranger: Any = Client(host=host, port=int(port), protocol="grpc")
        with pytest.raises(Exception, match="answers only the gateway that it was started for"):
            stranger.post("/", Document())
        assert "gatewayd-secret:" not in one.output
    finally:
        one.stop(30.0)


@pytest.mark.parametrize(
    ("ray", "words"),
    [
        ({"num_gpus": 1}, r"a/rep-0 is not placed yet: no node of the cluster has num_cpus 1, num_gpus 1"),
        ({"num_cpus": 3}, r"a/rep-\d is not placed yet: it waits for a node with num_cpus 3 free"),
        (
            {"runtime_env": {"pip": ["no-such-package==9"]}},
            "Ray could not build its runtime environment",
        ),
    ],
)
def test_what_keeps_replicas_from_being_placed_is_told_in_words(
    cluster: RayCluster, ray: dict[str, Any], words: str
) -> None:
    description = flow(cluster.address, replicas=4, executors=1, **ray)
    description["executors"][0]["timeout_ready"] = 60_000
    child = starting(description)
    try:
        child.line(words)
    finally:
        child.stop(30.0)


def test_a_cluster_that_is_not_there_is_told_in_words() -> None:
    child = starting(flow("127.0.0.1:1", replicas=1, executors=1))
    try:
        child.line(r"no Ray cluster answers at 127.0.0.1:1: .*Start one with `ray start --head`")
    finally:
        child.stop(30.0)


def starting(description: dict[str, Any]) -> Child:
    """A gateway whose executors are not waited for."""

    class Starting(Gateway):
        def line(self, pattern: str, **more: Any) -> Any:
            return [] if pattern == "serves at" else super().line(pattern, **more)

    return Starting(description, protocols=("grpc",))
