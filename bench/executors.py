"""
Our executors against the real Jina's, without a gateway: CPU of the executor's process for each request.

    python -m bench.executors [--rounds 5] [--seconds 1.5] [--only WORD] [--no-jina]

The same class in both, whose method does nothing: so what is measured is what a request costs around it,
documents decoded and encoded again. Rounds take turns; medians over the rounds. The ratio is Jina's to ours:
4 is a quarter of the CPU.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import attrs
import grpc

from bench.__main__ import JINA, Case, Side, measure
from bench.payloads import PAYLOADS
from gatewayd.messages.methods import SINGLE
from tests.processes import Child, ExecutorProcess, environment, free_ports

# {0} is the package that both have: the rest is the same.
SOURCE = """
from {0} import Executor, requests

class Same(Executor):
    @requests(on="/search")
    def search(self, docs, **kwargs):
        pass

    @requests(on="/later")
    async def later(self, docs, **kwargs):
        pass
"""

CASES = (
    Case("1 document, 1 at a time", "grpc_unary", "small", "grpc", 1),
    Case("1 document, 32 at once", "grpc_unary", "small", "grpc", 32),
    Case("1 document, a coroutine method, 32 at once", "grpc_unary", "small_later", "grpc", 32),
    Case("1 document, Call, 32 streams", "grpc_stream", "small", "grpc", 32),
    Case("100 documents with a text, 4 at once", "grpc_unary", "texts", "grpc", 4),
    Case("100 documents with 128 floats, 4 at once", "grpc_unary", "embeddings", "grpc", 4),
    Case("100 documents with 128 floats and tags, 4 at once", "grpc_unary", "embeddings_tags", "grpc", 4),
    Case("100 documents with 3x32x32 bytes, 4 at once", "grpc_unary", "tensors", "grpc", 4),
    Case("1 MB, 4 at once", "grpc_unary", "large", "grpc", 4),
)


@contextlib.contextmanager
def sides(with_jina: bool) -> Iterator[list[Side]]:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for package in ("gatewayd", "jina"):
            (folder / f"of_{package}.py").write_text(SOURCE.format(package))
        running = []
        if with_jina:
            (port,) = free_ports(1)
            command = [
                *(JINA, "-m", "jina", "executor", "--uses", "Same", "--name", "exec_a"),
                *("--py-modules", "of_jina.py", "--host", "127.0.0.1", "--port", str(port)),
            ]
            quiet = environment(JINA_LOG_LEVEL="ERROR", PYTHONPATH="")
            theirs = Child(command, env=quiet, cwd=folder, group=True)
            stack.callback(theirs.stop)
            stack.callback(theirs.kill)
            running.append(Side("Jina", theirs.pid, {"grpc": port}))
        ours = ExecutorProcess("exec_a", "Same", [str(folder / "of_gatewayd.py")])
        stack.callback(ours.stop)
        running.append(Side("gatewayd", ours.pid, {"grpc": ours.port}))
        for side in running:
            _wait_until_serving(side)
        # Jina's command serves from a child of its own.
        yield [
            attrs.evolve(side, pid=_child_of(side.pid)) if side.name == "Jina" else side for side in running
        ]


def _child_of(pid: int) -> int:
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


def _wait_until_serving(side: Side) -> None:
    message, deadline = PAYLOADS["small"](), time.monotonic() + 60
    with grpc.insecure_channel(f"127.0.0.1:{side.ports['grpc']}") as channel:
        while True:
            try:
                channel.unary_unary(SINGLE)(message, timeout=5, wait_for_ready=True)
                return
            except grpc.RpcError as error:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{side.name} does not serve: {error}") from error
                time.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.executors")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--only", default="")
    parser.add_argument("--no-jina", action="store_true", help="our figures alone")
    arguments = parser.parse_args()
    if not arguments.no_jina and not os.path.exists(JINA):
        sys.exit(f"there is no {JINA}: `make bench` installs the real Jina, or use --no-jina")
    print("| case | Jina, µs of CPU | gatewayd | ratio | p99, ms |\n| --- | --- | --- | --- | --- |")
    with sides(not arguments.no_jina) as running:
        for case in CASES:
            if arguments.only not in case.title:
                continue
            figures = measure(case, running, arguments.rounds, arguments.seconds)
            theirs, ours = figures[0], figures[-1]
            print(
                f"| {case.title} | {theirs.cpu_us:.0f} | {ours.cpu_us:.0f} "
                f"| {theirs.cpu_us / ours.cpu_us:.2f} | {theirs.p99_ms:.1f}, {ours.p99_ms:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
