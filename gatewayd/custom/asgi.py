# mypy: disable-error-code="no-untyped-call"
"""
An ASGI application behind a port of Twisted: ASGI 3, its HTTP scope and its lifespan.

    reactor thread      AsgiApp.render ──> _Writer <────── client's connection
                               │  bridge      ▲
    loop thread             _Exchange ── application(scope, receive, send)

The body has arrived before the application is called, within the port's limits. ``send`` waits while the
client does not read. When a client leaves, the application gets ``http.disconnect``, as ASGI wants it; one
that goes on regardless is cancelled a few seconds later.

Of the libraries for this, txasgiresource is the only one, without a release since 2020 and without lifespan;
a2wsgi would hold a thread for each request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from http.client import responses
from typing import Any, Final
from urllib.parse import unquote

import attrs
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from gatewayd.bounded_log import BoundedLogger
from gatewayd.bridge import Bridge
from gatewayd.errors import Draining, InternalError
from gatewayd.protocols.http.answer import PIECE_BYTES
from gatewayd.protocols.http.errors import encode_error
from gatewayd.protocols.http.request import GatewayRequest

log = BoundedLogger()

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

_ASGI: Final = {"version": "3.0", "spec_version": "2.4"}
# Those that the port writes itself.
_OF_THE_CONNECTION: Final = (b"connection", b"keep-alive", b"transfer-encoding")
# What an application may still do when its client has left. The time that Daphne gives it.
_FAREWELL_S: Final = 5.0


class ClientLeft(OSError):
    """What ``send`` raises when there is nothing left to write to (ASGI 2.4)."""


class StartupFailed(Exception):
    """The application answered ``lifespan.startup`` with a failure."""


@attrs.frozen
class _Head:
    status: int
    headers: tuple[tuple[bytes, bytes], ...]


class AsgiApp:
    """One application, mounted. Reactor thread only, but for ``startup`` and ``shutdown``."""

    def __init__(self, application: Application, bridge: Bridge) -> None:
        self._application = application
        self._bridge = bridge
        self._lifespan = _Lifespan(application, bridge)

    def render(self, http_request: GatewayRequest, prefix: int) -> None:
        """Answer a request whose path begins with ``prefix`` segments that led here."""
        writer = _Writer(http_request)
        exchange = _Exchange(
            self._bridge, writer, http_request.body, head_only=http_request.method == b"HEAD"
        )
        http_request.notifyFinish().addErrback(self._client_left, exchange, writer)
        work = self._bridge.on_loop(exchange.run, self._application, self._scope(http_request, prefix))
        work.addErrback(writer.failed)

    async def startup(self) -> None:
        """Loop thread. Raises StartupFailed."""
        await self._lifespan.startup()

    async def shutdown(self) -> None:
        """Loop thread."""
        await self._lifespan.shutdown()

    def _client_left(self, _reason: Failure, exchange: _Exchange, writer: _Writer) -> None:
        writer.client_left()
        self._bridge.on_loop(exchange.client_left).addErrback(lambda failure: failure.trap(CancelledError))

    def _scope(self, http_request: GatewayRequest, prefix: int) -> Message:
        raw_path, _, query = http_request.uri.partition(b"?")
        client, server = http_request.getClientAddress(), http_request.getHost()
        peer = client.host.removeprefix("::ffff:")
        host = http_request.site.proxies.client_of(peer, http_request.text_header)
        segments = http_request.path.split(b"/")[: prefix + 1] if prefix else [b""]
        return {
            "type": "http",
            "asgi": dict(_ASGI),
            "http_version": "1.0" if http_request.clientproto == b"HTTP/1.0" else "1.1",
            "method": http_request.method.decode("latin-1"),
            "scheme": "https" if http_request.isSecure() else "http",
            "path": unquote(http_request.path.decode("latin-1")),
            "raw_path": raw_path if raw_path.startswith(b"/") else http_request.path,
            "query_string": query,
            "root_path": unquote(b"/".join(segments).decode("latin-1")),
            "headers": [
                (name.lower(), value)
                for name, values in http_request.requestHeaders.getAllRawHeaders()
                for value in values
            ],
            "client": (host, client.port if host == peer else 0),
            # A socket of both families has addresses of IPv4 in the form of IPv6.
            "server": (server.host.removeprefix("::ffff:"), server.port),
            "state": dict(self._lifespan.state),
        }


@implementer(IPushProducer)
class _Writer:
    """
    Writes an answer as fast as its client reads. Reactor thread only.

    A client that has stopped reading has the port's idle timeout to go on.
    """

    def __init__(self, http_request: GatewayRequest) -> None:
        self._http_request = http_request
        self._begun = False
        self._paused = False
        self._gone = False
        self._rest = memoryview(b"")
        self._last = False
        self._written: Deferred[None] | None = None

    def write(self, head: _Head | None, body: bytes, more: bool) -> Deferred[None]:
        """
        Write the ``head``, if there is one, and a part of the body; fires when there is room for the next.

        Fails with ClientLeft.
        """
        if self._gone:
            raise ClientLeft("the client has left")
        if head is not None:
            self._begin(head, None if more else len(body))
        if len(body) <= PIECE_BYTES and not self._paused:
            self._http_request.write(body)  # the head goes out with it, even if it is empty
            if not more:
                self._finish()
                return succeed(None)
            if not self._paused:
                return succeed(None)
            body = b""
        self._rest, self._last = memoryview(body), not more
        written = self._written = Deferred()
        self._flush()
        return written

    def failed(self, failure: Failure) -> None:
        """The application has ended without an answer, or with half of one."""
        if self._gone or self._http_request.finished:
            return
        if self._begun:
            self._http_request.channel.abort()  # a part of an answer must not look like the whole
        elif failure.check(CancelledError):
            self._http_request.respond_with(encode_error(Draining()))
        else:
            self._http_request.respond_with(encode_error(InternalError(self._http_request.request_id)))

    def client_left(self) -> None:
        self._gone = True
        self._rest = memoryview(b"")
        written, self._written = self._written, None
        if written is not None:
            written.errback(ClientLeft("the client has left"))

    def resumeProducing(self) -> None:
        self._paused = False
        self._http_request.channel.setTimeout(None)
        self._flush()

    def pauseProducing(self) -> None:
        self._paused = True
        self._http_request.channel.setTimeout(self._http_request.site.limits.idle_s)

    def stopProducing(self) -> None:
        self._paused = True

    def _begin(self, head: _Head, length: int | None) -> None:
        request = self._http_request
        request.begin_foreign(0)
        self._begun = True
        request.setResponseCode(head.status, responses.get(head.status, "").encode())
        headers = [(name, value) for name, value in head.headers if name.lower() not in _OF_THE_CONNECTION]
        for name, _ in headers:
            request.responseHeaders.removeHeader(name)
        for name, value in headers:
            request.responseHeaders.addRawHeader(name, value)
        if head.status == 204:  # must not have one (RFC 9110 section 8.6)
            request.responseHeaders.removeHeader(b"Content-Length")
        elif length is not None and not request.responseHeaders.hasHeader(b"Content-Length"):
            request.responseHeaders.setRawHeaders(b"Content-Length", [b"%d" % length])
        request.defaultContentType = None  # what the application leaves out is left out
        request.registerProducer(self, True)

    def _flush(self) -> None:
        while self._rest and not self._paused:
            piece, self._rest = self._rest[:PIECE_BYTES], self._rest[PIECE_BYTES:]
            self._http_request.write(bytes(piece))
        if self._paused or self._rest or self._written is None:
            return
        written, self._written = self._written, None
        if self._last:
            self._finish()
        written.callback(None)

    def _finish(self) -> None:
        self._http_request.unregisterProducer()
        self._http_request.finish()


class _Exchange:
    """One request, as its application sees it. Loop thread only."""

    def __init__(self, bridge: Bridge, writer: _Writer, body: bytes, *, head_only: bool) -> None:
        self._bridge = bridge
        self._bodyless = head_only
        self._writer = writer
        self._body: bytes | None = body
        self._head: _Head | None = None
        self._begun = False
        self._complete = False
        self._left = False
        self._promised: int | None = None  # bytes of the body that are still to come, by its Content-Length
        self._over = asyncio.Event()
        self._task: asyncio.Task[Any] | None = None

    async def run(self, application: Application, scope: Message) -> None:
        """Raises RuntimeError, after it was logged, for an application that has not answered."""
        self._task = asyncio.current_task()
        try:
            await application(scope, self.receive, self.send)
        except (Exception, SystemExit) as error:  # exit() in a library must not end the loop
            if not self._left:
                self._bridge.tell_reactor(_log_failure, Failure(), scope["method"], scope["path"])
            if not self._complete:
                raise RuntimeError("the application has failed") from error
        else:
            if not (self._complete or self._left):
                early = RuntimeError("the application has returned without a whole answer")
                self._bridge.tell_reactor(_log_failure, Failure(early), scope["method"], scope["path"])
                raise early

    async def client_left(self) -> None:
        """Tell the application, and cancel it if that has no effect."""
        self._left = True
        self._over.set()
        if self._task is not None and not self._task.done() and not self._complete:
            asyncio.get_running_loop().call_later(_FAREWELL_S, self._task.cancel)

    async def receive(self) -> Message:
        """Called by the application."""
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._over.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Called by the application. Raises ClientLeft, or RuntimeError for messages out of order."""
        kind = message["type"]
        if self._left:
            raise ClientLeft("the client has left")
        if kind == "http.response.start" and not self._begun:
            self._begun = True
            self._head = _head(message)
            self._promised = None if self._bodyless else _content_length(self._head)
        elif kind == "http.response.body" and self._begun and not self._complete:
            body, more = bytes(message.get("body", b"")), bool(message.get("more_body", False))
            self._count(len(body), more)
            self._complete = not more
            head, self._head = self._head, None
            await self._write(head, body, more)
        else:
            raise RuntimeError(f"{kind} is not expected here")

    async def _write(self, head: _Head | None, body: bytes, more: bool) -> None:
        try:
            await self._bridge.on_reactor(self._writer.write, head, body, more)
        except ClientLeft:
            self._left = True
            raise
        finally:
            if not more or self._left:
                self._over.set()

    def _count(self, length: int, more: bool) -> None:
        """Raises RuntimeError for a body that is not as long as its head says."""
        if self._promised is None:
            return
        self._promised -= length
        if self._promised < 0 or (self._promised and not more):
            raise RuntimeError("the body is not as long as the Content-Length of the application says")


