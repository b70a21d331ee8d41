"""A Runtime in the tests' own process: limits, cancellation, sockets, the end."""

import asyncio
import contextlib
import gzip
import os
import socket
import stat
import subprocess
import sys
import threading

import attrs
import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gatewayd import Executor, requests
from gatewayd.executor import runtime as runtime_module
from gatewayd.executor.runtime import Runtime
from gatewayd.executor.spec import ExecutorSpec
from gatewayd.messages.methods import LISTED, SINGLE, STREAM
from gatewayd.pb import DataRequestListProto, DataRequestProto
from gatewayd.rpc.frames import HEADERS, PING, PREFACE, RST_STREAM, SETTINGS, frame
from gatewayd.rpc.headers import encode
from tests.processes import environment
from tests.waiting import until_in_loop

SPEC = ExecutorSpec("exec_a")


class Slow(Executor):
    """``entered`` and ``ended`` count; ``gate`` lets plain methods go on, ``opened`` coroutines."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.gate = threading.Event()
        self.opened = asyncio.Event()
        self.entered = self.ended = self.waiting = self.cancelled = 0
        self.entered_one = asyncio.Event()
        self.closed = False

    @requests(on="/plain")
    def plain(self, docs, **kwargs):
        self.entered += 1
        assert self.gate.wait(20)
        self.ended += 1

    @requests(on="/later")
    async def later(self, docs, **kwargs):
        self.waiting += 1
        self.entered_one.set()
        try:
            await self.opened.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.waiting -= 1

    @requests(on="/cancelled")
    async def cancels_itself(self, **kwargs):
        raise asyncio.CancelledError

    @requests(on="/fail")
    def fail(self, **kwargs):
        raise ValueError("boom")

    @requests(on="/long")
    def long(self, docs, **kwargs):
        docs[0].text = "x" * 5_000_000

    @requests(on="/headers")
    def headers(self, headers, response_headers, **kwargs):
        response_headers["x-answer"] = headers["x-asked"]

    def close(self):
        self.closed = True


@contextlib.asynccontextmanager
async def serving(spec=SPEC, **options):
    executor = Slow()
    served = Runtime(executor, spec, lambda reason: None)
    address = await served.start()
    try:
        async with grpc.aio.insecure_channel(address, options=list(options.items())) as channel:
            yield executor, channel, address, served
    finally:
        executor.gate.set()
        executor.opened.set()
        await served.stop()


def message(endpoint, text="x"):
    request = DataRequestProto()
    request.header.request_id, request.header.exec_endpoint = "r", endpoint
    request.data.docs.docs.add(id="d", text=text)
    return request.SerializeToString()


def request_head(*more):
    path = (b":path", SINGLE.encode())
    content = (b"content-type", b"application/grpc")
    return encode([(b":method", b"POST"), (b":scheme", b"http"), path, content, *more])


async def refused(call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code().name, caught.value.details()


def test_an_executor_loads_neither_twisted_nor_grpc():
    code = "import sys, gatewayd.executor.runtime; print({'grpc', 'twisted'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == "set()\n"


def test_a_call_that_its_client_gives_up_is_cancelled_or_never_begins():
    async def scenario():
        async with serving() as (executor, channel, _, served):
            ask = channel.unary_unary(SINGLE)
            running, later = ask(message("/plain")), ask(message("/later"))
            await until_in_loop(lambda: executor.entered == 1 and executor.waiting == 1)
            queued = ask(message("/plain"))
            await until_in_loop(served._handling._worker._jobs.qsize)
            queued.cancel()
            later.cancel()
            await until_in_loop(lambda: executor.cancelled == 1)
            assert await ask(message("/nobody"))  # whose answer shows that the others' ends have arrived
            executor.gate.set()
            assert await running
            assert await ask(message("/plain"))
            return executor.entered

    assert asyncio.run(scenario()) == 2


def test_a_client_that_is_gone_cancels_its_calls():
    async def scenario():
        async with serving() as (executor, _, address, _):
            async with grpc.aio.insecure_channel(address) as channel:
                call = channel.stream_stream(STREAM)()
                await call.write(message("/later"))
                await until_in_loop(lambda: executor.waiting == 1)
            await until_in_loop(lambda: executor.cancelled == 1)

    asyncio.run(scenario())


def test_a_deadline_ends_a_call():
    async def scenario():
        async with serving() as (executor, channel, _, _):
            code, _ = await refused(channel.unary_unary(SINGLE)(message("/later"), timeout=1.0))
            await until_in_loop(lambda: executor.cancelled == 1)
            return code

    assert asyncio.run(scenario()) == "DEADLINE_EXCEEDED"


def test_a_method_that_is_cancelled_from_inside_fails_its_call():
    async def scenario():
        async with serving() as (_, channel, _, _):
            return await refused(channel.unary_unary(SINGLE)(message("/cancelled"), timeout=20))

    assert asyncio.run(scenario()) == ("CANCELLED", "the method was cancelled")


def test_any_number_of_calls_of_one_connection_are_under_way_and_given_up_together():
    async def scenario():
        async with serving() as (executor, channel, _, _):
            ask = channel.unary_unary(SINGLE)
            calls = [ask(message("/later")) for _ in range(3000)]
            await until_in_loop(lambda: executor.waiting == 3000)
            for call in calls:
                call.cancel()
            await until_in_loop(lambda: executor.cancelled == 3000)
            # The connection is still the same, and serves.
            assert await ask(message("/nobody"))

    asyncio.run(scenario())


def test_pings_are_answered_however_many_there_are():
    async def scenario():
        async with serving() as (_, _, address, _):
            host, port = address.split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(PREFACE + frame(SETTINGS, 0, 0, b"") + frame(PING, 0, 0, b"12345678") * 100)
            found = b""
            async with asyncio.timeout(20):
                while found.count(frame(PING, 1, 0, b"12345678")) < 100:
                    found += await reader.read(1 << 16)
            writer.close()

    asyncio.run(scenario())


def test_resets_have_a_bound_all_the_same():
    async def scenario(most):
        async with serving() as (_, _, address, _):
            host, port = address.split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            head = request_head()
            asked = b"".join(
                frame(HEADERS, 4, number, head) + frame(RST_STREAM, 0, number, bytes(4))
                for number in range(1, 2 * most + 3, 2)
            )
            writer.write(PREFACE + frame(SETTINGS, 0, 0, b"") + asked)
            async with asyncio.timeout(20):
                found = await reader.read()
            writer.close()
            return b"too many requests are reset" in found

    with pytest.MonkeyPatch.context() as patched:
        limits = runtime_module._LIMITS
        assert limits.resets == 100_000
        patched.setattr(runtime_module, "_LIMITS", attrs.evolve(limits, resets=50))
        assert asyncio.run(scenario(50))


def test_a_message_above_the_limit_is_refused():
    async def scenario():
        async with serving(ExecutorSpec("exec_a", max_message_bytes=1000)) as (_, channel, _, _):
            ask = channel.unary_unary(SINGLE)
            assert await ask(message("/nobody"))
            return await refused(ask(message("/nobody", "x" * 2000)))

    code, details = asyncio.run(scenario())
    assert code == "RESOURCE_EXHAUSTED"
    assert "1000" in details


@pytest.mark.parametrize("method", [SINGLE, LISTED])
@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed_messages_are_read(method, compression):
    async def scenario():
        async with serving() as (_, channel, _, _):
            asked = message("/nobody", "x" * 200_000)
            if method == LISTED:
                asked = DataRequestListProto(
                    requests=[DataRequestProto.FromString(asked)]
                ).SerializeToString()
            answer = await channel.unary_unary(method)(asked, compression=compression)
            return DataRequestProto.FromString(answer).data.docs.docs[0].text

    assert asyncio.run(scenario()) == "x" * 200_000


def test_compressed_messages_of_a_stream_are_read_in_their_order():
    async def scenario():
        async with serving() as (_, channel, _, _):
            sizes = [200_000, 10, 100_000]
            call = channel.stream_stream(STREAM, lambda message: message)(
                (message("/nobody", "x" * size) for size in sizes), compression=grpc.Compression.Gzip
            )
            return [len(DataRequestProto.FromString(one).data.docs.docs[0].text) async for one in call], sizes

    found, sizes = asyncio.run(scenario())
    assert found == sizes


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (gzip.compress(bytes(1 << 20)), "RESOURCE_EXHAUSTED"),
        (gzip.compress(b"x" * 1000)[:20], "INVALID_ARGUMENT"),
        (b"not compressed", "INVALID_ARGUMENT"),
    ],
    ids=["bomb", "cut short", "plain"],
)
def test_what_cannot_be_inflated_fails_its_call(body, code):
    async def scenario():
        async with serving(ExecutorSpec("exec_a", max_message_bytes=100_000)) as (_, channel, address, _):
            host, port = address.split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            head = request_head((b"grpc-encoding", b"gzip"))
            data = b"\1" + len(body).to_bytes(4, "big") + body
            writer.write(
                PREFACE + frame(SETTINGS, 0, 0, b"") + frame(HEADERS, 4, 1, head) + frame(0, 1, 1, data)
            )
            wanted = b"grpc-status" + {"RESOURCE_EXHAUSTED": b"\x018", "INVALID_ARGUMENT": b"\x013"}[code]
            found = b""
            async with asyncio.timeout(20):
                while wanted not in found:
                    piece = await reader.read(1 << 16)
                    assert piece, found
                    found += piece
            writer.close()
            assert await channel.unary_unary(SINGLE)(message("/nobody"))

    asyncio.run(scenario())


def test_headers_and_failures_of_a_stream_are_in_its_trailers():
    async def scenario():
        async with serving() as (_, channel, _, _):
            call = channel.stream_stream(STREAM)(metadata=[("x-asked", "1"), ("x-bin-bin", b"\0")])
            for endpoint in ("/headers", "/fail", "/headers"):
                await call.write(message(endpoint))
                assert await call.read()
            await call.done_writing()
            assert await call.read() is grpc.aio.EOF
            return [tuple(pair) for pair in await call.trailing_metadata()]

    assert asyncio.run(scenario()) == [("x-answer", "1"), ("is-error", "true")]


def test_an_answer_that_its_client_does_not_read_holds_up_only_its_own_stream():
    async def scenario():
        async with serving(**{"grpc.max_receive_message_length": -1}) as (_, channel, _, _):
            call = channel.stream_stream(STREAM)()
            await call.write(message("/long"))
            await call.write(message("/nobody"))
            answer = await channel.unary_unary(SINGLE)(message("/long"))
            assert len(answer) > 5_000_000
            return [len(await call.read()) > 5_000_000, len(await call.read()) > 5_000_000]

    assert asyncio.run(scenario()) == [True, False]


def test_those_who_watch_health_learn_of_the_end():
    async def scenario():
        # The end of the grace period ends the watch. Were it cancelled here, gRPC would still be about to
        # tell of that when the loop is closed.
        async with serving(ExecutorSpec("exec_a", grace_s=1.0)) as (executor, channel, _, served):
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=""))
            seen = [(await watch.read()).status]
            held = channel.unary_unary(SINGLE)(message("/later"))
            await until_in_loop(lambda: executor.waiting == 1)
            stopping = asyncio.ensure_future(served.stop())
            seen.append((await watch.read()).status)
            executor.opened.set()
            assert await held
            await stopping
            assert await watch.code() is not grpc.StatusCode.OK
            assert executor.closed
            return seen

    assert asyncio.run(scenario()) == [1, 2]


def test_calls_that_outlive_the_grace_period_are_cancelled():
    async def scenario():
        async with serving(ExecutorSpec("exec_a", grace_s=0.1)) as (executor, channel, _, served):
            call = channel.unary_unary(SINGLE)(message("/later"))
            await until_in_loop(lambda: executor.waiting == 1)
            await served.stop()
            assert executor.cancelled == 1
            return await refused(call)

    assert asyncio.run(scenario())[0] in ("UNAVAILABLE", "CANCELLED")


def test_a_socket_is_served_at_its_path_and_leaves_nothing(tmp_path):
    path = tmp_path / "s"
    left_behind = socket.socket(socket.AF_UNIX)
    left_behind.bind(str(path))
    left_behind.close()

    async def scenario():
        async with serving(ExecutorSpec("exec_a", socket=str(path))) as (_, channel, address, _):
            assert address == f"unix:{path}"
            assert await channel.unary_unary(SINGLE)(message("/nobody"))
            assert stat.S_ISSOCK(os.stat(path).st_mode)

    asyncio.run(scenario())
    assert not path.exists()


def test_a_socket_that_another_process_has_replaced_stays(tmp_path):
    path = tmp_path / "s"

    async def scenario():
        async with serving(ExecutorSpec("exec_a", socket=str(path))):
            async with serving(ExecutorSpec("exec_a", socket=str(path))) as (_, channel, _, _):
                assert await channel.unary_unary(SINGLE)(message("/nobody"))
                there = os.stat(path).st_ino
            path.write_bytes(b"another's")
            return there

    assert asyncio.run(scenario())
    assert path.read_bytes() == b"another's"


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_no_socket_is_not_replaced(tmp_path, kind):
    path = tmp_path / "s"
    path.write_bytes(b"precious") if kind == "file" else path.mkdir()
    served = Runtime(Slow(), ExecutorSpec("exec_a", socket=str(path)), lambda reason: None)

    with pytest.raises(RuntimeError, match=f"cannot listen on unix:{path}: "):
        asyncio.run(served.start())
    assert path.exists()


def test_a_port_that_is_taken_is_named():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        served = Runtime(Slow(), ExecutorSpec("exec_a", port=port), lambda reason: None)
        with pytest.raises(RuntimeError, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
            asyncio.run(served.start())
