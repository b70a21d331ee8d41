"""What the HTTP port does with too much, too slow, and no HTTP at all."""

import contextlib
import http.client
import json
import socket
import threading
import time
import tracemalloc

import attrs
import pytest
import pytest_twisted

from gatewayd.messages.request import Response
from gatewayd.protocols.http.bodies import FirstBodies
from gatewayd.protocols.http.site import SiteLimits
from tests.protocols.harness import FakeDispatcher, answer_to, in_thread, read_all, served, until
from tests.protocols.http.test_http import call


def talk(port, *pieces, timeout=10):
    """Send the pieces, then read until the server closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as client:
        for piece in pieces:
            client.sendall(piece)
        return read_all(client)


def still_serves(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status == 200
    finally:
        connection.close()


HEAD = b"POST /post HTTP/1.1\r\nHost: x\r\n"


@pytest_twisted.ensureDeferred
async def test_a_declared_body_above_the_limit_is_refused_before_it_is_read():
    async with served(max_message_bytes=1000) as gateway:
        # Nothing of the body is ever sent.
        answer = await in_thread(talk, gateway.port, HEAD + b"Content-Length: 1001\r\n\r\n")
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 413 ")
        assert b"Connection: close" in head
        assert "1000 bytes" in json.loads(body)["detail"]
        assert not gateway.dispatcher.requests


@pytest_twisted.ensureDeferred
async def test_a_client_that_sends_its_oversize_body_anyway_still_reads_the_answer():
    async with served(max_message_bytes=1000) as gateway:
        body = b"x" * 3_000_000
        answer = await in_thread(talk, gateway.port, HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert answer.startswith(b"HTTP/1.1 413 ")


@pytest_twisted.ensureDeferred
async def test_a_chunked_body_is_counted_as_it_arrives_and_memory_stays_flat():
    def flood(port):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            client.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
            chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
            with contextlib.suppress(OSError):
                for _ in range(500):  # 32 MB against a limit of 1 MB
                    client.sendall(chunk)
            return read_all(client)

    async with served(max_message_bytes=1_000_000) as gateway:
        tracemalloc.start()
        try:
            answer = await in_thread(flood, gateway.port)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert peak < 8_000_000
        assert await in_thread(still_serves, gateway.port)


@pytest_twisted.ensureDeferred
async def test_a_body_of_exactly_the_limit_is_served_chunked_or_not():
    body = b"{" + b" " * 998 + b"}"
    chunks = b"".join(b"64\r\n%s\r\n" % body[i : i + 100] for i in range(0, 1000, 100)) + b"0\r\n\r\n"
    async with served(max_message_bytes=1000) as gateway:
        close = b"Connection: close\r\n"
        for request in (
            HEAD + close + b"Content-Length: 1000\r\n\r\n" + body,
            HEAD + close + b"Transfer-Encoding: chunked\r\n\r\n" + chunks,
        ):
            answer = await in_thread(talk, gateway.port, request)
            assert answer.startswith(b"HTTP/1.1 200 ")


@pytest_twisted.ensureDeferred
async def test_expect_100_continue_is_answered_or_refused_before_the_body():
    def expect(port, length):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            client.sendall(
                HEAD + b"Connection: close\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % length
            )
            first = client.recv(65536)
            if first.startswith(b"HTTP/1.1 100 "):
                client.sendall(b"{}".ljust(length))
            return first, read_all(client)

    async with served(max_message_bytes=1000) as gateway:
        first, rest = await in_thread(expect, gateway.port, 1000)
        assert first == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert rest.startswith(b"HTTP/1.1 200 ")
        first, _ = await in_thread(expect, gateway.port, 1001)
        assert first.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\r\n" * 3, 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", 400),
        (HEAD + b"Content-Length: -1\r\n\r\n", 400),
        (HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (HEAD + b"no colon\r\n\r\n", 400),
        (HEAD + b"X: " + b"a" * 70_000, 431),
        (HEAD + b"".join(b"X: %d\r\n" % i for i in range(300)) + b"\r\n", 400),
    ],
)
@pytest_twisted.ensureDeferred
async def test_an_invalid_request_gets_an_error_in_json_and_harms_no_other_client(sent, status):
    async with served() as gateway:
        answer = await in_thread(talk, gateway.port, sent)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d " % status)
        assert "detail" in json.loads(body)
        assert await in_thread(still_serves, gateway.port)


@pytest_twisted.ensureDeferred
async def test_a_head_that_trickles_in_is_given_up():
    limits = SiteLimits(body_bytes=1000, head_s=0.1, linger_s=0.1)
    async with served(limits=limits) as gateway:
        answer = await in_thread(talk, gateway.port, b"GET / HTTP/1.1\r\nX: a")
        assert answer.startswith(b"HTTP/1.1 408 ")


@pytest_twisted.ensureDeferred
async def test_a_silent_connection_is_closed():
    async with served(limits=SiteLimits(body_bytes=1000, idle_s=0.1)) as gateway:
        assert await in_thread(talk, gateway.port) == b""


@pytest_twisted.ensureDeferred
async def test_many_idle_connections_keep_no_client_out():
    async with served() as gateway:
        address = ("127.0.0.1", gateway.port)
        idle = await in_thread(lambda: [socket.create_connection(address, 10) for _ in range(200)])
        try:
            await until(lambda: len(gateway.connections) == 200)
            assert await in_thread(still_serves, gateway.port)
        finally:
            for each in idle:
                each.close()
        await until(lambda: not gateway.connections)


@pytest_twisted.ensureDeferred
async def test_draining_closes_idle_connections_and_lets_the_others_finish():
    async with served(dispatcher=FakeDispatcher(held=True)) as gateway:
        idle = socket.create_connection(("127.0.0.1", gateway.port))
        await until(lambda: gateway.connections)
        busy = in_thread(talk, gateway.port, HEAD + b"Content-Length: 2\r\n\r\n{}")
        await until(lambda: gateway.dispatcher.requests)

        drained = gateway.connections.close_all(5.0)
        assert await in_thread(idle.recv, 1) == b""
        idle.close()
        assert not drained.called
        gateway.dispatcher.settle(gateway.dispatcher.requests[0].request_id)
        answer = await busy
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"Connection: close" in answer
        await drained


@pytest_twisted.ensureDeferred
async def test_what_outlasts_the_grace_period_is_cut_off_and_cancelled():
    async with served(dispatcher=FakeDispatcher(held=True)) as gateway:
        busy = in_thread(talk, gateway.port, HEAD + b"Content-Length: 2\r\n\r\n{}")
        await until(lambda: gateway.dispatcher.requests)
        await gateway.connections.close_all(0.05)
        assert await busy == b""
        assert len(gateway.dispatcher.cancelled) == 1


@pytest.mark.slow
@pytest_twisted.ensureDeferred
async def test_a_slow_download_outlives_the_idle_timeout_but_a_stalled_one_does_not():
    def slowly(port, pauses):
        body = json.dumps({"data": [{"text": "x" * 12_000_000}]}).encode()
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 200_000)
            client.settimeout(10)
            client.connect(("127.0.0.1", port))
            client.sendall(HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            found = 0
            for pause in pauses:
                found += len(client.recv(2_000_000))
                time.sleep(pause)
            return found + len(read_all(client))

    async with served(limits=SiteLimits(body_bytes=20_000_000, idle_s=1.0, linger_s=0.1)) as gateway:
        assert await in_thread(slowly, gateway.port, [0.1] * 15) > 12_000_000
        stalled = await in_thread(slowly, gateway.port, [0.0, 4.0])
        assert 0 < stalled < 12_000_000
        await until(lambda: not gateway.connections)


@pytest_twisted.ensureDeferred
async def test_an_answer_with_large_parameters_is_written_by_another_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads: list[str] = []

    def encode(response: Response) -> bytes:
        threads.append(threading.current_thread().name)
        return b"{}"

    monkeypatch.setattr(FirstBodies, "encode", staticmethod(encode))
    sizes = [10, 1_000_000]
    engine = FakeDispatcher(lambda request: attrs.evolve(answer_to(request), parameters=bytes(sizes.pop(0))))
    async with served(dispatcher=engine) as gateway:
        for _ in range(2):
            assert (await in_thread(call, gateway.port, "POST", "/search", {"data": []}))[0] == 200
    assert threads[0] == threading.main_thread().name
    assert threads[1] != threads[0]
