"""With ``expose_errors: false`` no client learns what failed inside; the log has it, by request id."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
import requests
import websockets.sync.client
from websockets.exceptions import ConnectionClosed

from gatewayd.messages import methods
from gatewayd.pb import DataRequestProto, EndpointsProto, StatusProto
from tests.processes import Gateway, external

MODULE = Path(__file__).with_name("failing_executors.py")
PROTOBUF = "application/x-protobuf"
# Deployments, by what is wrong with each.
RAISES, GONE, ABORTS, SLOW = "raises_canary", "gone_canary", "aborts_canary", "slow_canary"
TARGETS = (RAISES, GONE, ABORTS, SLOW)
DOCUMENT = {"text": "mine"}


class ForeignExecutor(grpc.GenericRpcHandler):
    """Aborts every call with a text of its own, or, if it is ``slow``, answers none."""

    def __init__(self, *, slow: bool) -> None:
        self._slow = slow

    def service(self, details: Any) -> Any:
        if details.method == methods.DISCOVERY:
            return grpc.unary_unary_rpc_method_handler(
                lambda _message, _context: EndpointsProto(endpoints=["/"]).SerializeToString()
            )
        return grpc.unary_unary_rpc_method_handler(self._answer)

    def _answer(self, message: bytes, context: grpc.ServicerContext) -> bytes:
        if not self._slow:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "canary-details of /srv/canary.py")
        # A thread for each call that nobody waits for any more would leave none for discovery.
        left = threading.Event()
        if context.add_callback(left.set):
            left.wait(30)
        return message


@pytest.fixture(scope="module")
def foreign() -> Iterator[dict[str, int]]:
    servers, ports = [], {}
    for name, slow in ((ABORTS, False), (SLOW, True)):
        server = grpc.server(ThreadPoolExecutor(32))
        server.add_generic_rpc_handlers([ForeignExecutor(slow=slow)])
        ports[name] = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
    yield ports
    for server in servers:
        server.stop(0)


@pytest.fixture(scope="module")
def gone() -> Iterator[int]:
    """A port at which nobody listens, and nobody else can."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.fixture(scope="module")
def start(foreign: dict[str, int], gone: int) -> Iterator[Callable[..., Gateway]]:
    running: list[Gateway] = []

    def gateway(**keys: Any) -> Gateway:
        raises = {"name": RAISES, "uses": "Raises", "py_modules": [str(MODULE)]}
        flow = {
            "gateway": {
                "expose_graphql_endpoint": True,
                "retries": 0,
                "uses": "Passes",
                "py_modules": [str(MODULE)],
                **keys,
            },
            "executors": [
                {**raises, "needs": "gateway"},
                external(GONE, gone, needs="gateway"),
                external(ABORTS, foreign[ABORTS], needs="gateway"),
                external(SLOW, foreign[SLOW], needs="gateway", timeout_send=200),
                {"name": "all", "method": "needs_all"},
            ],
        }
        running.append(Gateway(flow))
        running[-1].line("ready")
        return running[-1]

    yield gateway
    for one in running:
        one.stop()


@pytest.fixture(scope="module", params=["grpcio", "gatewayd"])
def closed(request: pytest.FixtureRequest, start: Callable[..., Gateway]) -> Gateway:
    return start(expose_errors=False, grpc_server=request.param)


@pytest.fixture(scope="module")
def open_one(start: Callable[..., Gateway]) -> Gateway:
    return start()


def url(gateway: Gateway, path: str) -> str:
    return f"http://127.0.0.1:{gateway.ports['http']}{path}"


def shown(answer: requests.Response) -> str:
    return f"{answer.status_code} {answer.headers} {answer.content.decode('utf-8', 'replace')}"


def over_http_json(gateway: Gateway, target: str) -> str:
    body = {"data": [DOCUMENT], "targetExecutor": target, "execEndpoint": "/"}
    return shown(requests.post(url(gateway, "/post"), json=body, timeout=20))


def over_http_protobuf(gateway: Gateway, target: str) -> str:
    headers = {"Content-Type": PROTOBUF}
    answer = requests.post(url(gateway, "/post"), data=message(target), headers=headers, timeout=20)
    if answer.headers["Content-Type"] != PROTOBUF:
        return shown(answer)
    return f"{answer.status_code} {answer.headers} {DataRequestProto.FromString(answer.content)}"


