"""The channel over real sockets: servers of all kinds, and what is no server."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.testing import MemoryReactorClock

from gatewayd.bridge import Bridge
from gatewayd.messages.discovery import Told
from gatewayd.messages.headers import AllowList
from gatewayd.messages.methods import DISCOVERY, LISTED, SINGLE, STREAM
from gatewayd.messages.request import Call
from gatewayd.messages.wire import Malformed
from gatewayd.pool.roots import trust_in, trusted_roots
from gatewayd.rpc.channel import CallError, Channel, ChannelSettings
from gatewayd.tls.outgoing import CallTls
from tests.rpc.servers import ALL, Executor, listening, recording, resets, says_nothing, talks_nonsense
from tests.waiting import until_on_reactor

pytestmark = pytest.mark.slow

CALL = Call((b"",), "/x")


class Bench:
    """A bridge, servers on its loop, and channels to them."""

    def __init__(self) -> None:
        self.bridge = Bridge(reactor)
        self.bridge.start()
        self.channels: list[Channel] = []
        self.servers: list[Executor] = []
        self.states: list[str] = []

    async def serve(self, executor: Executor, *args: Any) -> int:
        self.servers.append(executor)
        return await self.bridge.on_loop(executor.start, *args)

    def channel(self, port: int, at: str = "127.0.0.1", **settings: Any) -> Channel:
        # The default is for executors in production; a busy machine that runs tests may need longer.
        settings.setdefault("connect_timeout_s", 30.0)
        channel = Channel(reactor, f"{at}:{port}", ChannelSettings(**settings), self.states.append)
        self.channels.append(channel)
        return channel

    async def until(self, condition: Callable[[], object], timeout_s: float = 30.0) -> float:
        """Seconds that it took."""
        began = time.monotonic()
        await until_on_reactor(reactor, condition, timeout_s, lambda: f"it, with states {self.states},")
        return time.monotonic() - began

    async def close(self) -> None:
        for channel in self.channels:
            await channel.close()
        for server in self.servers:
            await self.bridge.on_loop(server.stop)
        await self.bridge.stop()


@pytest_twisted.async_yield_fixture()
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    await bench.close()


async def error_of(answer: Deferred[Any]) -> CallError:
    with pytest.raises(CallError) as caught:
        await answer
    return caught.value


@pytest_twisted.ensureDeferred
async def test_metadata_stand_in_the_recorded_order_and_the_deadline_is_passed_on(bench: Bench) -> None:
    executor = Executor(*ALL)
    channel = bench.channel(await bench.serve(executor), metadata=(("k", "v"),))
    await channel.call(CALL, 5.0)
    method, metadata, left_s, message = executor.seen[0]

    assert method == SINGLE
    assert [pair for pair in metadata if pair[0] != "user-agent"] == [("k", "v"), ("endpoint", "/x")]
    assert left_s == pytest.approx(5.0, abs=0.5)
    assert message == b""


@pytest.mark.parametrize("methods", [ALL, (STREAM,)])
@pytest_twisted.ensureDeferred
async def test_headers_go_out_with_one_call_and_those_of_the_list_come_back(
    bench: Bench, methods: tuple[str, ...]
) -> None:
    executor = Executor(*methods)
    executor.trailing = (("x-cache", "hit"), ("y", "no"), ("x-raw-bin", b"\0\xff"))
    forwarded = AllowList.of(["x-*"], 4096)
    channel = bench.channel(await bench.serve(executor), metadata=(("k", "v"),), forwarded=forwarded)
    large = "v" * 20_000  # of two frames
    first = await channel.call(Call((b"",), "/x", headers=(("x-a", "1"), ("x-raw-bin", "/w"))), 5.0)
    await channel.call(CALL, 5.0)
    await channel.call(Call((b"",), "/x", headers=(("x-a", "2"),)), 5.0)
    with contextlib.suppress(CallError):  # gRPC's servers refuse as much, but nothing else is lost
        await channel.call(Call((b"",), "/x", headers=(("x-a", large),)), 5.0)

    sent = [[pair for pair in metadata if pair[0].startswith("x-")] for _, metadata, *_ in executor.seen]
    assert sent[:3] == [[("x-a", "1"), ("x-raw-bin", b"\xff")], [], [("x-a", "2")]]
    assert first.headers == (("x-cache", "hit"), ("x-raw-bin", "AP8"))
    assert (await channel.call(CALL, 5.0)).headers == first.headers


@pytest_twisted.ensureDeferred
async def test_without_an_endpoint_and_a_timeout_neither_is_sent(bench: Bench) -> None:
    executor = Executor(*ALL)
    channel = bench.channel(await bench.serve(executor))
    await channel.call(Call((b"",), ""), None)

    _, metadata, left_s, _ = executor.seen[0]
    assert "endpoint" not in dict(metadata)
    assert left_s is None or left_s > 1e6


@pytest_twisted.ensureDeferred
async def test_an_executor_that_only_streams_is_asked_by_call(bench: Bench) -> None:
    executor = Executor(STREAM)
    executor.trailing = (("is-error", "true"),)
    channel = bench.channel(await bench.serve(executor))
    first = await channel.call(CALL, 5.0)
    await channel.call(CALL, 5.0)

    assert first.failed
    assert [method for method, *_ in executor.seen] == [STREAM, STREAM]
    assert await channel.endpoints(1.0) == Told({"/default": ""})


@pytest_twisted.ensureDeferred
async def test_a_stream_that_its_server_never_ends_still_brings_its_answer(bench: Bench) -> None:
    executor = Executor(STREAM)
    executor.leaves_streams_open = True
    channel = bench.channel(await bench.serve(executor))

    assert not (await channel.call(CALL, None)).failed


@pytest_twisted.ensureDeferred
async def test_another_server_behind_the_address_is_asked_afresh(bench: Bench) -> None:
    streaming = Executor(STREAM)
    port = await bench.serve(streaming)
    channel = bench.channel(port)
    await channel.call(CALL, 5.0)
    await bench.bridge.on_loop(streaming.stop)
    await bench.until(lambda: bench.states[-1] != "ready")
    unary = Executor(SINGLE)
    await bench.serve(unary, f"127.0.0.1:{port}")
    await bench.until(lambda: bench.states[-1] == "ready")
    await channel.call(CALL, 5.0)

    assert [method for method, *_ in unary.seen] == [SINGLE]


@pytest_twisted.ensureDeferred
async def test_several_messages_go_to_process_data(bench: Bench) -> None:
    executor = Executor(*ALL)
    channel = bench.channel(await bench.serve(executor))
    await channel.call(Call((b"\x0a\x00", b""), "/x", listed=True), 5.0)

    assert executor.seen[0][0] == LISTED
    assert executor.seen[0][3] == b"\x0a\x02\x0a\x00\x0a\x00"


@pytest_twisted.ensureDeferred
async def test_trailing_metadata_marks_an_executors_error(bench: Bench) -> None:
    executor = Executor(SINGLE)
    executor.trailing = (("is-error", "true"),)
    channel = bench.channel(await bench.serve(executor))

    assert (await channel.call(CALL, 5.0)).failed


@pytest_twisted.ensureDeferred
async def test_garbage_instead_of_an_answer_is_malformed(bench: Bench) -> None:
    executor = Executor(SINGLE)
    executor.answer = b"\xff" * 40
    channel = bench.channel(await bench.serve(executor))

    with pytest.raises(Malformed):
        await channel.call(CALL, 5.0)


@pytest_twisted.ensureDeferred
async def test_a_server_with_neither_method_is_unimplemented(bench: Bench) -> None:
    channel = bench.channel(await bench.serve(Executor(DISCOVERY)))

    assert (await error_of(channel.call(CALL, 5.0))).code == "UNIMPLEMENTED"


@pytest_twisted.ensureDeferred
async def test_the_executors_own_codes_are_kept(bench: Bench) -> None:
    executor = Executor(SINGLE)
    executor.answer = (grpc.StatusCode.INTERNAL, "mine")
    channel = bench.channel(await bench.serve(executor))
    error = await error_of(channel.call(CALL, 5.0))

    assert (error.code, error.details, error.reached) == ("INTERNAL", "mine", True)


@pytest_twisted.ensureDeferred
async def test_cancelling_reaches_the_executor(bench: Bench) -> None:
    executor = Executor(SINGLE)
    executor.hold = asyncio.Event()
    channel = bench.channel(await bench.serve(executor))
    answer = channel.call(CALL, None)
    await bench.until(lambda: executor.seen)
    answer.cancel()
    with pytest.raises(CancelledError):
        await answer

    await bench.until(lambda: executor.cancelled == 1)


@pytest_twisted.ensureDeferred
async def test_a_call_that_takes_too_long_is_late(bench: Bench) -> None:
    executor = Executor(SINGLE)
    executor.hold = asyncio.Event()
    channel = bench.channel(await bench.serve(executor))

    assert (await error_of(channel.call(CALL, 0.1))).code == "DEADLINE_EXCEEDED"


@pytest.mark.parametrize(
    ("compression", "magic"), [("gzip", b"\x1f\x8b\x08"), ("deflate", b"\x78"), ("none", b"")]
)
@pytest_twisted.ensureDeferred
async def test_messages_are_compressed_on_the_wire(bench: Bench, compression: str, magic: bytes) -> None:
    executor = Executor(SINGLE)
    target = await bench.serve(executor)
    record = bytearray()
    message = b"\x12\x80\x80\x20" + b"a" * 0x80000
    with listening(recording(target, record)) as port:
        channel = bench.channel(port, compression=compression)
        await channel.call(Call((message,), "/x"), 5.0)
        await channel.close()
        bench.channels.remove(channel)

    assert executor.seen[0][3] == message
    assert (len(record) > len(message)) is (compression == "none")
    assert magic in record


@pytest.mark.parametrize("behave", [says_nothing, resets, talks_nonsense])
@pytest_twisted.ensureDeferred
async def test_a_listener_that_is_not_a_grpc_server_is_reported_as_failed_in_time(
    bench: Bench, behave: Callable[[Any], None]
) -> None:
    with listening(behave) as port:
        channel = bench.channel(port, connect_timeout_s=0.3)
        error = await error_of(channel.call(CALL, None))
        await bench.until(lambda: bench.states[-1] == "failed", 20.0)
        began = time.monotonic()
        again = await error_of(channel.call(CALL, None))

        assert (error.code, error.reached) == (again.code, again.reached) == ("UNAVAILABLE", False)
        assert time.monotonic() - began < 5


@pytest.mark.slow
@pytest_twisted.ensureDeferred
async def test_a_server_that_comes_back_is_connected_each_time(bench: Bench) -> None:
    executor = Executor(*ALL)
    port = await bench.serve(executor)
    bench.channel(port)
    for _ in range(5):
        await bench.until(lambda: bench.states[-1] == "ready")
        await bench.bridge.on_loop(executor.stop)
        await bench.until(lambda: bench.states[-1] == "failed")
        executor = Executor(*ALL)
        await bench.serve(executor, f"127.0.0.1:{port}")
    await bench.until(lambda: bench.states[-1] == "ready")


def test_a_server_that_is_away_for_long_is_tried_again_as_soon_as_at_first() -> None:
    clock = MemoryReactorClock()
    Channel(clock, "127.0.0.1:5", ChannelSettings(reconnect_s=0.1), lambda state: None)
    for number in range(1, 101):
        assert len(clock.tcpClients) == number
        factory = clock.tcpClients[-1][2]
        factory.clientConnectionFailed(clock.connectors[-1], ConnectionRefusedError())
        clock.advance(0.07)
        assert len(clock.tcpClients) == number
        clock.advance(0.06)  # 0.1 s and a fifth of jitter


@pytest_twisted.ensureDeferred
async def test_a_graceful_stop_of_the_server_loses_nothing(bench: Bench) -> None:
    executor = Executor(SINGLE)
    executor.hold = asyncio.Event()
    channel = bench.channel(await bench.serve(executor))
    answers = [channel.call(CALL, 5.0) for _ in range(20)]
    await bench.until(lambda: len(executor.seen) == 20)
    stopping = bench.bridge.on_loop(executor.stop, 5.0)
    await bench.bridge.on_loop(executor.let_go)
    for answer in answers:
        assert not (await answer).failed
    await stopping


@pytest_twisted.ensureDeferred
async def test_a_stop_without_grace_is_a_lost_connection(bench: Bench) -> None:
    executor = Executor(SINGLE)
    executor.hold = asyncio.Event()
    channel = bench.channel(await bench.serve(executor))
    answer = channel.call(CALL, 5.0)
    await bench.until(lambda: executor.seen)
    stopping = bench.bridge.on_loop(executor.stop)

    assert (await error_of(answer)).code in ("UNAVAILABLE", "CANCELLED")
    await stopping


# -- TLS -----------------------------------------------------------------------------------------------


def certificate(name: str) -> tuple[bytes, bytes]:
    """A self-signed certificate for ``name``, and its key."""
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM), key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"])
@pytest_twisted.ensureDeferred
async def test_tls_is_verified_by_name_against_the_roots_that_a_variable_names(
    bench: Bench, tmp_path: Path, variable: str
) -> None:
    pem, key = certificate("executor.test")
    roots = tmp_path / "roots.pem"
    roots.write_bytes(pem)
    executor = Executor(*ALL)
    port = await bench.serve(executor, "127.0.0.1:0", grpc.ssl_server_credentials([(key, pem)]))
    known = trusted_roots({variable: str(roots)})
    trusting = bench.channel(port, tls=True, host="executor.test", call_tls=CallTls(known))

    assert not (await trusting.call(CALL, 5.0)).failed
    for settings in (
        {"host": "another.test", "call_tls": CallTls(known)},
        {"host": None, "call_tls": CallTls(known)},
        {"host": "executor.test", "call_tls": CallTls(trust_in(certificate("executor.test")[0]))},
        {"host": "executor.test", "call_tls": CallTls(trusted_roots({variable: str(tmp_path / "missing")}))},
        {"host": "executor.test", "call_tls": CallTls(trusted_roots({}))},
    ):
        error = await error_of(bench.channel(port, tls=True, **settings).call(CALL, 5.0))
        assert (error.code, error.reached) == ("UNAVAILABLE", False)
