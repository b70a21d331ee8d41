"""Our client with docarray 0.40 and later against the real Jina 3.34: what its own client got, ours gets."""

import asyncio

import numpy as np
import pytest
from docarray import BaseDoc, DocList
from docarray.base_doc import AnyDoc

from gatewayd import Client
from gatewayd.client.errors import (
    BadClientInput,
    BadServer,
    NoSuchEndpoint,
    RequestRefused,
    WrongReturnType,
)
from tests.docarray2.golden import EXECUTORS
from tests.docarray2.jina import PROTOCOLS, Jina
from tests.waiting import until

pytestmark = [pytest.mark.interop, pytest.mark.slow]

In, Out, Rich, Nested, Params = (
    getattr(EXECUTORS, name) for name in ("In", "Out", "Rich", "Nested", "Params")
)


@pytest.fixture(scope="module")
def jina():
    one = Jina()
    yield one
    one.stop()


@pytest.fixture(scope="module")
def ports(jina):
    ports = jina.gateway("a", jina.executor("A"))
    with Client(port=ports["http"], protocol="http", host="127.0.0.1") as client:
        until(lambda: client.is_flow_ready(timeout=2), 60, "the real gateway gets ready")
    return ports


@pytest.fixture(params=PROTOCOLS)
def protocol(request):
    return request.param


@pytest.fixture
def client(ports, protocol):
    with Client(host="127.0.0.1", port=ports[protocol], protocol=protocol) as client:
        yield client


def test_it_is_ready_and_can_be_profiled(client, protocol):
    assert client.is_flow_ready()
    if protocol != "http":  # whose answers have no routes
        assert {"Roundtrip", "Server"} <= set(client.profiling(show_table=False))


def test_a_list_comes_back_as_the_list_that_was_asked_for(client):
    sent = DocList[In]([In(id="d0", text="a"), In(id="d1", text="b")])

    got = client.post("/echo", sent, return_type=DocList[In])

    assert got.doc_type is In
    assert [(one.id, one.text, one.num, one.note) for one in got] == [
        ("d0", "a!", 3, None),
        ("d1", "b!", 3, None),
    ]


def test_one_document_comes_back_as_one_where_its_class_was_asked_for(client):
    assert client.post("/echo", In(id="d", text="a"), return_type=In) == In(id="d", text="a!")
    assert [one.text for one in client.post("/echo", In(text="a"), return_type=DocList[In])] == ["a!"]
    several = client.post("/echo", [In(text="a"), In(text="b")], return_type=In)
    assert several.doc_type is In
    assert len(several) == 2


def test_without_a_return_type_the_fields_are_as_they_came(client):
    (got,) = client.post("/echo", In(id="d", text="a"))

    assert isinstance(got, AnyDoc)
    assert (got.id, got.text, got.num, got.price, got.flag, got.note) == ("d", "a!", 3, 0.5, False, None)


def test_a_generator_is_cut_into_requests(client):
    inputs = (In(id=f"d{number}", text=str(number)) for number in range(25))

    got = client.post("/echo", inputs, request_size=4, return_type=DocList[In], results_in_order=True)

    assert [one.text for one in got] == [f"{number}!" for number in range(25)]


def test_parameters_are_a_dict_or_a_model(client):
    (told,) = client.post("/len", In(text="a"), parameters={"k": 2}, return_type=DocList[Out])
    assert told.tags["params"] == "[('k', 2.0)]"

    assert client.post("/params", In(text="a"), parameters=Params(top=3), return_type=Out).text == (
        "Params(top=3, scale=1.0, label=None)"
    )


def test_parameters_that_are_missing_are_told(client, protocol):
    refused = RequestRefused if protocol == "http" else BadServer
    with pytest.raises(refused, match="Field required"):
        client.post("/params", In(text="a"), return_type=DocList[Out])


def test_a_document_that_does_not_fit_is_told(client, protocol):
    refused = RequestRefused if protocol == "http" else BadServer
    with pytest.raises(refused, match="Field required"):
        client.post("/echo", Nested(), return_type=DocList[In])


def test_an_executor_that_raises_is_raised(client):
    with pytest.raises(BadServer, match=r"ValueError\('boom', 1\)"):
        client.post("/raise", In(text="a"))


