"""How many connections are accepted, in total and by address."""

import asyncio
import http.client
import socket
import ssl

import pytest
import pytest_twisted
import websockets
from twisted.internet.task import Clock

from gatewayd.protocols.admission import Admission, connections_for
from tests.certificates import write_files
from tests.protocols.harness import asyncio_client, in_thread, served, until


@pytest.mark.parametrize(
    ("descriptors", "connections"),
    [(64, 32), (256, 128), (1024, 896), (4096, 3584), (1 << 20, (1 << 20) - 1024)],
)
def test_some_descriptors_are_kept_in_reserve(descriptors: int, connections: int) -> None:
    assert connections_for(descriptors) == connections


def test_the_total_is_bounded() -> None:
    admission = Admission(2, 0, Clock())
    assert [admission.admit(host) for host in ("1.1.1.1", "1.1.1.1", "2.2.2.2")] == [True, True, False]
    admission.give_back("1.1.1.1")
    assert admission.admit("2.2.2.2")
    assert admission.open == 2


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("1.1.1.1", "1.1.1.1", True),
        ("1.1.1.1", "1.1.1.2", False),
        ("1.1.1.1", "::ffff:1.1.1.1", True),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
    ],
)
def test_each_address_is_bounded(first: str, second: str, same: bool) -> None:
    admission = Admission(10, 1, Clock())
    assert admission.admit(first)
    assert admission.admit(second) is not same
    admission.give_back(first)
    assert admission.admit(first)


def test_a_refusal_changes_nothing() -> None:
    admission = Admission(2, 1, Clock())
    assert admission.admit("1.1.1.1")
    for _ in range(5):
        assert not admission.admit("1.1.1.1")
    admission.give_back("1.1.1.1")
    assert admission.open == 0
    assert admission.admit("1.1.1.1")


def ask(port: int) -> tuple[int, str | None]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/")
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.headers["retry-after"]
    finally:
        connection.close()


def first_bytes(connection: socket.socket) -> bytes:
    connection.settimeout(10)
    return connection.recv(1000)


@pytest_twisted.ensureDeferred
async def test_a_connection_too_many_is_told_so_until_another_ends():
    async with served(("http", "websocket"), max_connections=2) as gateway:
        admission = gateway.web.site.admission
        held = [socket.create_connection(("127.0.0.1", gateway.port)) for _ in range(2)]
        await until(lambda: admission.open == 2)
        for _ in range(3):
            third = socket.create_connection(("127.0.0.1", gateway.port))
            answer = await in_thread(first_bytes, third)
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"Retry-After: 1" in answer
            assert b"as many connections as it may" in answer
            third.close()
        held.pop().close()
        await until(lambda: admission.open == 1)
        assert (await in_thread(ask, gateway.port))[0] == 200
        held.pop().close()
        await until(lambda: admission.open == 0)


@pytest_twisted.ensureDeferred
async def test_an_upgraded_connection_counts_until_it_ends():
    async def conversation():
        async with websockets.connect(gateway.ws_url, proxy=None):
            counted = admission.open
            with pytest.raises(websockets.InvalidStatus) as refused:
                await websockets.connect(gateway.ws_url, proxy=None)
            await asyncio.sleep(0)
            return counted, refused.value.response.status_code

    async with served(("websocket",), max_connections_per_address=1) as gateway:
        admission = gateway.web.site.admission
        assert await asyncio_client(conversation) == (1, 503)
        await until(lambda: admission.open == 0)


@pytest_twisted.ensureDeferred
async def test_a_tls_connection_too_many_is_closed_without_a_word(tmp_path):
    files = write_files(tmp_path)
    tls = files.credentials

    def shake() -> str | None:
        context = ssl.create_default_context(cafile=str(files.roots))
        with context.wrap_socket(
            socket.create_connection(("127.0.0.1", gateway.port)), server_hostname="localhost"
        ) as session:
            return session.version()

    async with served(tls=tls, max_connections=1) as gateway:
        admission = gateway.web.site.admission
        silent = socket.create_connection(("127.0.0.1", gateway.port))
        await until(lambda: admission.open == 1)
        with pytest.raises(OSError):
            await in_thread(shake)
        silent.close()
        await until(lambda: admission.open == 0)
        assert await in_thread(shake) == "TLSv1.3"
        await until(lambda: admission.open == 0)


def test_a_flood_at_one_port_leaves_connections_to_the_others() -> None:
    admission = Admission(80, 0, Clock())
    flooded, other = admission.entrance(), admission.entrance()
    assert sum(flooded.admit("1.1.1.1") for _ in range(100)) == 70
    assert sum(other.admit("2.2.2.2") for _ in range(100)) == 10
    flooded.give_back("1.1.1.1")
    assert admission.open == 79
    assert not flooded.admit("1.1.1.1")
    other.give_back("2.2.2.2")
    assert other.admit("2.2.2.2")


def test_a_port_alone_may_have_all_connections() -> None:
    entrance = Admission(80, 0, Clock()).entrance()
    assert sum(entrance.admit("1.1.1.1") for _ in range(100)) == 80


def test_a_port_that_takes_the_place_of_another_may_have_all_connections_too() -> None:
    admission = Admission(80, 0, Clock())
    before, after = admission.entrance(), admission.entrance()
    assert before.admit("1.1.1.1")
    before.close()
    before.close()
    assert sum(after.admit("1.1.1.1") for _ in range(100)) == 79
    before.give_back("1.1.1.1")
    assert after.admit("1.1.1.1")
