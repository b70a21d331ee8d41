"""
WebSocket: one connection for each post, with the subprotocol ``bytes``.

Requests and answers are serialised DataRequestProtos in binary frames. One zero byte ends the input;
the server then answers what it still has, and closes (spec websocket.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from functools import partial
from http.cookies import SimpleCookie
from typing import Any, Final

import aiohttp
from aiohttp import WSMsgType
from google.protobuf.message import DecodeError

from gatewayd.client.address import GatewayAddress
from gatewayd.client.errors import (
    REFUSES_ACCESS,
    AccessRefused,
    BadClient,
    BadServerFlow,
    NoSuchEndpoint,
    RequestRefused,
    TimedOut,
    TryLater,
    Unreachable,
)
from gatewayd.client.exchange import Deliver, Outbox, run_stream
from gatewayd.client.inputs import Message
from gatewayd.client.post import Post, PostOptions
from gatewayd.client.response import Response
from gatewayd.client.streaming import Arrive
from gatewayd.client.transports.base import DRY_RUN_FAILED
from gatewayd.client.transports.session import HttpSession, headers_of, translated, waiting_s
from gatewayd.messages import wire
from gatewayd.messages.request import Request
from gatewayd.pb import StatusProto

_END_OF_INPUT: Final = b"\x00"

# Close codes of RFC 6455, section 7.4.1: what was wrong with the request, and what passes.
_REFUSALS: Final = (1002, 1003, 1007, 1008, 1009)
_NORMAL: Final = 1000
_POLICY: Final = 1008
_INTERNAL: Final = 1011
_TRY_LATER: Final = 1013
_NETWORK: Final = (None, 1001, 1006, _INTERNAL, 1012, _TRY_LATER)

# What begins the reason where the gateway reached its executors: a bug of its own, or the name of gRPC's
# status with which an executor's server ended the call.
_BUG: Final = re.compile(r"internal error|[A-Z_]+: ")

# A server that doesn't answer the closing handshake is left after so many seconds.
_CLOSE_S: Final = 2.0


class WebSocketTransport:
    def __init__(self, address: GatewayAddress) -> None:
        self._address = address
        self._session = HttpSession(address)

    def encode(self, request: Request) -> bytes:
        return wire.encode_request(request)

    async def exchange(self, post: Post, outbox: Outbox, deliver: Deliver) -> None:
        await run_stream(partial(self._stream, post), outbox, deliver, post.retries)

    async def stream(self, post: Post, message: Message, arrive: Arrive) -> None:
        with translated(self._address):
            async with asyncio.timeout(post.timeout), self._connect("/", post) as socket:
                await socket.send_bytes(message.payload)
                # Nothing follows: so an endpoint that does not stream ends the connection, too.
                await socket.send_bytes(_END_OF_INPUT)
                await _read_stream(socket, arrive)

    async def unready(self, options: PostOptions) -> str | None:
        with translated(self._address):
            async with asyncio.timeout(options.timeout), self._connect("/dry_run", options) as socket:
                await socket.send_bytes(b"")
                frame = await socket.receive()
                if frame.type is WSMsgType.CLOSE:
                    _check_closing(frame.data, frame.extra or "")
                if frame.type is not WSMsgType.BINARY:
                    return f"it answered a dry run with a {frame.type.name} frame"
                try:
                    status = StatusProto.FromString(frame.data)
                except DecodeError:
                    return "it answered a dry run with what is no StatusProto"
                return None if status.code == 0 else status.description or DRY_RUN_FAILED

    async def mutate(self, body: dict[str, Any], options: PostOptions) -> dict[str, Any]:
        raise BadClient("GraphQL is spoken over HTTP only: Client(protocol='http')")

    async def close(self) -> None:
        await self._session.close()

    async def _stream(self, options: PostOptions, outbox: Outbox, deliver: Deliver) -> None:
        with translated(self._address):
            async with asyncio.timeout(options.timeout), self._connect("/", options) as socket:
                writer = asyncio.create_task(_write(socket, outbox))
                try:
                    await _read(socket, deliver)
                    outbox.check_complete()
                finally:
                    writer.cancel()

    def _connect(self, path: str, options: PostOptions) -> Any:
        headers = headers_of(options)
        if options.cookies:
            headers["Cookie"] = SimpleCookie(options.cookies).output(header="", sep=";").strip()
        return _connected(
            self._session.get().ws_connect(
                self._address.url(path),
                protocols=("bytes",),
                headers=headers,
                max_msg_size=0,
                server_hostname=self._address.certificates.server_name,
                timeout=aiohttp.ClientWSTimeout(ws_close=_CLOSE_S),
            ),
            self._address,
            path,
        )


@contextlib.asynccontextmanager
async def _connected(connecting: Any, address: GatewayAddress, path: str) -> Any:
    url = address.url(path)
    try:
        socket = await connecting
    except aiohttp.WSServerHandshakeError as error:
        if error.status == 401:
            raise AccessRefused(
                error.status,
                error.message,
                "the gateway does not know who calls; "
                f"give a valid key or token as {address.spelling.headers}",
            ) from error
        if error.status in (403, 404):
            raise NoSuchEndpoint(f"no such endpoint {url}") from error
        if error.status in (429, 503):
            wait_s = None if error.headers is None else waiting_s(error.headers.get("Retry-After"))
            raise TryLater(
                f"the WebSocket handshake was answered with {error.status}", error.status, wait_s
            ) from error
        if error.status >= 500:
            raise Unreachable(f"the WebSocket handshake was answered with {error.status}") from error
        doubt = "; does it speak websocket?" if error.status < 300 else ""
        raise RequestRefused(
            f"the WebSocket handshake was answered with {error.status}{doubt}", error.status, error.message
        ) from error
    try:
        yield socket
    finally:
        await socket.close()


async def _write(socket: aiohttp.ClientWebSocketResponse, outbox: Outbox) -> None:
    # The reader raises the reason why a connection ended; the writer only stops.
    with contextlib.suppress(ConnectionError, aiohttp.ClientError):
        while message := await outbox.take():
            await socket.send_bytes(message.payload)
        await socket.send_bytes(_END_OF_INPUT)


async def _read(socket: aiohttp.ClientWebSocketResponse, deliver: Deliver) -> None:
    """Deliver answers until the server closes. Raises what its close code means."""
    while True:
        frame = await socket.receive()
        if frame.type is WSMsgType.BINARY:
            response = Response(frame.data)
            deliver(response.request_id, response.itself)
        elif frame.type is WSMsgType.CLOSE:
            return _check_closing(frame.data, frame.extra or "")
        elif frame.type in (WSMsgType.CLOSED, WSMsgType.CLOSING):
            return _check_closing(socket.close_code, "the connection was lost")
        elif frame.type is WSMsgType.ERROR:
            raise Unreachable(f"the connection was lost: {frame.data}") from socket.exception()
        else:
            raise BadServerFlow(f"the gateway answered with a {frame.type.name} frame; binary was asked for")


async def _read_stream(socket: aiohttp.ClientWebSocketResponse, arrive: Arrive) -> None:
    """
    Hand over answers until the frame without documents that ends their stream (docs/guide/websocket.md).

    Raises what the server's close code means, and BadServerFlow for an answer that is no stream.
    """
    while (frame := await socket.receive()).type is WSMsgType.BINARY:
        response = Response(frame.data)
        if response.without_documents and not response.failed:
            return
        await arrive(response.itself, len(frame.data))
        if response.failed:
            return
    if frame.type is WSMsgType.CLOSE:
        _check_closing(frame.data, frame.extra or "")
        raise BadServerFlow("the gateway did not answer with a stream: the endpoint has none there")
    if frame.type in (WSMsgType.CLOSED, WSMsgType.CLOSING):
        _check_closing(socket.close_code, "the connection was lost")
    raise Unreachable(f"the stream broke off with a {frame.type.name} frame") from socket.exception()


def _check_closing(code: int | None, reason: str) -> None:
    if code == _NORMAL:
        return
    if code == _POLICY and reason.startswith(REFUSES_ACCESS):
        raise AccessRefused(code, reason)
    if code in _REFUSALS:
        raise RequestRefused(f"the gateway refused the request (close code {code}): {reason}", code, reason)
    if code == _INTERNAL and _BUG.match(reason):
        raise BadServerFlow(f"the gateway closed the connection with code {code}: {reason}")
    if code in _NETWORK:
        # A timeout has no close code of its own; these are the words of spec websocket.md.
        if code == _TRY_LATER:
            raise TryLater(reason or f"the gateway closed the connection (close code {code})", code)
        kind = TimedOut if " timed out" in reason else Unreachable
        raise kind(reason or f"the gateway closed the connection (close code {code})", code)
    raise BadServerFlow(f"the gateway closed the connection with code {code}: {reason}")
