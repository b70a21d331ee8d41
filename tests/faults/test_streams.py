"""Two hundred streams at once, and one whose client does not read."""

from __future__ import annotations

import asyncio
import time

import grpc
import grpc.aio
import pytest

from gatewayd.messages.methods import STREAM_DOC
from gatewayd.pb import SingleDocumentRequestProto
from tests.faults.conftest import FULL, Bench, report, rss_mb, run

pytestmark = pytest.mark.faults

STREAMS = 200
TOKENS = 1000 if FULL else 100
# What executors and this test's own client can bear on two cores: 2 000 documents a second.
PAUSE_S = 0.1


def request(count: int) -> bytes:
    message = SingleDocumentRequestProto()
    message.header.request_id = "r"
    message.header.exec_endpoint = "/tokens"
    message.parameters.update({"count": count, "pause": PAUSE_S})
    message.document.text = "x" * 100
    return message.SerializeToString()


class Reader:
    """One stream: when each document came."""

    def __init__(self, channel: grpc.aio.Channel, tokens: int) -> None:
        self._call = channel.unary_stream(STREAM_DOC)(request(tokens))
        self.at_s: list[float] = []
        self.ids: list[str] = []

    async def read(self) -> None:
        async for message in self._call:
            self.at_s.append(time.monotonic())
            self.ids.append(SingleDocumentRequestProto.FromString(message).document.id)

    def gaps_s(self) -> list[float]:
        return [after - before for before, after in zip(self.at_s, self.at_s[1:], strict=False)]


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[int(len(values) * share)]


def test_a_reader_that_stalls_costs_no_memory_and_the_others_nothing(bench: Bench) -> None:
    gateway = bench.supervised(1)

    async def streams(port: int, tokens: int = TOKENS) -> list[Reader]:
        channels = [grpc.aio.insecure_channel(f"127.0.0.1:{port}", [("n", n)]) for n in range(4)]
        readers = [Reader(channels[number % 4], tokens) for number in range(STREAMS)]
        await asyncio.gather(*(reader.read() for reader in readers))
        for channel in channels:
            await channel.close()
        return readers

    async def stalled(port: int) -> grpc.aio.Channel:
        """A client that asks for far more than any window holds, and reads the first."""
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", [("stalled", 1)])
        message = SingleDocumentRequestProto.FromString(request(1_000_000))
        message.parameters.update({"count": 1_000_000, "pause": 0.0})
        message.document.text = "y" * 10_000
        call = channel.unary_stream(STREAM_DOC)(message.SerializeToString())
        await call.read()
        stalled_calls.append(call)
        return channel

    stalled_calls: list[grpc.aio.UnaryStreamCall] = []

    async def work() -> None:
        port = gateway.ports["grpc"]
        await streams(port, 30)  # what the first streams need is no growth
        before_mb = rss_mb(gateway.pid)
        alone = await streams(port)
        channel = await stalled(port)
        beside = await streams(port)
        grown_mb = rss_mb(gateway.pid) - before_mb
        stalled_calls[0].cancel()
        await channel.close()

        for reader in (*alone, *beside):
            assert reader.ids == [str(number) for number in range(TOKENS)]
        gaps = [
            percentile([gap for reader in readers for gap in reader.gaps_s()], 0.99)
            for readers in (alone, beside)
        ]
        report(
            f"{STREAMS} streams of {TOKENS} documents: gaps' 99th percentile {gaps[0] * 1000:.0f} ms, "
            f"{gaps[1] * 1000:.0f} ms beside a reader that stalls; memory {grown_mb:+.1f} MB"
        )
        assert gaps[1] < 2 * gaps[0] + 0.05
        assert grown_mb < 30

    run(work())
