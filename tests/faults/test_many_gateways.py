"""Two gateways over the same executors behind HAProxy: one is killed, one is stopped, clients go on."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import grpc
import pytest
import requests
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from gatewayd.messages import methods
from gatewayd.pb import DataRequestProto
from tests.faults.conftest import EXECUTORS, report
from tests.paths import ROOT
from tests.processes import Child, ExecutorProcess, Gateway, external, free_ports
from tests.waiting import until

HAPROXY = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
CONFIG = ROOT / "conf" / "haproxy.cfg"
PROTOCOLS = ("http", "grpc", "websocket")
CLIENTS = 4  # of each protocol

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(HAPROXY is None, reason="there is no haproxy (apt-get install haproxy)"),
]


@attrs.define
class Site:
    """Two gateways, and the ports of HAProxy by protocol."""

    start: Callable[[int], Gateway]
    gateways: list[Gateway]
    ports: dict[str, int]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("BOOK", str(tmp_path / "book"))
    (tmp_path / "book").touch()
    executors = [ExecutorProcess("a", "Counted", [EXECUTORS]) for _ in range(2)]
    ports = free_ports(11)
    front = dict(zip(PROTOCOLS, ports[8:], strict=True))

    def start(number: int) -> Gateway:
        own = ports[4 * number : 4 * number + 4]
        gateway = Gateway(
            {
                "gateway": {"port": own[:3], "admin_port": own[3], "drain_delay": 3, "grace_period": 5},
                "executors": [external("a", [each.port for each in executors])],
            },
            protocols=PROTOCOLS,
        )
        gateway.line("ready")
        return gateway

    text = CONFIG.read_text().replace("maxconn 20000", "maxconn 500")
    for index, protocol in enumerate(PROTOCOLS):
        text = text.replace(f"0.0.0.0:{12345 + index}", f"127.0.0.1:{front[protocol]}")
        for number in (0, 1):
            there, own = f"10.0.0.{number + 1}:{12345 + index}", ports[4 * number :]
            assert there in text
            text = text.replace(f"{there} port 9090", f"{there} port {own[3]}")
            text = text.replace(there, f"127.0.0.1:{own[index]}")
    (tmp_path / "haproxy.cfg").write_text(text)
    site = Site(start, [start(0), start(1)], front)
    assert HAPROXY is not None
    proxy = Child([HAPROXY, "-db", "-f", str(tmp_path / "haproxy.cfg")])
    try:
        until(
            lambda: Client("http", front["http"]).ask() is None,
            what=lambda: (Client("http", front["http"]).ask(), proxy._lines[-5:]),
        )
        yield site
    finally:
        proxy.stop()
        for gateway in site.gateways:
            gateway.stop()
        for executor in executors:
            executor.stop()


class Client:
    """Asks on one connection as long as it lasts; ``ask`` returns None, or what went wrong."""

    def __init__(self, protocol: str, port: int) -> None:
        self._protocol = protocol
        self._port = port
        self._session = requests.Session()
        self._websocket: ClientConnection | None = None
        self._open = contextlib.ExitStack()
        self._channel = grpc.insecure_channel(
            f"127.0.0.1:{port}",
            [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0),
             ("grpc.min_reconnect_backoff_ms", 20), ("grpc.initial_reconnect_backoff_ms", 20)],
        )  # fmt: skip

    def ask(self) -> str | None:
        try:
            ways = {"http": self._over_http, "grpc": self._over_grpc, "websocket": self._over_websocket}
            return ways[self._protocol]()
        except (OSError, WebSocketException, grpc.RpcError) as error:
            self._open.close()
            self._websocket = None
            said = error.details() if isinstance(error, grpc.Call) else error
            return f"{type(error).__name__}: {said}"

    def close(self) -> None:
        self._open.close()
        self._session.close()
        self._channel.close()

    def _over_http(self) -> str | None:
        body = {"data": [{"text": "a"}], "execEndpoint": "/linger"}
        answer = self._session.post(f"http://127.0.0.1:{self._port}/post", json=body, timeout=10)
        return None if answer.status_code == 200 else f"{answer.status_code}: {answer.text[:100]}"

    def _over_grpc(self) -> str | None:
        message = DataRequestProto()
        message.header.exec_endpoint = "/linger"
        message.data.docs.docs.add(text="a")
        ask: Any = self._channel.unary_unary(methods.SINGLE)
        ask(message.SerializeToString(), timeout=10)
        return None

    def _over_websocket(self) -> str | None:
        if self._websocket is None:
            opened = connect(f"ws://127.0.0.1:{self._port}/", proxy=None, open_timeout=5)
            self._websocket = self._open.enter_context(opened)
        session = self._websocket
        session.send(json.dumps({"data": [{"text": "a"}], "execEndpoint": "/linger"}))
        session.recv(timeout=10)
        return None


class Load:
    """Clients of all protocols, which ask until the end; what failed, by client, with the moment."""

    def __init__(self, site: Site) -> None:
        self._stop = threading.Event()
        self.answered = 0
        self.failed: dict[tuple[str, int], list[tuple[float, str]]] = {}
        self.not_again: list[str] = []
        self._threads = [
            threading.Thread(target=self._work, args=(protocol, number, site.ports[protocol]))
            for protocol in PROTOCOLS
            for number in range(CLIENTS)
        ]

    def __enter__(self) -> Load:
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for each in self._threads:
            each.join()

    def _work(self, protocol: str, number: int, port: int) -> None:
        client = Client(protocol, port)
        while not self._stop.is_set():
            why = client.ask()
            if why is None:
                self.answered += 1
                continue
            self.failed.setdefault((protocol, number), []).append((time.monotonic(), why))
            if (again := client.ask()) is not None:
                self.not_again.append(f"{protocol}: {again}")
        client.close()


def test_a_gateway_that_is_killed_loses_what_it_had_and_no_more(site: Site) -> None:
    with Load(site) as load:
        time.sleep(2.0)
        site.gateways[0].kill()
        killed_s = time.monotonic()
        time.sleep(3.0)
    failed = [each for several in load.failed.values() for each in several]
    report(f"kill -9 of one gateway: {load.answered} answered, lost: {[why for _, why in failed]}")
    assert load.answered > 100
    # One request of each client was under way, at most.
    assert all(len(several) == 1 for several in load.failed.values())
    assert all(killed_s - 0.1 < when < killed_s + 1.0 for when, _ in failed)
    # Who asks again is answered at once.
    assert load.not_again == []


def test_a_gateway_that_is_stopped_loses_nothing(site: Site) -> None:
    with Load(site) as load:
        time.sleep(1.0)
        assert site.gateways[0].stop(30.0) == 0
        time.sleep(0.5)
        site.gateways[0] = site.start(0)
        time.sleep(1.5)
        assert site.gateways[1].stop(30.0) == 0
        time.sleep(0.5)
    failed = {who: [why for _, why in several] for who, several in load.failed.items()}
    report(f"both gateways stopped, one after the other: {load.answered} answered, failed: {failed}")
    assert load.answered > 100
    # A WebSocket is a connection to one gateway, which says 1001 when it goes: its client comes again.
    assert all("1001" in why for who, several in failed.items() for why in several if who[0] == "websocket")
    assert not [who for who in failed if who[0] != "websocket"]
    assert load.not_again == []


def test_the_example_is_a_configuration_of_haproxy() -> None:
    assert HAPROXY is not None
    done = subprocess.run([HAPROXY, "-c", "-f", str(CONFIG)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
