"""Replicas that come and go with the load: no request fails, and nothing is left behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
import urllib.request
from typing import Any

import grpc
import grpc.aio
import pytest

from gatewayd.messages.methods import STREAM_DOC
from gatewayd.pb import SingleDocumentRequestProto
from tests.faults.conftest import EXECUTORS, Bench, Clients, report, run
from tests.processes import Gateway, runs

pytestmark = pytest.mark.faults

DEVICES = {"7", "8", "9"}
TOKENS = 40


def flow(**replicas: Any) -> dict[str, Any]:
    executor = {
        "name": "a",
        "uses": "Counted",
        "py_modules": [str(EXECUTORS)],
        "replicas": replicas,
        "env": {"CUDA_VISIBLE_DEVICES": f"RR{','.join(sorted(DEVICES))}"},
    }
    return {"gateway": {"expose_health": True}, "executors": [executor]}


def scaled(bench: Bench, **replicas: Any) -> Gateway:
    child = Gateway(flow(**replicas), protocols=("grpc", "http"))
    bench.children.append(child)
    return child


async def until_line(gateway: Gateway, pattern: str, count: int = 1) -> None:
    await asyncio.to_thread(gateway.line, pattern, count=count, timeout_s=30.0)


async def until_gone(pids: set[int]) -> None:
    deadline = time.monotonic() + 20.0
    while any(runs(pid) for pid in pids):
        assert time.monotonic() < deadline, "processes that were given up run on"
        await asyncio.sleep(0.05)


async def until_all_are_seen(clients: Clients) -> None:
    """Each device is that of a replica that answers."""
    seen, deadline = len(clients.outcomes), time.monotonic() + 20.0
    while {one.text for one in clients.outcomes[seen:]} != DEVICES:
        assert time.monotonic() < deadline, "replicas share devices, or do not answer"
        await asyncio.sleep(0.02)


async def tokens(gateway: Gateway) -> list[str]:
    """A stream that goes on while replicas are given up."""
    message = SingleDocumentRequestProto()
    message.header.exec_endpoint = "/tokens"
    message.parameters.update({"count": TOKENS, "pause": 0.1})
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.ports['grpc']}") as channel:
        call = channel.unary_stream(STREAM_DOC)(message.SerializeToString())
        return [SingleDocumentRequestProto.FromString(each).document.id async for each in call]


def get(gateway: Gateway, path: str) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{gateway.ports['http']}{path}", timeout=10) as answer:
        return json.load(answer)


def test_from_one_to_three_and_back_no_request_and_no_stream_fails(bench: Bench) -> None:
    gateway = scaled(bench, min=1, max=3, target_in_flight=3, up_after=0.4, down_after=1.0)

    async def curve() -> None:
        async with Clients(gateway.ports["grpc"], "/device") as clients:
            over = False
            few = asyncio.create_task(clients.work(1, lambda: over))
            for peak in (1, 2):
                is_over = asyncio.Event()
                many = asyncio.create_task(clients.work(14, is_over.is_set))
                await until_line(gateway, "a: 2 -> 3 replicas: .* 3 wanted for each", peak)
                await until_line(gateway, "a/rep-2 .*serves at", peak)
                await until_all_are_seen(clients)
                streams = [asyncio.create_task(tokens(gateway)) for _ in range(2)]
                await asyncio.sleep(0.2)
                is_over.set()
                await many
                await until_line(gateway, "a: 3 -> 1 replicas: ", peak)
                for stream in streams:
                    assert await stream == [str(number) for number in range(TOKENS)]
            over = True
            await few
        assert set(clients.codes()) == {"OK"}
        assert bench.book.asked().most_common(1)[0][1] == 1
        pids = set(bench.book.by_process())
        report(f"{len(clients.outcomes)} requests over {len(pids)} processes, none failed")
        assert len(pids) == 5
        await until_gone(pids - {bench.book.entries()[-1][0]})

    run(curve())


def test_to_none_and_back_requests_wait_for_the_first_replica(bench: Bench) -> None:
    gateway = scaled(bench, min=0, max=2, target_in_flight=50, up_after=0.4, down_after=0.5)

    async def rounds() -> None:
        async with Clients(gateway.ports["grpc"], "/device") as clients:
            for number in (1, 2):
                await until_line(gateway, "a: 1 -> 0 replicas", number)
                await until_gone(set(bench.book.by_process()))
                # None is wanted: that is no outage, and nothing that looks starts one.
                assert get(gateway, "/readyz")["ok"] is True
                assert get(gateway, "/dry_run")["code"] == 0
                await asyncio.gather(*(clients.ask() for _ in range(40)))
        assert set(clients.codes()) == {"OK"}, clients.outcomes[-1]
        assert len(bench.book.by_process()) == 2
        assert len(gateway.line("a: 0 -> 1 replicas: ")) == 2

    run(rounds())


def test_a_reload_goes_on_with_as_many_and_other_limits_restart_none(bench: Bench) -> None:
    limits = {"min": 1, "max": 3, "target_in_flight": 3, "up_after": 0.4, "down_after": 30.0}
    gateway = scaled(bench, **limits)

    async def reloads() -> None:
        async with Clients(gateway.ports["grpc"], "/device") as clients:
            is_over = asyncio.Event()
            load = asyncio.create_task(clients.work(14, is_over.is_set))
            await until_line(gateway, "a/rep-2 .*serves at")
            await until_all_are_seen(clients)
            for number, most in enumerate((4, 2), 1):
                gateway.write(flow(**{**limits, "max": most, "up_after": 30.0}))
                os.kill(gateway.pid, signal.SIGHUP)
                await until_line(gateway, "reloaded: .*changed a", number)
            seen = len(clients.outcomes)
            await clients.ask()
            is_over.set()
            await load
        assert set(clients.codes()) == {"OK"}
        assert len(clients.outcomes[seen:]) > 1
        assert len(gateway.line("starts as process")) == 3
        assert get(gateway, "/status")["jina"]["gatewayd-replicas"] == "2 of 2 that are wanted serve"

    run(reloads())
