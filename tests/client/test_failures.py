"""What a client raises when no answer comes, or another than expected; what it tries again."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gatewayd.client.client import Client
from gatewayd.client.errors import (
    BadClient,
    BadServerFlow,
    BrokenAnswer,
    NetworkError,
    RequestRefused,
    TimedOut,
    Unreachable,
)
from tests.client.conftest import Waiting
from tests.client.forwarder import Forwarder
from tests.processes import PROTOCOLS, Gateway, external, free_ports

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def broken() -> Iterator[Gateway]:
    """A gateway whose only executor isn't there."""
    (port,) = free_ports(1)
    gateway = Gateway({"executors": [external("exec_a", port)]})
    yield gateway
    gateway.stop()


@pytest.mark.parametrize("kind", [Client, Waiting])
def test_a_port_without_a_listener_is_a_connection_error(protocol, kind):
    (port,) = free_ports(1)
    client = kind(host="127.0.0.1", port=port, protocol=protocol)

    with pytest.raises(Unreachable) as caught:
        client.post("/tag", "x")
    assert isinstance(caught.value, ConnectionError)
    assert not client.is_flow_ready()


def test_an_executor_that_is_down_is_a_connection_error_with_its_address(broken, protocol):
    client = Client(host="127.0.0.1", port=broken.ports[protocol], protocol=protocol)

    with pytest.raises(Unreachable, match=r"exec_a|connecting to deployment"):
        client.post("/tag", "x")
    assert not client.is_flow_ready()


def test_the_clients_own_timeout_is_a_timeout_error(either):
    with pytest.raises(TimedOut) as caught:
        either.post("/asleep", "x", parameters={"t": 3}, timeout=0.2)
    assert isinstance(caught.value, TimeoutError)
    assert isinstance(caught.value, ConnectionError)


def test_the_gateways_timeout_is_a_timeout_error(gateway):
    from tests.client.conftest import REC

    slow = Gateway({"gateway": {"timeout_send": 300}, "executors": [REC]})
    try:
        for protocol in PROTOCOLS:
            client = Client(host="127.0.0.1", port=slow.ports[protocol], protocol=protocol)
            with pytest.raises(TimedOut, match="timed out"):
                client.post("/asleep", "x", parameters={"t": 3})
    finally:
        slow.stop()


def test_a_request_that_the_gateway_refuses_tells_why(client):
    with pytest.raises(RequestRefused, match="regular expression"):
        client.post("/tag", "x", target_executor="(")


# -- HTTP as it shouldn't be -------------------------------------------------------------------------


