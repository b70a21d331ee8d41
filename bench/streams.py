"""
Streams through our gateway, through the real Jina 3.34 and past both: CPU for each document, and how late a
document is.

    python -m bench.streams [--rounds 5] [--seconds 2] [--pace 200]

One executor streams to both in the same run, and writes its clock into each document, so that what counts
is what a gateway adds between the executor and the client; the sides take turns. What those need themselves
is measured without a gateway: many streams at once keep them busy, too. It goes as fast as it can, or with
--pace at so many documents a second of each stream, as the tokens of a model come. Jina 3.34 is the
interpreter that GATEWAYD_JINA34_PYTHON names (.venv-jina34/bin/python). Wanted: at most half of its CPU for
each document, and the first document at most 2 ms later than without a gateway.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import os
import re
import statistics
import sys
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
from grpc_reflection.v1alpha import reflection

from bench.sides import Side, cpu_s, side
from gatewayd.messages.methods import DISCOVERY, LISTED, SINGLE, STATUS, STREAM, STREAM_DOC, service_of
from tests.paths import ROOT
from tests.processes import Child, Gateway, environment, external, free_ports, runs

JINA34_PYTHON: Final = os.environ.get("GATEWAYD_JINA34_PYTHON", str(ROOT / ".venv-jina34" / "bin" / "python"))
# What an executor of Jina 3.34 tells of its endpoints, a document that it is asked with, and one of a stream.
RECORDED: Final = ROOT / "tests" / "golden34" / "grpc"
TOLD: Final = (RECORDED / "38_resp0.bin").read_bytes()
ASKED: Final = (RECORDED / "60_req0.bin").read_bytes()
ANSWERED: Final = (RECORDED / "60_resp0.bin").read_bytes()
SIDES: Final = ("gatewayd", "Jina 3.34")
ALONE: Final = "no gateway"
LISTED_BY_JINA: Final = (DISCOVERY, LISTED, SINGLE, STATUS, STREAM, STREAM_DOC)
DOCUMENTS: Final = 500  # of one stream
_READY_S: Final = 60.0
# The field ``text`` of the document, of which the executor makes its clock: microseconds, 24 bits of them.
_TEXT: Final = re.compile(rb"text\x12\x06\n\x04(....)", re.DOTALL)
_WRAPS: Final = 1 << 24


def _clock() -> int:
    return time.monotonic_ns() // 1000 % _WRAPS


async def _stream(pause_s: float, _message: bytes, _context: Any) -> AsyncIterator[bytes]:
    for _ in range(DOCUMENTS):
        if pause_s:
            await asyncio.sleep(pause_s)
        stamp = base64.b64encode(_clock().to_bytes(3, "big"))
        yield _TEXT.sub(lambda _, stamp=stamp: b"text\x12\x06\n\x04" + stamp, ANSWERED)  # type: ignore[misc]


async def _told(_message: bytes, _context: Any) -> bytes:
    return TOLD


class _Methods(grpc.GenericRpcHandler):
    def __init__(self, pause_s: float) -> None:
        self._pause_s = pause_s

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        if call.method == STREAM_DOC:
            return grpc.unary_stream_rpc_method_handler(partial(_stream, self._pause_s))
        return grpc.unary_unary_rpc_method_handler(_told) if call.method == DISCOVERY else None


async def executor(pause_s: float) -> None:
    """The executor's process. Prints ``serves at PORT``."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_Methods(pause_s),))
    # Jina's gateway asks what there is before it asks for endpoints.
    reflection.enable_server_reflection([service_of(path) for path in LISTED_BY_JINA], server)
    print(f"serves at {server.add_insecure_port('127.0.0.1:0')}", flush=True)
    await server.start()
    await server.wait_for_termination()


