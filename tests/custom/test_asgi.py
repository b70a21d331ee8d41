"""ASGI applications of a gateway class: scope, bodies, flow control, hang-ups, failures, lifespan."""

from __future__ import annotations

import asyncio
import http.client
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import pytest
import pytest_twisted
from docarray import Document
from twisted.internet import reactor
from twisted.python.failure import Failure

from gatewayd import Gateway
from gatewayd.custom import asgi
from gatewayd.custom.mount import Mounted
from gatewayd.errors import ConfigError, ExecutorUnreachable
from gatewayd.messages.request import Request
from gatewayd.protocols.http.site import SiteLimits
from tests.custom.serving import get, serving
from tests.protocols.harness import FakeDispatcher, in_thread, until
from tests.protocols.http.test_http import call

pytestmark = pytest.mark.slow

Handler = Callable[[dict[str, Any], Any, Any], Awaitable[None]]


@attrs.define
class Front(Gateway):
    """``handler`` answers each request; what the application saw is kept."""

    handler: Handler
    scopes: list[dict[str, Any]] = attrs.Factory(list)
    seen: list[Any] = attrs.Factory(list)
    _host: Any = None

    @property
    def app(self) -> Any:
        return self.application

    async def application(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise ValueError(scope["type"])
        self.scopes.append(scope)
        await self.handler(scope, receive, send)


async def start(send: Any, status: int = 200, **headers: str) -> None:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})


async def body(send: Any, part: bytes, more: bool = False) -> None:
    await send({"type": "http.response.body", "body": part, "more_body": more})


async def echo(scope: Any, receive: Any, send: Any) -> None:
    message = await receive()
    await start(send, 201, content_type="application/x-echo")
    await body(send, message["body"])


@pytest_twisted.ensureDeferred
async def test_a_request_becomes_a_scope_and_its_body_one_message() -> None:
    front = Front(echo)
    async with serving(front) as gateway:
        path = "/a%20b/%C3%A9?q=1&q=%20"
        status, headers, answer = await in_thread(call, gateway.port, "POST", path, b"text", {"X-Two": "2"})

    assert (status, answer) == (201, b"text")
    assert (headers["content-type"], headers["content-length"]) == ("application/x-echo", "4")
    assert (headers["server"], len(headers["x-request-id"])) == ("gatewayd", 32)
    (scope,) = front.scopes
    assert {name: scope[name] for name in ("type", "method", "http_version", "scheme", "root_path")} == {
        "type": "http",
        "method": "POST",
        "http_version": "1.1",
        "scheme": "http",
        "root_path": "",
    }
    assert (scope["path"], scope["raw_path"]) == ("/a b/é", b"/a%20b/%C3%A9")
    assert scope["query_string"] == b"q=1&q=%20"
    assert (b"x-two", b"2") in scope["headers"]
    assert (scope["client"][0], scope["server"][0]) == ("127.0.0.1", "127.0.0.1")
    assert gateway.buffers.held_bytes == 0


@pytest_twisted.ensureDeferred
async def test_an_application_at_a_path_has_it_as_its_root() -> None:
    front = Front(echo)

    class Two(Gateway):
        app = {"/api/v1": front.application}  # noqa: RUF012

    async with serving(Two()) as gateway:
        assert (await get(gateway, "/api/v1/items"))[0] == 201
        assert (await get(gateway, "/other"))[0] == 404

    assert [(scope["root_path"], scope["path"]) for scope in front.scopes] == [("/api/v1", "/api/v1/items")]


@pytest_twisted.ensureDeferred
async def test_executors_are_asked_from_the_applications_loop() -> None:
    async def ask(scope: Any, receive: Any, send: Any) -> None:
        assert threading.current_thread().name == "gateway class loop"
        docs = await front.post("/greet", Document(text="Ada"))
        await start(send)
        await body(send, docs[0].text.encode() + (await front.in_thread(lambda: b"!")))

    front = Front(ask)
    async with serving(front) as gateway:
        assert (await get(gateway, "/"))[2] == b"{}"  # the gateway's own
        assert (await get(gateway, "/ask"))[2] == b"Ada!"

    assert [request.endpoint for request in gateway.dispatcher.requests] == ["/greet"]


@pytest_twisted.ensureDeferred
async def test_post_in_another_thread_says_where_it_belongs() -> None:
    async def ask(scope: Any, receive: Any, send: Any) -> None:
        with pytest.raises(RuntimeError, match="make the route an `async def`"):
            await asyncio.to_thread(lambda: asyncio.run(front.post("/greet")))
        await start(send)
        await body(send, b"")

    front = Front(ask)
    async with serving(front) as gateway:
        assert (await get(gateway, "/ask"))[0] == 200