def over_graphql(gateway: Gateway, target: str) -> str:
    query = f'{{ docs(data: [{{text: "mine"}}], targetExecutor: "{target}", execEndpoint: "/") {{ id }} }}'
    return shown(requests.post(url(gateway, "/graphql"), json={"query": query}, timeout=20))


def over_a_route_of_ones_own(gateway: Gateway, target: str) -> str:
    return shown(requests.get(url(gateway, f"/told/{target}"), timeout=20))


def message(target: str) -> bytes:
    request = DataRequestProto()
    request.header.request_id = "mine"
    request.header.exec_endpoint = "/"
    request.header.target_executor = target
    request.data.docs.docs.add(text="mine")
    return request.SerializeToString()


def _grpc(gateway: Gateway, ask: Callable[[grpc.Channel], list[bytes]]) -> str:
    with grpc.insecure_channel(f"127.0.0.1:{gateway.ports['grpc']}") as channel:
        try:
            return " ".join(str(DataRequestProto.FromString(answer)) for answer in ask(channel))
        except grpc.RpcError as error:
            rest: Any = error
            return f"{rest.code()} {rest.details()} {rest.initial_metadata()} {rest.trailing_metadata()}"


def over_grpc_unary(gateway: Gateway, target: str) -> str:
    return _grpc(gateway, lambda channel: [channel.unary_unary(methods.SINGLE)(message(target), timeout=20)])


def over_grpc_stream(gateway: Gateway, target: str) -> str:
    call = methods.STREAM
    return _grpc(
        gateway, lambda channel: list(channel.stream_stream(call)(iter([message(target)]), timeout=20))
    )


def _websocket(gateway: Gateway, path: str, subprotocol: str, *sent: str | bytes) -> str:
    address = f"ws://127.0.0.1:{gateway.ports['websocket']}{path}"
    received: list[Any] = []
    with websockets.sync.client.connect(address, subprotocols=[subprotocol], proxy=None) as session:
        for each in sent:
            session.send(each)
        try:
            received.append(session.recv(timeout=20))
            received.append(session.recv(timeout=1 if sent else 20))
        except ConnectionClosed as end:
            received.append(end.rcvd)
        except TimeoutError:
            pass
    read: Any = StatusProto if path == "/dry_run" else DataRequestProto
    return " ".join(str(read.FromString(each) if isinstance(each, bytes) else each) for each in received)


def over_websocket_json(gateway: Gateway, target: str) -> str:
    frame = json.dumps({"data": [DOCUMENT], "targetExecutor": target, "execEndpoint": "/"})
    return _websocket(gateway, "/", "json", frame)


def over_websocket_bytes(gateway: Gateway, target: str) -> str:
    return _websocket(gateway, "/", "bytes", message(target))


WAYS = {
    "http json": over_http_json,
    "http protobuf": over_http_protobuf,
    "graphql": over_graphql,
    "grpc unary": over_grpc_unary,
    "grpc stream": over_grpc_stream,
    "websocket json": over_websocket_json,
    "websocket bytes": over_websocket_bytes,
    "a route of one's own": over_a_route_of_ones_own,
}
INNER = (
    "Traceback",
    "failing_executors",
    "CanaryError",
    "KeyError",
    "canary-",
    "/srv/",
    "127.0.0.1",
    "10.1.2.3",
)


def inner_words(text: str, *, but: str = "") -> list[str]:
    """What of the inside is in ``text``; the names in routes, and those that the client sent, may be."""
    found = [word for word in INNER if word in text]
    routes = re.sub(r'"?executor"?: ?"[a-z_]+"', "", text)
    return found + [name for name in TARGETS if name in routes and name != but]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("target", TARGETS)
