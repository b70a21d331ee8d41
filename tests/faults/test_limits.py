"""Memory, open files and goodput when there is more of everything than there should be."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import pytest

from tests.faults.conftest import (
    FULL,
    Bench,
    Clients,
    cpu_seconds,
    open_files,
    report,
    rss_mb,
    run,
    starved_seconds,
    until_answered,
)
from tests.rpc.servers import SETTINGS_FRAME, listening
from tests.waiting import until_in_loop

pytestmark = pytest.mark.faults


def test_ten_times_too_much_leaves_goodput_and_memory_as_they_are(bench: Bench) -> None:
    executor = bench.executor()
    gateway = bench.gateway(executor.port, pool={"max_in_flight_per_replica": 8, "max_queued": 20})
    seconds = 30.0 if FULL else 6.0

    async def work() -> None:
        async with Clients(gateway.ports["grpc"], "/slow") as clients:
            await until_answered(clients)
            clients.outcomes.clear()
            end = time.monotonic() + 2.0
            await clients.work(6, lambda: time.monotonic() > end)
            capacity = clients.codes()["OK"] / 2.0
            clients.outcomes.clear()
            before_mb = rss_mb(gateway.pid)
            peak_mb = before_mb
            asked: set[asyncio.Task[Any]] = set()
            began = time.monotonic()
            cpu_s, starved_s = cpu_seconds(gateway.pid), starved_seconds(gateway.pid)
            sent = 0
            while (now := time.monotonic()) < began + seconds:
                while sent < (now - began) * 10 * capacity:
                    asked.add(asyncio.create_task(clients.ask()))
                    sent += 1
                asked = {task for task in asked if not task.done()}
                peak_mb = max(peak_mb, rss_mb(gateway.pid))
                await asyncio.sleep(0.005)
            used = (cpu_seconds(gateway.pid) - cpu_s) / seconds
            in_time = [one for one in clients.outcomes if one.good]
            goodput = len(in_time) / seconds
            await asyncio.gather(*asked)
            refused = sorted(one.took_s for one in clients.outcomes if one.code == "RESOURCE_EXHAUSTED")
            median, late, worst = (refused[int(len(refused) * share)] * 1000 for share in (0.5, 0.95, 0.9999))
            # On a machine that is busy with something else, the gateway waits for the processor.
            starved = (starved_seconds(gateway.pid) - starved_s) / seconds
            busy = starved > 0.1
            report(
                f"overload: {sent / seconds:.0f} requests/s asked of {capacity:.0f}, goodput {goodput:.0f}/s "
                f"({goodput / capacity:.0%}), refused {len(refused)} in {median:.1f} ms (median), "
                f"{late:.1f} ms (95 %), {worst:.1f} ms (worst), memory {before_mb:.0f} -> {peak_mb:.0f} MB, "
                f"{used:.0%} of a core, waiting for one {starved:.0%} of the time"
            )
            assert set(clients.codes()) == {"OK", "RESOURCE_EXHAUSTED"}
            assert goodput >= (0.7 if busy else 0.9) * capacity
            assert late < (500.0 if busy else 50.0)
            assert peak_mb < before_mb + 30

    run(work())


def test_connections_that_flap_leave_nothing_behind(bench: Bench) -> None:
    flaps, wanted, sockets = [0], 10_000 if FULL else 600, 24

    def flap(connection: Any) -> None:
        # A server that greets and hangs up.
        flaps[0] += 1
        connection.sendall(SETTINGS_FRAME)
        connection.recv(1 << 16)
        connection.close()

    good = bench.executor()
    with contextlib.ExitStack() as stack:
        ports = [stack.enter_context(listening(flap)) for _ in range(sockets)]
        gateway = bench.gateway(good.port, *ports)

        async def work() -> None:
            async with Clients(gateway.ports["grpc"]) as clients:
                await until_answered(clients)
                stop = False
                working = asyncio.create_task(clients.work(2, lambda: stop))
                await until_in_loop(lambda: flaps[0] >= 200, 60.0)
                began, begun = time.monotonic(), flaps[0]
                before = rss_mb(gateway.pid), open_files(gateway.pid)
                await until_in_loop(lambda: flaps[0] >= begun + wanted, 300.0)
                per_s = wanted / (time.monotonic() - began)
                stop = True
                await working
                after = rss_mb(gateway.pid), open_files(gateway.pid)
                report(
                    f"{wanted} flaps ({per_s:.0f}/s over {sockets} addresses): memory {before[0]:.1f} -> "
                    f"{after[0]:.1f} MB, open files {before[1]} -> {after[1]}, {dict(clients.codes())}"
                )
                assert set(clients.codes()) == {"OK"}
                # Ten a second for each address; more would be a busy loop.
                assert per_s < 15 * sockets
                assert after[1] <= before[1] + sockets
                assert after[0] < before[0] + 15

        run(work())


def test_many_requests_leave_nothing_behind(bench: Bench) -> None:
    executor = bench.executor()
    gateway = bench.gateway(executor.port)
    warm, wanted = 4000, 200_000 if FULL else 10_000

    async def work() -> None:
        async with Clients(gateway.ports["grpc"]) as clients:
            await until_answered(clients)
            asked = 0

            async def ask(total: int) -> None:
                nonlocal asked
                asked = 0

                async def one() -> None:
                    nonlocal asked
                    while asked < total:
                        asked += 1
                        assert (await clients.ask()).good
                        if len(clients.outcomes) > 1000:
                            clients.outcomes.clear()

                await asyncio.gather(*(one() for _ in range(20)))

            await ask(warm)
            before = rss_mb(gateway.pid), open_files(gateway.pid)
            began = time.monotonic()
            await ask(wanted)
            after = rss_mb(gateway.pid), open_files(gateway.pid)
            report(
                f"{wanted} requests ({wanted / (time.monotonic() - began):.0f}/s): memory {before[0]:.1f} -> "
                f"{after[0]:.1f} MB, open files {before[1]} -> {after[1]}"
            )
            assert after[1] <= before[1] + 4
            assert after[0] < before[0] + 10

    run(work())
