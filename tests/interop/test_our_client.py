"""Our client against the real Jina gateway, in front of real executors: it can't tell the difference."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from docarray import Document, DocumentArray

from gatewayd.client.client import Client
from gatewayd.client.errors import BadClient, BadServer, TimedOut, Unreachable
from tests.interop.conftest import Theirs
from tests.processes import PROTOCOLS, free_ports

pytestmark = pytest.mark.interop

ONE = {"start-gateway": ["exec_a"], "exec_a": ["end-gateway"]}
CHAIN = {"start-gateway": ["exec_a"], "exec_a": ["exec_b"], "exec_b": ["end-gateway"]}


def wait_until_ready(ports: dict[str, int]) -> dict[str, int]:
    client = Client(host="127.0.0.1", port=ports["http"], protocol="http")
    deadline = time.monotonic() + 60
    while not client.is_flow_ready(timeout=2):
        assert time.monotonic() < deadline, "the real gateway does not get ready"
    client.close()
    return ports


@pytest.fixture(scope="module")
def ports(their_gateway: Callable[..., dict[str, int]], theirs: Theirs) -> dict[str, int]:
    addresses = {name: f"127.0.0.1:{theirs.ports[name]}" for name in ("exec_a", "exec_b")}
    return wait_until_ready(their_gateway(CHAIN, addresses))


@pytest.fixture(scope="module")
def broken_ports(their_gateway: Callable[..., dict[str, int]]) -> dict[str, int]:
    """A real gateway whose executor isn't there."""
    (port,) = free_ports(1)
    ports = their_gateway(ONE, {"exec_a": f"127.0.0.1:{port}"})
    deadline = time.monotonic() + 60
    for name in PROTOCOLS:
        client = Client(host="127.0.0.1", port=ports[name], protocol=name)
        while True:
            try:
                client.post("/tag", "x", timeout=20)
            except Unreachable as error:
                if "exec_a" in str(error) or "connecting to deployment" in str(error):
                    break
            assert time.monotonic() < deadline, "the real gateway does not listen"
            time.sleep(0.1)
    return ports


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def client(ports: dict[str, int], protocol: str) -> Iterator[Any]:
    with Client(host="127.0.0.1", port=ports[protocol], protocol=protocol) as client:
        yield client


def test_documents_are_posted_in_requests_and_come_back_in_order(client):
    inputs = (Document(id=f"{number:03}", text="x") for number in range(250))

    docs = client.post("/tag", inputs, request_size=20, results_in_order=True)

    assert docs[:, "id"] == [f"{number:03}" for number in range(250)]
    assert set(docs.texts) == {"xAB"}


def test_a_post_without_documents_is_answered(client):
    (answer,) = client.post("/tag", return_responses=True)

    assert len(answer.docs) == 0
    assert [route.executor for route in answer.routes] == ["gateway", "exec_a", "exec_b"]


def test_a_document_comes_back_as_it_was_sent(client):
    sent = Document(
        id="d",
        text="x",
        tags={"i": 2, "n": None, "l": [2, "a"]},
        weight=0.5,
        embedding=np.arange(4.0),
        chunks=[Document(id="c", blob=b"\x00\xff")],
    )

    (got,) = client.post("/nobody", DocumentArray([sent]))

    assert (got.id, got.text, got.tags, got.weight) == ("d", "x", sent.tags, 0.5)
    assert list(got.embedding) == [0, 1, 2, 3]
    assert (got.chunks[0].blob, got.chunks[0].parent_id) == (b"\x00\xff", "d")


def test_parameters_and_results_travel(client):
    (answer,) = client.post("/results", "x", parameters={"k": [1, None]}, return_responses=True)

    assert answer.parameters["k"] == [1.0, None]
    results = answer.parameters["__results__"]
    assert [found["who"] for name, found in sorted(results.items())] == ["A", "B"]


def test_a_target_picks_its_executor(client):
    assert client.post("/tag", "x", target_executor="exec_b").texts == ["xB"]


def test_a_failed_executor_is_raised_with_its_traceback(client):
    with pytest.raises(BadServer, match="boom") as caught:
        client.post("/raise", "x")

    assert caught.value.executor == "Rec"
    assert 'raise ValueError("boom", 1)' in str(caught.value)


def test_callbacks_hear_what_is_theirs(client):
    heard: dict[str, list[Any]] = {"done": [], "error": [], "always": []}
    keywords = {f"on_{name}": heard[name].append for name in heard}

    client.post("/tag", ["x", "y"], request_size=1, **keywords)
    client.post("/raise", "x", **keywords)

    assert {name: len(answers) for name, answers in heard.items()} == {"done": 2, "error": 1, "always": 3}


def test_an_asynchronous_client_posts_too(ports, protocol):
    async def inputs():
        for text in "xyz":
            yield text

    async def post():
        async with Client(host="127.0.0.1", port=ports[protocol], protocol=protocol, asyncio=True) as client:
            answers = client.post("/tag", inputs(), request_size=1, results_in_order=True)
            return await client.is_flow_ready(), [docs.texts[0] async for docs in answers]

    assert asyncio.run(post()) == (True, ["xAB", "yAB", "zAB"])


def test_a_running_flow_is_ready_and_can_be_profiled(client):
    assert client.is_flow_ready()
    assert {"Roundtrip", "Server"} <= set(client.profiling(show_table=False))


def test_without_a_stream_and_with_compression(ports):
    with Client(host="127.0.0.1", port=ports["grpc"]) as client:
        assert client.post("/tag", "x", stream=False, compression="Gzip").texts == ["xAB"]


def test_the_clients_timeout_is_a_timeout_error(client):
    with pytest.raises(TimedOut):
        client.post("/sleep", "x", parameters={"t": 1.5}, timeout=0.3)


def test_an_executor_that_is_down_is_a_connection_error(broken_ports, protocol):
    client = Client(host="127.0.0.1", port=broken_ports[protocol], protocol=protocol)

    with pytest.raises(Unreachable, match=r"exec_a|connecting to deployment"):
        client.post("/tag", "x")
    assert not client.is_flow_ready()
    client.close()


def test_a_gateway_without_graphql_has_no_such_endpoint(ports):
    with (
        Client(host="127.0.0.1", port=ports["http"], protocol="http") as client,
        pytest.raises(BadClient, match="no such endpoint"),
    ):
        client.mutate("{ docs { id } }")
