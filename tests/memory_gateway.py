"""
A gateway in memory: clients' bytes in, clients' bytes out, with every part of ours between them.

One thread, no sockets, no clock that runs: what happens is the same every time, so that calls can be counted.
The executor answers each call with what it was sent, as that of the benchmarks does.
"""

from __future__ import annotations

import random
import socket
import struct
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

from hpack import Encoder
from twisted.internet.address import IPv4Address
from twisted.internet.defer import execute
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from gatewayd.access.guard import Engine
from gatewayd.bridge import GATHER_S, Bridge
from gatewayd.buffers import Buffers
from gatewayd.config import DeploymentConfig, GatewayConfig
from gatewayd.config.model import Listener
from gatewayd.dispatch.dispatcher import Dispatcher
from gatewayd.dispatch.topology import Topology
from gatewayd.messages.methods import DISCOVERY, SINGLE, STREAM, STREAM_DOC
from gatewayd.pb import DataRequestProto, SingleDocumentRequestProto
from gatewayd.pb.second import EndpointsProto
from gatewayd.pool.pool import Pool
from gatewayd.pool.watching import FixedAddresses
from gatewayd.protocols.backend import Backend
from gatewayd.protocols.grpc.serving import CallServicer
from gatewayd.protocols.web_port import WebPort
from gatewayd.rpc.channel import Channel
from gatewayd.rpc.headers import encode
from gatewayd.rpc.server.call import CallSettings
from gatewayd.rpc.server.transport import ConnectionSettings, ServerProtocol
from gatewayd.rpc.timeouts import Timeouts
from gatewayd.streams import StreamingEndpoints
from gatewayd.telemetry.metrics.requests import RequestMetrics
from gatewayd.telemetry.observed import Observed, Observer

DATA, HEADERS, SETTINGS, GOAWAY, WINDOW_UPDATE = 0, 1, 4, 7, 8
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
ADDRESS = "unix:/in/memory"
STREAMING = "/stream"  # the endpoint that streams

_OF_CALL = ((b":method", b"POST"), (b":scheme", b"http"), (b":path", b""), (b":authority", b"a"))
_OF_GRPC = ((b"te", b"trailers"), (b"content-type", b"application/grpc"))
_HEAD = encode([(b":status", b"200"), (b"content-type", b"application/grpc")])
_TRAILERS = encode([(b"grpc-status", b"0"), (b"grpc-message", b"")])
_ROUTE = DataRequestProto(routes=[{"executor": "executor"}]).SerializeToString()
_ENDPOINTS = EndpointsProto(endpoints=["/default", STREAMING], streaming=[STREAMING]).SerializeToString()

# Whose calls count: ours, Twisted's, Autobahn's, and what attrs has generated for ours.
_COUNTED = ("/gatewayd/", "/twisted/", "/autobahn/", "<attrs generated")
# The clock and the transports of tests.
_NOT_COUNTED = ("/twisted/internet/testing.py", "/twisted/internet/task.py", "/twisted/internet/base.py")


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream_id) + payload


def message(content: bytes) -> bytes:
    return b"\0" + struct.pack(">I", len(content)) + content


