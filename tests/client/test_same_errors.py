"""The same failure raises the same class over every protocol, with both kinds of client."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import aiohttp
import pytest
from docarray import Document

from gatewayd.client.client import Client
from gatewayd.client.errors import (
    BadClient,
    BadClientCallback,
    BadClientInput,
    BadServer,
    BadServerFlow,
    NoSuchEndpoint,
    QueryRefused,
    RequestRefused,
    TimedOut,
    Unreachable,
)
from tests.client.conftest import REC, Waiting
from tests.client.test_failures import http_server
from tests.processes import Gateway, external, free_ports

pytestmark = pytest.mark.slow

MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def narrow() -> Iterator[Gateway]:
    """A gateway that takes little, holds less and waits for nothing long; one executor is not there."""
    (port,) = free_ports(1)
    gateway = Gateway(
        {
            "gateway": {
                "max_message_bytes": 4 * MEGABYTE,
                "max_buffered_bytes": 4 * MEGABYTE,
                "timeout_send": 400,
            },
            "executors": [{**REC, "when": {"tags__lost": {"$exists": False}}}, external("lost", port)],
        }
    )
    yield gateway
    assert gateway.stop() == 0, gateway.output


def raising(*_: Any) -> None:
    raise KeyError("mine")


def failing_input() -> Iterator[Document]:
    yield Document()
    raise ZeroDivisionError


FAULTS: dict[str, tuple[dict[str, Any], type[Exception]]] = {
    "a target that is no regular expression": ({"target_executor": "(x"}, RequestRefused),
    "another one": ({"target_executor": "[z-a]"}, RequestRefused),
    "an endpoint that gRPC cannot carry": ({"on": "/\u00e9"}, RequestRefused),
    "an endpoint that is too long": ({"on": "/" + "x" * 5000}, RequestRefused),
    "parameters that are no dict": ({"parameters": 3}, BadClientInput),
    "parameters without a JSON form": ({"parameters": {"a": object()}}, BadClient),
    "parameters whose keys are no texts": ({"parameters": {1: 2}}, BadClient),
    "inputs of no documents": ({"inputs": [object()]}, BadClientInput),
    "a failing input": ({"inputs": failing_input, "request_size": 1}, ZeroDivisionError),
    "a failing callback": ({"on_always": raising}, BadClientCallback),
    "a failing executor": ({"on": "/raise"}, BadServer),
    "the client's deadline": ({"on": "/asleep", "parameters": {"t": 3}, "timeout": 0.2}, TimedOut),
    "a keyword out of range": ({"max_attempts": 0}, ValueError),
    "an unknown compression": ({"compression": "brotli"}, ValueError),
}


def caught(post: Callable[..., Any], **keywords: Any) -> BaseException:
    with pytest.raises(Exception) as info:
        post(**{"on": "/tag", "inputs": "x", **keywords})
    return info.value


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_raises_its_class(either, fault):
    keywords, kind = FAULTS[fault]

    error = caught(either.post, **keywords)

    assert isinstance(error, kind), repr(error)


@pytest.fixture(params=[Client, Waiting])
def asking(request: pytest.FixtureRequest, narrow: Gateway, protocol: str) -> Iterator[Any]:
    with request.param(host="127.0.0.1", port=narrow.ports[protocol], protocol=protocol) as client:
        yield client


@pytest.mark.parametrize("size", [5 * MEGABYTE, 40 * MEGABYTE])
def test_a_message_that_is_too_large_is_refused(asking, size):
    error = caught(asking.post, inputs=Document(blob=b"x" * size), target_executor="exec_a")

    assert isinstance(error, RequestRefused), repr(error)
    assert "larger than" in str(error) or "exceeds payload limit" in str(error)


def test_the_gateways_deadline_is_a_timeout(asking):
    error = caught(asking.post, on="/asleep", parameters={"t": 3}, target_executor="exec_a")

    assert isinstance(error, TimedOut), repr(error)


def test_an_executor_that_is_down_is_unreachable(asking):
    error = caught(asking.post, target_executor="lost")

    assert isinstance(error, Unreachable), repr(error)


@pytest.mark.parametrize("kind", [Client, Waiting])
def test_where_nobody_listens_is_a_connection_error_of_ours_and_of_aiohttp(protocol, kind):
    (port,) = free_ports(1)

    error = caught(kind(host="127.0.0.1", port=port, protocol=protocol).post)

    assert isinstance(error, Unreachable)
    assert isinstance(error, ConnectionError)
    assert f"nobody listens on 127.0.0.1:{port}" in str(error)
    if protocol != "grpc":
        assert isinstance(error, aiohttp.ClientConnectorError)
        assert (error.host, error.port) == ("127.0.0.1", port)
        assert error.os_error.errno == error.errno


@pytest.mark.parametrize("kind", [Client, Waiting])
def test_a_path_that_is_not_there_is_a_connection_error_too(kind):
    with http_server(lambda *_: (404, b"")) as port:
        client = kind(host="127.0.0.1", port=port, protocol="http")
        for call in (lambda: client.mutate("{ docs { id } }"), lambda: client.post("/", "x")):
            with pytest.raises(NoSuchEndpoint, match="no such endpoint") as info:
                call()
            assert isinstance(info.value, BadClient)
            assert isinstance(info.value, ConnectionError)


@pytest.mark.parametrize("kind", [Client, Waiting])
@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"detail": "Not Found", "hint": "executors bind /classify"}', ": executors bind /classify"),
        (b'{"detail": "Not Found"}', ""),
        (b'["hint"]', ""),
        (b"hint", ""),
    ],
)
def test_a_path_that_is_not_there_comes_with_the_gateways_hint(kind, body, said):
    with http_server(lambda *_: (404, body)) as port:
        client = kind(host="127.0.0.1", port=port, protocol="http")
        with pytest.raises(NoSuchEndpoint, match="no such endpoint") as info:
            client.post("/classify", "x")
    assert re.search(f"/post{re.escape(said)}$", str(info.value))


def test_a_query_that_is_refused_is_a_connection_error_too(gateway):
    client = Client(host="127.0.0.1", port=gateway.ports["http"], protocol="http")
    with http_server(lambda *_: (400, b"no query")) as port:
        client = Client(host="127.0.0.1", port=port, protocol="http")
        with pytest.raises(QueryRefused, match="no query") as info:
            client.mutate("")
    assert isinstance(info.value, ConnectionError)


def test_excepts_has_the_names_that_code_for_the_reference_catches():
    import gatewayd.excepts as excepts
    from gatewayd.excepts import BadServerFlow as Named

    assert Named is BadServerFlow
    assert [name for name in excepts.__all__ if not issubclass(getattr(excepts, name), BaseException)] == []
    assert issubclass(excepts.RuntimeFailToStart, SystemError)
    assert issubclass(excepts.RuntimeFailToStart, RuntimeError)
    with pytest.raises(ImportError):
        from gatewayd.excepts import Nonsense  # noqa: F401


@pytest.mark.parametrize(
    "name",
    [
        *("BadClient", "BadClientCallback", "BadClientInput", "BadServer", "BadServerFlow", "ExecutorError"),
        *("FlowBuildLevelError", "FlowTopologyError", "PortAlreadyUsed", "RuntimeFailToStart"),
    ],
)
def test_the_base_of_the_references_errors_is_one_of_each_of_ours(name):
    from gatewayd import excepts

    kind = getattr(excepts, name)

    assert issubclass(kind, excepts.BaseJinaException)
    assert issubclass(kind, Exception)
    assert not issubclass(excepts.NetworkError, excepts.BaseJinaException)


def test_what_the_references_flow_level_check_refuses_is_refused_by_that_name():
    from gatewayd import Flow
    from gatewayd.excepts import BaseJinaException, FlowBuildLevelError

    for call in (Flow().block, lambda: Flow().post("/"), lambda: Flow().client):
        with pytest.raises(FlowBuildLevelError, match="does not run"):
            call()
    with Flow() as flow:
        for call in (flow.start, lambda: flow.expose_endpoint("/a"), lambda: setattr(flow, "port", 5)):
            with pytest.raises(BaseJinaException, match="runs"):
                call()


def test_a_missing_class_is_what_the_reference_says_of_it():
    from gatewayd import Flow
    from gatewayd.excepts import RuntimeFailToStart

    with pytest.raises((RuntimeFailToStart, ValueError)) as info, Flow().add(uses="Nope"):
        pass
    assert isinstance(info.value, RuntimeFailToStart)


def test_a_gateway_without_room_is_unreachable_for_now(asking):
    two = [Document(blob=b"x" * 3 * MEGABYTE) for _ in range(2)]

    error = caught(
        asking.post,
        on="/asleep",
        inputs=two,
        request_size=1,
        parameters={"t": 0.3},
        target_executor="exec_a",
    )

    assert isinstance(error, Unreachable), repr(error)
