"""
What one call to an executor costs: microseconds of CPU in the calling process.

    python -m bench.channel [--rounds 5] [--unix]

Compares the pool's channel with ``grpc.aio`` behind the bridge, which it took the place of, against one
echo server in a process of its own; rounds take turns, medians are shown. With ``--unix`` it is compared with
itself: over TCP, and over a Unix socket.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

import grpc
import grpc.aio
from twisted.internet import defer

from gatewayd.bridge import Bridge
from gatewayd.messages import wire
from gatewayd.messages.methods import SINGLE
from gatewayd.messages.request import Answer, Call
from gatewayd.rpc.channel import Channel, ChannelSettings
from gatewayd.schemes import unix_address

# Concurrent calls, bytes of a document's text, calls a round.
CASES = ((1, 64, 1500), (32, 64, 4000), (1, 1 << 20, 60), (32, 1 << 20, 120))


def serve(port: Any, path: str) -> None:
    """Echoes every message, at a port and at a socket; the port it got goes to ``port``."""

    class Echo(grpc.GenericRpcHandler):
        def service(self, details: Any) -> Any:
            async def echo(message: bytes, context: Any) -> bytes:
                return message

            return grpc.unary_unary_rpc_method_handler(echo)

    async def run() -> None:
        options = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
        server = grpc.aio.server(options=options)
        server.add_generic_rpc_handlers((Echo(),))
        server.add_insecure_port(unix_address(path))
        port.send(server.add_insecure_port("127.0.0.1:0"))
        await server.start()
        await server.wait_for_termination()

    asyncio.run(run())


class AioChannel:
    """The smallest channel over ``grpc.aio`` that the pool could use: everything else costs more."""

    def __init__(self, bridge: Bridge, address: str) -> None:
        self._bridge = bridge
        self._address = address

    async def open(self) -> None:
        options = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
        self._channel = grpc.aio.insecure_channel(self._address, options)
        self._single = self._channel.unary_unary(SINGLE)

    def call(self, call: Call, timeout_s: float | None) -> defer.Deferred[Answer]:
        answer = self._bridge.on_loop(self._call, call.messages[0], timeout_s, (("endpoint", call.endpoint),))
        return answer.addCallback(lambda reply: wire.decode_answer(reply[0], is_error=reply[1]))

    async def _call(self, message: bytes, timeout_s: float | None, metadata: Any) -> tuple[bytes, bool]:
        call = self._single(message, timeout=timeout_s, metadata=metadata)
        answer: bytes = await call
        return answer, any(key == "is-error" for key, _ in await call.trailing_metadata() or ())

    async def close(self) -> None:
        await self._channel.close()


async def calls(channel: Any, message: bytes, concurrent: int, count: int) -> float:
    """Microseconds of CPU a call."""
    left = iter(range(count))
    call = Call((message,), "/search")

    async def one_after_another() -> None:
        for _ in left:
            await channel.call(call, 60.0)

    before = time.process_time()
    await defer.gatherResults([defer.ensureDeferred(one_after_another()) for _ in range(concurrent)])
    return (time.process_time() - before) / count * 1e6


async def compare(reactor: Any, rounds: int, say: Callable[[str], object], *, unix: bool) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        path = f"{folder}/echo"
        theirs, ours = multiprocessing.get_context("spawn").Pipe(duplex=False)
        server = multiprocessing.get_context("spawn").Process(target=serve, args=(ours, path), daemon=True)
        server.start()
        bridge = Bridge(reactor)
        bridge.start()
        address = f"127.0.0.1:{theirs.recv()}"
        tcp = Channel(reactor, address, ChannelSettings(), lambda state: None)
        try:
            if unix:
                other = Channel(reactor, unix_address(path), ChannelSettings(), lambda state: None)
                await _compare({"TCP": tcp, "Unix": other}, rounds, say)
                await other.close()
            else:
                aio = AioChannel(bridge, address)
                await bridge.on_loop(aio.open)
                await _compare({"grpc.aio": aio, "ours": tcp}, rounds, say)
                await bridge.on_loop(aio.close)
        finally:
            await tcp.close()
            await bridge.stop()
            server.terminate()
            server.join()


async def _compare(channels: Mapping[str, Any], rounds: int, say: Callable[[str], object]) -> None:
    one, other = channels
    say(f"{'concurrent':>10} {'bytes':>8} {one:>9} {other:>9}   µs of CPU a call")
    for concurrent, size, count in CASES:
        message = wire.encode_call("0" * 32, "/search", Answer(b"\x0a" + b"d" * size))
        cpu: dict[str, list[float]] = {name: [] for name in channels}
        for name in (*channels,) * rounds:
            await calls(channels[name], message, concurrent, count // 10)
            cpu[name].append(await calls(channels[name], message, concurrent, count))
        first, second = (statistics.median(found) for found in cpu.values())
        say(f"{concurrent:10} {size:8} {first:9.0f} {second:9.0f}   {second / first:.0%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--unix", action="store_true")
    options = parser.parse_args()
    from twisted.internet import reactor, task

    task.react(lambda _: defer.ensureDeferred(compare(reactor, options.rounds, print, unix=options.unix)), ())


if __name__ == "__main__":
    sys.exit(main())
