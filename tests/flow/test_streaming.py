"""``stream_doc`` of Flows and Deployments that run, through a gateway."""

import asyncio
import time
from pathlib import Path

import pytest
from docarray import Document

from gatewayd import Client, Deployment, Executor, Flow, requests
from gatewayd.client.errors import BadClient, BadServerFlow, NoSuchEndpoint, RequestRefused
from gatewayd.flow.description import FlowBuildLevelError

pytestmark = pytest.mark.slow

PROTOCOLS = ("grpc", "http", "websocket")


class Words(Executor):
    @requests(on="/words")
    async def words(self, doc, parameters, **kwargs):
        for word in doc.text.split():
            yield Document(text=word * int(parameters.get("times", 1)))

    @requests(on="/fail")
    async def fail(self, doc, **kwargs):
        yield Document(text="first")
        raise ValueError("on purpose")

    @requests(on="/slow")
    def slow(self, doc, parameters, **kwargs):
        yield Document(text="0")
        while not Path(parameters["read"]).exists():
            time.sleep(0.01)
        yield Document(text="1")


class Shout(Executor):
    @requests(on="/words")
    def shout(self, docs, **kwargs):
        for doc in docs:
            doc.text += "!"


@pytest.fixture(scope="module")
def flow():
    described = Flow(protocol=list(PROTOCOLS)).add(name="words", uses=Words).add(name="shout", uses=Shout)
    with described as flow:
        yield flow


@pytest.fixture(params=PROTOCOLS)
def client(request, flow):
    port = flow.port[PROTOCOLS.index(request.param)]
    with Client(host="127.0.0.1", port=port, protocol=request.param) as client:
        yield client


def test_a_stream_is_not_taken_for_one_answer(client):
    for stream in (True, False):
        with pytest.raises((BadServerFlow, BadClient), match="stream"):
            client.post("/words", Document(text="a b c"), stream=stream)


def test_documents_flow_through_what_follows(client):
    got = client.stream_doc("/words", Document(text="a b c"), parameters={"times": 2})

    assert [one.text for one in got] == ["aa!", "bb!", "cc!"]


def test_they_come_as_they_are_made(client, tmp_path):
    read = tmp_path / "read"
    documents = client.stream_doc("/slow", "x", parameters={"read": str(read)})

    assert next(documents).text == "0"
    read.touch()  # before which there is no second one
    assert [one.text for one in documents] == ["1"]


def test_an_error_is_raised_after_what_came(client):
    texts = []
    # A close frame of WebSocket has no room for more than the deployment.
    said = "words" if client.protocol == "websocket" else "on purpose"
    with pytest.raises(BadServerFlow, match=said):
        for one in client.stream_doc("/fail", "x"):
            texts.append(one.text)

    assert texts == ["first"]


def test_leaving_early_leaves_the_client_as_it_was(client):
    documents = client.stream_doc("/slow", "x")
    assert next(documents).text == "0"
    documents.close()

    assert client.post("/nobody", "x").texts == ["x"]


def test_an_endpoint_that_nobody_binds(client):
    text = r"no such endpoint|with a stream|nothing to stream"
    with pytest.raises((NoSuchEndpoint, BadServerFlow, RequestRefused), match=text):
        list(client.stream_doc("/nobody", "x"))


def test_a_flow_itself_streams(flow):
    assert [one.text for one in flow.stream_doc("/words", "a b")] == ["a!", "b!"]


def test_an_asynchronous_client_is_iterated(flow):
    async def collect(protocol):
        port = flow.port[PROTOCOLS.index(protocol)]
        async with Client(host="127.0.0.1", port=port, protocol=protocol, asyncio=True) as client:
            return [one.text async for one in client.stream_doc("/words", "a b")]

    assert [asyncio.run(collect(protocol)) for protocol in PROTOCOLS] == [["a!", "b!"]] * 3


def test_an_asynchronous_deployment_is_iterated():
    async def collect():
        with Deployment(uses=Words, asyncio=True) as deployment:
            return [one.text async for one in deployment.stream_doc("/words", "a b")]

    assert asyncio.run(collect()) == ["a", "b"]


def test_one_that_does_not_run_says_so():
    with pytest.raises(FlowBuildLevelError, match="does not run"):
        Flow().stream_doc("/words", "x")
