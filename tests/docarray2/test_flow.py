"""Flows with docarray 0.40 and later in Python: our executors behind our gateway, called by our Client."""

import asyncio

import pytest
from docarray import DocList

from gatewayd import Client, Flow
from gatewayd.client.errors import BadServer, BadServerFlow
from tests.docarray2.golden import EXECUTORS, SOURCE

pytestmark = pytest.mark.slow

In, Out, Rich = EXECUTORS.In, EXECUTORS.Out, EXECUTORS.Rich
PROTOCOLS = ("grpc", "http", "websocket")


@pytest.fixture(scope="module")
def flow(tmp_path_factory):
    source = tmp_path_factory.mktemp("flow") / "golden_executors.py"
    source.write_text(SOURCE.read_text().replace("from jina import", "from gatewayd import"))
    described = Flow(protocol=list(PROTOCOLS), env={"PYTHONWARNINGS": "ignore"})
    with described.add(name="s", uses="S", py_modules=str(source)).add(
        name="a", uses="A", py_modules=str(source)
    ) as flow:
        yield flow


@pytest.fixture(params=PROTOCOLS)
def client(request, flow):
    port = flow.port[PROTOCOLS.index(request.param)]
    with Client(host="127.0.0.1", port=port, protocol=request.param) as client:
        yield client


def test_documents_come_back_as_what_was_asked_for(client):
    got = client.post("/echo", [In(text="a"), In(text="b")], return_type=DocList[In], request_size=1)

    assert sorted(one.text for one in got) == ["a!", "b!"]
    assert client.post("/echo", In(text="a"), return_type=In).text == "a!"
    assert client.is_flow_ready()


def test_every_kind_of_field_travels_over_every_protocol(client):
    sent = Rich(title="t", by=b"\x00\xff", d={"y": [1, {"z": None}]}, f=float("inf"))

    got = client.post("/rich", sent, return_type=Rich)

    assert (got.title, got.by, got.d, got.f) == ("t!", sent.by, sent.d, sent.f)


def test_an_executor_that_raises_is_raised(client):
    with pytest.raises(BadServer, match="boom"):
        client.post("/raise", In(text="a"))


def test_it_streams_over_every_protocol(client):
    got = list(client.stream_doc("/stream", In(text="hi"), parameters={"k": 1}, return_type=Out))

    assert [one.text for one in got] == ["hi 0", "hi 1", "hi 2"]
    assert got[0].tags["params"] == "[('k', 1.0)]"


def test_an_error_in_the_middle_is_raised_after_what_came(client):
    texts = []
    # A close frame of WebSocket has no room for more than the deployment.
    said = "deployment" if client.protocol == "websocket" else "mid boom"
    with pytest.raises(BadServerFlow, match=said):
        for one in client.stream_doc("/midraise", In(text="x"), return_type=Out):
            texts.append(one.text)

    assert texts == ["first", "second"]


def test_a_flow_streams(flow):
    assert [one.text for one in flow.stream_doc("/stream", In(text="x", num=1), return_type=Out)] == ["x 0"]


def test_an_asynchronous_client_streams(flow):
    async def collect(protocol):
        port = flow.port[PROTOCOLS.index(protocol)]
        async with Client(host="127.0.0.1", port=port, protocol=protocol, asyncio=True) as client:
            document = In(text="y", num=2)
            return [one.text async for one in client.stream_doc("/stream", document, return_type=Out)]

    assert [asyncio.run(collect(protocol)) for protocol in PROTOCOLS] == [["y 0", "y 1"]] * 3
