"""A gateway's HTTP and WebSocket listeners on real sockets, with a dispatcher that tests command."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet import reactor as _reactor
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.threads import deferToThread

from gatewayd.buffers import Buffers
from gatewayd.config.model import GatewayConfig, Listener
from gatewayd.health import Health
from gatewayd.messages.caller import ANONYMOUS, Caller
from gatewayd.messages.discovery import Endpoints
from gatewayd.messages.request import Request, Response, Route
from gatewayd.protocols.backend import Backend
from gatewayd.protocols.connections import Connections
from gatewayd.protocols.port import LAST_WORDS_S
from gatewayd.protocols.slow_lane import SlowLane
from gatewayd.protocols.web_port import WebPort
from gatewayd.streams import StreamingEndpoints
from tests.waiting import until_on_reactor

reactor: Any = _reactor


def answer_to(request: Request) -> Response:
    """What a Flow of one pass-through executor answers."""
    return Response(
        request_id=request.request_id,
        endpoint=request.endpoint,
        documents=request.documents,
        parameters=request.parameters,
        routes=(Route("gateway", 1.0, 2.0), Route("exec_a", 1.0, 2.0)),
    )


class FakeStream:
    """A Stream that the test feeds: with Responses, None for the end, and exceptions."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.asked = 0
        self.cancelled = False
        self._there: list[Any] = []
        self._waiting: Deferred[Response | None] | None = None

    def put(self, *found: Any) -> None:
        self._there.extend(found)
        self._serve()

    def receive(self) -> Deferred[Response | None]:
        assert self._waiting is None, "an answer is asked for already"
        self.asked += 1
        waiting = self._waiting = Deferred(lambda _: self._left())
        self._serve()
        return waiting

    def more(self, most: int) -> list[Response]:
        assert self._waiting is None, "an answer is asked for"
        found = []
        while self._there and len(found) < most and isinstance(self._there[0], Response):
            found.append(self._there.pop(0))
        self.asked += len(found)
        return found

    def cancel(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
        self._left()

    def _left(self) -> None:
        self.cancelled = True
        self._waiting = None

    def _serve(self) -> None:
        if self._waiting is not None and self._there:
            waiting, self._waiting = self._waiting, None
            found = self._there.pop(0)
            if isinstance(found, Exception):
                waiting.errback(found)
            else:
                waiting.callback(found)


@attrs.define
class FakeDispatcher:
    """
    Answers by ``behaviour``, which may return a Response or a Deferred, or raise.

    ``held`` makes it hold every request until the test settles it in ``waiting``. ``endpoints`` are what its
    executors bind.
    """

    behaviour: Callable[[Request], Any] = answer_to
    held: bool = False
    dry_run_error: Exception | None = None
    requests: list[Request] = attrs.Factory(list)
    timeouts: list[float | None] = attrs.Factory(list)
    waiting: dict[str, Deferred[Response]] = attrs.Factory(dict)
    cancelled: list[str] = attrs.Factory(list)
    streams: dict[str, FakeStream] = attrs.Factory(dict)
    endpoints: Endpoints = attrs.Factory(Endpoints)

    def dispatch(self, request: Request, *, timeout_s: float | None = None) -> Deferred[Response]:
        self.requests.append(request)
        self.timeouts.append(timeout_s)
        if not self.held:
            try:
                found = self.behaviour(request)
            except Exception as error:
                return fail(error)
            return found if isinstance(found, Deferred) else succeed(found)

        def cancel(work: Deferred[Response]) -> None:
            self.cancelled.append(request.request_id)
            self.waiting.pop(request.request_id)
            work.errback(CancelledError())

        work: Deferred[Response] = Deferred(cancel)
        self.waiting[request.request_id] = work
        return work

    def stream(self, request: Request, *, timeout_s: float | None = None) -> FakeStream:
        self.requests.append(request)
        self.timeouts.append(timeout_s)
        stream = self.streams[request.request_id] = FakeStream(request)
        if not self.held:
            stream.put(self.behaviour(request), None)
        return stream

    def dry_run(self, documents: bytes = b"", *, caller: Caller = ANONYMOUS) -> Deferred[Response]:
        if self.dry_run_error is not None:
            return fail(self.dry_run_error)
        return succeed(Response("", "_jina_dry_run_", b""))

    def settle(self, request_id: str) -> None:
        """Answer a held request."""
        (request,) = (r for r in self.requests if r.request_id == request_id)
        self.waiting.pop(request_id).callback(answer_to(request))


def status_maps() -> dict[str, dict[str, str]]:
    return {"jina": {"jina": "3.14.1"}, "envs": {"JINA_LOG_LEVEL": "(unset)"}}


def backend(gateway: GatewayConfig, dispatcher: Any, **more: Any) -> Backend:
    """What a port is made with."""
    buffers = Buffers(gateway.max_buffered_bytes)
    no_loop: Any = None  # ports of HTTP and WebSocket use none
    return Backend(gateway, dispatcher, status_maps, deferToThread, reactor, buffers, no_loop, **more)


@attrs.define
class Served:
    """A listening gateway."""

    web: WebPort
    dispatcher: FakeDispatcher
    slow_lane: SlowLane | None = None

    @property
    def lane(self) -> SlowLane:
        assert self.slow_lane is not None, "this system has none"
        return self.slow_lane

    @property
    def port(self) -> int:
        return self.web.report().port

    @property
    def buffers(self) -> Buffers:
        return self.web.site.buffers

    @property
    def connections(self) -> Connections:
        return self.web.connections

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"


@contextlib.asynccontextmanager
async def served(
    protocols: tuple[str, ...] = ("http",), dispatcher: FakeDispatcher | None = None, **settings: Any
) -> Any:
    """Serve on a free port; everything is closed at the end."""
    engine = dispatcher or FakeDispatcher()
    limits = settings.pop("limits", None)
    tls, access = settings.pop("tls", None), settings.pop("access", None)
    health = settings.pop("health", lambda: Health("serving", True))
    streaming = settings.pop("streaming", None) or StreamingEndpoints()
    gateway = GatewayConfig(host="127.0.0.1", **settings)
    told = backend(
        gateway,
        engine,
        endpoints=lambda: engine.endpoints,
        tls=tls,
        access=access,
        health=health,
        streaming=streaming,
    )
    port = WebPort(Listener(protocols), told, limits=limits)
    port.listen()
    try:
        yield Served(port, engine, told.slow_lane)
    finally:
        await closed(port)


async def closed(port: WebPort) -> None:
    """End ``port`` without the last words for which ``drain`` keeps connections a moment longer."""
    await port.drain(-LAST_WORDS_S)
    await port.stop()


async def until(condition: Callable[[], Any], timeout_s: float = 30.0, what: object = "it") -> None:
    """Let the reactor run until ``condition()`` is true."""
    await until_on_reactor(reactor, condition, timeout_s, what)


def in_thread(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Deferred[Any]:
    """Run a blocking client while the reactor serves it."""
    return deferToThread(function, *args, **kwargs)


def asyncio_client(conversation: Callable[[], Any]) -> Deferred[Any]:
    """Run an asyncio client's coroutine in a thread of its own."""
    return deferToThread(lambda: asyncio.run(conversation()))


def read_all(client: socket.socket) -> bytes:
    """What a client gets until the server closes or resets the connection."""
    found = b""
    while True:
        try:
            more = client.recv(65536)
        except (ConnectionResetError, ssl.SSLError):
            return found
        if not more:
            return found
        found += more