def test_callbacks_hear_what_is_theirs(client):
    heard = {"done": [], "error": [], "always": []}
    keywords = {f"on_{name}": heard[name].append for name in heard}

    assert (
        client.post("/echo", [In(text="a"), In(text="b")], request_size=1, return_type=In, **keywords) is None
    )
    client.post("/raise", In(text="a"), **keywords)

    assert {name: len(answers) for name, answers in heard.items()} == {"done": 2, "error": 1, "always": 3}
    assert sorted(one.text for answer in heard["done"] for one in answer.docs) == ["a!", "b!"]


def test_failures_are_passed_over_where_that_is_asked_for(client, caplog):
    got = client.post("/raise", In(text="a"), continue_on_error=True)

    assert "boom" in caplog.text
    assert len(got) <= 1


def test_results_come_back_in_the_parameters(client):
    (answer,) = client.post("/results", In(text="a"), return_responses=True)

    assert answer.parameters == {"__results__": {"a": {"k": 1.0, "v": ["a"]}}}


def test_an_endpoint_that_is_not_bound(client, protocol):
    if protocol == "http":
        with pytest.raises(NoSuchEndpoint, match=r"no such endpoint .*/post"):
            client.post("/nobody", In(text="a"))
    else:
        assert client.post("/nobody", In(id="d", text="a"), return_type=In) == In(id="d", text="a")


def test_a_request_without_documents(client):
    got = client.post("/echo", return_type=DocList[In])

    assert (got.doc_type, len(got)) == (In, 0)


def test_a_target_is_heard(client):
    assert client.post("/echo", In(text="a"), return_type=In, target_executor="other").text == "a"


def test_every_kind_of_field_travels(client, protocol):
    sent = Rich(
        title="t",
        i=-5,
        f=1.5,
        b=True,
        by=b"x" if protocol == "http" else b"\x00\xff",
        url="https://x.org/a.png",
        tensor=np.arange(6, dtype=np.float32).reshape(2, 3),
        emb=np.array([1.0, 2.0, 3.0]),
        anyt=np.array([1, 2]),
        child=Nested(txt="cc", n=2),
        kids=DocList[Nested]([Nested(txt="k"), Nested()]),
        names=["a", "b"],
        d={"y": [1, {"z": None}], "t": True, "w": 2.5},
        ds={"q": 3},
    )

    got = client.post("/rich", sent, return_type=Rich)

    assert (got.title, got.i, got.f, got.b, got.by, str(got.url)) == ("t!", -5, 1.5, True, sent.by, sent.url)
    assert got.tensor.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert (got.emb.tolist(), got.anyt.tolist()) == ([1, 2, 3], [1, 2])
    assert (got.child, [kid.txt for kid in got.kids], got.names) == (sent.child, ["k", "n"], ["a", "b"])
    assert (got.d, got.ds) == (sent.d, sent.ds)


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"by": b"\x00\xff"}, "by holds bytes that are no text"),
        ({"f": float("nan")}, "f holds NaN"),
        ({"tensor": np.array([1, np.inf])}, "tensor holds NaN"),
        ({"d": {"x": [float("inf")]}}, r"d\.x\[0\] holds NaN"),
    ],
)
def test_what_its_json_cannot_say_is_refused_by_name(ports, fields, where):
    with (
        Client(host="127.0.0.1", port=ports["http"], protocol="http") as client,
        pytest.raises(BadClientInput, match=where),
    ):
        client.post("/rich", Rich(**fields))


def test_an_answer_of_another_class_is_told(client):
    class Other(BaseDoc):
        missing: str

    with pytest.raises(WrongReturnType, match="no Other"):
        client.post("/echo", In(text="a"), return_type=Other)


def test_an_asynchronous_client_yields_what_was_asked_for(ports, protocol):
    async def inputs():
        for text in "xyz":
            yield In(text=text)

    async def post():
        async with Client(host="127.0.0.1", port=ports[protocol], protocol=protocol, asyncio=True) as client:
            assert await client.is_flow_ready()
            answers = client.post("/echo", inputs(), request_size=1, results_in_order=True, return_type=In)
            return [one.text async for one in answers]

    assert asyncio.run(post()) == ["x!", "y!", "z!"]


def test_without_a_stream(ports):
    with Client(host="127.0.0.1", port=ports["grpc"]) as client:
        assert client.post("/echo", In(text="x"), stream=False, return_type=In).text == "x!"
