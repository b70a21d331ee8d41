"""Damaged conversations on a port of HTTP and WebSocket: nothing breaks, and other clients do not notice."""

import contextlib
import http.client
import random
import socket

import pytest
import pytest_twisted

from tests.protocols.harness import in_thread, served, until

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nOrigin: http://x.y\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: bytes\r\n\r\n"
)
FRAME = b"\x82\x86\0\0\0\0\x0a\x04\x0a\x02ab"
SEEDS = (
    b"POST /post HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n"
    b'{"data": null}',
    b"POST /index HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    b"GET /status?a=b HTTP/1.1\r\nHost: x\r\nX-Request-ID: abc\r\nConnection: close\r\n\r\n",
    UPGRADE,
)


def damaged(dice, whole):
    """``whole`` with some bytes changed, cut, doubled or followed by noise."""
    found = bytearray(whole)
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(found)) if found else 0
        match dice.randrange(5):
            case 0:
                found[at : at + 1] = bytes([dice.randrange(256)])
            case 1:
                del found[at : at + dice.randrange(20)]
            case 2:
                found[at:at] = found[at : at + dice.randrange(30)]
            case 3:
                found[at:at] = dice.randbytes(dice.randrange(10))
            case 4:
                found += dice.randbytes(dice.randrange(200))
    return bytes(found)


def bother(port, dice, rounds):
    """Damaged conversations; returns how many answers there were."""
    answers = 0
    for _ in range(rounds):
        with (
            socket.create_connection(("127.0.0.1", port), timeout=5.0) as client,
            contextlib.suppress(OSError),
        ):
            if dice.random() < 0.4:
                client.sendall(UPGRADE)
                client.recv(4096)
                client.sendall(damaged(dice, FRAME * 3))
            else:
                client.sendall(damaged(dice, dice.choice(SEEDS)))
            client.settimeout(0.1)  # not every damaged request has an answer
            answers += bool(client.recv(4096))
            client.shutdown(socket.SHUT_WR)
    return answers


def health(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/")
    status = connection.getresponse().status
    connection.close()
    return status


@pytest.mark.parametrize("seed", range(4))
@pytest_twisted.ensureDeferred
async def test_damaged_conversations_end_and_the_port_goes_on(seed):
    async with served(("http", "websocket"), cors=("*",)) as gateway:
        assert await in_thread(bother, gateway.port, random.Random(seed), 100) > 10
        assert await in_thread(health, gateway.port) == 200
        await until(lambda: not gateway.connections)
