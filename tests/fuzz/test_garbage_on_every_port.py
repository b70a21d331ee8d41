"""
Garbage on every port of a whole gateway, while another client is served without a single failure.

Bounded and repeatable: every conversation comes from a seed, which a failure names. Afterwards the
gateway holds no more files than before, and little more memory.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.equivalence.asking import WAYS, Answered, Question
from tests.paths import ROOT
from tests.processes import Gateway
from tests.waiting import until

pytestmark = pytest.mark.slow

EXECUTORS = str(ROOT / "tests" / "executors.py")
ROUNDS = 600  # conversations with each port
IDLE = 1000
SEED = int(os.environ.get("GATEWAYD_FUZZ_SEED", "1"))

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
TLS_HELLO = bytes.fromhex("16030100f8010000f40303") + bytes(32) + b"\x20" + bytes(200)
POST = b"POST /post HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n"
CHUNKED = b"POST /index HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
ZIPPED = (
    b"POST /post HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00"
)
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
)
FRAMES = b"\x81\x86\0\0\0\0{     " + b"\xc1\x83\0\0\0\0\xaa\x01\x00" + b"\x89\x80\0\0\0\0"


def http2_frame(dice: random.Random) -> bytes:
    """One frame with a plausible head."""
    body = dice.randbytes(dice.randrange(100))
    size = len(body) if dice.random() < 0.8 else dice.randrange(1 << 24)
    head = struct.pack("!I", size)[1:] + bytes([dice.randrange(12), dice.randrange(256)])
    return head + struct.pack("!I", dice.choice((0, 1, 3, dice.randrange(1 << 32)))) + body


def seeds(dice: random.Random) -> bytes:
    """The beginning of some conversation, of any protocol, whatever the port speaks."""
    return dice.choice(
        (
            POST + b'{"data": null}',
            CHUNKED,
            ZIPPED,
            UPGRADE + FRAMES,
            PREFACE + SETTINGS + b"".join(http2_frame(dice) for _ in range(dice.randrange(8))),
            TLS_HELLO,
            dice.randbytes(dice.randrange(1, 2000)),
        )
    )


def damaged(dice: random.Random, whole: bytes) -> bytes:
    """With some bytes changed, cut, doubled or followed by noise; sometimes as it is."""
    found = bytearray(whole)
    for _ in range(dice.randrange(4)):
        at = dice.randrange(len(found)) if found else 0
        match dice.randrange(5):
            case 0:
                found[at : at + 1] = bytes([dice.randrange(256)])
            case 1:
                del found[at : at + dice.randrange(20)]
            case 2:
                found[at:at] = found[at : at + dice.randrange(30)]
            case 3:
                del found[at:]
            case 4:
                found += dice.randbytes(dice.randrange(200))
    return bytes(found)


def bother(port: int, dice: random.Random) -> None:
    """One conversation, ended in one of several rude ways."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=0.03) as client:
        data = damaged(dice, seeds(dice))
        if dice.random() < 0.2:  # slowly, in small pieces
            for start in range(0, min(len(data), 200), 20):
                client.sendall(data[start : start + 20])
        else:
            client.sendall(data)
        if dice.random() < 0.5:
            client.recv(4096)
        if dice.random() < 0.3:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Bystander:
    """Another client, which asks over every protocol until it is stopped."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.answers = 0
        self.failures: list[object] = []
        self._thread.start()

    def _run(self) -> None:
        question = Question("/tag", ({"id": "d0", "text": "x"},))
        while not self._stop.is_set():
            for name, ask in WAYS.items():
                try:
                    found: object = ask(self._gateway, question)
                except Exception as error:
                    found = error
                if isinstance(found, Answered) and found.documents[0][1] == "xA":
                    self.answers += 1
                else:
                    self.failures.append((name, found))

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


def open_files(gateway: Gateway) -> int:
    return len(os.listdir(f"/proc/{gateway.pid}/fd"))


def memory_bytes(gateway: Gateway) -> int:
    pages = int(Path(f"/proc/{gateway.pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    executor = {"name": "exec_a", "uses": "Rec", "py_modules": [EXECUTORS]}
    running = Gateway({"executors": [executor]})
    try:
        for ask in WAYS.values():  # whatever is made at the first request is there now
            assert isinstance(ask(running, Question("/tag")), Answered)
        yield running
    finally:
        running.stop()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts files and memory by /proc")
def test_garbage_harms_no_other_client_and_leaves_nothing_behind(gateway: Gateway) -> None:
    files = open_files(gateway)
    for port in gateway.ports.values():  # what the first conversations cost is not a leak
        for number in range(20):
            bother(port, random.Random(f"{SEED} warm {number}"))
    memory = memory_bytes(gateway)

    other = Bystander(gateway)
    try:
        for protocol, port in gateway.ports.items():
            for number in range(ROUNDS):
                bother(port, random.Random(f"{SEED} {protocol} {number}"))
                assert not other.failures, f"seed {SEED}, {protocol}, conversation {number}"
    finally:
        other.stop()

    assert not other.failures
    assert other.answers >= len(WAYS)
    until(lambda: open_files(gateway) <= files + 2, 15, lambda: (files, open_files(gateway)))
    assert memory_bytes(gateway) - memory < 60_000_000
    assert "Traceback" not in gateway.output


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts files by /proc")
@pytest.mark.parametrize("protocol", ["grpc", "http", "websocket"])
def test_a_thousand_idle_connections_keep_no_client_out(gateway: Gateway, protocol: str) -> None:
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = IDLE + 200
    if allowed < wanted:
        allowed = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, most))
    files = open_files(gateway)
    address = ("127.0.0.1", gateway.ports[protocol])
    beginning = {"grpc": PREFACE + SETTINGS, "http": b"", "websocket": UPGRADE}[protocol]
    with contextlib.ExitStack() as idle:
        for _ in range(min(IDLE, allowed - 200)):
            one = idle.enter_context(socket.create_connection(address, timeout=10))
            one.sendall(beginning)
        for ask in WAYS.values():
            assert isinstance(ask(gateway, Question("/tag")), Answered)
    until(lambda: open_files(gateway) <= files + 2, 15, lambda: (files, open_files(gateway)))
