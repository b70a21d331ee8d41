"""The channel's connection over real sockets: what it survives, and how soon it notices."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from struct import pack
from typing import Any

import grpc
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults

from gatewayd.messages.methods import SINGLE
from gatewayd.messages.request import Call
from gatewayd.rpc import link as transport
from gatewayd.rpc.channel import Channel, ChannelSettings
from tests.rpc.peer import SETTINGS, frame
from tests.rpc.servers import ALL, Executor, listening, says_nothing
from tests.rpc.test_channel import CALL, Bench, error_of

pytestmark = pytest.mark.slow


@pytest_twisted.async_yield_fixture()
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    await bench.close()


@pytest.fixture
def threaded_echo() -> Iterator[int]:
    """The port of a server of gRPC's synchronous kind that sends every message back."""

    class Echo(grpc.GenericRpcHandler):
        def service(self, details: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(lambda message, context: message)

    options = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
    server = grpc.server(ThreadPoolExecutor(8), options=options)
    server.add_generic_rpc_handlers((Echo(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(None).wait()


def scripted(*steps: bytes | int) -> Callable[[socket.socket], None]:
    """Sends bytes; a number waits for so many bytes first. Then reads until the client hangs up."""

    def behave(connection: socket.socket) -> None:
        for step in steps:
            if isinstance(step, bytes):
                connection.sendall(step)
                continue
            while step > 0 and (data := connection.recv(min(step, 1 << 16))):
                step -= len(data)
        while connection.recv(1 << 16):
            pass

    return behave


def document(size: int) -> bytes:
    return b"\x22" + _varint(size + 1 + len(_varint(size))) + b"\x12" + _varint(size) + b"d" * size


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    return bytes((*encoded, number))


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.slow
@pytest_twisted.ensureDeferred
async def test_a_hundred_megabytes_go_both_ways_again_and_again_in_the_same_memory(
    bench: Bench, threaded_echo: int
) -> None:
    channel = bench.channel(threaded_echo)
    message = document(100_000_000)
    used = []
    for _ in range(5):
        answer = await channel.call(Call((message,), "/x"), 60.0)
        assert len(answer.documents) > 100_000_000
        del answer
        gc.collect()
        used.append(resident_bytes())

    # What the allocator keeps settles with the second message; a leak would add one with each of three.
    assert used[4] - used[1] < 250_000_000


@pytest_twisted.ensureDeferred
async def test_an_answer_beyond_the_limit_fails_and_the_connection_lives(
    bench: Bench, threaded_echo: int
) -> None:
    channel = bench.channel(threaded_echo, max_message_bytes=1000)
    error = await error_of(channel.call(Call((document(3_000_000),), "/x"), 10.0))
    await channel.call(Call((document(10),), "/x"), 10.0)

    assert (error.code, error.reached) == ("RESOURCE_EXHAUSTED", True)
    assert bench.states == ["connecting", "ready"]


@pytest_twisted.ensureDeferred
async def test_a_thousand_calls_at_once_are_answered_each_with_its_own(
    bench: Bench, threaded_echo: int
) -> None:
    channel = bench.channel(threaded_echo)
    sizes = [1 + at % 40 * 997 for at in range(1000)]
    calls = [channel.call(Call((document(size),), "/x"), 30.0) for size in sizes]
    answers = await gatherResults(calls)

    assert [len(answer.documents) for answer in answers] == [
        len(document(size)) - 1 - len(_varint(size + 1 + len(_varint(size)))) for size in sizes
    ]


@pytest_twisted.ensureDeferred
async def test_half_of_a_thousand_calls_cancelled_leave_the_others_alone(bench: Bench) -> None:
    executor = Executor(SINGLE)
    executor.hold = asyncio.Event()
    channel = bench.channel(await bench.serve(executor))
    calls = [channel.call(CALL, 30.0) for _ in range(200)]
    await bench.until(lambda: len(executor.seen) == 200)
    for call in calls[::2]:
        call.addErrback(lambda failure: None).cancel()
    await bench.bridge.on_loop(executor.let_go)
    for call in calls[1::2]:
        assert not (await call).failed


@pytest_twisted.ensureDeferred
async def test_a_server_that_falls_silent_is_noticed_by_its_pings(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "KEEPALIVE_S", 0.1)
    monkeypatch.setattr(transport, "KEEPALIVE_TIMEOUT_S", 0.1)
    with listening(scripted(SETTINGS)) as port:
        error = await error_of(bench.channel(port).call(CALL, 5.0))

    assert (error.code, error.details) == ("UNAVAILABLE", "keepalive watchdog timeout")


@pytest_twisted.ensureDeferred
async def test_a_server_that_answers_pings_is_left_in_peace(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, threaded_echo: int
) -> None:
    monkeypatch.setattr(transport, "KEEPALIVE_S", 0.02)
    monkeypatch.setattr(transport, "KEEPALIVE_TIMEOUT_S", 1.0)
    channel = bench.channel(threaded_echo)
    pings = []
    await bench.until(lambda: bench.states[-1] == "ready")
    ping = channel.link._ready.connection.ping
    channel.link._ready.connection.ping = lambda: (pings.append(1), ping())
    await bench.until(lambda: len(pings) > 1)

    assert not (await channel.call(CALL, 5.0)).failed


@pytest_twisted.ensureDeferred
async def test_a_server_that_is_asked_too_often_whether_it_lives_is_asked_less(bench: Bench) -> None:
    goaway = frame(7, 0, 0, b"\0\0\0\0" + b"\0\0\0\x0b" + b"too_many_pings")
    with listening(scripted(SETTINGS, goaway)) as port:
        channel = bench.channel(port)
        await bench.until(lambda: channel.link.keepalive_s > 2 * transport.KEEPALIVE_S)


@pytest_twisted.ensureDeferred
async def test_a_server_that_goes_away_finishes_what_it_has_and_new_calls_find_another(bench: Bench) -> None:
    old = Executor(*ALL)
    old.hold = asyncio.Event()
    port = await bench.serve(old)
    channel = bench.channel(port)
    under_way = channel.call(CALL, 10.0)
    await bench.until(lambda: old.seen)
    stopping = bench.bridge.on_loop(old.stop, 5.0)
    await bench.until(lambda: bench.states[-1] != "ready")
    new = Executor(*ALL)
    await bench.serve(new, f"127.0.0.1:{port}")
    await bench.until(lambda: bench.states[-1] == "ready")
    await channel.call(CALL, 5.0)
    assert not under_way.called

    await bench.bridge.on_loop(old.let_go)
    assert not (await under_way).failed
    assert len(new.seen) == 1
    await stopping


@pytest_twisted.ensureDeferred
async def test_calls_that_wait_for_a_place_when_their_server_goes_away_are_not_for_the_next_one(
    bench: Bench,
) -> None:
    def serve_one(connection: socket.socket) -> None:
        connection.sendall(frame(4, 0, 0, pack(">HI", 3, 1)))  # one stream at a time
        received = bytearray()
        while data := connection.recv(1 << 16):
            received += data
            if SINGLE.encode() in received:
                connection.sendall(frame(7, 0, 0, pack(">II", 1, 0)))

    with listening(serve_one) as port:
        channel = bench.channel(port)
        await bench.until(lambda: bench.states[-1] == "ready")
        under_way, waits = channel.call(CALL, None), channel.call(CALL, None)
        error = await error_of(waits)
        await bench.until(lambda: bench.states == ["connecting", "ready"] * 2)
        assert not under_way.called
        under_way.cancel()
        with pytest.raises(CancelledError):
            await under_way

    assert (error.code, error.details, error.reached) == (
        "UNAVAILABLE",
        "the server is going away",
        False,
    )


@pytest_twisted.ensureDeferred
async def test_streams_that_wait_for_a_connection_are_not_for_a_server_after_that_of_the_calls(
    bench: Bench,
) -> None:
    came: list[socket.socket] = []

    def greet_the_first(connection: socket.socket) -> None:
        came.append(connection)
        if len(came) == 1:
            connection.sendall(SETTINGS)
        says_nothing(connection)

    failed: list[Any] = []
    with listening(greet_the_first) as port:
        channel = bench.channel(port)
        await bench.until(lambda: bench.states[-1] == "ready")
        channel.stream(CALL, None, None, failed.append, failed.clear, failed.append, failed.clear).begin()
        await bench.until(lambda: len(came) == 2)
        came[0].sendall(frame(7, 0, 0, pack(">II", 0, 0)))
        await bench.until(lambda: failed)

    assert (failed[0].code, failed[0].reached) == ("UNAVAILABLE", False)


@pytest_twisted.ensureDeferred
async def test_a_call_that_is_compressed_while_its_connection_is_lost_is_not_for_the_next_one(
    bench: Bench, threaded_echo: int
) -> None:
    compressed: list[Deferred[bytes]] = []
    channel = Channel(
        reactor,
        f"127.0.0.1:{threaded_echo}",
        ChannelSettings(compression="gzip", connect_timeout_s=30.0),
        bench.states.append,
        lambda *_: (compressed.append(Deferred()), compressed[-1])[1],  # type: ignore[arg-type,func-returns-value]
    )
    bench.channels.append(channel)
    await bench.until(lambda: bench.states[-1] == "ready")
    answer = channel.call(Call((document(3_000_000),), "/x"), None)
    failed: list[Any] = []
    large = Call((document(3_000_000),), "/x")
    stream = channel.stream(large, None, None, failed.append, failed.clear, failed.append, failed.clear)
    stream.begin()
    ready = channel.link._ready
    assert ready is not None
    ready.abort("the cable was cut")
    await bench.until(lambda: bench.states == ["connecting", "ready"] * 2)
    for each in compressed:
        each.callback(b"short")
    error = await error_of(answer)

    assert (error.code, error.reached) == ("UNAVAILABLE", False)
    assert [(each.code, each.reached) for each in failed] == [("UNAVAILABLE", False)]


@pytest_twisted.ensureDeferred
async def test_a_server_that_greets_and_hangs_up_is_not_besieged(bench: Bench) -> None:
    came = []

    def greet(connection: socket.socket) -> None:
        came.append(1)
        connection.sendall(SETTINGS)
        connection.shutdown(socket.SHUT_RDWR)

    with listening(greet) as port:
        bench.channel(port, reconnect_s=0.1)
        took_s = await bench.until(lambda: len(came) >= 5)

    assert took_s > 0.25


@pytest_twisted.ensureDeferred
async def test_a_refused_connection_has_the_references_error_text(bench: Bench) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        error = await error_of(bench.channel(port).call(CALL, 5.0))

    assert error.details == (
        "failed to connect to all addresses; last error: UNKNOWN: "
        f"ipv4:127.0.0.1:{port}: Failed to connect to remote host: Connection refused"
    )
    assert (error.code, error.reached) == ("UNAVAILABLE", False)


@pytest_twisted.ensureDeferred
async def test_localhost_is_whichever_family_answers(bench: Bench, threaded_echo: int) -> None:
    channel = bench.channel(threaded_echo, "localhost")

    assert not (await channel.call(CALL, 5.0)).failed


@pytest_twisted.ensureDeferred
async def test_a_server_that_dies_under_a_call_is_a_lost_connection(bench: Bench) -> None:
    with listening(scripted(SETTINGS, 400)) as port:
        call = bench.channel(port).call(Call((b"x" * 5000,), "/x"), 5.0)
        await bench.until(lambda: bench.states[-1] == "ready")
    error = await error_of(call)

    assert error.code == "UNAVAILABLE"


@pytest_twisted.ensureDeferred
async def test_closing_ends_calls_under_way_and_waiting_ones_and_every_socket(bench: Bench) -> None:
    executor = Executor(SINGLE)
    executor.hold = asyncio.Event()
    port = await bench.serve(executor)
    under_way = bench.channel(port)
    call = under_way.call(CALL, None)
    await bench.until(lambda: executor.seen)
    with listening(lambda connection: threading.Event().wait(0.2)) as silent:
        waiting_channel = bench.channel(silent)
        waiting = waiting_channel.call(CALL, None)
        closing = [under_way.close(), waiting_channel.close()]
        assert [(await error_of(each)).code for each in (call, waiting)] == ["UNAVAILABLE"] * 2
        await gatherResults(closing)
    assert (await error_of(under_way.call(CALL, 1.0))).reached is False
    assert not [
        reader
        for reader in reactor.getReaders()
        if f"port={port}" in repr(getattr(reader, "getPeer", lambda: "")())
    ]


@pytest_twisted.ensureDeferred
async def test_an_endpoint_that_metadata_cannot_carry_fails_its_own_call(bench: Bench) -> None:
    channel = bench.channel(await bench.serve(Executor(*ALL)))

    assert (await error_of(channel.call(Call((b"",), "/a\nb"), 5.0))).code == "INVALID_ARGUMENT"


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
@pytest_twisted.ensureDeferred
async def test_compressed_answers_are_expanded(bench: Bench, compression: str) -> None:
    class Compressing(Executor):
        def service(self, details: Any) -> Any:
            async def respond(message: bytes, context: Any) -> bytes:
                context.set_compression(getattr(grpc.Compression, compression.title()))
                return message

            return grpc.unary_unary_rpc_method_handler(respond)

    channel = bench.channel(await bench.serve(Compressing(*ALL)), compression=compression)
    for size in (10_000, 5_000_000):
        answer = await channel.call(Call((document(size),), "/x"), 10.0)
        assert bytes(answer.documents).endswith(b"d" * size)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(("max_pings", "ended"), [(2, False), (0, True)])
async def test_pings_stay_within_what_a_servers_default_policy_allows(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, max_pings: int, ended: bool
) -> None:
    """gRPC's servers end a connection at the third ping too many, which takes three minutes by default."""
    monkeypatch.setattr(transport, "KEEPALIVE_S", 0.05)
    monkeypatch.setattr(transport, "KEEPALIVE_TIMEOUT_S", 0.2)
    executor = Executor(*ALL)
    executor.hold = asyncio.Event()
    port = await bench.serve(executor)
    channel = bench.channel(port, max_pings=max_pings)
    await bench.until(lambda: bench.states[-1] == "ready")
    call = channel.call(CALL, 20.0)
    await bench.until(lambda: executor.seen)
    session = channel.link._ready
    checks = []
    keep_alive = session._keep_alive
    monkeypatch.setattr(session, "_keep_alive", lambda: (checks.append(1), keep_alive()))
    if ended:
        await bench.until(lambda: channel.link.keepalive_s > transport.KEEPALIVE_S)
        assert (await error_of(call)).code == "UNAVAILABLE"
        return
    await bench.until(lambda: len(checks) > 10)
    assert session.connection.pings == 2
    await bench.bridge.on_loop(executor.let_go)
    assert not (await call).failed
    assert session.connection.pings == 0
    await bench.until(lambda: session.connection.pings == 1)
    checks.clear()
    await bench.until(lambda: len(checks) > 5)
    assert session.connection.pings == 1  # the other is for the next call
    assert bench.states == ["connecting", "ready"]


@pytest_twisted.ensureDeferred
async def test_the_kernel_watches_the_connection_as_well(bench: Bench, threaded_echo: int) -> None:
    channel = bench.channel(threaded_echo)
    await bench.until(lambda: bench.states[-1] == "ready")
    connection = channel.link._ready.transport.socket

    assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 20_000


@pytest_twisted.ensureDeferred
async def test_a_grpc_server_with_long_details_fails_that_call_alone(bench: Bench) -> None:
    executor = Executor(*ALL)
    executor.answer = (grpc.StatusCode.INTERNAL, "long " * 80_000)
    port = await bench.serve(executor)
    channel = bench.channel(port)
    errors = [await error_of(call) for call in [channel.call(CALL, 10.0) for _ in range(3)]]
    executor.answer = b""

    assert {error.code for error in errors} == {"RESOURCE_EXHAUSTED"}
    assert not (await channel.call(CALL, 10.0)).failed
    assert bench.states == ["connecting", "ready"]
