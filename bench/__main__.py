"""
Our gateway against the real Jina gateway: the same executor behind both, in the same run, on loopback.

    python -m bench [--quick] [--only WORD] [--no-jina]

Rounds alternate between the two, and the figures are medians over the rounds. CPU is the gateway's
process alone (user and system time of all its threads). The ratio is ours to Jina's: under 1 is cheaper.
The real Jina is the interpreter that GATEWAYD_JINA_PYTHON names (.venv-jina/bin/python).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import attrs

from tests.paths import ROOT
from tests.processes import Child, Gateway, environment, external, free_ports

JINA = os.environ.get("GATEWAYD_JINA_PYTHON", str(ROOT / ".venv-jina" / "bin" / "python"))


@attrs.frozen
class Case:
    """``guide`` is the ratio of CPU time that is wanted, None where nobody named one."""

    title: str
    kind: str
    payload: str
    protocol: str
    concurrency: int
    guide: float | None = None


CASES = (
    Case("gRPC process_single_data, 1 at a time", "grpc_unary", "small", "grpc", 1, 0.5),
    Case("gRPC process_single_data, 32 at once", "grpc_unary", "small", "grpc", 32, 0.5),
    Case("gRPC Call, 32 streams", "grpc_stream", "small", "grpc", 32, 0.5),
    Case("gRPC pass-through of 1 MB, 4 at once", "grpc_unary", "large", "grpc", 4, 0.5),
    Case("HTTP JSON, small, 1 at a time", "http", "small_json", "http", 1, 0.25),
    Case("HTTP JSON, small, 32 at once", "http", "small_json", "http", 32, 0.25),
    Case("HTTP JSON, 100 x 128 floats, 2 at once", "http", "embeddings_json", "http", 2, 0.25),
    Case("WebSocket bytes, 32 at once", "websocket_bytes", "small", "websocket", 32),
    Case("WebSocket JSON, 32 at once", "websocket_json", "small_json", "websocket", 32),
)


@attrs.frozen
class Side:
    """One of the two gateways. ``pid`` is the process that serves."""

    name: str
    pid: int
    ports: dict[str, int]


@attrs.frozen
class Figures:
    """Medians over the rounds of one case on one side."""

    cpu_us: float
    per_second: float
    median_ms: float
    p99_ms: float


def cpu_s(pid: int) -> float:
    """
    User and system time of a process.

    The same sum as utime and stime in /proc/PID/stat, from its CPU clock: that has no ticks of 10 ms.
    """
    return time.clock_gettime((~pid << 3) | 2)


@contextlib.contextmanager
def sides(with_jina: bool) -> Iterator[list[Side]]:
    with contextlib.ExitStack() as stack:
        executor = Child([sys.executable, "-m", "bench.executor"], cwd=ROOT)
        stack.callback(executor.stop)
        (found,) = executor.line(r"serves at (\S+)")
        port = int(found[1].rpartition(":")[2])
        ours = Gateway({"executors": [external("exec_a", port)]})
        stack.callback(ours.stop)
        running = [Side("gatewayd", ours.pid, ours.ports)]
        if with_jina:
            running.append(_jina(stack, port))
        for side in running:
            _wait_until_serving(side)
        yield running


def _jina(stack: contextlib.ExitStack, executor_port: int) -> Side:
    names = ("grpc", "http", "websocket")
    ports = dict(zip(names, free_ports(3), strict=True))
    graph = {"start-gateway": ["exec_a"], "exec_a": ["end-gateway"]}
    command = [
        *(JINA, "-m", "jina", "gateway", "--host", "127.0.0.1"),
        *("--protocol", *(name.upper() for name in names)),
        *("--port", *(str(port) for port in ports.values())),
        *("--graph-description", json.dumps(graph)),
        *("--deployments-addresses", json.dumps({"exec_a": [f"127.0.0.1:{executor_port}"]})),
    ]
    child = Child(command, env=environment(JINA_LOG_LEVEL="ERROR", PYTHONPATH=""), group=True)
    stack.callback(child.stop)
    stack.callback(child.kill)
    return Side("Jina", child.pid, ports)


def _wait_until_serving(side: Side) -> None:
    body, deadline = b'{"execEndpoint": "/search"}', time.monotonic() + 60
    url = f"http://127.0.0.1:{side.ports['http']}/post"
    while True:
        try:
            asked = urllib.request.Request(url, body, {"content-type": "application/json"})
            with urllib.request.urlopen(asked, timeout=5):
                return
        except OSError as error:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{side.name} does not serve: {error}") from error
            time.sleep(0.1)


def measure(case: Case, running: list[Side], rounds: int, seconds: float) -> list[Figures]:
    """The figures of every side, in their order."""
    found: list[list[tuple[float, dict[str, Any]]]] = [[] for _ in running]
    with contextlib.ExitStack() as stack:
        loads = []
        for side in running:
            where = (str(side.ports[case.protocol]), str(case.concurrency))
            load = Child([sys.executable, "-m", "bench.load", case.kind, case.payload, *where], cwd=ROOT)
            stack.callback(load.stop)
            load.line("^ready")
            loads.append(load)
        for number in range(1, rounds + 1):
            for index, (side, load) in enumerate(zip(running, loads, strict=True)):
                before = cpu_s(side.pid)
                load.tell(str(seconds))
                result = load.line("^RESULT (.*)$", count=number)[-1]
                found[index].append((cpu_s(side.pid) - before, json.loads(result[1])))
    return [
        Figures(
            cpu_us=median(cpu / one["requests"] * 1e6 for cpu, one in results),
            per_second=median(one["requests"] / one["seconds"] for _, one in results),
            median_ms=median(one["median_ms"] for _, one in results),
            p99_ms=median(one["p99_ms"] for _, one in results),
        )
        for results in found
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.strip().splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="less than a minute; figures are rough")
    parser.add_argument("--only", default="", help="only cases whose title holds this text")
    parser.add_argument("--no-jina", action="store_true", help="our figures alone")
    options = parser.parse_args()
    rounds, seconds = (3, 0.5) if options.quick else (7, 1.5)
    if not options.no_jina and not Path(JINA).exists():
        sys.exit(f"there is no {JINA}: `make bench` installs the real Jina, or use --no-jina")
    print(f"{rounds} rounds of {seconds} s each, alternating; {os.cpu_count()} CPUs\n")
    print("| case | CPU ratio | guide | CPU us/request | requests/s | median ms | p99 ms |")
    print("|---|---|---|---|---|---|---|", flush=True)
    with sides(not options.no_jina) as running:
        for case in CASES:
            if options.only not in case.title:
                continue
            figures = measure(case, running, rounds, seconds)
            ratio = f"{figures[0].cpu_us / figures[-1].cpu_us:.2f}" if len(figures) > 1 else "-"
            columns = [
                case.title,
                ratio,
                "-" if case.guide is None else f"{case.guide:.2f}",
                " / ".join(f"{one.cpu_us:.0f}" for one in figures),
                " / ".join(f"{one.per_second:.0f}" for one in figures),
                " / ".join(f"{one.median_ms:.2f}" for one in figures),
                " / ".join(f"{one.p99_ms:.2f}" for one in figures),
            ]
            print("| " + " | ".join(columns) + " |", flush=True)
    print("\nEach pair: " + " / ".join(side.name for side in running))


if __name__ == "__main__":
    main()
