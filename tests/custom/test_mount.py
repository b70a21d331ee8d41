"""Routes of a gateway class on a real port: which path is whose, what a route can ask, and how it fails."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from docarray import Document
from klein import Klein
from twisted.internet import reactor
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.web.resource import Resource

from gatewayd import Gateway
from gatewayd.client.errors import BadServer, RequestRefused, Unreachable
from gatewayd.config.model import GatewayConfig, Listener
from gatewayd.custom.mount import Mounted
from gatewayd.errors import BadRequest, ConfigError, Draining, ExecutorUnreachable
from gatewayd.messages.request import Request, Response
from gatewayd.pb import StatusProto
from gatewayd.protocols.web_port import WebPort
from tests.custom.serving import get, serving
from tests.protocols.harness import (
    FakeDispatcher,
    Served,
    backend,
    closed,
    in_thread,
    until,
)
from tests.protocols.http.test_http import call

pytestmark = pytest.mark.slow


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """What is logged during the test."""
    lines: list[str] = []

    def watch(event: LogEvent) -> None:
        lines.append(formatEvent(event))

    globalLogPublisher.addObserver(watch)
    yield lines
    globalLogPublisher.removeObserver(watch)


class Greeting(Gateway):
    app = Klein()

    def __init__(self, word: str = "Hello") -> None:
        self.word = word
        self.told: list[str] = []
        self.released = threading.Event()

    def startup(self) -> None:
        self.told.append("startup")

    async def shutdown(self) -> None:
        self.told.append("shutdown")

    @app.route("/greet/<name>")
    async def greet(self, http_request: Any, name: str) -> str:
        docs = await self.post("/greet", Document(text=name), {"x": 1}, "greeter")
        return f"{self.word}, {docs[0].text}"

    @app.route("/status")
    def status(self, http_request: Any) -> str:
        return "never seen"

    @app.route("/slash/")
    def slash(self, http_request: Any) -> str:
        return "with a slash"

    @app.route("/echo", methods=["POST"])
    def echo(self, http_request: Any) -> bytes:
        http_request.setHeader(b"content-type", b"application/x-echo")
        http_request.setResponseCode(201)
        return bytes(http_request.content.read())

    @app.route("/broken")
    def broken(self, http_request: Any) -> str:
        raise RuntimeError("the route is broken")

    @app.route("/half")
    def half(self, http_request: Any) -> str:
        http_request.write(b"a beginning")
        raise RuntimeError("the route is broken")

    @app.route("/slow")
    async def slow(self, http_request: Any) -> str:
        released = await self.in_thread(self.released.wait, 20.0)
        return "slept" if released else "not released"

    @app.route("/blocking")
    def blocks(self, http_request: Any) -> str:
        return blocking(0.15)


def blocking(seconds: float) -> str:
    time.sleep(seconds)
    return "slept"


@pytest_twisted.ensureDeferred
async def test_a_route_asks_executors_and_answers() -> None:
    async with serving(Greeting("Good day")) as gateway:
        status, headers, body = await get(gateway, "/greet/Ada", **{"X-Request-ID": "mine"})

    (request,) = gateway.dispatcher.requests
    assert (request.endpoint, request.target) == ("/greet", "greeter")
    assert (status, body) == (200, b"Good day, Ada")
    assert (headers["server"], headers["x-request-id"]) == ("gatewayd", "mine")


@pytest.mark.parametrize("path", ["/status", "/%73tatus"])
@pytest_twisted.ensureDeferred
async def test_a_path_of_the_gateway_stays_its_own(path: str) -> None:
    async with serving(Greeting()) as gateway:
        status, _, body = await get(gateway, path)
        other, _, _ = await in_thread(call, gateway.port, "DELETE", path)

    assert (status, "jina" in json.loads(body)) == (200, True)
    assert other == 405


@pytest_twisted.ensureDeferred
async def test_paths_that_settings_leave_out_are_free_for_routes() -> None:
    async with serving(Greeting(), no_debug_endpoints=True) as gateway:
        assert (await get(gateway, "/status"))[2] == b"never seen"


@pytest_twisted.ensureDeferred
async def test_routes_are_served_on_a_port_of_websocket_too() -> None:
    async with serving(Greeting(), None, "websocket") as gateway:
        assert (await get(gateway, "/greet/Ada"))[2] == b"Hello, Ada"


@pytest_twisted.ensureDeferred
async def test_a_route_reads_the_body_and_chooses_the_answer() -> None:
    async with serving(Greeting()) as gateway:
        status, headers, body = await in_thread(call, gateway.port, "POST", "/echo", b"text")

    assert (status, headers["content-type"], body) == (201, "application/x-echo", b"text")
    assert gateway.buffers.held_bytes == 0


@pytest_twisted.ensureDeferred
async def test_a_client_that_waits_with_its_body_is_told_to_send_it_to_a_route() -> None:
    def ask(port: int) -> tuple[bytes, bytes]:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            head = b"POST /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 3\r\n"
            client.sendall(head + b"Expect: 100-continue\r\n\r\n")
            first = client.recv(1000)
            client.sendall(b"abc")
            return first, client.makefile("rb").read()

    async with serving(Greeting()) as gateway:
        first, rest = await in_thread(ask, gateway.port)

    assert first == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert rest.startswith(b"HTTP/1.1 201 ")
    assert b"abc" in rest


@pytest_twisted.ensureDeferred
async def test_a_redirect_of_klein_leads_to_the_host_that_the_client_named() -> None:
    async with serving(Greeting()) as gateway:
        status, headers, _ = await get(gateway, "/slash", Host="gateway.example")
        location = f"http://gateway.example:{gateway.port}/slash/"

    assert (status, headers["location"]) == (308, location)


@pytest_twisted.ensureDeferred
async def test_a_failing_route_is_a_500_that_names_the_log_entry(caught_failures: list[Failure]) -> None:
    async with serving(Greeting()) as gateway:
        status, _, body = await get(gateway, "/broken", **{"X-Request-ID": "mine"})

    assert status == 500
    assert json.loads(body) == {"detail": "internal error; the log has it as request mine"}
    assert [str(failure.value) for failure in caught_failures] == ["the route is broken"]
    caught_failures.clear()


@pytest_twisted.ensureDeferred
async def test_an_answer_that_fails_halfway_does_not_look_whole(caught_failures: list[Failure]) -> None:
    async with serving(Greeting()) as gateway:
        with pytest.raises((ConnectionError, OSError, ValueError)):
            await get(gateway, "/half")

    assert len(caught_failures) == 1
    caught_failures.clear()


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ExecutorUnreachable("greeter", ["127.0.0.1:1"], "refused"), 503),
        (BadRequest("no such executor"), 422),
        (Draining(), 503),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_the_gateway_can_explain_is_answered_as_its_own_paths_do(
    error: Exception, status: int
) -> None:
    def refuse(request: Request) -> Response:
        raise error

    async with serving(Greeting(), FakeDispatcher(refuse)) as gateway:
        found, _, body = await get(gateway, "/greet/Ada")

    assert found == status
    assert json.loads(body)


@pytest_twisted.ensureDeferred
async def test_post_raises_what_the_client_raises() -> None:
    def failing(request: Request) -> Response:
        if request.endpoint == "/refused":
            raise BadRequest("no such executor")
        if request.endpoint == "/unreachable":
            raise ExecutorUnreachable("a", ["127.0.0.1:1"], "refused")
        status = StatusProto(code=StatusProto.ERROR, description="it failed").SerializeToString()
        return Response(request.request_id, request.endpoint, request.documents, status=status)

    custom = Greeting()
    async with serving(custom, FakeDispatcher(failing)):
        for endpoint, error in (
            ("/refused", RequestRefused),
            ("/unreachable", Unreachable),
            ("/failing", BadServer),
        ):
            with pytest.raises(error):
                await custom.post(endpoint)
        response = await custom.post("/failing", return_responses=True)

    assert response.failed


@pytest_twisted.ensureDeferred
async def test_many_documents_go_and_come_in_order() -> None:
    custom = Greeting()
    async with serving(custom):
        docs = await custom.post("/", (Document(text=f"{number}" * 10_000) for number in range(10)))

    assert [doc.text[0] for doc in docs] == list("0123456789")


@pytest_twisted.ensureDeferred
async def test_what_blocks_in_a_thread_holds_up_nothing() -> None:
    greeting = Greeting()
    async with serving(greeting) as gateway:
        waiting = in_thread(call, gateway.port, "GET", "/slow")
        assert (await get(gateway, "/status"))[0] == 200
        greeting.released.set()
        assert (await waiting)[2] == b"slept"


@pytest_twisted.ensureDeferred
async def test_a_route_that_blocks_the_reactor_is_named_in_the_log(logged: list[str]) -> None:
    async with serving(Greeting()) as gateway:
        assert (await get(gateway, "/blocking"))[2] == b"slept"

    (line,) = [line for line in logged if "/blocking" in line]
    assert "in_thread" in line


@pytest_twisted.ensureDeferred
async def test_a_route_that_the_gateways_own_path_hides_is_named_in_the_log(logged: list[str]) -> None:
    async with serving(Greeting()):
        pass

    hidden = [line for line in logged if "never reached" in line]
    assert hidden == ["/status of Greeting is never reached: it is a path of the gateway's own"]


@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves_cancels_what_its_route_asked_for() -> None:
    async with serving(Greeting(), FakeDispatcher(held=True)) as gateway:
        with socket.create_connection(("127.0.0.1", gateway.port)) as client:
            client.sendall(b"GET /greet/Ada HTTP/1.1\r\nHost: x\r\n\r\n")
            await until(lambda: gateway.dispatcher.requests)
        await until(lambda: gateway.dispatcher.cancelled)


@pytest_twisted.ensureDeferred
async def test_hooks_are_called_once_and_routes_wait_for_them() -> None:
    custom = Greeting()
    mounted = Mounted(custom, "", dispatcher=FakeDispatcher(), reactor=reactor)
    port = WebPort(Listener(("http",)), backend(GatewayConfig(host="127.0.0.1"), None, extension=mounted))
    port.listen()
    served = Served(port, FakeDispatcher())
    assert (await get(served, "/slash/"))[0] == 503
    await mounted.start()
    assert (await get(served, "/slash/"))[0] == 200
    await closed(port)
    await mounted.stop(1.0)

    assert custom.told == ["startup", "shutdown"]


@pytest_twisted.ensureDeferred
async def test_what_startup_raises_refuses_the_start(caught_failures: list[Failure]) -> None:
    class Failing(Gateway):
        async def startup(self) -> None:
            raise OSError("no database")

    mounted = Mounted(Failing(), "flow.yml:3:5", dispatcher=FakeDispatcher(), reactor=reactor)
    with pytest.raises(ConfigError, match=r"flow.yml:3:5: gateway.uses: startup of Failing failed.*no data"):
        await mounted.start()
    await mounted.stop(1.0)
    caught_failures.clear()


class Text(Resource):
    isLeaf = True

    def __init__(self, text: bytes) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.text = text

    def render_GET(self, http_request: Any) -> bytes:
        return self.text


class Site(Gateway):
    """Two apps, one of them in a folder."""

    @property
    def app(self) -> dict[str, Any]:
        root, folder = Resource(), Resource()
        root.putChild(b"about", Text(b"about us"))
        root.putChild(b"shelf", Text(b"a shelf"))
        folder.putChild(b"page", Text(b"a page"))
        return {"/": root, "/shelf/more": folder}


@pytest.mark.parametrize(
    ("path", "body"), [("/about", b"about us"), ("/shelf/more/page", b"a page"), ("/shelf/", b"a shelf")]
)
@pytest_twisted.ensureDeferred
async def test_resources_are_mounted_at_paths(path: str, body: bytes) -> None:
    async with serving(Site()) as gateway:
        assert (await get(gateway, path))[2] == body


class Nothing(Gateway):
    app = 7


class Relative(Gateway):
    app = {"api": Resource()}  # noqa: RUF012


@pytest.mark.parametrize(
    ("custom", "web", "text"),
    [
        (Nothing(), True, "app of Nothing is a int; accepted: a Klein app"),
        (Relative(), True, "'api' cannot be a path of app; one begins with /"),
        (Greeting(), False, "the routes of Greeting need a port of HTTP or WebSocket"),
    ],
)
def test_an_app_that_cannot_be_served_is_refused(custom: Gateway, web: bool, text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Mounted(custom, "flow.yml:3:5", dispatcher=FakeDispatcher(), reactor=reactor, web=web)
    assert str(refused.value).startswith("flow.yml:3:5: gateway.uses: ")
    assert text in str(refused.value)


def test_post_before_the_gateway_runs_says_when_it_can_be_used() -> None:
    class Early(Gateway):
        def __init__(self) -> None:
            self.post("/").send(None)

    with pytest.raises(RuntimeError, match="not in __init__"):
        Early()