class _Lifespan:
    """
    The application's start and end. Loop thread only, but for ``state``.

    An application that raises on the scope has no lifespan, as ASGI says.
    """

    def __init__(self, application: Application, bridge: Bridge) -> None:
        self.state: dict[str, Any] = {}  # written before the first request only
        self._application = application
        self._bridge = bridge
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self._answers: asyncio.Queue[Message | None] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def startup(self) -> None:
        """Raises StartupFailed."""
        self._task = self._bridge.spawn_on_loop(self._run())
        answer = await self._ask("lifespan.startup")
        if answer is not None and answer["type"] == "lifespan.startup.failed":
            raise StartupFailed(answer.get("message") or "the application did not say why")

    async def shutdown(self) -> None:
        if self._task is None or self._task.done():
            return
        answer = await self._ask("lifespan.shutdown")
        if answer is not None and answer["type"] == "lifespan.shutdown.failed":
            raise RuntimeError(answer.get("message") or "the application did not say why")

    async def _ask(self, kind: str) -> Message | None:
        """The application's answer; None when it has ended instead."""
        self._messages.put_nowait({"type": kind})
        return await self._answers.get()

    async def _run(self) -> None:
        scope: Message = {"type": "lifespan", "asgi": dict(_ASGI), "state": self.state}
        try:
            await self._application(scope, self._messages.get, self._send)
        except Exception as error:
            self._bridge.tell_reactor(
                log.debug, "the application takes no part in its lifespan: {error!r}", error=error
            )
        finally:
            self._answers.put_nowait(None)

    async def _send(self, message: Message) -> None:
        self._answers.put_nowait(message)


def _head(message: Mapping[str, Any]) -> _Head:
    headers: Iterable[tuple[Any, Any]] = message.get("headers") or ()
    return _Head(int(message["status"]), tuple((bytes(name), bytes(value)) for name, value in headers))


def _content_length(head: _Head) -> int | None:
    if head.status in (204, 304):
        return None
    lengths = [int(value) for name, value in head.headers if name.lower() == b"content-length"]
    return lengths[0] if lengths else None


def _log_failure(failure: Failure, method: str, path: str) -> None:
    log.failure("{method} {path} failed", failure, method=method, path=path)
