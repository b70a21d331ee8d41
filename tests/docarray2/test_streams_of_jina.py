"""``stream_doc`` of our Client against the real Jina 3.34, whose gateway streams from its executor S."""

import asyncio

import pytest
from docarray.base_doc import AnyDoc

from gatewayd import Client
from gatewayd.client.errors import BadClientInput, BadServer, RequestRefused, TimedOut, Unreachable
from tests.docarray2.golden import EXECUTORS
from tests.docarray2.jina import Jina
from tests.waiting import until

pytestmark = [pytest.mark.interop, pytest.mark.slow]

In, Out, Rich = EXECUTORS.In, EXECUTORS.Out, EXECUTORS.Rich


@pytest.fixture(scope="module")
def ports():
    jina = Jina()
    ports = jina.gateway("s", jina.executor("S"))
    with Client(port=ports["http"], protocol="http", host="127.0.0.1") as client:
        until(lambda: client.is_flow_ready(timeout=2), 60, "the real gateway gets ready")
    yield ports
    jina.stop()


@pytest.fixture(params=["grpc", "http"])
def protocol(request):
    return request.param


@pytest.fixture(params=["waits", "asyncio"])
def stream(request, ports, protocol):
    """All that a stream yields, as a list, of both kinds of client."""
    where = {"host": "127.0.0.1", "port": ports[protocol], "protocol": protocol}

    def wait(*arguments, **keywords):
        with Client(**where) as client:
            return list(client.stream_doc(*arguments, **keywords))

    def run(*arguments, **keywords):
        async def collect():
            async with Client(asyncio=True, **where) as client:
                return [one async for one in client.stream_doc(*arguments, **keywords)]

        return asyncio.run(collect())

    return wait if request.param == "waits" else run


def test_the_documents_of_a_generator(stream):
    got = stream("/stream", In(text="hi"), return_type=Out)

    assert [(one.id, one.text, one.length) for one in got] == [
        ("s0", "hi 0", 0),
        ("s1", "hi 1", 1),
        ("s2", "hi 2", 2),
    ]
    assert {type(one) for one in got} == {Out}


def test_without_a_return_type(stream):
    got = stream("/stream", In(text="hi", num=2))

    assert [(type(one), one.text) for one in got] == [(AnyDoc, "hi 0"), (AnyDoc, "hi 1")]


def test_texts_that_break_the_parser_of_jinas_client(stream):
    (got,) = stream("/unicode", In(text="x"), return_type=Out)

    assert got.text == 'line1\nline2\r\nevent: update é漢 "q"'


def test_an_event_in_many_reads(stream):
    assert [len(one.text) for one in stream("/big", In(text="x"), return_type=Out)] == [300_000, 10]


def test_an_empty_stream(stream):
    assert stream("/empty", In(text="x"), return_type=Out) == []


def test_a_batch_endpoint_does_not_stream(stream, protocol):
    with pytest.raises(RequestRefused if protocol == "http" else BadServer, match=r"405|must be generator"):
        stream("/plain", In(text="x"))


def test_parameters_are_sent_or_refused(stream, protocol):
    if protocol == "http":  # whose GET has no place for them
        with pytest.raises(BadClientInput, match="stream over grpc"):
            stream("/stream", In(text="x"), parameters={"k": 1})
    else:
        assert len(stream("/stream", In(text="x"), parameters={"k": 1})) == 3


def test_a_timeout(stream):
    with pytest.raises(TimedOut):
        stream("/slow", In(text="x", num=3, price=5.0), timeout=0.5)


def test_a_document_that_is_no_answer_ends_the_stream(stream, protocol):
    with pytest.raises(BadServer if protocol == "grpc" else Unreachable):
        stream("/wrongtype", In(text="x"), return_type=Out)


def test_leaving_early_ends_it(ports, protocol):
    with Client(host="127.0.0.1", port=ports[protocol], protocol=protocol) as client:
        stream = client.stream_doc("/slow", In(text="x", num=1000, price=0.01), return_type=Out)
        assert [next(stream).length, next(stream).length] == [0, 1]
        stream.close()

        assert [one.text for one in client.stream_doc("/stream", In(text="y", num=1), return_type=Out)] == [
            "y 0"
        ]


def test_its_websocket_does_not_stream(ports):
    with (
        Client(host="127.0.0.1", port=ports["websocket"], protocol="websocket") as client,
        pytest.raises(BadServer, match="positional argument"),
    ):
        list(client.stream_doc("/stream", In(text="x"), return_type=Out))
