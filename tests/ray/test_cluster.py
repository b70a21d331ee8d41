"""Executors on a Ray cluster: nodes that die, gateways that are restarted, and what is left in the end."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from docarray import Document

from gatewayd import Client
from tests.faults.conftest import report
from tests.processes import Child, Gateway, runs, tree
from tests.ray.conftest import PROTOCOLS, RayCluster, flow, gateway
from tests.waiting import until

pytestmark = pytest.mark.ray

SERVES = re.compile(r"(\w+/rep-\d+) serves at (\S+:\d+), (?:found again )?on Ray's node (\w+)")


# Within which a death is seen, and the replica is back: on a machine that does little else. What starts takes
# seconds of CPU.
SEEN_S, BACK_S = 1.0, 10.0
SLOWER = 1 if os.getloadavg()[0] < 2 * (os.cpu_count() or 1) else 6


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


async def work(
    one: Gateway, count: int, until_: Callable[[], bool], *, pause_s: float = 0.0
) -> tuple[Counter[str], list[str]]:
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
                await asyncio.sleep(pause_s)

    await asyncio.gather(*(client(PROTOCOLS[number % 3]) for number in range(count)))
    return processes, failed


# Ray ends what a dead node has started; a machine without power ends all of it in the same moment.
@pytest.mark.parametrize("how", ["kill", "cut"])
def test_a_node_that_dies_fails_no_request_and_its_replicas_are_back_within_ten_seconds(
    cluster: RayCluster, how: str
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

        def seen() -> bool:
            return all(re.search(rf"{name} ended; next start", one.output) for name in lost)

        def back() -> bool:
            now = placed(one)
            return all(now[name][1] != victim for name in lost)

        async def scenario() -> tuple[Counter[str], list[str]]:
            over = False
            # Not as fast as they can: replicas that start need some of the same machine.
            working = asyncio.create_task(work(one, 50, lambda: over, pause_s=0.1))
            await asyncio.sleep(1.0)
            killed = time.monotonic()
            killing = asyncio.create_task(asyncio.to_thread(cluster.kill, victim, how))
            await asyncio.to_thread(until, seen)
            times["seen"] = time.monotonic() - killed
            await killing
            await asyncio.to_thread(until, back, BACK_S * 6)
            times["back"] = time.monotonic() - killed
            await asyncio.sleep(1.0)
            over = True
            return await working

        processes, failed = asyncio.run(scenario())
        report(
            f"{how}: {sum(processes.values()) // 2} requests, {len(failed)} failed; {len(lost)} replicas "
            f"lost, seen after {times['seen']:.2f} s and back after {times['back']:.1f} s"
        )
        assert not failed, failed[:3]
        assert times["seen"] < SEEN_S * SLOWER
        assert times["back"] < BACK_S * SLOWER
        assert len(processes) == 6 + len(lost)
    finally:
        assert one.stop(30.0) == 0
    assert cluster.ask("actors") == []
    assert not [pid for pid in processes if runs(int(pid))]


def test_replicas_come_and_go_with_the_load_and_nothing_is_lost(cluster: RayCluster) -> None:
    scaled = {"min": 1, "max": 3, "target_in_flight": 3, "up_after": 0.4, "down_after": 1.5}
    one = gateway(flow(cluster.address, replicas=scaled, executors=1))

    async def curve() -> tuple[Counter[str], list[str]]:
        over = peak_is_over = False
        few = asyncio.create_task(work(one, 1, lambda: over))
        many = asyncio.create_task(work(one, 15, lambda: peak_is_over))
        await asyncio.to_thread(one.line, "a: 2 -> 3 replicas: .* 3 wanted for each")
        await asyncio.to_thread(one.line, "serves at", count=3)
        await asyncio.sleep(1.0)
        peak_is_over = True
        busy, failed = await many
        assert len(busy) == 3
        await asyncio.to_thread(one.line, "a: . -> 1 replicas: ")
        await asyncio.to_thread(until, lambda: len(cluster.ask("actors")) == 1)
        over = True
        rest, failed_later = await few
        return busy + rest, failed + failed_later

    try:
        processes, failed = asyncio.run(curve())
        report(f"{sum(processes.values())} requests over {len(processes)} processes, {len(failed)} failed")
        assert not failed, failed[:3]
    finally:
        assert one.stop(30.0) == 0
    assert cluster.ask("actors") == []


def test_an_executor_that_nobody_asks_leaves_the_cluster_and_comes_when_it_is_asked(
    cluster: RayCluster,
) -> None:
    description = flow(
        cluster.address, replicas={"min": 0, "max": 2, "target_in_flight": 50, "down_after": 0.5}, executors=1
    )
    description["gateway"] = {"pool": {"queue_timeout": 60}}
    one = gateway(description, ("grpc",))
    try:
        one.line("a: 1 -> 0 replicas")
        until(lambda: cluster.ask("actors") == [])
        processes = asyncio.run(_some(one))
        assert len(processes) == 1
        one.line("a: 0 -> 1 replicas")
    finally:
        assert one.stop(30.0) == 0


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
        (
            {"num_gpus": 1},
            r"a/rep-0 is not placed yet: no node of the cluster has num_cpus 1, num_gpus 1 "
            r"\(\S+: num_cpus 4, num_gpus 0; ",
        ),
        (
            {"num_cpus": 3},
            r"a/rep-\d is not placed yet: it waits for a node with num_cpus 3 free: all that have as much "
            r"are busy \(\S+: num_cpus 1 of 4; \S+: num_cpus 1 of 4; \S+: num_cpus 1 of 4\)",
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


def test_an_environment_that_cannot_be_built_is_told_with_the_end_of_its_log(cluster: RayCluster) -> None:
    packages = {"pip": ["no-such-package==9"]}
    description = flow(cluster.address, replicas=1, executors=1, runtime_env=packages)
    description["executors"][0]["timeout_ready"] = 180_000
    child = starting(description)
    try:
        child.line("Ray could not build its runtime environment", timeout_s=180.0)
        child.line("No matching distribution found for no-such-package==9")
    finally:
        child.stop(30.0)


def test_a_cluster_that_is_not_there_is_told_in_words() -> None:
    child = starting(flow("127.0.0.1:1", replicas=1, executors=1))
    try:
        child.line(r"no Ray cluster answers at 127.0.0.1:1: .*Start one with `ray start --head`")
    finally:
        child.stop(30.0)


def test_a_cluster_that_refuses_is_told_in_words() -> None:
    of_the_flow = {"address": "local", "runtime_env": {"working_dir": "no/such/folder"}}
    child = starting(flow(of_the_flow, replicas=1, executors=1))
    try:
        child.line(r"Ray refuses the cluster of this Flow \(ray: in its with\): .*no/such/folder")
    finally:
        child.stop(30.0)


LOCAL = {"address": "local", "num_cpus": 2, "object_store_memory": 80_000_000}


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_local_cluster_starts_with_its_gateway_and_nothing_is_left_of_it(end: str) -> None:
    folders = set(Path("/tmp").glob("gatewayd-ray-*"))
    one = gateway(flow(LOCAL, replicas=2, executors=1), ("grpc",))
    processes = tree(one.pid)
    assert len(asyncio.run(_some(one))) == 2
    assert len(set(Path("/tmp").glob("gatewayd-ray-*")) - folders) == 1
    if end == "stop":
        assert one.stop(40.0) == 0
        assert not [pid for pid in processes if runs(pid)]
    else:
        one.kill()
        one.stop()
        until(lambda: not [pid for pid in processes if runs(pid)], timeout_s=40.0)
    until(lambda: set(Path("/tmp").glob("gatewayd-ray-*")) <= folders)


def test_a_cluster_that_the_gateway_is_no_node_of_is_reached_through_rays_client(cluster: RayCluster) -> None:
    one = gateway(flow(cluster.client, replicas=2, executors=1), ("grpc",))
    try:
        assert len(asyncio.run(_some(one))) == 2
        (pid, *_) = asyncio.run(_some(one))
        os.kill(int(pid), signal.SIGKILL)
        one.line(r"a/rep-\d ended; next start")
        one.line("serves at", count=3)
    finally:
        assert one.stop(40.0) == 0
    assert cluster.ask("actors") == []


def test_rays_own_tools_show_replicas_by_name(with_dashboard: RayCluster) -> None:
    one = gateway(flow(with_dashboard.address, replicas=2, executors=1), ("grpc",))
    try:
        ray = Path(sys.executable).with_name("ray")
        command = [str(ray), "list", "actors", "--format=json", f"--address={with_dashboard.address}"]
        listed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        found = {each["name"].partition(".")[0]: each["state"] for each in json.loads(listed.stdout)}
        assert found == {"a/rep-0": "ALIVE", "a/rep-1": "ALIVE"}
    finally:
        assert one.stop(30.0) == 0


def starting(description: dict[str, Any]) -> Child:
    """A gateway whose executors are not waited for."""

    class Starting(Gateway):
        def line(self, pattern: str, **more: Any) -> Any:
            return [] if pattern == "serves at" else super().line(pattern, **more)

    return Starting(description, protocols=("grpc",))
