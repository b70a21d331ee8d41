"""Workers that are killed or replaced under load: who notices, and who does not."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator

import grpc.aio
import pytest
import websockets.asyncio.client
import websockets.exceptions

from gatewayd.pb import DataRequestProto
from tests.faults.conftest import FULL, SINGLE, open_files, report, run
from tests.processes import Gateway, runs
from tests.service.test_workers_processes import executors, flow, workers
from tests.waiting import until_in_loop

pytestmark = pytest.mark.faults

HOST = "127.0.0.1"
BODY = json.dumps({"data": [{"id": "d0", "text": "hi"}], "execEndpoint": "/tag"}).encode()
POST = b"POST /post HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (
    len(BODY),
    BODY,
)
CLIENTS = 8


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    gateway = Gateway(flow())
    try:
        gateway.line(r"\bready$")
        yield gateway
    finally:
        gateway.stop()


class Load:
    """Clients of one protocol, each asking again as soon as it was answered. Counts what they got."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.outcomes: Counter[str] = Counter()
        self.connected = 0
        self.stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._client()) for _ in range(CLIENTS)]

    async def stop(self) -> None:
        self.stopping = True
        await asyncio.gather(*self._tasks)

    async def more(self, count: int) -> None:
        """Wait until so many more are answered."""
        wanted = self.outcomes["ok"] + count
        await until_in_loop(lambda: self.outcomes["ok"] >= wanted, 60.0, lambda: dict(self.outcomes))

    def failed(self) -> dict[str, int]:
        return {what: count for what, count in self.outcomes.items() if what != "ok"}

    async def _client(self) -> None:
        while not self.stopping:
            await self.converse()

    async def converse(self) -> None:
        """Ask over a connection of its own until it ends, or ``stopping``."""
        raise NotImplementedError


class HttpLoad(Load):
    async def converse(self) -> None:
        try:
            reader, writer = await asyncio.open_connection(HOST, self.port)
        except OSError as error:
            self.outcomes[f"connect: {error!r}"] += 1
            return
        self.connected += 1
        try:
            while not self.stopping:
                writer.write(POST)
                try:
                    head = await reader.readuntil(b"\r\n\r\n")
                    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                    await reader.readexactly(length)
                except (OSError, asyncio.IncompleteReadError) as error:
                    self.outcomes[f"request: {type(error).__name__}"] += 1
                    return
                self.outcomes[
                    "ok" if head.startswith(b"HTTP/1.1 200") else head.split(b"\r\n")[0].decode()
                ] += 1
                if b"connection: close" in head.lower():
                    return
        finally:
            writer.close()


class ShortHttpLoad(HttpLoad):
    """Each request over a connection of its own."""

    async def converse(self) -> None:
        reader, writer = None, None
        try:
            reader, writer = await asyncio.open_connection(HOST, self.port)
            self.connected += 1
            writer.write(POST.replace(b"host: x", b"host: x\r\nconnection: close"))
            answer = await reader.read()
        except OSError as error:
            self.outcomes[f"{type(error).__name__}"] += 1
            return
        finally:
            if writer is not None:
                writer.close()
        self.outcomes["ok" if answer.startswith(b"HTTP/1.1 200") else repr(answer[:40])] += 1


class GrpcLoad(Load):
    async def converse(self) -> None:
        request = DataRequestProto()
        request.header.exec_endpoint = "/tag"
        request.data.docs.docs.add(id="d0")
        sent = request.SerializeToString()
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        async with grpc.aio.insecure_channel(f"{HOST}:{self.port}", options) as channel:
            self.connected += 1
            stub = channel.unary_unary(SINGLE)
            while not self.stopping:
                try:
                    answer = DataRequestProto.FromString(await stub(sent, timeout=30))
                    self.outcomes["ok" if not answer.header.status.code else "failed"] += 1
                except grpc.aio.AioRpcError as error:
                    self.outcomes[error.code().name] += 1
                    return


