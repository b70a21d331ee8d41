"""A protocol is a module with ``make_port``: a fifth one, of lines, is mounted in a real gateway."""

from __future__ import annotations

import socket
import subprocess
import sys
import types
from collections.abc import Iterator
from typing import get_args
from uuid import uuid4

import attrs
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineReceiver

from gatewayd.config import FlowConfig, Listener
from gatewayd.config.model import Protocol
from gatewayd.messages.request import Request, Response
from gatewayd.pb import DataContentProto
from gatewayd.protocols.backend import Backend
from gatewayd.protocols.port import MODULES, PortReport
from gatewayd.service.gateway import Gateway
from gatewayd.supervisor.supervisor import Supervisor
from gatewayd.waiters import Waiters
from tests.processes import environment
from tests.protocols.harness import in_thread


class LinePort(Factory):
    """Each line is an endpoint and a text: ``/search apples``; the answer's texts come back as lines."""

    def __init__(self, listener: Listener, backend: Backend) -> None:
        self.listener, self.backend = listener, backend
        self.open: set[LineReceiver] = set()
        self.empty: Waiters[None] = Waiters()
        self.serving = False

    def listen(self) -> None:
        self.port = self.backend.reactor.listenTCP(self.listener.port, self, interface="127.0.0.1")

    def set_serving(self) -> None:
        self.serving = True

    def drain(self, grace_s: float) -> Deferred[None]:
        self.port.stopListening()
        for each in self.open:
            each.transport.loseConnection()
        return self.empty.wait() if self.open else succeed(None)

    def stop(self) -> Deferred[None]:
        return succeed(None)

    def report(self) -> PortReport:
        return PortReport(("lines",), "127.0.0.1", self.port.getHost().port, False, len(self.open), "nc")

    def buildProtocol(self, addr: object) -> LineProtocol:
        return LineProtocol(self)


class LineProtocol(LineReceiver):
    delimiter = b"\n"

    def __init__(self, port: LinePort) -> None:
        self.port = port
        port.open.add(self)

    def lineReceived(self, line: bytes) -> None:
        endpoint, _, text = line.decode().partition(" ")
        content = DataContentProto()
        content.docs.docs.add(id="1", text=text)
        request = Request(uuid4().hex, endpoint, documents=content.SerializeToString())
        self.port.backend.dispatcher.dispatch(request).addCallback(self.answered)

    def answered(self, response: Response) -> None:
        for document in DataContentProto.FromString(response.documents).docs.docs:
            self.sendLine(f"{response.endpoint} {document.text}".encode())

    def connectionLost(self, reason: object) -> None:
        self.port.open.discard(self)
        if not self.port.open:
            self.port.empty.fire(None)


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The module of the protocol, in the table."""
    module = types.ModuleType("line_protocol")
    module.make_port = LinePort
    monkeypatch.setitem(sys.modules, "line_protocol", module)
    monkeypatch.setitem(MODULES, "lines", "line_protocol")
    return


def ask(port: int, line: str) -> tuple[str, socket.socket]:
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    connection.sendall(line.encode() + b"\n")
    return connection.makefile().readline(), connection


@pytest_twisted.ensureDeferred
async def test_a_fifth_protocol_is_mounted_through_the_same_interface(lines: None) -> None:
    listener = Listener(("lines",))  # type: ignore[arg-type]
    flow = FlowConfig()
    flow = attrs.evolve(flow, gateway=attrs.evolve(flow.gateway, listeners=(listener,), host="127.0.0.1"))
    supervisor = Supervisor(reactor, [], lambda *up: None, lambda *down: None)
    gateway = Gateway(flow, reactor, supervisor)
    gateway.start()
    (port,) = gateway._ports
    assert isinstance(port, LinePort)
    gateway.ready()
    assert port.serving

    answer, connection = await in_thread(ask, gateway.ports[0], "/echo apples")

    assert answer == "/echo apples\n"
    assert port.report().connections == 1
    await gateway.stop()
    with connection:
        assert await in_thread(connection.recv, 1) == b""
    assert not port.open


def test_every_protocol_of_a_flow_file_has_a_module() -> None:
    assert set(get_args(Protocol)) == MODULES.keys()


@pytest.mark.parametrize(
    ("protocol", "without"),
    [("grpc", {"klein", "autobahn", "twisted.web", "graphql"}), ("http", {"grpc"}), ("websocket", {"grpc"})],
)
def test_a_port_loads_nothing_of_the_other_protocols(protocol: str, without: set[str]) -> None:
    code = f"""
import sys
from gatewayd.protocols.port import MODULES
import importlib
importlib.import_module(MODULES[{protocol!r}])
print(" ".join(sys.modules))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert not without & set(done.stdout.split())