@contextlib.contextmanager
def both(pace: float) -> Iterator[list[Side]]:
    """Our gateway, that of Jina 3.34, and the executor itself."""
    with contextlib.ExitStack() as stack:
        command = [sys.executable, "-m", "bench.streams", "--executor", "--pace", str(pace)]
        child = Child(command, cwd=ROOT)
        stack.callback(child.stop)
        (found,) = child.line(r"serves at (\d+)")
        gateway = Gateway({"executors": [external("s", int(found[1]))]})
        stack.callback(gateway.stop)
        running = [side(SIDES[0], gateway.pid, gateway.ports)]
        if Path(JINA34_PYTHON).exists():
            (port,) = free_ports(1)
            jina = Child(
                [
                    *(JINA34_PYTHON, "-m", "jina", "gateway", "--protocol", "GRPC", "--host", "127.0.0.1"),
                    *("--port", str(port)),
                    *("--graph-description", json.dumps({"start-gateway": ["s"], "s": ["end-gateway"]})),
                    *("--deployments-addresses", json.dumps({"s": [f"127.0.0.1:{found[1]}"]})),
                ],
                env=environment(JINA_LOG_LEVEL="ERROR", JINA_LOG_NO_COLOR="1", PYTHONPATH=""),
                cwd="/",
                group=True,
            )
            stack.callback(jina.stop)
            stack.callback(jina.kill)
            asyncio.run(_until_it_streams(port, jina))
            running.append(side(SIDES[1], jina.pid, {"grpc": port}))
        asyncio.run(_until_it_streams(gateway.ports["grpc"], gateway))
        running.append(Side(ALONE, (child.pid,), {"grpc": int(found[1])}))
        yield running


async def _until_it_streams(port: int, child: Child) -> None:
    deadline = time.monotonic() + _READY_S
    while True:
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                if len(await _one_stream(channel)) == DOCUMENTS:
                    return
        except grpc.aio.AioRpcError:
            if not runs(child.pid) or time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.2)


async def _one_stream(channel: grpc.aio.Channel) -> list[float]:
    """How late each document was, in ms."""
    late = []
    call: Any = channel.unary_stream(STREAM_DOC)
    async for answer in call(ASKED, timeout=60):
        found = _TEXT.search(answer)
        if found is None:
            continue  # no document of the stream: a gateway that does not know yet that there is one
        late.append((_clock() - int.from_bytes(base64.b64decode(found[1]), "big")) % _WRAPS / 1000)
    return late


async def _round(one: Side, at_once: int, seconds: float) -> tuple[float, list[float], float]:
    """CPU of the gateway for each document in µs, how late the first ones were, and documents per second."""
    first: list[float] = []
    async with grpc.aio.insecure_channel(f"127.0.0.1:{one.ports['grpc']}") as channel:
        await _one_stream(channel)
        before, begun = cpu_s(one.pids), time.monotonic()

        async def work() -> None:
            while time.monotonic() - begun < seconds:
                late = await _one_stream(channel)
                if len(late) != DOCUMENTS:
                    raise AssertionError(f"{one.name} has sent {len(late)} of {DOCUMENTS} documents")
                first.append(late[0])

        await asyncio.gather(*(work() for _ in range(at_once)))
        count = len(first) * DOCUMENTS
        return (
            (cpu_s(one.pids) - before) / count * 1e6,
            first,
            count / (time.monotonic() - begun),
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.streams")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument(
        "--pace", type=float, default=0.0, metavar="N", help="documents a second of each stream"
    )
    parser.add_argument("--executor", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.executor:
        asyncio.run(executor(1 / arguments.pace if arguments.pace else 0.0))
        return
    with both(arguments.pace) as running:
        for at_once in (1, 16):
            _compare(running, at_once, arguments.rounds, arguments.seconds)


def _compare(running: list[Side], at_once: int, rounds: int, seconds: float) -> None:
    print(f"\n{at_once} stream{'s' if at_once > 1 else ''} at a time:\n")
    print("| gateway | µs of CPU for each document | first document, ms (median, worst) | documents/s |")
    print("| --- | --- | --- | --- |")
    cpu: dict[str, list[float]] = {one.name: [] for one in running}
    first: dict[str, list[float]] = {one.name: [] for one in running}
    rate: dict[str, list[float]] = {one.name: [] for one in running}
    for number in range(rounds):
        for one in running if number % 2 else reversed(running):
            cost, late, per_second = asyncio.run(_round(one, at_once, seconds))
            cpu[one.name].append(cost)
            first[one.name] += late
            rate[one.name].append(per_second)
    for name in cpu:
        shown = "" if name == ALONE else f"{statistics.median(cpu[name]):.1f}"
        print(
            f"| {name} | {shown} | {statistics.median(first[name]):.2f}, "
            f"{max(first[name]):.2f} | {statistics.median(rate[name]):.0f} |"
        )
    later = statistics.median(first[SIDES[0]]) - statistics.median(first[ALONE])
    print(f"\nThrough ours, the first document comes {later:.2f} ms later (wanted: 2 or less).")
    if SIDES[1] in cpu:
        ours, theirs = (statistics.median(cpu[name]) for name in SIDES)
        print(f"It takes {ours / theirs:.2f} of Jina's CPU for each document (wanted: 0.50 or less).")


if __name__ == "__main__":
    main()
