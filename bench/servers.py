"""
The two servers that a gateway's gRPC port can have, against each other: CPU of the gateway for each request.

    python -m bench.servers [--rounds 5] [--seconds 2] [--only WORD]

Two gateways of ours in front of one executor, in the same run, taking turns; medians over the rounds. The
ratio is grpcio's to gatewayd's: 2 is half the CPU.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator

from bench.cases import CASES, ONE
from bench.measure import measure
from bench.sides import Side, side, wait_until_it_answers
from tests.paths import ROOT
from tests.processes import Child, Gateway, external

SERVERS = ("grpcio", "gatewayd")


@contextlib.contextmanager
def both() -> Iterator[list[Side]]:
    """A gateway with each server."""
    with contextlib.ExitStack() as stack:
        executor = Child([sys.executable, "-m", "bench.executor"], cwd=ROOT)
        stack.callback(executor.stop)
        (found,) = executor.line(r"serves at (\S+)")
        at = external("exec_a", int(found[1].rpartition(":")[2]))
        running = []
        for server in SERVERS:
            gateway = Gateway({"gateway": {"grpc_server": server}, "executors": [at]})
            stack.callback(gateway.stop)
            wait_until_it_answers(gateway.ports["http"], "http", gateway)
            running.append(side(server, gateway.pid, gateway.ports))
        yield running


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.servers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    print("| case | grpcio, µs of CPU | gatewayd | ratio | p99, ms |\n| --- | --- | --- | --- | --- |")
    with both() as running:
        for case in CASES:
            if (case.protocol, case.layout) != ("grpc", ONE) or arguments.only not in case.title:
                continue
            figures, failed = measure(case, running, arguments.rounds, arguments.seconds)
            if failed:
                print(f"| {case.title} | {failed[0].side} has failed: {failed[0].reason} |", flush=True)
                continue
            theirs, ours = (figures[server] for server in SERVERS)
            ratio = theirs.cpu_us / ours.cpu_us
            print(
                f"| {case.title} | {theirs.cpu_us:.0f} | {ours.cpu_us:.0f} | {ratio:.2f} | "
                f"{theirs.p99_ms:.1f}, {ours.p99_ms:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