class WebSocketLoad(Load):
    async def converse(self) -> None:
        try:
            async with websockets.asyncio.client.connect(f"ws://{HOST}:{self.port}", proxy=None) as session:
                self.connected += 1
                while not self.stopping:
                    await session.send(BODY.decode())
                    answer = json.loads(await session.recv())
                    self.outcomes["ok" if not answer["header"].get("status") else "failed"] += 1
        except websockets.exceptions.ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd is not None else None
            self.outcomes[f"closed with {code}"] += 1
        except OSError as error:
            self.outcomes[f"connect: {type(error).__name__}"] += 1


LOADS: list[tuple[str, type[Load]]] = [
    ("http", HttpLoad),
    ("http", ShortHttpLoad),
    ("websocket", WebSocketLoad),
    ("grpc", GrpcLoad),
]


@pytest.mark.parametrize(("protocol", "load"), LOADS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_killed_worker_loses_only_what_it_had(gateway: Gateway, protocol: str, load: type[Load]) -> None:
    served = executors(gateway)

    async def work() -> None:
        clients = load(gateway.ports[protocol])
        clients.start()
        await clients.more(50)
        victim, other = sorted(workers(gateway), key=open_files, reverse=True)
        os.kill(victim, signal.SIGKILL)
        await clients.more(200)
        await until_in_loop(lambda: len(workers(gateway)) == 2, 60.0)
        await clients.more(50)
        await clients.stop()
        report(f"{load.__name__}: {dict(clients.outcomes)}, {clients.connected} connections")
        # Each client had at most one request with the worker that was killed, on a busy machine perhaps none,
        # and no connection was refused.
        assert sum(clients.failed().values()) <= CLIENTS
        assert not [what for what in clients.failed() if what.startswith("connect")]
        assert other in workers(gateway)
        assert executors(gateway) == served

    run(work())


@pytest.mark.parametrize(("protocol", "load"), LOADS, ids=lambda value: getattr(value, "__name__", ""))
def test_replacing_workers_under_load_fails_no_request(
    gateway: Gateway, protocol: str, load: type[Load]
) -> None:
    async def work() -> None:
        clients = load(gateway.ports[protocol])
        clients.start()
        await clients.more(50)
        for round in range(1, 6 if FULL else 2):
            before = workers(gateway)
            os.kill(gateway.pid, signal.SIGUSR2)
            await asyncio.to_thread(gateway.line, "all workers are replaced", count=round, timeout_s=120.0)
            assert not set(before) & set(workers(gateway))
            await clients.more(50)
        await clients.stop()
        report(f"{load.__name__}: {dict(clients.outcomes)}, {clients.connected} connections")
        failed = clients.failed()
        if load is WebSocketLoad:
            # Its server ends a WebSocket, and says so; what the client sends meanwhile is not asked.
            failed.pop("closed with 1001", None)
        assert not failed

    run(work())


def test_a_worker_without_descriptors_accepts_no_more_and_serves_on() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        gateway = Gateway(flow(), protocols=["http"])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    held: list[socket.socket] = []
    try:
        gateway.line(r"\bready$")
        everyone = workers(gateway)

        async def work() -> None:
            for _ in range(600):
                client = socket.create_connection((HOST, gateway.ports["http"]), timeout=20)
                held.append(client)
            refused = 0
            for client in held:
                client.setblocking(False)
            deadline = time.monotonic() + 10
            while not refused and time.monotonic() < deadline:
                for client in held:
                    with contextlib.suppress(BlockingIOError, ConnectionResetError):
                        refused += client.recv(1 << 16).startswith(b"HTTP/1.1 503")
                await asyncio.sleep(0.05)
            assert refused
            for client in held:
                client.close()
            clients = ShortHttpLoad(gateway.ports["http"])
            clients.start()
            await clients.more(100)
            await clients.stop()
            assert workers(gateway) == everyone

        run(work())
        assert gateway.stop() == 0
    finally:
        for client in held:
            client.close()
        gateway.stop()


def test_the_master_is_killed_under_load(gateway: Gateway) -> None:
    everyone = [*workers(gateway), *executors(gateway)]

    async def work() -> None:
        clients = HttpLoad(gateway.ports["http"])
        clients.start()
        await clients.more(50)
        gateway.kill()
        await until_in_loop(lambda: not any(map(runs, everyone)), 60.0)
        clients.stopping = True
        await clients.stop()

    run(work())
