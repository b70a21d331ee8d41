"""
How long a gateway takes to be connected with very many replicas.

    python -m bench.connecting [--replicas 2000] [--at-once 64] [--rounds 3]

Each address of 127.0.0.0/8 is a replica; one executor serves all of them. Gateways with other values of
``pool.max_connecting`` take turns; one that is not connected with all after 20 s is an error. ``tries`` is
how many connections the executor's address was asked for, for each replica: more than 1 where handshakes were
late and made again.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from statistics import median

from bench.sides import cpu_s
from tests.paths import ROOT
from tests.processes import Child, Gateway

_PATIENCE_S = 20.0


def replicas(count: int) -> list[str]:
    return [f"127.1.{number // 250}.{number % 250 + 1}" for number in range(count)]


def opened() -> int:
    """The connections that any process of this machine has begun so far."""
    names, figures = (
        line.split() for line in Path("/proc/net/snmp").read_text().splitlines() if line.startswith("Tcp:")
    )
    return int(figures[names.index("ActiveOpens")])


def measure(count: int, at_once: int, port: int) -> tuple[float, float, float]:
    """Seconds until all are connected, connections begun for each replica, seconds of CPU."""
    executor = {"name": "exec_a", "external": True, "host": replicas(count), "port": port}
    settings = {"pool": {"max_connecting": at_once}}
    before = opened()
    gateway = Gateway({"gateway": settings, "executors": [executor]}, protocols=("grpc",))
    try:
        # Connections are begun before the port is.
        began_s = time.monotonic()
        connected: set[str] = set()
        while len(connected) < count:
            if time.monotonic() - began_s > _PATIENCE_S:
                raise AssertionError(gateway.output[-3000:] + f"{len(connected)} of {count} are connected")
            time.sleep(0.05)
            lines = gateway.output.splitlines()
            connected = {line.split()[-2] for line in lines if line.endswith(" connected")}
        return time.monotonic() - began_s, (opened() - before) / count, cpu_s((gateway.pid,))
    finally:
        gateway.stop()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.connecting")
    parser.add_argument("--replicas", type=int, default=2000)
    parser.add_argument("--at-once", type=int, nargs="+", default=[64])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    executor = Child([sys.executable, "-m", "bench.executor", "0.0.0.0"], cwd=ROOT)
    try:
        (found,) = executor.line(r"serves at \S+:(\d+)")
        rounds: dict[int, list[tuple[float, float, float]]] = {each: [] for each in arguments.at_once}
        for _ in range(arguments.rounds):
            for at_once, figures in rounds.items():
                figures.append(measure(arguments.replicas, at_once, int(found[1])))
    finally:
        executor.stop()
    print(f"{arguments.replicas} replicas, {os.cpu_count()} CPUs\n")
    print("| opened at a time | seconds until all are connected | tries for each | CPU, s |")
    print("| --- | --- | --- | --- |")
    for at_once, figures in rounds.items():
        took_s, tries, used_s = (median(column) for column in zip(*figures, strict=True))
        print(f"| {at_once} | {took_s:.1f} | {tries:.2f} | {used_s:.1f} |")


if __name__ == "__main__":
    main()