@pytest_twisted.ensureDeferred
async def test_a_route_that_blocks_holds_up_neither_the_reactor_nor_the_gateways_paths() -> None:
    async def block(scope: Any, receive: Any, send: Any) -> None:
        blocked.set()
        released.wait(10)
        await start(send)
        await body(send, b"done")

    blocked, released = threading.Event(), threading.Event()
    async with serving(Front(block)) as gateway:
        waiting = in_thread(call, gateway.port, "GET", "/block")
        await until(blocked.is_set)
        assert (await get(gateway, "/status"))[0] == 200
        released.set()
        assert (await waiting)[2] == b"done"


@pytest_twisted.ensureDeferred
async def test_an_answer_in_parts_is_chunked_and_keeps_the_connection() -> None:
    async def parts(scope: Any, receive: Any, send: Any) -> None:
        await start(send, connection="keep-alive", transfer_encoding="chunked")
        await body(send, b"", more=True)
        await body(send, b"one ", more=True)
        await body(send, b"two")

    def twice(port: int) -> list[tuple[Any, bytes]]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        found = []
        for _ in range(2):
            connection.request("GET", "/parts")
            answer = connection.getresponse()
            found.append((answer.headers.get_all("transfer-encoding"), answer.read()))
        connection.close()
        return found

    async with serving(Front(parts)) as gateway:
        assert await in_thread(twice, gateway.port) == [(["chunked"], b"one two")] * 2


@pytest.mark.parametrize("method", ["HEAD", "GET"])
@pytest_twisted.ensureDeferred
async def test_answers_without_a_body_have_none(method: str) -> None:
    async def handler(scope: Any, receive: Any, send: Any) -> None:
        await start(send, 204 if method == "GET" else 200, content_length="7")
        await body(send, b"" if method == "HEAD" else b"ignored")

    async with serving(Front(handler)) as gateway:
        status, headers, answer = await in_thread(call, gateway.port, method, "/x")

    assert ("content-length" in headers) == (method == "HEAD")
    assert (status, answer) == (200 if method == "HEAD" else 204, b"")


@pytest_twisted.ensureDeferred
async def test_a_large_body_goes_out_whole() -> None:
    large = bytes(range(256)) * 20_000

    async def handler(scope: Any, receive: Any, send: Any) -> None:
        await start(send)
        await body(send, large)

    async with serving(Front(handler)) as gateway:
        assert (await get(gateway, "/large"))[2] == large


