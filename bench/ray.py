"""
What placement on Ray costs a call: the same executor on a Ray cluster and as a process of the gateway's own.

    python -m bench.ray [--rounds 7] [--seconds 2]

Three gateways of ours in the same run, taking turns; medians over the rounds. Local replicas listen at a Unix
socket, or with a port at TCP, as those on Ray do: what is left between the last two is Ray's. The cluster is
one node of this machine, which starts and ends with its gateway. Documents never pass through Ray, so what is
wanted is no difference but the network's.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any, Final

import attrs

from bench.cases import ONE, Case
from bench.idle import PAGE
from bench.measure import Load
from bench.report import replace, table
from bench.sides import Side, cpu_s, side, wait_until_it_answers
from tests.paths import ROOT
from tests.processes import Gateway, free_ports

_SOCKET: Final = "local, at a socket"
_TCP: Final = "local, over TCP"
_RAY: Final = "Ray"
_CASES: Final = (
    Case("small-1", "1 document, 1 at a time", ONE, "grpc_unary", "small", "grpc", 1, 100),
    Case("small-32", "1 document, 32 at once", ONE, "grpc_unary", "small", "grpc", 32, 300),
    Case("100", "100 documents with 128 floats, 4 at once", ONE, "grpc_unary", "embeddings", "grpc", 4, 40),
    Case("1mb", "1 MB, 4 at once", ONE, "grpc_unary", "large", "grpc", 4, 30),
)
_CLUSTER: Final = {"address": "local", "num_cpus": 2, "object_store_memory": 80_000_000}
# How long Ray's own processes are looked at while nobody calls.
_REST_S: Final = 5.0


@attrs.frozen
class Round:
    """One case on one side, once: CPU per request of both ends in microseconds, and latencies at its rate."""

    gateway_us: float
    executor_us: float
    per_second: float
    median_ms: float
    p99_ms: float


@attrs.frozen
class Placed:
    """A gateway and the process of its executor."""

    side: Side
    gateway: int
    executor: int

    @property
    def others(self) -> list[int]:
        """What runs besides: on Ray the driver, the actor, and Ray's own processes."""
        return [pid for pid in self.side.pids if pid not in (self.gateway, self.executor)]


def _executors(port: int) -> Mapping[str, Mapping[str, Any]]:
    """What its executor has besides its class, on each side."""
    return {
        _SOCKET: {},
        _TCP: {"host": "127.0.0.1", "port": port},
        _RAY: {"placement": "ray", "ray": {"num_cpus": 1}},
    }


def _is_executor(pid: int) -> bool:
    return b"gatewayd.executor" in Path(f"/proc/{pid}/cmdline").read_bytes()


@contextlib.contextmanager
def gateways() -> Iterator[list[Placed]]:
    """Each of them, ready."""
    (port,) = free_ports(1)
    plain = {"name": "exec_a", "uses": "Same", "py_modules": [str(ROOT / "bench" / "documents.py")]}
    with contextlib.ExitStack() as stack:
        running = []
        for name, more in _executors(port).items():
            gateway = Gateway({"with": {"ray": _CLUSTER}, "executors": [{**plain, **more}]})
            stack.callback(gateway.stop, 40.0)
            wait_until_it_answers(gateway.ports["http"], "http", gateway)
            one = side(name, gateway.pid, gateway.ports)
            (executor,) = filter(_is_executor, one.pids)
            running.append(Placed(one, gateway.pid, executor))
        yield running


def _round(case: Case, one: Placed, load: Load, seconds: float) -> Round:
    before = cpu_s((one.gateway,)), cpu_s((one.executor,))
    closed = load.order(f"closed {seconds}", seconds)
    spent = cpu_s((one.gateway,)) - before[0], cpu_s((one.executor,)) - before[1]
    paced = load.order(f"open {seconds} {case.rate}", seconds)
    count = closed["requests"]
    return Round(
        spent[0] / count * 1e6,
        spent[1] / count * 1e6,
        count / closed["seconds"],
        paced["median_ms"],
        paced["p99_ms"],
    )


def measure(case: Case, running: list[Placed], rounds: int, seconds: float) -> list[Round]:
    """Medians over the rounds of every side, in their order."""
    found: list[list[Round]] = [[] for _ in running]
    with contextlib.ExitStack() as stack:
        loads = [Load(case, one.side, stack) for one in running]
        for number in range(rounds):
            order = range(len(running)) if number % 2 else reversed(range(len(running)))
            for index in order:
                found[index].append(_round(case, running[index], loads[index], seconds))
    names = [field.name for field in attrs.fields(Round)]
    return [Round(*(median(getattr(one, name) for one in each) for name in names)) for each in found]


def _at_rest(one: Placed) -> float:
    """The share of a CPU that the processes besides gateway and executor take while nobody calls."""
    before = cpu_s(one.others)
    time.sleep(_REST_S)
    return (cpu_s(one.others) - before) / _REST_S


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.ray")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0)
    arguments = parser.parse_args()
    rows = []
    with gateways() as running:
        rest = _at_rest(running[-1])
        for case in _CASES:
            sides = measure(case, running, arguments.rounds, arguments.seconds)
            rows.append(
                [
                    case.title,
                    *(f"{each.gateway_us:.0f} + {each.executor_us:.0f}" for each in sides),
                    *(f"{each.median_ms:.2f} / {each.p99_ms:.1f}" for each in sides),
                ]
            )
            print(", ".join(rows[-1]), flush=True)
        names = [one.side.name for one in running]
    heads = ["case", *(f"CPU, µs: {name}" for name in names), *(f"ms: {name}" for name in names)]
    text = (
        "CPU of a call in the gateway + in the executor's process, and milliseconds at a fixed rate, "
        f"median / 99th percentile:\n\n{table(heads, rows)}\n"
        f"Ray's own processes, the driver and the actor take {rest:.0%} of a CPU while nobody calls.\n"
    )
    print(f"\n{text}")
    PAGE.write_text(replace(PAGE.read_text(), text, "bench.ray"))
    print(f"Written: {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