@contextlib.contextmanager
def http_server(
    answer: Callable[[Any, bytes], tuple[int, bytes]], seen: list[Any] | None = None, name: str = "a server"
) -> Iterator[int]:
    """
    Gives ``answer`` each request's headers and body, and sends the status and body that it returns.

    What the server was asked goes to ``seen``. ``name`` is its header Server.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = self.rfile.read(int(self.headers.get("content-length", 0)))
            if seen is not None:
                seen.append((self.path, dict(self.headers), asked))
            status, body = answer(self.headers, asked)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST

        def version_string(self) -> str:
            return name

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


NETWORK = json.dumps({"header": {"status": {"code": 1, "description": "exec_a is down"}}}).encode()


@pytest.mark.parametrize(
    ("status", "body", "error", "also", "message"),
    [
        (404, b"", BadClient, Exception, "no such endpoint http://127.0.0.1:.*/post"),
        (422, b'{"detail": "wrong"}', RequestRefused, ValueError, "422.*wrong"),
        (500, b"Internal Server Error", BrokenAnswer, ValueError, "500: Internal Server Error"),
        (503, NETWORK, Unreachable, ConnectionError, "exec_a is down"),
        (503, b"come back later", Unreachable, ConnectionError, "come back later"),
        (504, NETWORK, TimedOut, ConnectionError, "exec_a is down"),
        (200, b"<html>", BadServerFlow, Exception, "not the JSON of a response"),
        (200, b"{}", BadServerFlow, Exception, "not the JSON of a response"),
        (200, b'{"header": {}, "data": [{"text": 1, "tags": 5}]}', BadServerFlow, Exception, "not a valid"),
    ],
)
def test_every_http_status_has_its_exception(status, body, error, also, message):
    with http_server(lambda _, __: (status, body)) as port:
        client = Client(host="127.0.0.1", port=port, protocol="http")
        with pytest.raises(error, match=message) as caught:
            client.post("/tag", "x")
    assert isinstance(caught.value, also)


def test_what_http_is_asked_with_is_what_the_user_gave():
    seen: list[Any] = []
    answer = b'{"header": {"requestId": "r"}, "data": []}'
    with http_server(lambda _, __: (200, answer), seen) as port:
        client = Client(host="127.0.0.1", port=port, protocol="http")
        client.post(
            "/tag",
            {"id": "d", "text": "x"},
            target_executor="exec.*",
            headers={"X-Mine": "yes", "Content-Type": "application/json"},
            auth=("user", "word"),
            cookies={"a": "b"},
        )

    ((path, headers, body),) = seen
    request = json.loads(body)
    assert path == "/post"
    assert (headers["X-Mine"], headers["Cookie"]) == ("yes", "a=b")
    assert headers["Authorization"] == "Basic dXNlcjp3b3Jk"
    assert request["parameters"] == {"__results__": {}}
    assert (request["exec_endpoint"], request["target_executor"]) == ("/tag", "exec.*")
    assert request["data"] == [{"id": "d", "text": "x"}]
    assert len(request["header"]["request_id"]) == 32


def test_graphql_answers_come_with_their_headers():
    seen: list[Any] = []
    with http_server(lambda _, __: (200, b'{"data": {"docs": []}}'), seen) as port:
        client = Client(host="127.0.0.1", port=port, protocol="http")
        answer = client.mutate("mutation { docs { id } }", {"n": 1}, headers={"X-Mine": "yes"})

    ((path, headers, body),) = seen
    assert path == "/graphql"
    assert json.loads(body) == {"query": "mutation { docs { id } }", "variables": {"n": 1}}
    assert headers["X-Mine"] == "yes"
    assert answer["data"] == {"docs": []}
    assert "Content-Length" in answer["headers"]


def test_graphql_errors_are_raised():
    answer = b'{"data": null, "errors": [{"message": "no field foo"}]}'
    with http_server(lambda _, __: (200, answer)) as port:
        client = Client(host="127.0.0.1", port=port, protocol="http")
        with pytest.raises(ConnectionError, match="returned the following errors: no field foo"):
            client.mutate("{ foo }")


@pytest.mark.parametrize("protocol", ["grpc", "websocket"])
def test_graphql_is_for_http_alone(protocol):
    with pytest.raises(BadClient, match="HTTP only"):
        Client(protocol=protocol).mutate("{ docs { id } }")


# -- trying again ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Client, Waiting])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_port_that_drops_connections_is_tried_again(gateway, protocol, kind):
    with Forwarder(gateway.ports[protocol], dropped=3) as flaky:
        client = kind(host="127.0.0.1", port=flaky.port, protocol=protocol)
        docs = client.post("/tag", ["x", "y"], max_attempts=6, initial_backoff=0.01, results_in_order=True)
        client.close()

        assert docs.texts == ["xA", "yA"]
        assert flaky.connections >= 4


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_without_further_attempts_the_first_failure_is_raised(gateway, protocol):
    # aiohttp tries a GET, which begins WebSocket's handshake, up to twice by itself.
    with Forwarder(gateway.ports[protocol], dropped=1000) as flaky:
        client = Client(host="127.0.0.1", port=flaky.port, protocol=protocol)
        with pytest.raises(Unreachable):
            client.post("/tag", "x")
        assert flaky.connections <= 2
        flaky.drop_no_more()
        # The next post connects anew, at once.
        assert client.post("/tag", "x").texts == ["xA"]
        client.close()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_attempts_end(protocol):
    (port,) = free_ports(1)
    client = Client(host="127.0.0.1", port=port, protocol=protocol)
    begin = time.monotonic()

    with pytest.raises(NetworkError):
        client.post("/tag", "x", max_attempts=4, initial_backoff=0.01, max_backoff=0.02)
    assert time.monotonic() - begin < 60


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_connection_lost_in_the_middle_costs_no_document(gateway, protocol):
    with Forwarder(gateway.ports[protocol]) as wire:

        def inputs() -> Iterator[str]:
            for number in range(40):
                if number == 20:
                    wire.cut()
                yield f"{number:02}"

        client = Client(host="127.0.0.1", port=wire.port, protocol=protocol)
        docs = client.post(
            "/tag", inputs(), request_size=1, max_attempts=5, results_in_order=True, prefetch=5
        )
        client.close()

    assert docs.texts == [f"{number:02}A" for number in range(40)]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_client_outlives_the_restart_of_its_gateway(protocol):
    from tests.client.conftest import REC

    (port,) = free_ports(1)
    flow = {"gateway": {"protocol": [protocol], "port": [port]}, "executors": [REC]}
    client = Client(host="127.0.0.1", port=port, protocol=protocol)
    for _ in range(2):
        gateway = Gateway(flow, protocols=[protocol])
        try:
            assert client.post("/tag", "x").texts == ["xA"]
        finally:
            gateway.stop()
    with pytest.raises(Unreachable):
        client.post("/tag", "x")


def test_cancelling_an_asynchronous_post_gives_the_request_up(gateway, protocol):
    async def post() -> float:
        client = Client(host="127.0.0.1", port=gateway.ports[protocol], protocol=protocol, asyncio=True)
        begin = time.monotonic()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                async for _ in client.post("/asleep", "x", parameters={"t": 60}):
                    pass
        await client.close()
        return time.monotonic() - begin

    assert asyncio.run(post()) < 30
