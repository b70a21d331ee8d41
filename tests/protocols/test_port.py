"""A protocol is a module with ``make_port``: a fifth one, of lines, is mounted in a real gateway."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import types
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, get_args
from uuid import uuid4

import attrs
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults, succeed
from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineReceiver

from gatewayd.config import FlowConfig, Listener
from gatewayd.config.model import GatewayConfig, Protocol
from gatewayd.messages.generations import Generation
from gatewayd.messages.request import Request, Response
from gatewayd.pb import DataContentProto
from gatewayd.protocols.backend import Backend
from gatewayd.protocols.connections import Connections
from gatewayd.protocols.port import MODULES, PortReport
from gatewayd.protocols.tcp import listen_tcp
from gatewayd.service.gateway import GatewayServer
from gatewayd.supervisor.supervisor import Supervisor
from gatewayd.tls.credentials import TlsCredentials
from tests.processes import environment
from tests.protocols.harness import FakeDispatcher, backend, in_thread, until


class LinePort(Factory):
    """Each line is an endpoint and a text: ``/search apples``; the answer's texts come back as lines."""

    def __init__(self, listener: Listener, backend: Backend) -> None:
        self.listener, self.backend = listener, backend
        self.connections = Connections(backend.reactor)
        self.serving = False

    def listen(self, inherited: Sequence[socket.socket] = ()) -> None:
        self.port = listen_tcp(self.listener, self.backend, self, inherited)

    def set_serving(
        self,
        serving: bool = True,
        parts: Mapping[str, bool] = {},
        generation: Generation | None = None,
    ) -> None:
        self.serving = serving

    def renew(self, credentials: TlsCredentials) -> None:
        self.port.renew(credentials)

    def retire(self) -> None:
        self.port.stopListening()

    def drain(self, grace_s: float) -> Deferred[None]:
        unbound = self.port.stopListening()
        return gatherResults([unbound, self.connections.close_all(grace_s)]).addCallback(lambda _: None)

    def stop(self) -> Deferred[None]:
        return succeed(None)

    def report(self) -> PortReport:
        port = self.port.getHost().port
        return PortReport(("lines",), self.backend.gateway.host, port, False, len(self.connections), "nc")

    def buildProtocol(self, addr: object) -> LineProtocol:
        return LineProtocol(self)


class LineProtocol(LineReceiver):
    delimiter = b"\n"

    def __init__(self, port: LinePort) -> None:
        self.port = port
        self.work: set[Deferred[Response]] = set()

    def connectionMade(self) -> None:
        self.port.connections.opened(self)

    def lineReceived(self, line: bytes) -> None:
        endpoint, _, text = line.decode().partition(" ")
        content = DataContentProto()
        content.docs.docs.add(id="1", text=text)
        request = Request(uuid4().hex, endpoint, documents=content.SerializeToString())
        work = self.port.backend.dispatcher.dispatch(request)
        self.work.add(work)
        work.addCallbacks(self.answered, lambda failure: failure.trap(CancelledError))
        work.addBoth(self.ended, work)

    def answered(self, response: Response) -> None:
        for document in DataContentProto.FromString(response.documents).docs.docs:
            self.sendLine(f"{response.endpoint} {document.text}".encode())

    def ended(self, _: object, work: Deferred[Response]) -> None:
        self.work.discard(work)
        if self.port.connections.draining:
            self.drain()

    def drain(self) -> None:
        if not self.work:
            self.transport.loseConnection()

    def close_now(self) -> None:
        self.transport.abortConnection()

    abort = close_now

    def connectionLost(self, reason: object) -> None:
        self.port.connections.closed(self)
        for work in tuple(self.work):
            work.cancel()


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
    try:
        return connection.makefile().readline(), connection
    except ConnectionResetError:
        return "", connection


@pytest_twisted.ensureDeferred
async def test_a_fifth_protocol_is_mounted_through_the_same_interface(lines: None) -> None:
    listener = Listener(("lines",))  # type: ignore[arg-type]
    flow = FlowConfig()
    flow = attrs.evolve(flow, gateway=attrs.evolve(flow.gateway, listeners=(listener,), host="127.0.0.1"))
    supervisor = Supervisor(reactor, [], lambda *up: None, lambda *down: None)
    gateway = GatewayServer(flow, reactor, supervisor)
    gateway.start()
    (port,) = gateway.changeable.ports
    assert isinstance(port, LinePort)
    await gateway.serve()
    assert port.serving

    answer, connection = await in_thread(ask, gateway.ports[0], "/echo apples")

    assert answer == "/echo apples\n"
    assert port.report().connections == 1
    await gateway.stop()
    with connection:
        assert await in_thread(connection.recv, 1) == b""
    assert not port.connections


@contextlib.asynccontextmanager
async def asked(dispatcher: FakeDispatcher) -> AsyncIterator[tuple[LinePort, Deferred[Any]]]:
    """A port of lines by itself, with one request under way, and its answer."""
    port = LinePort(Listener(("lines",)), backend(GatewayConfig(host="127.0.0.1"), dispatcher))
    port.listen()
    asking = in_thread(ask, port.report().port, "/echo apples")
    await until(lambda: dispatcher.waiting)
    yield port, asking
    _, connection = await asking
    connection.close()


@pytest_twisted.ensureDeferred
async def test_it_answers_what_is_under_way_before_it_has_drained() -> None:
    dispatcher = FakeDispatcher(held=True)
    async with asked(dispatcher) as (port, asking):
        drained = port.drain(10.0)
        assert not drained.called
        dispatcher.settle(dispatcher.requests[0].request_id)

        await drained
        assert (await asking)[0] == "/echo apples\n"


@pytest_twisted.ensureDeferred
async def test_it_closes_what_outlasts_the_grace_period() -> None:
    dispatcher = FakeDispatcher(held=True)
    async with asked(dispatcher) as (port, asking):
        await port.drain(0.05)

        assert (await asking)[0] == ""
        assert dispatcher.cancelled == [dispatcher.requests[0].request_id]


def test_every_protocol_of_a_flow_file_has_a_module() -> None:
    assert set(get_args(Protocol)) == MODULES.keys()


@pytest.mark.parametrize(
    ("protocol", "without"),
    [
        ("grpc", {"grpc", "klein", "autobahn", "twisted.web", "graphql"}),
        ("http", {"grpc"}),
        ("websocket", {"grpc"}),
    ],
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


@pytest_twisted.ensureDeferred
async def test_a_port_that_listens_no_more_still_says_where_it_was() -> None:
    ground = backend(GatewayConfig(host="127.0.0.1"), FakeDispatcher())
    port = listen_tcp(Listener(("http",)), ground, Factory())
    host = port.getHost()
    await port.stopListening()
    assert port.getHost() == host
