"""HTTP over real sockets: paths, errors, hang-ups, CORS, and what the golden answers say."""

import http.client
import json
import socket

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from gatewayd.config.model import GatewayConfig
from gatewayd.errors import (
    BadRequest,
    ConfigError,
    DeadlineExceeded,
    Draining,
    ExecutorUnreachable,
    Overloaded,
)
from gatewayd.protocols.http.routes import endpoint_routes
from tests.paths import GOLDEN
from tests.protocols import harness
from tests.protocols.harness import FakeDispatcher, answer_to, in_thread, served, until


def call(port, method, path, body=None, headers=None):
    """Status, headers (lower case) and body of one exchange."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        payload = body if body is None or isinstance(body, (bytes, str)) else json.dumps(body)
        connection.request(method, path, payload, headers or {})
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def golden(name):
    return json.loads((GOLDEN / name).read_text())


@pytest_twisted.ensureDeferred
async def test_a_request_travels_from_its_json_to_the_dispatcher_and_back():
    async with served() as gateway:
        body = {"data": [{"id": "d0", "text": "hi"}], "execEndpoint": "/tag", "parameters": {"x": 1}}
        status, headers, answer = await in_thread(call, gateway.port, "POST", "/post", body)
        (request,) = gateway.dispatcher.requests
        answer = json.loads(answer)
        assert (status, headers["content-type"]) == (200, "application/json")
        assert (request.endpoint, request.target) == ("/tag", "")
        assert answer["header"]["requestId"] == request.request_id
        assert answer["data"][0]["text"] == "hi"
        assert answer["parameters"] == {"x": 1.0}
        assert headers["server"] == "gatewayd"
        assert len(request.request_id) == 32


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/index"), ("POST", "/search"), ("PUT", "/update"), ("DELETE", "/delete")]
)
@pytest_twisted.ensureDeferred
async def test_a_crud_path_is_the_exec_endpoint_whatever_the_body_says(method, path):
    async with served() as gateway:
        body = {"data": [{"id": "d0"}], "execEndpoint": "/raise"}
        status, _, _ = await in_thread(call, gateway.port, method, path, body)
        assert status == 200
        assert gateway.dispatcher.requests[0].endpoint == path


# The reference answers these with 405 or a 500 in plain text; we do better (spec http.md, RFC 9110).
MENDED = {
    "HEAD /": 200,
    "OPTIONS /post": 204,
    "dict without docs key": 422,
}


@pytest.mark.parametrize("case", golden("http_requests.json"), ids=lambda case: case["name"])
@pytest_twisted.ensureDeferred
async def test_the_golden_request_gets_the_golden_status_and_error(case):
    request, expected = case["request"], case["response"]
    async with served() as gateway:
        body = json.dumps(request["json"]) if "json" in request else request.get("raw_body")
        headers = request.get("headers", {})
        if "json" in request:
            headers = {"content-type": "application/json", **headers}
        status, answered, answer = await in_thread(
            call, gateway.port, request["method"], request["path"], body, headers
        )
        assert status == MENDED.get(case["name"], expected["status"])
        if status == expected["status"] and status >= 400 and expected.get("json"):
            assert json.loads(answer) == expected["json"]
        if status == 307:
            assert answered["location"] == "/post"


@pytest.mark.parametrize("case", golden("http_options.json"), ids=lambda case: case["name"])
@pytest_twisted.ensureDeferred
async def test_the_golden_options_shape_the_paths(case):
    request, expected = case["request"], case["response"]
    if "no_debug" in case["topology"]:
        settings = {"no_debug_endpoints": True, "no_crud_endpoints": True}
    else:
        exposed = {"/results": {"methods": ["GET", "POST"]}, "/tag": {"http_path": "/my/tag"}}
        settings = {"cors": ("*",), "expose_endpoints": exposed}
    async with served(**settings) as gateway:
        body = json.dumps(request["json"]) if "json" in request else None
        status, headers, answer = await in_thread(
            call, gateway.port, request["method"], request["path"], body, request.get("headers", {})
        )
        assert status == expected["status"]
        assert headers["content-type"] == expected["content_type"]
        for name, value in expected.get("headers", {}).items():
            assert headers.get(name) == value, name
        if expected.get("text"):
            assert answer.decode() == expected["text"]
        if "json" in request and status == 200:
            assert gateway.dispatcher.requests[0].endpoint == expected["json"]["header"]["execEndpoint"]


@pytest.mark.parametrize("path", ["/post", "/index"])
@pytest_twisted.ensureDeferred
async def test_an_unreachable_deployment_is_503_on_every_path_with_the_request_as_sent(path):
    error = ExecutorUnreachable("exec_x", ["127.0.0.1:1"], "connection refused")

    def refuse(request):
        raise error

    async with served(dispatcher=FakeDispatcher(refuse)) as gateway:
        body = {"data": [{"id": "d0", "text": "x"}], "parameters": {"p": 1}}
        status, _, answer = await in_thread(call, gateway.port, "POST", path, body)
        answer = json.loads(answer)
        assert status == 503
        assert answer["header"]["status"]["description"] == str(error)
        assert answer["header"]["status"]["exception"]["name"].endswith("InternalNetworkError'>")
        assert answer["routes"] is None
        assert answer["parameters"] == {"p": 1}
        assert [d["text"] for d in answer["data"]] == ["x"]


@pytest_twisted.ensureDeferred
async def test_the_id_in_a_body_is_that_of_the_request_unless_a_header_names_it():
    async with served() as gateway:
        for body, headers, wanted in (
            ({"requestId": "mine"}, {}, "mine"),
            ({"header": {"requestId": "mine"}}, {}, "mine"),
            ({"requestId": "mine"}, {"X-Request-ID": "header"}, "header"),
        ):
            for path in ("/post", "/search"):
                _, answered, text = await in_thread(call, gateway.port, "POST", path, body, headers)
                assert json.loads(text)["header"]["requestId"] == wanted
                assert answered["x-request-id"] == wanted
                assert gateway.dispatcher.requests[-1].request_id == wanted


@pytest_twisted.ensureDeferred
async def test_an_id_that_no_header_can_hold_is_in_the_body_alone():
    async with served() as gateway:
        body = {"requestId": "a\r\nSet-Cookie: b"}
        status, answered, text = await in_thread(call, gateway.port, "POST", "/post", body)
        assert (status, json.loads(text)["header"]["requestId"]) == (200, body["requestId"])
        assert "x-request-id" not in answered
        assert "set-cookie" not in answered


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (DeadlineExceeded("exec_a", ["h:1"]), 504, "timed out"),
        (Draining(), 503, "shutting down"),
        (BadRequest("target_executor is no regular expression: '('"), 422, "regular expression"),
        (RuntimeError("secret"), 500, "internal error"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_errors_of_the_dispatcher_have_their_status(error, status, text, caught_failures):
    def fails(request):
        raise error

    async with served(dispatcher=FakeDispatcher(fails)) as gateway:
        found, headers, answer = await in_thread(
            call, gateway.port, "POST", "/post", {}, {"X-Request-ID": "mine"}
        )
        assert found == status
        assert text in answer.decode()
        assert b"secret" not in answer
        assert headers["x-request-id"] == "mine"
        assert headers["content-type"] == "application/json"
    assert [f.type for f in caught_failures] == ([RuntimeError] if status == 500 else [])
    caught_failures.clear()


@pytest_twisted.ensureDeferred
async def test_an_overloaded_gateway_says_when_to_come_back():
    def full(request):
        raise Overloaded("4000 requests are waiting", retry_after_s=1.2)

    async with served(dispatcher=FakeDispatcher(full)) as gateway:
        status, headers, _ = await in_thread(call, gateway.port, "POST", "/post", {})
        assert (status, headers["retry-after"]) == (503, "2")


@pytest_twisted.ensureDeferred
async def test_the_clients_request_id_is_used_and_returned():
    async with served() as gateway:
        _, headers, answer = await in_thread(
            call, gateway.port, "POST", "/post", {}, {"X-Request-ID": "abc-1"}
        )
        assert headers["x-request-id"] == json.loads(answer)["header"]["requestId"] == "abc-1"
        _, headers, _ = await in_thread(call, gateway.port, "POST", "/post", {}, {"X-Request-ID": "a b"})
        assert len(headers["x-request-id"]) == 32


@pytest_twisted.ensureDeferred
async def test_a_client_that_hangs_up_cancels_its_request():
    async with served(dispatcher=FakeDispatcher(held=True)) as gateway:
        for path in (b"/post", b"/p%6fst"):  # found in the table, and by Klein
            client = socket.create_connection(("127.0.0.1", gateway.port))
            before = len(gateway.dispatcher.requests)
            client.sendall(b"POST " + path + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
            await until(lambda seen=before: len(gateway.dispatcher.requests) > seen)
            client.close()
            await until(lambda: gateway.dispatcher.requests[-1].request_id in gateway.dispatcher.cancelled)


@pytest_twisted.ensureDeferred
async def test_status_health_and_dry_run_answer():
    async with served() as gateway:
        assert (await in_thread(call, gateway.port, "GET", "/"))[2] == b"{}"
        assert json.loads((await in_thread(call, gateway.port, "GET", "/status"))[2]) == harness.status_maps()
        status, _, answer = await in_thread(call, gateway.port, "GET", "/dry_run")
        assert (status, json.loads(answer)) == (200, {"code": 0, "description": "", "exception": None})

        error = ExecutorUnreachable("exec_x", ["127.0.0.1:1"], "refused")
        gateway.dispatcher.dry_run_error = error
        status, _, answer = await in_thread(call, gateway.port, "GET", "/dry_run")
        answer = json.loads(answer)
        assert (status, answer["code"], answer["description"]) == (200, 1, str(error))
        assert answer["exception"]["name"] == "InternalNetworkError"


@pytest_twisted.ensureDeferred
async def test_head_has_the_headers_of_get_and_options_names_the_methods():
    async with served() as gateway:
        status, headers, body = await in_thread(call, gateway.port, "HEAD", "/")
        assert (status, headers["content-length"], body) == (200, "2", b"")
        status, headers, _ = await in_thread(call, gateway.port, "OPTIONS", "/post")
        assert (status, headers["allow"]) == (204, "OPTIONS, POST")
        status, headers, _ = await in_thread(call, gateway.port, "GET", "/post")
        assert (status, headers["allow"]) == (405, "OPTIONS, POST")


@pytest.mark.parametrize("path", ["/nope", "//post", "/post/x", "/%ff", "/docs/x", "/graphql", "/p%C3%B6st"])
@pytest_twisted.ensureDeferred
async def test_an_unknown_path_is_404(path):
    async with served() as gateway:
        path = path.encode("utf-8").decode("latin-1") if path.isascii() else "/p%C3%B6st"
        status, headers, body = await in_thread(call, gateway.port, "GET", path)
        assert (status, headers["content-type"]) == (404, "application/json")
        assert json.loads(body) == {"detail": "Not Found"}


@pytest_twisted.ensureDeferred
async def test_encoded_paths_odd_hosts_and_absolute_targets_find_their_path():
    async with served() as gateway:
        for target, host in (("/%70ost", "x"), ("/post", "a..b" + "c" * 80), ("http://other/post?a=b", "x")):
            status, _, _ = await in_thread(call, gateway.port, "POST", target, {}, {"Host": host})
            assert status == 200, target
        status, headers, _ = await in_thread(call, gateway.port, "POST", "/post/?a=b", {})
        assert (status, headers["location"]) == (307, "/post?a=b")


@pytest_twisted.ensureDeferred
async def test_large_bodies_are_converted_off_the_reactor_thread_and_come_back_whole():
    async with served() as gateway:
        text = "x" * 300_000
        status, _, answer = await in_thread(call, gateway.port, "POST", "/post", {"data": [{"text": text}]})
        assert status == 200
        assert json.loads(answer)["data"][0]["text"] == text


@pytest_twisted.ensureDeferred
async def test_an_exposed_endpoint_answers_with_its_own_status():
    exposed = {"/make": {"status_code": 299}}
    async with served(expose_endpoints=exposed) as gateway:
        status, _, _ = await in_thread(call, gateway.port, "POST", "/make", {})
        assert status == 299


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest_twisted.ensureDeferred
async def test_an_exposed_endpoint_needs_no_body_where_browsers_send_none(method):
    exposed = {"/read": {"methods": ["GET", "HEAD", "POST"]}}
    async with served(expose_endpoints=exposed) as gateway:
        status, _, _ = await in_thread(call, gateway.port, method, "/read")
        if method == "POST":
            assert status == 422
        else:
            (request,) = gateway.dispatcher.requests
            assert (status, request.endpoint, request.documents) == (200, "/read", b"")
        await in_thread(call, gateway.port, method, "/read", {"data": [{"id": "d"}]})
        assert gateway.dispatcher.requests[-1].documents


def test_a_crud_path_wins_over_an_exposed_one():
    routes = endpoint_routes(GatewayConfig(expose_endpoints={"/mine": {"http_path": "/index"}}))
    assert [r.endpoint for r in routes if r.path == "/index"] == ["/index"]


def test_an_exposed_path_that_is_none_is_refused():
    with pytest.raises(ConfigError, match="'results' cannot be the path"):
        endpoint_routes(GatewayConfig(expose_endpoints={"results": {}}))


def test_an_exposed_endpoint_that_executors_cannot_be_called_with_is_refused():
    with pytest.raises(ConfigError, match="'/größe' has characters besides printable ASCII"):
        endpoint_routes(GatewayConfig(expose_endpoints={"/größe": {"http_path": "/size"}}))


@pytest_twisted.ensureDeferred
async def test_requests_of_one_connection_are_answered_in_order():
    waiting = []

    def later(request):
        if request.endpoint == "/slow":
            answer = Deferred()
            waiting.append((answer, request))
            return answer
        return answer_to(request)

    def pipelined(port):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            for endpoint in ("/slow", "/quick"):
                body = json.dumps({"execEndpoint": endpoint}).encode()
                head = b"POST /post HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
                client.sendall(head + body)
            found = b""
            while found.count(b'"execEndpoint"') < 2:
                found += client.recv(65536)
            return found

    async with served(dispatcher=FakeDispatcher(later)) as gateway:
        reading = in_thread(pipelined, gateway.port)
        await until(lambda: waiting)
        answer, request = waiting[0]
        answer.callback(answer_to(request))
        found = await reading
        assert found.index(b'"/slow"') < found.index(b'"/quick"')
        assert len(gateway.connections) <= 1
