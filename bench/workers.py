"""
One process that serves against several: CPU of the gateway for each request, and requests in a second.

    python -m bench.workers [--workers 2] [--rounds 5] [--seconds 2]

Two gateways of ours in front of one executor, in the same run, taking turns; medians over the rounds. CPU is
that of all processes that serve. Each of them has the load of one process to itself, with connections of its
own: what a turn of a loop does at once is then the same on both sides. ``scaling`` is the ratio of
throughputs: it shows what workers are worth where cores are free, and only there (``busy`` is the share of
the machine that was in use meanwhile, by whatever).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import attrs

from bench.cases import CASES, Case
from bench.sides import Side, cpu_s, side, wait_until_it_answers
from tests.paths import ROOT
from tests.processes import Child, Gateway, external

_KEYS = ("grpc-32", "http-32", "ws-bytes")


@attrs.frozen
class Round:
    """One side in one round: microseconds of CPU and requests, the share of each worker, how busy all was."""

    cpu_us: float
    per_second: float
    shares: tuple[float, ...]
    busy: float


_WARM_UP_S = 0.1


def serving(gateway: Gateway) -> list[int]:
    """The processes that serve: the workers, or the gateway's own."""
    found = []
    for child in Path(f"/proc/{gateway.pid}/task/{gateway.pid}/children").read_text().split():
        if b"gatewayd.service.worker" in Path(f"/proc/{child}/cmdline").read_bytes():
            found.append(int(child))
    return found or [gateway.pid]


@contextlib.contextmanager
def both(workers: int) -> Iterator[list[tuple[Side, list[int]]]]:
    """A gateway of one process, and one of several workers, with the processes that serve."""
    with contextlib.ExitStack() as stack:
        executor = Child([sys.executable, "-m", "bench.executor"], cwd=ROOT)
        stack.callback(executor.stop)
        (found,) = executor.line(r"serves at (\S+)")
        at = external("exec_a", int(found[1].rpartition(":")[2]))
        running = []
        for count in (1, workers):
            gateway = Gateway({"gateway": {"grpc_server": "gatewayd", "workers": count}, "executors": [at]})
            stack.callback(gateway.stop)
            gateway.line(r"\bready$")
            wait_until_it_answers(gateway.ports["http"], "http", gateway)
            running.append((side(f"{count}", gateway.pid, gateway.ports), serving(gateway)))
        yield running


def _machine() -> tuple[float, float]:
    """Seconds of all cores, in use and in all."""
    fields = [float(each) for each in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    return sum(fields) - fields[3] - fields[4], sum(fields)


def measure(
    case: Case, running: list[tuple[Side, list[int]]], rounds: int, seconds: float
) -> list[list[Round]]:
    """
    The rounds of every side, in their order.

    All take turns in the same order, and each begins with a little that does not count: who comes twice in
    succession, or had the processor's caches to itself, would look cheaper.
    """
    found: list[list[Round]] = [[] for _ in running]
    with contextlib.ExitStack() as stack:
        loads: list[list[Child]] = []
        for one, pids in running:
            where = (str(one.ports[case.protocol]), str(case.concurrency))
            command = [sys.executable, "-m", "bench.load", case.kind, case.payload, *where]
            each = [Child(command, cwd=ROOT) for _ in pids]
            for load in each:
                stack.callback(load.stop)
            for load in each:
                load.line("^ready")
            loads.append(each)
        for number in range(1, rounds + 1):
            for index, (_, pids) in enumerate(running):
                for load in loads[index]:
                    load.tell(f"closed {_WARM_UP_S}")
                for load in loads[index]:
                    load.line("^RESULT (.*)$", count=2 * number - 1)
                before, used = [cpu_s((pid,)) for pid in pids], _machine()
                began = time.monotonic()
                for load in loads[index]:
                    load.tell(f"closed {seconds}")
                lines = [load.line("^RESULT (.*)$", count=2 * number)[-1] for load in loads[index]]
                results = [json.loads(line[1]) for line in lines]
                took_s = time.monotonic() - began
                spent = [cpu_s((pid,)) - start for pid, start in zip(pids, before, strict=True)]
                busy = [now - then for now, then in zip(_machine(), used, strict=True)]
                requests = sum(result["requests"] for result in results)
                found[index].append(
                    Round(
                        sum(spent) / requests * 1e6,
                        requests / took_s,
                        tuple(each / sum(spent) for each in spent),
                        busy[0] / busy[1],
                    )
                )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.workers")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    arguments = parser.parse_args()
    cores = os.cpu_count()
    sys.stdout.write(
        f"{arguments.workers} workers, {cores} cores\n\n"
        "| case | CPU, 1 process, µs | CPU, workers, µs | ratio | requests/s | scaling | shares | busy |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- |\n"
    )
    with both(arguments.workers) as running:
        for case in CASES:
            if case.key not in _KEYS:
                continue
            one, several = measure(case, running, arguments.rounds, arguments.seconds)
            ratio = median(b.cpu_us / a.cpu_us for a, b in zip(one, several, strict=True))
            scaling = median(b.per_second / a.per_second for a, b in zip(one, several, strict=True))
            shares = ", ".join(f"{each:.0%}" for each in several[-1].shares)
            sys.stdout.write(
                f"| {case.title} | {median(each.cpu_us for each in one):.0f} "
                f"| {median(each.cpu_us for each in several):.0f} | {ratio:.2f} "
                f"| {median(each.per_second for each in one):.0f}, "
                f"{median(each.per_second for each in several):.0f} | {scaling:.2f} | {shares} "
                f"| {median(each.busy for each in one):.0%}, {median(each.busy for each in several):.0%} |\n"
            )
            sys.stdout.flush()


if __name__ == "__main__":
    main()
