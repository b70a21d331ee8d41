"""A gRPC port of either server over a dispatcher that tests command, and clients whose calls stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import grpc
import grpc.aio
from twisted.internet import reactor

from gatewayd.bridge import Bridge
from gatewayd.config import GatewayConfig
from gatewayd.messages.methods import STREAM_DOC
from tests.protocols.grpc.servers import Served, grpc_port
from tests.protocols.harness import FakeDispatcher, FakeStream
from tests.waiting import until_on_reactor


@attrs.define
class Site:
    """A port of one kind of server, and clients on the bridge's loop."""

    bridge: Bridge
    kind: str
    dispatcher: Any = attrs.Factory(lambda: FakeDispatcher(held=True))
    ports: list[Served] = attrs.Factory(list)
    channels: list[Any] = attrs.Factory(list)

    def serve(self, **settings: Any) -> None:
        gateway = GatewayConfig(host="127.0.0.1")
        settings.setdefault("prefetch", 1000)
        self.ports.append(grpc_port(self.kind, self.bridge, self.dispatcher, gateway, dict, **settings))
        self.ports[-1].listen()

    async def call(
        self,
        *messages: bytes,
        timeout_s: float | None = None,
        path: str = STREAM_DOC,
        metadata: tuple[tuple[str, str], ...] = (),
        done: bool = True,
    ) -> Any:
        """A call under way, on the loop; ``done`` with writing, or not yet."""
        if not self.ports:
            self.serve()
        port = self.ports[-1].report().port

        async def begin() -> Any:
            channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
            self.channels.append(channel)
            call = channel.stream_stream(path)(timeout=timeout_s, metadata=metadata)
            for each in messages:
                await call.write(each)
            if done:
                await call.done_writing()
            return call

        return await self.bridge.on_loop(begin)

    async def read(self, call: Any, count: int) -> list[bytes]:
        async def read() -> list[bytes]:
            return [await call.read() for _ in range(count)]

        return await self.bridge.on_loop(read)

    async def rest(self, call: Any) -> tuple[list[bytes], str, str]:
        """What is left, and the status."""

        async def read() -> tuple[list[bytes], str, str]:
            found = []
            try:
                while (each := await call.read()) is not grpc.aio.EOF:
                    found.append(each)
            except grpc.aio.AioRpcError:
                pass  # the status says what it was
            return found, (await call.code()).name, await call.details()

        return await self.bridge.on_loop(read)

    async def on_loop(self, function: Callable[[], object]) -> None:
        async def work() -> None:
            function()

        await self.bridge.on_loop(work)

    async def stream(self, request_id: str = "r") -> FakeStream:
        streams = self.dispatcher.streams
        await until_on_reactor(reactor, lambda: request_id in streams, 30.0, lambda: "the request")
        found: FakeStream = streams[request_id]
        return found

    async def close(self) -> None:
        for channel in self.channels:
            await self.bridge.on_loop(channel.close)
        for port in self.ports:
            await port.drain(-1.0)
            await port.stop()