def frames(received: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Kind, flags, stream and payload of each."""
    at = 0
    while at < len(received):
        size = int.from_bytes(received[at : at + 3], "big")
        kind, flags, stream_id = struct.unpack_from(">BBI", received, at + 3)
        yield kind, flags, stream_id, received[at + 9 : at + 9 + size]
        at += 9 + size


class Reactor(Clock):
    """A clock, the calls from other threads, and a connection to the executor for each that is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.executors: list[Executor] = []
        self.letters: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()

    def callFromThread(self, callable: Callable[..., object], *args: Any) -> None:
        self.letters.append((callable, args))

    def connectUNIX(self, path: str, factory: Any, *_: Any, **__: Any) -> Any:
        executor = Executor()
        protocol = factory.buildProtocol(None)
        self.executors.append(executor)
        protocol.makeConnection(executor.transport)
        # The real protocol stands behind the endpoint's own.
        executor.protocol = protocol
        return protocol


class Executor:
    """The other end of one connection of the pool."""

    def __init__(self) -> None:
        self.transport = StringTransport()
        self.protocol: Any = None
        self.streaming: list[int] = []  # the streams that are open
        self._paths: dict[int, bytes] = {}

    def turn(self) -> bool:
        """Answer what has arrived; False when nothing has."""
        received = self.transport.value()
        if not received:
            return False
        self.transport.clear()
        if self.transport.producer is not None:  # as a transport does that has written all it had
            self.transport.producer.resumeProducing()
        answers = b""
        if received.startswith(PREFACE):
            received = received[len(PREFACE) :]
            answers = frame(SETTINGS, 0, 0)
        for kind, flags, stream_id, payload in frames(received):
            if kind == HEADERS:
                self._paths[stream_id] = payload
            elif kind == DATA and flags & 1:
                head = self._paths.pop(stream_id)
                if STREAM_DOC.encode() in head:
                    self.streaming.append(stream_id)
                    answers += frame(HEADERS, 4, stream_id, _HEAD)
                    continue
                content = _ENDPOINTS if DISCOVERY.encode() in head else payload[5:] + _ROUTE
                answers += (
                    frame(HEADERS, 4, stream_id, _HEAD)
                    + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", len(payload)))
                    + frame(DATA, 0, stream_id, message(content))
                    + frame(HEADERS, 5, stream_id, _TRAILERS)
                )
        if answers:
            self.protocol.dataReceived(answers)
        return True

    def say(self, count: int) -> None:
        """So many documents of each open stream, in one read of the gateway's."""
        said = SingleDocumentRequestProto(header={"request_id": "0" * 32}, document={"text": "hello, world"})
        one = message(said.SerializeToString())
        self.protocol.dataReceived(
            b"".join(frame(DATA, 0, each, one) for each in self.streaming for _ in range(count))
        )


class Transport(StringTransport):
    """Twisted's transport of a client of HTTP or WebSocket; the socket is for its options alone."""

    def __init__(self) -> None:
        super().__init__(peerAddress=IPv4Address("TCP", "127.0.0.1", 1))
        self.socket = socket.socket()
        self.protocol: Any = None  # which an upgrade replaces

    def fileno(self) -> int:
        return -1

    def setTcpNoDelay(self, enabled: bool) -> None:
        pass

    def input_complete(self) -> None:
        """There is no slow lane here."""

    def unregisterProducer(self) -> None:
        if self.producer is not None:
            super().unregisterProducer()


class LoopTransport:
    """asyncio's transport of a client of gRPC."""

    def __init__(self) -> None:
        self.written = bytearray()

    def write(self, data: bytes) -> None:
        self.written += data

    def writelines(self, parts: list[bytes]) -> None:
        self.written += b"".join(parts)

    def get_extra_info(self, name: str) -> None:
        return None

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        pass


class MemoryGateway:
    """A Flow of one executor behind the engine and all protocols. ``close`` it."""

    def __init__(
        self, observers: Sequence[Observer] = (), metrics: RequestMetrics | None = None, **gateway: Any
    ) -> None:
        """``gateway`` are further settings."""
        self.reactor: Any = Reactor()
        self.bridge = Bridge(self.reactor)
        settings = GatewayConfig(host="127.0.0.1", grpc_server="gatewayd", **gateway)
        deployments = [DeploymentConfig("executor", external=True, addresses=(ADDRESS,))]
        self.pool = Pool(
            settings,
            deployments,
            connect=lambda *args: Channel(self.reactor, *args),
            watch=lambda deployment, replicas: [FixedAddresses([ADDRESS], replicas)],
            clock=self.reactor,
            dice=random.Random(0),
        )
        self.dispatcher = Dispatcher(
            Topology.from_deployments(deployments), self.pool, self.reactor, execute, wall_clock=lambda: 1.7e9
        )

        def observed(engine: Engine, protocol: str) -> Engine:
            if metrics is None and not observers:
                return engine
            figures = None if metrics is None else metrics.of(protocol)
            return Observed(engine, protocol, observers, self.reactor.seconds, figures=figures)

        self._backend = Backend(
            gateway=settings,
            dispatcher=self.dispatcher,
            status=lambda: {},
            offload=execute,
            reactor=self.reactor,
            buffers=Buffers(settings.max_buffered_bytes),
            bridge=self.bridge,
            endpoints=self.pool.endpoints,
            streaming=StreamingEndpoints(frozenset({STREAMING})),
            observed=observed,
        )
        backend = self._backend
        self.loop = self.bridge._loop
        self.servicer = CallServicer(
            self.bridge,
            backend.dispatcher_for("grpc"),
            backend.status,
            settings.prefetch,
            backend.buffers,
            backend.forwarded,
            settings.max_message_bytes,
            settings.max_unsent_bytes,
            streaming=backend.streaming,
        )
        self._closing: list[Callable[[], object]] = []
        self.run()

    def run(self) -> None:
        """Let everything happen that can."""
        busy = True
        while busy:
            # One turn of the loop.
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()
            busy = bool(self.reactor.letters)
            while self.reactor.letters:
                function, args = self.reactor.letters.popleft()
                function(*args)
            self.reactor.advance(0)
            for executor in self.reactor.executors:
                busy = executor.turn() or busy

    def grpc(self) -> GrpcClient:
        return GrpcClient(self)

    def say(self, count: int) -> None:
        """The executor sends so many documents of each open stream, in one piece, a moment after the last."""
        self.reactor.advance(2 * GATHER_S)
        for executor in self.reactor.executors:
            if executor.streaming:
                executor.say(count)
        self.run()

    def web(self) -> WebClient:
        """A connection to a port of HTTP and WebSocket."""
        client = WebClient(self, WebPort(Listener(("http", "websocket")), self._backend))
        self._closing.append(client.lose)
        return client

    def server(self) -> ServerProtocol:
        backend = self._backend
        calls = CallSettings(
            methods=self.servicer.methods((SINGLE, STREAM, STREAM_DOC)),
            held=Buffers(1 << 30),
            timeouts=Timeouts(self.reactor),
            seconds=self.reactor.seconds,
            max_received_bytes=1 << 30,
            max_sent_bytes=None,
            max_headers_bytes=8192,
            full=backend.buffers.full,
        )
        settings = ConnectionSettings(calls, max_unsent_bytes=1 << 20, soon=self.bridge.call_soon)
        protocol = ServerProtocol(self.loop, settings, set(), "127.0.0.1")
        self._closing.append(lambda: protocol.connection_lost(None))
        return protocol

    def close(self) -> None:
        for close in self._closing:
            close()
        self.pool.close()
        self.run()
        for executor in self.reactor.executors:
            executor.protocol.connectionLost(Failure(ConnectionDone()))
        for timer in self.reactor.getDelayedCalls():
            timer.cancel()
        self.loop.close()


class GrpcClient:
    """One connection to the gRPC port."""

    def __init__(self, gateway: MemoryGateway) -> None:
        self._gateway = gateway
        self.transport = LoopTransport()
        self.protocol = gateway.server()
        self.protocol.connection_made(self.transport)
        self.protocol.data_received(PREFACE + frame(SETTINGS, 0, 0))
        self.transport.written.clear()
        self._next_id = 1
        self._encoder = Encoder()

    def ask(self, content: bytes, count: int = 1) -> list[bytes]:
        """So many calls of process_single_data at once: their answers."""
        asked = b""
        for _ in range(count):
            asked += self._head(SINGLE) + frame(DATA, 1, self._next_id - 2, message(content))
        self.protocol.data_received(asked)
        return self._answers()

    def stream(self) -> Callable[[bytes], list[bytes]]:
        """Open a ``Call``; what is returned sends a message, and returns the answers that have come."""
        self.protocol.data_received(self._head(STREAM))
        stream_id = self._next_id - 2

        def ask(content: bytes) -> list[bytes]:
            self.protocol.data_received(frame(DATA, 0, stream_id, message(content)))
            return self._answers()

        return ask

    def stream_doc(self, content: bytes) -> Callable[[int], list[bytes]]:
        """Open a ``stream_doc``; what is returned has so many documents sent, and returns those that came."""
        self.protocol.data_received(
            self._head(STREAM_DOC) + frame(DATA, 1, self._next_id - 2, message(content))
        )
        self._answers()

        def say(count: int) -> list[bytes]:
            self._gateway.say(count)
            return self._answers()

        return say

    def streaming_call(self, content: bytes) -> Callable[[int], list[bytes]]:
        """As ``stream_doc``, of a request over ``Call``."""
        self.stream()(content)

        def say(count: int) -> list[bytes]:
            self._gateway.say(count)
            return self._answers()

        return say

    def _head(self, path: str) -> bytes:
        fields = [(name, path.encode() if name == b":path" else value) for name, value in _OF_CALL]
        # From the second call on its fields are in the table, as with clients of gRPC's libraries.
        head = frame(HEADERS, 4, self._next_id, self._encoder.encode([*fields, *_OF_GRPC]))
        self._next_id += 2
        return head

    def _answers(self) -> list[bytes]:
        self._gateway.run()
        written = bytes(self.transport.written)
        self.transport.written.clear()
        answers = [payload[5:] for kind, _, _, payload in frames(written) if kind == DATA]
        self.protocol.data_received(
            frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", sum(len(answer) + 5 for answer in answers) or 1))
        )
        return answers


class WebClient:
    """One connection to a port of HTTP and WebSocket."""

    def __init__(self, gateway: MemoryGateway, port: WebPort) -> None:
        self._gateway = gateway
        self.transport = Transport()
        protocol: Any = port.site.buildProtocol(self.transport.getPeer())
        self.transport.protocol = protocol
        protocol.makeConnection(self.transport)
        self._port = port

    def ask(self, data: bytes) -> bytes:
        """Send bytes; those that have come back."""
        self.transport.protocol.dataReceived(data)
        self._gateway.run()
        answer = self.transport.value()
        self.transport.clear()
        return bytes(answer)

    def after(self, count: int) -> bytes:
        """What has come back when the executor has sent so many documents of each open stream."""
        self._gateway.say(count)
        answer = self.transport.value()
        self.transport.clear()
        return bytes(answer)

    def lose(self) -> None:
        self.transport.protocol.connectionLost(Failure(ConnectionDone()))
        self.transport.socket.close()


@contextmanager
def counting() -> Iterator[Counter[CodeType]]:
    """How often each function of ours and of Twisted is called meanwhile."""
    found: Counter[CodeType] = Counter()
    counted: dict[CodeType, bool] = {}

    def look(called: FrameType, event: str, _: Any) -> None:
        if event != "call":
            return
        code = called.f_code
        known = counted.get(code)
        if known is None:
            name = code.co_filename.replace("\\", "/")
            known = counted[code] = any(part in name for part in _COUNTED) and not name.endswith(_NOT_COUNTED)
        if known:
            found[code] += 1

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        yield found
    finally:
        sys.setprofile(before)
