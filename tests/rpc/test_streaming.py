"""A call that is answered with many messages: what is asked for, what waits, and what is given back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from gatewayd.bridge import Bridge
from gatewayd.messages.methods import STREAM_DOC
from gatewayd.messages.request import Answer, Call
from gatewayd.messages.single import content_of
from gatewayd.pb import SingleDocumentRequestProto
from gatewayd.rpc.call import AnswerHead, CallError, prefix
from gatewayd.rpc.channel import Channel, ChannelSettings
from gatewayd.rpc.http2 import Broken
from gatewayd.rpc.streaming import WINDOW_BYTES, PulledCall
from tests.waiting import until_on_reactor

OK = AnswerHead.of([(b":status", b"200"), (b"content-type", b"application/grpc+proto")])
DONE = AnswerHead.of([(b"grpc-status", b"0")])


class Credits:
    """Stands for the connection: counts what is given back."""

    def __init__(self) -> None:
        self.given = 0

    def consumed(self, stream: Any, size: int) -> None:
        self.given += size

    def when_read(self, stream: Any) -> None:
        """Each piece is a read of its own."""
        stream.on_read()


class Asked(PulledCall):
    """Writes down what it hands out; ``eager`` asks again at once."""

    def __init__(self, limit_bytes: int = 1 << 20, eager: bool = False) -> None:
        super().__init__(b"", b"", b"", limit_bytes)
        self.got: list[Any] = []
        self.closed = self.resets = 0
        self.eager = eager
        self.connection = Credits()  # type: ignore[assignment]

    def reset(self) -> None:
        self.resets += 1

    def on_waiting(self) -> None:
        """Nothing to measure here."""

    def on_message(self, message: Any, compressed: bool, encoding: str, headers: Any) -> None:
        self.got.append(bytes(message))
        if self.eager:
            self.pull()

    def on_end(self, error: CallError | None) -> None:
        self.got.append(None if error is None else error.code)

    def on_closed(self) -> None:
        self.closed += 1


def framed(*messages: bytes) -> bytes:
    return b"".join(prefix(len(message), compressed=False) + message for message in messages)


@given(
    st.lists(st.binary(max_size=50), max_size=8), st.lists(st.integers(0, 500), max_size=10), st.booleans()
)
def test_messages_come_whole_and_in_order_in_whatever_pieces(
    messages: list[bytes], cuts: list[int], eager: bool
) -> None:
    call, data = Asked(eager=eager), framed(*messages)
    call.pull()
    call.on_headers(OK, False)
    cuts = sorted(min(cut, len(data)) for cut in cuts)
    for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        if data[begin:end]:
            call.on_data(data[begin:end], False)
    call.on_headers(DONE, True)
    while not eager and None not in call.got:
        call.pull()

    assert call.got == [*messages, None]


def test_a_thousand_messages_at_once_are_handed_out_without_a_thousand_frames() -> None:
    call = Asked(eager=True)
    call.on_headers(OK, False)
    call.on_data(framed(*[b"x"] * 5000), False)
    call.on_headers(DONE, True)
    call.pull()

    assert len(call.got) == 5001


def test_messages_that_have_come_are_taken_together_up_to_one_that_pull_has_to_see() -> None:
    call = Asked()
    call.on_headers(OK, False)
    call.on_data(framed(b"a", b"b", b"c", b"bad", b"d") + prefix(1, compressed=True) + b"z", False)
    call.pull()

    def read(message: Any) -> bytes:
        if message == b"bad":
            raise ValueError(message)
        return bytes(message)

    assert (call.take(1, read), call.take(9, read), call.take(9, read)) == ([b"b"], [b"c"], [])
    call.pull()
    assert call.take(9, read) == [b"d"]
    call.pull()
    assert call.got == [b"a", b"bad", b"z"]


def test_what_is_taken_together_is_given_back() -> None:
    call = Asked()
    call.on_headers(OK, False)
    data = framed(*[b"m" * 1019] * 63)
    call.on_data(data, False)
    call.pull()
    assert len(call.take(100, bytes)) == 62

    assert len(data) - WINDOW_BYTES // 4 < call.connection.given <= len(data)  # type: ignore[union-attr]


class Unfinished(Credits):
    """A connection whose read has not ended yet."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Any] = []

    def when_read(self, stream: Any) -> None:
        self.asked.append(stream)


