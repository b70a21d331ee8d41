"""What clients notice when executors are killed, stopped, replaced, or talk nonsense."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from gatewayd.bridge import Bridge
from tests.faults.conftest import FULL, Bench, Clients, report, run, until_answered
from tests.processes import free_ports, runs
from tests.rpc.servers import (
    DISCOVERY,
    SINGLE,
    Executor,
    black_hole,
    listening,
    resets,
    resets_under_calls,
    says_nothing,
    talks_nonsense,
)
from tests.waiting import until_in_loop

pytestmark = pytest.mark.faults


def test_killing_one_of_two_replicas_under_50_clients_fails_no_request(bench: Bench) -> None:
    one, other = bench.executor(), bench.executor()
    gateway = bench.gateway(one.port, other.port)

    async def work() -> None:
        async with Clients(gateway.ports["grpc"], "/linger") as clients:
            await until_answered(clients)
            end = time.monotonic() + 3.0
            working = asyncio.create_task(clients.work(50, lambda: time.monotonic() > end))
            await asyncio.sleep(1.0)
            one.kill()
            await working
            again = sum(times > 1 for times in bench.book.asked().values())
            report(
                f"kill -9: {dict(clients.codes())}, {again} had been accepted by the one that was killed, "
                f"slowest {clients.slowest_s() * 1000:.0f} ms"
            )
            assert again
            assert set(clients.codes()) == {"OK"}
            assert clients.slowest_s() < 1.0

    run(work())


def test_with_all_killed_errors_come_within_a_second_and_a_restart_is_used_in_a_quarter(
    bench: Bench,
) -> None:
    replicas = [bench.executor(), bench.executor()]
    gateway = bench.gateway(*(replica.port for replica in replicas))

    async def work() -> None:
        async with Clients(gateway.ports["grpc"]) as clients:
            await until_answered(clients)
            stop = False
            working = asyncio.create_task(clients.work(20, lambda: stop))
            await asyncio.sleep(0.5)
            for replica in replicas:
                replica.kill()
            await asyncio.sleep(1.5)
            ready = []
            for replica in replicas:
                await asyncio.to_thread(bench.executor, replica.port)
                ready.append(time.monotonic())
            await asyncio.sleep(1.0)
            stop = True
            await working
            failed = [outcome for outcome in clients.outcomes if not outcome.good]
            good = [outcome.sent_s + outcome.took_s for outcome in clients.outcomes if outcome.good]
            slowest_s = max(outcome.took_s for outcome in failed)
            back_s = min(at for at in good if at > failed[0].sent_s + 0.9) - ready[0]
            last_failure_s = max(outcome.sent_s + outcome.took_s for outcome in failed) - ready[0]
            report(
                f"all killed: {dict(clients.codes())}, slowest error {slowest_s * 1000:.0f} ms, first answer "
                f"{back_s * 1000:.0f} ms and last error {last_failure_s * 1000:.0f} ms after the restart"
            )
            assert {outcome.code for outcome in failed} == {"UNAVAILABLE"}
            assert slowest_s < 1.0
            assert back_s < 0.25

    run(work())


def test_a_request_that_ends_its_executor_ends_two_replicas_and_no_more(bench: Bench) -> None:
    replicas = [bench.executor() for _ in range(4)]
    gateway = bench.gateway(*(replica.port for replica in replicas))

    async def work() -> None:
        async with (
            Clients(gateway.ports["grpc"]) as clients,
            Clients(gateway.ports["grpc"], "/die") as deadly,
        ):
            await until_answered(clients)
            stop = False
            working = asyncio.create_task(clients.work(8, lambda: stop))
            await until_in_loop(lambda: len(bench.book.by_process()) == 4)
            lethal = await deadly.ask()
            why = "2 executors were lost while they handled this request"
            # A process has closed its connections a moment before it has ended.
            await until_in_loop(lambda: sum(not runs(replica.pid) for replica in replicas) >= 2)
            ended = {replica.pid for replica in replicas if not runs(replica.pid)}
            left = {replica.pid for replica in replicas} - ended
            before = bench.book.by_process()
            await until_in_loop(lambda: all(bench.book.by_process()[pid] > before[pid] + 50 for pid in left))
            stop = True
            await working
            report(
                f"ends its executor: {lethal.code} after {lethal.took_s * 1000:.0f} ms, "
                f"{len(ended)} of 4 lost; others: {dict(clients.codes())}"
            )
            assert lethal.code == "UNAVAILABLE"
            assert why in lethal.details
            assert bench.book.asked()[lethal.identity] == 2
            assert {pid for pid, identity in bench.book.entries() if identity == lethal.identity} == ended
            assert len(ended) == 2
            assert {replica.pid for replica in replicas if runs(replica.pid)} == left
            # What the two had under way was answered by others, but for what was under way on both: the
            # gateway cannot tell which request it was.
            failed = [outcome for outcome in clients.outcomes if not outcome.good]
            assert all(why in outcome.details for outcome in failed)
            assert all(outcome.sent_s < lethal.sent_s + lethal.took_s for outcome in failed)
            assert len(failed) <= 8

    run(work())


@pytest.mark.parametrize("kind", ["refuses", "is a black hole", "is silent", "resets", "talks nonsense"])
def test_a_dead_end_is_always_reported_within_a_second(bench: Bench, kind: str) -> None:
    behaviours: dict[str, Callable[[Any], None]] = {
        "is silent": says_nothing,
        "resets": resets,
        "talks nonsense": talks_nonsense,
    }
    with contextlib.ExitStack() as stack:
        if kind in behaviours:
            port = stack.enter_context(listening(behaviours[kind]))
        else:
            port = free_ports(1)[0] if kind == "refuses" else stack.enter_context(black_hole())
        gateway = bench.gateway(port)

        async def work() -> None:
            async with Clients(gateway.ports["grpc"]) as clients:
                end = time.monotonic() + 3.0
                await clients.work(10, lambda: time.monotonic() > end)
                report(f"{kind}: {dict(clients.codes())}, slowest {clients.slowest_s() * 1000:.0f} ms")
                assert set(clients.codes()) == {"UNAVAILABLE"}
                assert clients.slowest_s() < 1.0

        run(work())


@pytest.mark.parametrize("behave", [resets, resets_under_calls, says_nothing, talks_nonsense])
def test_a_bad_connection_beside_a_good_one_fails_no_request(
    bench: Bench, behave: Callable[[Any], None]
) -> None:
    good = bench.executor()
    with listening(behave) as port:
        gateway = bench.gateway(good.port, port)

        async def work() -> None:
            async with Clients(gateway.ports["grpc"]) as clients:
                end = time.monotonic() + 2.0
                await clients.work(20, lambda: time.monotonic() > end)
                report(
                    f"{behave.__name__}: {dict(clients.codes())}, slowest {clients.slowest_s() * 1000:.0f} ms"
                )
                assert set(clients.codes()) == {"OK"}
                assert clients.slowest_s() < 1.0

        run(work())


@pytest.mark.parametrize("whose", ["timeout_send", "the clients' deadlines"])
def test_a_stopped_replica_is_ejected_after_deadlines_and_comes_back(bench: Bench, whose: str) -> None:
    one, other = bench.executor(), bench.executor()
    limit = {"timeout_send": 300} if whose == "timeout_send" else {}
    patience_s = 20.0 if limit else 0.3
    gateway = bench.gateway(one.port, other.port, pool={"eject_time": 1.0}, **limit)

    async def work() -> None:
        async with Clients(gateway.ports["grpc"]) as clients:
            await until_in_loop(lambda: len(gateway.line(" connected", count=2)) == 2)
            stop = False
            working = asyncio.create_task(clients.work(20, lambda: stop, patience_s))
            await asyncio.sleep(0.5)
            os.kill(one.pid, signal.SIGSTOP)
            stopped_s = time.monotonic()
            await asyncio.sleep(2.5)
            os.kill(one.pid, signal.SIGCONT)
            resumed_s = time.monotonic()
            before = bench.book.by_process()[one.pid]
            await until_in_loop(lambda: bench.book.by_process()[one.pid] > before + 50)
            back_s = time.monotonic() - resumed_s
            stop = True
            await working
            failed = [outcome for outcome in clients.outcomes if not outcome.good]
            last_s = max((outcome.sent_s for outcome in failed), default=stopped_s) - stopped_s
            report(
                f"SIGSTOP, {whose}: {dict(clients.codes())}, the last to fail was sent {last_s:.2f} s after, "
                f"back {back_s:.1f} s after SIGCONT"
            )
            assert {outcome.code for outcome in failed} <= {"DEADLINE_EXCEEDED"}
            assert len(failed) <= 100
            assert last_s < (1.0 if limit else 2.0)
            assert back_s < 6.0

    run(work())


def test_killing_a_replica_that_gatewayd_started_fails_no_request_and_it_returns(bench: Bench) -> None:
    gateway = bench.supervised(replicas=2)
    pids = [int(match[1]) for match in gateway.line(r"starts as process (\d+)", count=2)]

    async def work() -> None:
        async with Clients(gateway.ports["grpc"], "/linger") as clients:
            await until_answered(clients)
            stop = False
            working = asyncio.create_task(clients.work(50, lambda: stop))
            await asyncio.sleep(0.5)
            os.kill(pids[0], signal.SIGKILL)
            killed_s = time.monotonic()
            await until_in_loop(lambda: len(set(bench.book.by_process()) - set(pids)) == 1)
            back_s = time.monotonic() - killed_s
            stop = True
            await working
            report(f"supervised: {dict(clients.codes())}, its successor was at work after {back_s:.1f} s")
            assert set(clients.codes()) == {"OK"}

    run(work())


def test_a_replica_that_answers_garbage_is_soon_left_out(bench: Bench) -> None:
    from twisted.internet.task import Clock

    class OwnThread(Clock):
        def callFromThread(self, function: Callable[[], None]) -> None:
            function()

    good = bench.executor()
    bridge = Bridge(OwnThread())
    bridge.start()
    garbage = Executor(SINGLE, DISCOVERY)
    garbage.answer = b"\xff" * 64
    port = bridge.run_on_loop(garbage.start, 10.0)
    gateway = bench.gateway(good.port, port)

    async def work() -> None:
        async with Clients(gateway.ports["grpc"]) as clients:
            end = time.monotonic() + 4.0
            await clients.work(20, lambda: time.monotonic() > end)
            codes = clients.codes()
            report(f"garbage: {dict(codes)}")
            assert codes["OK"] > 20 * codes["INTERNAL"]
            assert codes["INTERNAL"] <= 40
            assert set(codes) <= {"OK", "INTERNAL"}

    try:
        run(work())
    finally:
        bridge.run_on_loop(garbage.stop, 10.0)


def test_a_rolling_restart_loses_and_doubles_nothing(bench: Bench) -> None:
    replicas = [bench.executor(), bench.executor()]
    gateway = bench.gateway(*(replica.port for replica in replicas))
    rounds = 10 if FULL else 2

    async def work() -> None:
        async with Clients(gateway.ports["grpc"], "/linger") as clients:
            await until_answered(clients)
            for number in range(rounds):
                clients.outcomes.clear()
                restarting = asyncio.create_task(asyncio.to_thread(restart))
                while len(clients.outcomes) < 1000 or not restarting.done():
                    await asyncio.gather(*(clients.ask() for _ in range(10)))
                    if len(clients.outcomes) >= 500:
                        await asyncio.sleep(0.02)
                await restarting
                asked = bench.book.asked()
                lost = [one for one in clients.outcomes if not one.good]
                counted = misses(asked, clients)
                report(
                    f"round {number + 1}: {len(clients.outcomes)} requests, {len(lost)} lost, "
                    f"{counted['doubled']} doubled, {counted['unseen']} unseen, "
                    f"slowest {clients.slowest_s() * 1000:.0f} ms"
                )
                assert not lost, lost[0]
                assert not counted["doubled"]
                assert not counted["unseen"]

    def restart() -> None:
        for index, replica in enumerate(replicas):
            assert replica.stop() == 0
            replicas[index] = bench.executor(replica.port)

    run(work())


def misses(asked: Any, clients: Clients) -> dict[str, int]:
    identities = [outcome.identity for outcome in clients.outcomes]
    return {
        "doubled": sum(asked[identity] > 1 for identity in identities),
        "unseen": sum(asked[identity] == 0 for identity in identities),
    }
