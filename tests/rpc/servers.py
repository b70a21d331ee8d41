"""Executors that are not ours: small gRPC servers on the bridge's loop, and sockets that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc
import grpc.aio

from gatewayd.messages.methods import DISCOVERY, LISTED, SINGLE, STREAM
from gatewayd.pb import EndpointsProto

SETTINGS_FRAME = b"\0\0\0\4\0\0\0\0\0"


class Executor(grpc.GenericRpcHandler):
    """
    A server with the given methods. ``seen`` collects method, metadata, remaining time and message.

    An answer is bytes, or an exception to abort with: ``(code, details)``.
    """

    def __init__(self, *methods: str, endpoints: Sequence[str] = ("/x",)) -> None:
        self.seen: list[tuple[str, list[tuple[str, str]], float | None, bytes]] = []
        self.methods = methods
        self.endpoints = endpoints
        self.answer: bytes | tuple[grpc.StatusCode, str] = b""
        self.trailing: tuple[tuple[str, str | bytes], ...] = ()
        self.hold: asyncio.Event | None = None
        self.leaves_streams_open = False
        self.cancelled = 0
        self.server: Any = None

    async def start(self, address: str = "127.0.0.1:0", credentials: Any = None) -> int:
        self.server = grpc.aio.server(
            options=(("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0))
        )
        self.server.add_generic_rpc_handlers([self])
        if credentials is None:
            port = self.server.add_insecure_port(address)
        else:
            port = self.server.add_secure_port(address, credentials)
        await self.server.start()
        return int(port)

    async def stop(self, grace_s: float | None = None) -> None:
        await self.server.stop(grace_s)

    async def let_go(self) -> None:
        """Answer the calls that ``hold`` keeps."""
        assert self.hold is not None
        self.hold.set()

    def service(self, details: Any) -> Any:
        method = details.method
        if method not in self.methods:
            return None

        async def respond(message: bytes, context: Any) -> bytes:
            metadata = [(key, value) for key, value in context.invocation_metadata()]
            self.seen.append((method, metadata, context.time_remaining(), message))
            if method == DISCOVERY:
                return EndpointsProto(endpoints=self.endpoints).SerializeToString()
            try:
                if self.hold is not None:
                    await self.hold.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
            if self.trailing:
                context.set_trailing_metadata(self.trailing)
            if isinstance(self.answer, tuple):
                await context.abort(*self.answer)
            assert isinstance(self.answer, bytes)
            return self.answer

        async def stream(messages: Any, context: Any) -> Any:
            async for message in messages:
                yield await respond(message, context)
            if self.leaves_streams_open:
                await asyncio.Event().wait()

        if method == STREAM:
            return grpc.stream_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(respond)


ALL = (SINGLE, LISTED, STREAM, DISCOVERY)


@contextlib.contextmanager
def listening(behave: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port on which every connection gets ``behave``, in a thread of its own."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        connections: list[socket.socket] = []
        stop = threading.Event()

        def serve() -> None:
            while not stop.is_set():
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                connections.append(connection)
                threading.Thread(target=_quietly, args=(behave, connection), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield listener.getsockname()[1]
        finally:
            stop.set()
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            for connection in connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
                connection.close()


def _quietly(behave: Callable[[socket.socket], None], connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        behave(connection)


@contextlib.contextmanager
def black_hole() -> Iterator[int]:
    """A port where connecting takes forever: the kernel drops what a full backlog has no place for."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filling = stack.enter_context(socket.socket())
            filling.setblocking(False)
            filling.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def says_nothing(connection: socket.socket) -> None:
    """Accepts, reads, and never speaks HTTP/2."""
    while connection.recv(1 << 16):
        pass


def resets(connection: socket.socket) -> None:
    """RST right after accepting."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def resets_under_calls(connection: socket.socket) -> None:
    """Speaks HTTP/2 until the first call has come, then RST."""
    connection.sendall(SETTINGS_FRAME)
    received = b""
    while b"process_single_data" not in received and len(received) < 200:
        data = connection.recv(1 << 16)
        if not data:
            break
        received += data
    resets(connection)


def talks_nonsense(connection: socket.socket) -> None:
    """HTTP/1.1 where HTTP/2 was expected."""
    connection.recv(10)
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\nhello")
    says_nothing(connection)


def recording(target: int, record: bytearray) -> Callable[[socket.socket], None]:
    """Passes everything on to ``target`` and keeps what the client sent."""

    def behave(connection: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", target)) as server:

            def back() -> None:
                with contextlib.suppress(OSError):
                    while data := server.recv(1 << 16):
                        connection.sendall(data)

            threading.Thread(target=back, daemon=True).start()
            while data := connection.recv(1 << 16):
                record.extend(data)
                server.sendall(data)

    return behave