@pytest_twisted.ensureDeferred
async def test_send_waits_for_a_client_that_does_not_read() -> None:
    async def endless(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await start(send)
        with pytest.raises(OSError, match="the client has left"):
            while True:
                await body(send, b"x" * 65_536, more=True)
                front.seen.append(time.monotonic())
        front.seen.append(await receive())

    front = Front(endless)
    async with serving(front) as gateway:
        with socket.create_connection(("127.0.0.1", gateway.port)) as client:
            client.sendall(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
            await until(lambda: front.seen and time.monotonic() - front.seen[-1] > 0.3)
            assert len(front.seen) * 65_536 < 64 << 20
        await until(lambda: front.seen[-1] == {"type": "http.disconnect"})


@pytest_twisted.ensureDeferred
async def test_a_client_that_stops_reading_has_the_idle_timeout() -> None:
    async def endless(scope: Any, receive: Any, send: Any) -> None:
        await start(send)
        while True:
            await body(send, b"x" * 65_536, more=True)

    async with serving(Front(endless), limits=SiteLimits(1000, idle_s=0.2, linger_s=0.1)) as gateway:
        with socket.create_connection(("127.0.0.1", gateway.port)) as client:
            client.sendall(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
            await until(lambda: len(gateway.connections))
            await until(lambda: not len(gateway.connections))


@pytest_twisted.ensureDeferred
async def test_a_waiting_application_is_notified_that_its_client_has_left() -> None:
    async def wait(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        front.seen.append("waiting")
        front.seen.append(await receive())

    front = Front(wait)
    async with serving(front) as gateway:
        with socket.create_connection(("127.0.0.1", gateway.port)) as client:
            client.sendall(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
            await until(lambda: front.seen)
        await until(lambda: front.seen == ["waiting", {"type": "http.disconnect"}])


@pytest_twisted.ensureDeferred
async def test_one_that_goes_on_without_its_client_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi, "_FAREWELL_S", 0.05)

    async def go_on(scope: Any, receive: Any, send: Any) -> None:
        front.seen.append("begun")
        try:
            await asyncio.Event().wait()
        finally:
            front.seen.append("cancelled")

    front = Front(go_on)
    async with serving(front) as gateway:
        with socket.create_connection(("127.0.0.1", gateway.port)) as client:
            client.sendall(b"GET /on HTTP/1.1\r\nHost: x\r\n\r\n")
            await until(lambda: front.seen)
        await until(lambda: front.seen == ["begun", "cancelled"])


@pytest_twisted.ensureDeferred
async def test_what_runs_after_the_answer_is_left_to_run() -> None:
    async def later(scope: Any, receive: Any, send: Any) -> None:
        await echo(scope, receive, send)
        front.seen.append(await receive())
        await asyncio.sleep(0.05)
        front.seen.append("done")

    front = Front(later)
    async with serving(front) as gateway:
        assert (await get(gateway, "/later"))[0] == 201
        await until(lambda: front.seen == [{"type": "http.disconnect"}, "done"])


async def raises(scope: Any, receive: Any, send: Any) -> None:
    raise RuntimeError("the route is broken")


async def leaves(scope: Any, receive: Any, send: Any) -> None:
    raise SystemExit(3)


async def says_nothing(scope: Any, receive: Any, send: Any) -> None:
    await start(send)


async def wrong_order(scope: Any, receive: Any, send: Any) -> None:
    await body(send, b"no head")


async def bad_header(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [("text", "not bytes")]})


@pytest.mark.parametrize("handler", [raises, leaves, says_nothing, wrong_order, bad_header])
@pytest_twisted.ensureDeferred
async def test_a_failing_application_is_a_500_and_logged(
    handler: Handler, caught_failures: list[Failure]
) -> None:
    async with serving(Front(handler)) as gateway:
        status, headers, answer = await get(gateway, "/x")
        assert (await get(gateway, "/x"))[0] == 500  # the loop goes on

    assert (status, headers["content-type"]) == (500, "application/json")
    assert b"internal error" in answer
    assert len(caught_failures) == 2
    caught_failures.clear()


async def halfway(scope: Any, receive: Any, send: Any) -> None:
    await start(send)
    await body(send, b"a beginning", more=True)
    raise RuntimeError("the route is broken")


async def too_short(scope: Any, receive: Any, send: Any) -> None:
    await start(send, content_length="100")
    await body(send, b"a beginning", more=True)
    await body(send, b"and the end")


async def too_long(scope: Any, receive: Any, send: Any) -> None:
    await start(send, content_length="12")
    await body(send, b"a beginning", more=True)
    await body(send, b"and the end")


@pytest.mark.parametrize("handler", [halfway, too_short, too_long])
@pytest_twisted.ensureDeferred
async def test_an_answer_that_is_not_whole_does_not_look_whole(
    handler: Handler, caught_failures: list[Failure]
) -> None:
    async with serving(Front(handler)) as gateway:
        with pytest.raises((ConnectionError, OSError, ValueError, Exception)):
            await get(gateway, "/x")

    assert len(caught_failures) == 1
    caught_failures.clear()


@pytest_twisted.ensureDeferred
async def test_what_executors_fail_with_can_be_caught_as_with_a_client() -> None:
    def refuse(request: Request) -> Any:
        raise ExecutorUnreachable("a", ["127.0.0.1:1"], "refused")

    async def ask(scope: Any, receive: Any, send: Any) -> None:
        try:
            await front.post("/greet")
        except ConnectionError:
            await start(send, 502)
            await body(send, b"")

    front = Front(ask)
    async with serving(front, FakeDispatcher(refuse)) as gateway:
        assert (await get(gateway, "/ask"))[0] == 502


class Living(Gateway):
    """An application with a lifespan, and hooks."""

    def __init__(self, failing: str = "") -> None:
        self.failing = failing
        self.told: list[str] = []

    async def startup(self) -> None:
        asyncio.get_running_loop()
        self.told.append("startup")

    async def shutdown(self) -> None:
        asyncio.get_running_loop()
        self.told.append("shutdown")

    @property
    def app(self) -> Any:
        return self.application

    async def application(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            self.told.append(scope["state"]["made"])
            await echo(scope, receive, send)
            return
        while True:
            message = await receive()
            self.told.append(message["type"])
            if self.failing and message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.failed", "message": self.failing})
                return
            scope["state"]["made"] = "by the lifespan"
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return


@pytest_twisted.ensureDeferred
async def test_the_lifespan_is_within_the_hooks_and_its_state_in_every_scope() -> None:
    living = Living()
    async with serving(living) as gateway:
        assert (await get(gateway, "/x"))[0] == 201

    assert living.told == [
        "startup",
        "lifespan.startup",
        "by the lifespan",
        "lifespan.shutdown",
        "shutdown",
    ]


@pytest_twisted.ensureDeferred
async def test_a_lifespan_that_fails_refuses_the_start() -> None:
    living = Living("no database")
    mounted = Mounted(living, "flow.yml:3:5", dispatcher=FakeDispatcher(), reactor=reactor)
    with pytest.raises(ConfigError, match="the application of Living cannot start: no database"):
        await mounted.start()
    await mounted.stop(1.0)

    assert "shutdown" not in living.told


class Wsgi(Gateway):
    app = staticmethod(lambda environ, start_response: [])


def test_an_application_of_wsgi_is_refused_with_the_way_to_wrap_it() -> None:
    with pytest.raises(ConfigError, match=r"asgiref\.wsgi\.WsgiToAsgi"):
        Mounted(Wsgi(), "", dispatcher=FakeDispatcher(), reactor=reactor)
