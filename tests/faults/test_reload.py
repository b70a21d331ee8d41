"""
Reloads of every kind, in random order, under load over all protocols: nobody notices.

Every client has one connection for the whole test. GATEWAYD_RELOADS is how many there are (60).
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import ssl
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
import websockets.asyncio.client

from gatewayd.pb import DataRequestProto
from tests.certificates import Party, make
from tests.faults.conftest import SINGLE, open_files, report, rss_mb, run
from tests.paths import ROOT
from tests.processes import Gateway, environment, free_ports

pytestmark = pytest.mark.faults

HOST = "127.0.0.1"
RELOADS = int(os.environ.get("GATEWAYD_RELOADS", "60"))
MODULE = str(ROOT / "tests" / "executors.py")
STREAM = "/jina.JinaRPC/Call"
BODY = json.dumps({"data": [{"id": "d0", "text": ""}], "execEndpoint": "/tag"}).encode()
POST = b"POST /post HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (
    len(BODY),
    BODY,
)
# Between the requests of a client: there are processors for executors that start, too.
PAUSE_S = 0.02


def request() -> bytes:
    message = DataRequestProto()
    message.header.exec_endpoint = "/tag"
    message.data.docs.docs.add(id="d0")
    return message.SerializeToString()


class Load:
    """Clients that ask again and again, each over its one connection."""

    def __init__(self, ports: dict[str, int], authority: Party) -> None:
        self.outcomes: Counter[str] = Counter()
        self.slowest_s = 0.0
        self.stopping = False
        self._ports = ports
        self._authority = authority
        self._tls = ssl.create_default_context(cadata=authority.pem.decode())

    async def work(self) -> None:
        clients: list[Callable[[], Any]] = [self._unary, self._stream, self._http, self._websocket]
        await asyncio.gather(*(client() for client in clients for _ in range(2)))

    def _count(self, who: str, text: str, began_s: float) -> None:
        # Executors may come after exec_a, but it is never missing.
        self.outcomes[who if text.startswith("A") else f"{who}: {text!r}"] += 1
        self.slowest_s = max(self.slowest_s, time.monotonic() - began_s)

    def _channel(self) -> grpc.aio.Channel:
        trusted = grpc.ssl_channel_credentials(self._authority.pem)
        options = [
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_retries", 0),
            ("grpc.ssl_target_name_override", "localhost"),
        ]
        return grpc.aio.secure_channel(f"{HOST}:{self._ports['grpc']}", trusted, options)

    async def _unary(self) -> None:
        async with self._channel() as channel:
            stub = channel.unary_unary(SINGLE)
            while not self.stopping:
                began_s = time.monotonic()
                try:
                    answer = DataRequestProto.FromString(await stub(request(), timeout=30))
                    self._count("unary", answer.data.docs.docs[0].text, began_s)
                except grpc.aio.AioRpcError as error:
                    self.outcomes[f"unary: {error.code().name} {error.details()}"] += 1
                await asyncio.sleep(PAUSE_S)

    async def _stream(self) -> None:
        answered = asyncio.Event()
        began_s = time.monotonic()

        async def requests() -> AsyncIterator[bytes]:
            nonlocal began_s
            while not self.stopping:
                began_s = time.monotonic()
                answered.clear()
                yield request()
                await answered.wait()
                await asyncio.sleep(PAUSE_S)

        async with self._channel() as channel:
            try:
                async for answer in channel.stream_stream(STREAM)(requests()):
                    self._count("stream", DataRequestProto.FromString(answer).data.docs.docs[0].text, began_s)
                    answered.set()
            except grpc.aio.AioRpcError as error:
                self.outcomes[f"stream: {error.code().name} {error.details()}"] += 1
        if not self.stopping:
            self.outcomes["stream: ended"] += 1

    async def _http(self) -> None:
        reader, writer = await asyncio.open_connection(
            HOST, self._ports["http"], ssl=self._tls, server_hostname="localhost"
        )
        while not self.stopping:
            began_s = time.monotonic()
            writer.write(POST)
            try:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                answer = json.loads(await reader.readexactly(length))
            except (OSError, asyncio.IncompleteReadError) as error:
                self.outcomes[f"http: {error!r}"] += 1
                return
            if b"connection: close" in head.lower():
                self.outcomes["http: it was told to close"] += 1
                return
            self._count("http", answer["data"][0]["text"] if answer["data"] else str(answer), began_s)
            await asyncio.sleep(PAUSE_S)
        writer.close()

    async def _websocket(self) -> None:
        url = f"wss://localhost:{self._ports['websocket']}"
        async with websockets.asyncio.client.connect(url, proxy=None, ssl=self._tls, host=HOST) as session:
            while not self.stopping:
                began_s = time.monotonic()
                try:
                    await session.send(BODY.decode())
                    answer = json.loads(await session.recv())
                except websockets.exceptions.ConnectionClosed as error:
                    self.outcomes[f"websocket: {error!r}"] += 1
                    return
                self._count(
                    "websocket", answer["data"][0]["text"] if answer["data"] else str(answer), began_s
                )
                await asyncio.sleep(PAUSE_S)


class Changes:
    """Flows, each of which differs from the one before in one way, chosen by ``dice``."""

    def __init__(self, folder: Path, authority: Party, dice: random.Random) -> None:
        self._folder = folder
        self._authority = authority
        self._dice = dice
        self._extra: dict[str, int] = {}  # name of an executor: its number
        self._needs_gateway = False
        self._is_open = False
        self._retries = -1
        self._numbers = iter(range(1, 1 << 30))
        (self._port,) = free_ports(1)
        self.certificate()

    def certificate(self) -> None:
        party = self._authority.issue()
        for name, content in (("certificate", party.pem + self._authority.pem), ("key", party.key_pem())):
            new = self._folder / f"{name}.new"
            new.write_bytes(content)
            new.replace(self._folder / f"{name}.pem")

    def flow(self) -> dict[str, Any]:
        protocols, ports = ["grpc", "http", "websocket"], [0, 0, 0]
        if self._is_open:
            protocols, ports = [*protocols, "http"], [*ports, self._port]
        return {
            "gateway": {
                "protocol": protocols,
                "port": ports,
                "ssl_certfile": str(self._folder / "certificate.pem"),
                "ssl_keyfile": str(self._folder / "key.pem"),
                "ssl_reload_interval": 0,
                "retries": self._retries,
                "grpc_server": "gatewayd",
            },
            "executors": [
                {"name": "exec_a", "uses": "Rec", "py_modules": MODULE},
                *(
                    {"name": name, "uses": "Rec", "py_modules": MODULE, "uses_metas": {"name": f"n{number}"}}
                    for name, number in self._extra.items()
                ),
            ],
        }

    def one(self) -> tuple[str, dict[str, Any], bool]:
        """What it is called, the Flow, and whether it is a good one."""
        kinds = ["added", "changed", "removed", "port", "certificate", "broken", "cannot start", "settings"]
        kind = self._dice.choices(kinds, weights=[4, 3, 5, 4, 4, 3, 1, 3])[0]
        if kind in ("changed", "removed") and not self._extra:
            kind = "added"
        if kind == "added" and len(self._extra) > 1:
            kind = "removed"
        match kind:
            case "added":
                name = next(each for each in ("exec_b", "exec_c") if each not in self._extra)
                self._extra[name] = next(self._numbers)
            case "changed":
                self._extra[self._dice.choice(list(self._extra))] = next(self._numbers)
            case "removed":
                del self._extra[self._dice.choice(list(self._extra))]
            case "port":
                self._is_open = not self._is_open
            case "certificate":
                self.certificate()
            case "settings":
                self._retries = next(self._numbers) % 3
            case "broken":
                return kind, {**self.flow(), "executors": [{"name": "exec_a", "usse": "Rec"}]}, False
            case "cannot start":
                nobody = {"name": "nobody", "uses": "Nobody", "py_modules": MODULE}
                return kind, {**self.flow(), "executors": [*self.flow()["executors"], nobody]}, False
        return kind, self.flow(), True


@pytest.fixture
def changes(tmp_path: Path) -> Changes:
    return Changes(tmp_path, make("authority", authority=True), random.Random(20))


@pytest.fixture
def gateway(changes: Changes) -> Iterator[Gateway]:
    gateway = Gateway(changes.flow())
    try:
        gateway.line(r"\bready$")
        yield gateway
    finally:
        gateway.stop()


async def reload(gateway: Gateway) -> tuple[int, str]:
    command = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gatewayd", "reload", "--pid", str(gateway.pid)),
        env=environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await command.communicate()
    assert command.returncode is not None
    return command.returncode, said.decode()


def test_reloads_under_load_lose_no_request_and_no_connection(gateway: Gateway, changes: Changes) -> None:
    async def work() -> None:
        load = Load(gateway.ports, changes._authority)
        working = asyncio.create_task(load.work())
        done: Counter[str] = Counter()
        halves: list[tuple[float, int]] = []
        for number in range(RELOADS):
            kind, flow, is_good = changes.one()
            gateway.write(flow)
            code, said = await reload(gateway)
            assert (code == 0) == is_good, (kind, said, gateway.output[-4000:])
            assert not load.stopping
            done[kind] += 1
            if number == RELOADS // 2:
                halves.append((rss_mb(gateway.pid), open_files(gateway.pid)))
        # Those of the last reload are led away, and drain.
        await asyncio.sleep(4.0)
        halves.append((rss_mb(gateway.pid), open_files(gateway.pid)))
        load.stopping = True
        await working
        (half_mb, half_files), (end_mb, end_files) = halves
        report(
            f"{RELOADS} reloads ({dict(done)}): {dict(load.outcomes)}, "
            f"slowest {load.slowest_s * 1000:.0f} ms; {half_mb:.0f} MB and {half_files} descriptors after "
            f"half, {end_mb:.0f} MB and {end_files} at the end"
        )
        assert set(load.outcomes) == {"unary", "stream", "http", "websocket"}
        assert end_mb < half_mb * 1.05 + 4
        # Replicas and ports that are there just then make the difference.
        assert abs(end_files - half_files) < 20

    run(work())
    assert gateway.stop() == 0
    assert "Traceback" not in gateway.output