def test_a_failure_is_told_by_its_request_id_alone(closed: Gateway, target: str, way: str) -> None:
    for attempts_left in reversed(range(5)):
        answer = WAYS[way](closed, target)
        assert inner_words(answer, but=target) == []
        (request_id,) = set(re.findall(r"the log has it as request ([\w.-]+)", answer))
        log = r"canary-argument" if target == RAISES else rf"Gateway: .*deployment {target}"
        try:
            closed.line(rf"request {re.escape(request_id)} failed.*{log}", timeout_s=3)
            break
        except AssertionError:  # the lines of one second are bounded
            assert attempts_left


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("target", TARGETS)
def test_by_default_it_is_told_in_full(open_one: Gateway, target: str, way: str) -> None:
    told = {RAISES: "canary-argument", "aborts_canary": "canary-details"}

    assert told.get(target, "127.0.0.1") in WAYS[way](open_one, target)


@pytest.mark.parametrize("way", WAYS)
def test_the_codes_are_the_same(closed: Gateway, open_one: Gateway, way: str) -> None:
    for target in TARGETS:
        codes = [
            re.findall(r"StatusCode\.\w+|^\d{3}|code=\d{4}|code: \w+", WAYS[way](gateway, target))
            for gateway in (closed, open_one)
        ]
        assert codes[0] == codes[1]


def test_the_log_has_the_traceback(closed: Gateway) -> None:
    over_http_json(closed, RAISES)

    closed.line(r"^\t    .*canary_method")
    closed.line(r"^\t    KeyError: 'canary-cause'")


def test_dry_runs_say_that_something_is_wrong(closed: Gateway) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{closed.ports['grpc']}") as channel:
        unary = StatusProto.FromString(channel.unary_unary(methods.DRY_RUN)(b"", timeout=20))
    answers = [
        str(unary),
        requests.get(url(closed, "/dry_run"), timeout=20).text,
        _websocket(closed, "/dry_run", "json"),
        _websocket(closed, "/dry_run", "bytes"),
    ]

    assert unary.code == StatusProto.ERROR
    for answer in answers:
        assert inner_words(answer) == []
        assert "the log has it as request" in answer


def test_an_exception_that_a_route_lets_through_is_not_shown(closed: Gateway) -> None:
    answer = requests.get(url(closed, f"/untold/{RAISES}"), timeout=20)

    assert answer.status_code == 500
    assert inner_words(shown(answer), but=RAISES) == []


def test_there_are_no_hints(closed: Gateway, open_one: Gateway) -> None:
    def asked(gateway: Gateway) -> str:
        body = {"data": [DOCUMENT], "targetExecutor": "nothing"}
        query = '{ docs(targetExecutor: "nothing") { id } }'
        return " ".join(
            map(
                shown,
                (
                    requests.post(url(gateway, "/post"), json=body, timeout=20),
                    requests.post(url(gateway, "/graphql"), json={"query": query}, timeout=20),
                    requests.post(url(gateway, "/nowhere"), json={}, timeout=20),
                ),
            )
        )

    assert inner_words(asked(closed)) == []
    assert "hint" not in asked(closed).lower()
    assert RAISES in asked(open_one)


def test_a_clients_own_mistake_is_still_explained(closed: Gateway) -> None:
    answers = [
        requests.post(
            url(closed, "/post"), data=b"{", headers={"Content-Type": "application/json"}, timeout=20
        ),
        requests.post(url(closed, "/post"), json={"data": [DOCUMENT], "targetExecutor": "("}, timeout=20),
        requests.post(url(closed, "/post"), json={"data": 1}, timeout=20),
    ]

    assert [answer.status_code for answer in answers] == [422] * 3
    assert "double quotes" in answers[0].text
    assert "targetExecutor" in answers[1].text
    assert '"loc":["body","data"]' in answers[2].text.replace(" ", "")


def test_a_long_id_of_a_client_is_not_repeated_in_whole(closed: Gateway) -> None:
    body = {"data": [DOCUMENT], "targetExecutor": RAISES, "header": {"requestId": "i" * 4000}}
    answer = requests.post(url(closed, "/post"), json={**body, "requestId": "i" * 4000}, timeout=20)

    assert "the log has it as request i" in answer.text
    # The header has it whole, once.
    assert answer.text.count("i" * 1000) <= 4


def test_status_shows_nothing_of_the_executors(closed: Gateway) -> None:
    answer = requests.get(url(closed, "/status"), timeout=20)

    assert inner_words(answer.text) == []
