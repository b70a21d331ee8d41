"""A Client's transport to a Flow in this process: requests reach the dispatcher as the bytes of gRPC."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import attrs

from gatewayd.client.address import GatewayAddress
from gatewayd.client.errors import BadClient, error_of
from gatewayd.client.exchange import Deliver, Outbox, Read, run_singles
from gatewayd.client.inputs import Message
from gatewayd.client.loop import LoopThread
from gatewayd.client.post import Post, PostOptions
from gatewayd.client.response import Response
from gatewayd.client.streaming import Arrive
from gatewayd.client.transport_handle import TransportHandle
from gatewayd.dispatch.dispatcher import Dispatcher
from gatewayd.errors import GatewayError, codes_for
from gatewayd.messages import wire
from gatewayd.messages.headers import AllowList
from gatewayd.messages.request import Request


class LocalTransport:
    """Satisfies ``gatewayd.client.transports.base.Transport``; errors are those of a Client over gRPC."""

    def __init__(self, dispatcher: Dispatcher, forwarded: AllowList) -> None:
        self._dispatcher = dispatcher
        self._forwarded = forwarded

    def encode(self, request: Request) -> bytes:
        return wire.encode_request(request)

    async def exchange(self, post: Post, outbox: Outbox, deliver: Deliver) -> None:
        deadline_s = None
        if post.stream and post.timeout is not None:
            deadline_s = asyncio.get_running_loop().time() + post.timeout
        await run_singles(partial(self._single, post, deadline_s), outbox, deliver, post.retries)

    async def stream(self, post: Post, message: Message, arrive: Arrive) -> None:
        loop = asyncio.get_running_loop()
        try:
            request = self._with_headers(post, wire.decode_request(message.payload))
            stream = self._dispatcher.stream(request, timeout_s=post.timeout)
            try:
                while (response := await stream.receive().asFuture(loop)) is not None:
                    answer = bytes(wire.encode_response(response))
                    await arrive(partial(Response, answer), len(answer))
            finally:
                stream.cancel()
        except GatewayError as error:
            raise error_of(codes_for(error).grpc, str(error)) from error

    async def unready(self, options: PostOptions) -> str | None:
        try:
            await self._dispatcher.dry_run().asFuture(asyncio.get_running_loop())
        except GatewayError as error:
            return str(error)
        return None

    async def mutate(self, body: dict[str, Any], options: PostOptions) -> dict[str, Any]:
        raise BadClient("GraphQL is spoken over HTTP, and a LocalFlow has no ports: test it with a Flow")

    async def close(self) -> None:
        """Nothing is held here: the Flow ends with its ``with``."""

    async def _single(self, options: PostOptions, deadline_s: float | None, message: Message) -> Read:
        """One request; ``deadline_s`` is that of the whole stream, on the loop's clock."""
        loop = asyncio.get_running_loop()
        timeout_s = options.timeout if deadline_s is None else deadline_s - loop.time()
        try:
            request = self._with_headers(options, wire.decode_request(message.payload))
            response = await self._dispatcher.dispatch(request, timeout_s=timeout_s).asFuture(loop)
        except GatewayError as error:
            raise error_of(codes_for(error).grpc, str(error)) from error
        answer = bytes(wire.encode_response(response))
        return lambda: Response(answer)

    def _with_headers(self, options: PostOptions, request: Request) -> Request:
        if not self._forwarded:
            return request
        headers = self._forwarded.of_request(options.sent_metadata())
        return attrs.evolve(request, headers=headers) if headers else request


class LocalHandle(TransportHandle):
    """What a Client holds instead of a connection. Any thread."""

    def __init__(self, loop: LoopThread, dispatcher: Dispatcher, forwarded: AllowList) -> None:
        super().__init__(GatewayAddress("localhost", 0, "grpc"))
        self._open: tuple[LoopThread, LocalTransport] | None = (loop, LocalTransport(dispatcher, forwarded))

    def get(self) -> tuple[LoopThread, LocalTransport]:
        """Raises RuntimeError once the Flow has ended."""
        if self._open is None:
            raise RuntimeError("this LocalFlow has ended: post within its `with` block")
        return self._open

    def take(self) -> None:
        """The Client's own ``close``: the Flow, which owns the loop, goes on."""

    def end(self) -> None:
        self._open = None