@pytest.mark.parametrize("meanwhile", ["nothing", "dropped", "ended", "lost"])
def test_who_waits_is_told_when_all_of_a_read_is_there(meanwhile: str) -> None:
    call = Asked()
    call.connection = reading = Unfinished()  # type: ignore[assignment]
    call.pull()
    call.on_headers(OK, False)
    call.on_data(framed(b"a"), False)
    call.on_data(framed(b"b"), False)
    assert (call.got, reading.asked) == ([], [call])
    if meanwhile == "dropped":
        call.drop()
    elif meanwhile == "ended":
        call.on_headers(DONE, True)
    elif meanwhile == "lost":
        call.on_broken(Broken("Socket closed"))
    call.on_read()

    assert call.got == ([] if meanwhile == "dropped" else [b"a"])
    if meanwhile != "dropped":
        assert call.take(9, bytes) == [b"b"]
        call.pull()
        assert call.got[1:] == {"nothing": [], "ended": [None], "lost": ["UNAVAILABLE"]}[meanwhile]


def test_what_nobody_asks_for_is_not_given_back() -> None:
    call = Asked()
    call.on_headers(OK, False)
    data = framed(*[b"m" * 1019] * 63)
    call.on_data(data, False)

    assert call.connection.given == 0  # type: ignore[union-attr]
    for _ in range(63):
        call.pull()
    assert len(data) - WINDOW_BYTES // 4 < call.connection.given <= len(data)  # type: ignore[union-attr]


def test_a_message_larger_than_the_window_arrives_when_it_is_asked_for() -> None:
    call = Asked()
    call.on_headers(OK, False)
    data = framed(b"m" * 200_000)
    call.on_data(data[:60_000], False)
    assert call.connection.given == 0  # type: ignore[union-attr]

    call.pull()
    assert call.connection.given == 60_000  # type: ignore[union-attr]
    call.on_data(data[60_000:], False)

    assert call.got == [b"m" * 200_000]
    assert call.connection.given <= len(data)  # type: ignore[union-attr]


def test_an_error_comes_after_the_messages_before_it() -> None:
    call = Asked()
    call.on_headers(OK, False)
    call.on_data(framed(b"one", b"two"), False)
    call.on_headers(AnswerHead.of([(b"grpc-status", b"2"), (b"grpc-message", b"boom")]), True)

    assert (call.closed, call.got) == (1, [])
    for _ in range(3):
        call.pull()
    assert call.got == [b"one", b"two", "UNKNOWN"]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (framed(b"a") + b"\2\0\0\0\0", "INTERNAL"),
        (framed(b"a") + prefix(2000, compressed=False), "RESOURCE_EXHAUSTED"),
    ],
)
def test_what_breaks_the_rules_ends_the_stream_behind_what_was_good(data: bytes, code: str) -> None:
    call = Asked(limit_bytes=1000)
    call.pull()
    call.on_headers(OK, False)
    call.on_data(data, False)
    call.pull()

    assert call.got == [b"a", code]
    assert call.resets == 1


def test_an_end_within_a_message_and_a_lost_connection_are_errors() -> None:
    cut, lost, dropped = Asked(), Asked(), Asked()
    for call in (cut, lost, dropped):
        call.pull()
        call.on_headers(OK, False)
        call.on_data(framed(b"abc")[:6], False)
    cut.on_headers(DONE, True)
    lost.on_broken(Broken("Socket closed"))
    dropped.drop()
    dropped.on_broken(Broken("Socket closed"))

    assert (cut.got, lost.got, dropped.got) == (["INTERNAL"], ["UNAVAILABLE"], [])
    assert dropped.resets == 1


# -- over real sockets ---------------------------------------------------------------------------------


def answer(text: str) -> bytes:
    message = SingleDocumentRequestProto()
    message.document.text = text
    return message.SerializeToString()


class Generator(grpc.GenericRpcHandler):
    """An executor whose stream_doc yields ``count`` documents, and then ends with ``abort``, if at all."""

    def __init__(self, count: int, size: int = 10, abort: Any = None, stays: bool = False) -> None:
        self.count, self.size, self.abort, self.stays = count, size, abort, stays
        self.yielded: list[int] = []  # of each call
        self.ended = 0

    def service(self, details: Any) -> Any:
        if details.method != STREAM_DOC:
            return None

        async def stream(_message: bytes, context: Any) -> Any:
            call = len(self.yielded)
            self.yielded.append(0)
            context.add_done_callback(self._done)
            for index in range(self.count):
                yield answer(f"{index} ".ljust(self.size))
                self.yielded[call] += 1
            if self.stays:
                await asyncio.Event().wait()
            if self.abort is not None:
                await context.abort(*self.abort)

        return grpc.unary_stream_rpc_method_handler(stream)

    def _done(self, _context: object) -> None:
        self.ended += 1


class Bench:
    def __init__(self) -> None:
        self.bridge = Bridge(reactor)
        self.bridge.start()
        self.channels: list[Channel] = []
        self.servers: list[Any] = []

    async def channel(self, generator: Generator, **settings: Any) -> Channel:
        async def start() -> int:
            server = grpc.aio.server()
            server.add_generic_rpc_handlers([generator])
            port = server.add_insecure_port("127.0.0.1:0")
            await server.start()
            self.servers.append(server)
            return int(port)

        port = await self.bridge.on_loop(start)
        settings.setdefault("connect_timeout_s", 30.0)
        channel = Channel(reactor, f"127.0.0.1:{port}", ChannelSettings(**settings), lambda _: None)
        self.channels.append(channel)
        return channel

    async def close(self) -> None:
        for channel in self.channels:
            await channel.close()
        for server in self.servers:
            await self.bridge.on_loop(server.stop, 0)
        await self.bridge.stop()


@pytest_twisted.async_yield_fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    await made.close()


class Reading:
    """A stream of a channel, with Deferreds."""

    def __init__(self, channel: Channel, gap_s: float | None = 30.0) -> None:
        self.waiting: Deferred[Any] = Deferred()
        self.closed = 0
        self._begun = False
        self.stream = channel.stream(
            Call((answer("q"),), "/gen"),
            gap_s,
            None,
            lambda found: self._give(found),
            lambda: self._give(None),
            lambda error: self._give(error),
            lambda: setattr(self, "closed", self.closed + 1),
        )

    def _give(self, found: Any) -> None:
        waiting, self.waiting = self.waiting, Deferred()
        waiting.callback(found)

    async def next(self) -> Any:
        waiting = self.waiting
        if self._begun:
            self.stream.pull()
        else:
            self._begun = True
            self.stream.begin()
        return await waiting


@pytest.mark.slow
@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("compression", ["none", "gzip"])
async def test_documents_come_one_by_one_and_then_the_end(bench: Bench, compression: str) -> None:
    reading = Reading(await bench.channel(Generator(3), compression=compression))

    found = [await reading.next() for _ in range(4)]

    assert [each and bytes(each.documents)[-10:].strip() for each in found] == [b"0", b"1", b"2", None]
    assert isinstance(found[0], Answer)
    assert bytes(found[0].documents) == content_of(SingleDocumentRequestProto.FromString(
        answer("0".ljust(10))).document.SerializeToString())  # fmt: skip


@pytest.mark.slow
@pytest_twisted.ensureDeferred
async def test_the_executors_own_status_ends_the_stream(bench: Bench) -> None:
    abort = (grpc.StatusCode.UNKNOWN, "Unexpected <class 'ValueError'>: mid boom")
    reading = Reading(await bench.channel(Generator(1, abort=abort)))

    assert isinstance(await reading.next(), Answer)
    error = await reading.next()
    assert (error.code, error.details) == ("UNKNOWN", abort[1])


@pytest.mark.slow
@pytest_twisted.ensureDeferred
async def test_a_reader_that_does_not_ask_stops_the_generator(bench: Bench) -> None:
    generator = Generator(20_000, size=1000)
    channel = await bench.channel(generator)
    reading, other = Reading(channel), Reading(channel)
    await reading.next()
    while await other.next() is not None:  # the time that a generator needs for all of them
        pass

    assert generator.yielded[0] < 5000
    assert generator.yielded[1] == 20_000
    for _ in range(500):
        await reading.next()
    reading.stream.cancel()
    await until_on_reactor(reactor, lambda: generator.ended == 2, 30.0, lambda: "the cancel")


@pytest.mark.slow
@pytest_twisted.ensureDeferred
async def test_a_gap_that_is_too_long_ends_the_stream_and_the_generator(bench: Bench) -> None:
    generator = Generator(1, stays=True)
    reading = Reading(await bench.channel(generator), gap_s=1.5)

    await reading.next()
    error = await reading.next()

    assert error.code == "DEADLINE_EXCEEDED"
    await until_on_reactor(reactor, lambda: generator.ended, 30.0, lambda: "the cancel")
