"""What a post sends and returns: one table of cases, both kinds of client, every protocol."""

from __future__ import annotations

import asyncio
import json
import logging

import numpy as np
import pytest
from docarray import Document, DocumentArray
from docarray.score import NamedScore

from gatewayd.client.client import Client
from gatewayd.client.errors import BadClient, BadClientCallback, BadServer
from tests.client.conftest import Waiting

pytestmark = pytest.mark.slow

# inputs, and the texts of what comes back from /tag.
INPUTS = {
    "nothing at all": (None, []),
    "one Document": (Document(text="x"), ["xA"]),
    "a DocumentArray": (DocumentArray([Document(text="x"), Document(text="y")]), ["xA", "yA"]),
    "a list of Documents": ([Document(text="x")], ["xA"]),
    "a generator": (lambda: (Document(text=text) for text in "xy"), ["xA", "yA"]),
    "a function": (lambda: [Document(text="x")], ["xA"]),
    "a dict": ({"text": "x", "tags": {"n": 1}}, ["xA"]),
    "dicts": ([{"text": "x"}, {"text": "y"}], ["xA", "yA"]),
    "a tuple of Documents": ((Document(text="x"), Document(text="y")), ["xA", "yA"]),
    "a tuple of texts": (("x", "y"), ["xA", "yA"]),
    "a text": ("x", ["xA"]),
    "texts": (["x", "y"], ["xA", "yA"]),
    "no documents in an iterable": ([], []),
}


@pytest.mark.parametrize("name", INPUTS)
def test_inputs_become_documents(either, name):
    inputs, texts = INPUTS[name]

    assert [doc.text for doc in either.post("/tag", inputs, results_in_order=True)] == texts


def test_a_dict_may_hold_documents_and_scores(either):
    fields = {
        "text": "x",
        "weight": None,
        "scores": {"cos": {"value": 0.5, "ref_id": None}},
        "chunks": [{"text": "c", "chunks": [{"text": "cc"}]}, Document(text="d")],
        "matches": ({"text": "m", "evaluations": {"e": {"value": 1.0, "op_name": "is"}}},),
    }

    (answer,) = either.post("/identity", fields, return_responses=True)
    (again,) = either.post("/identity", answer.to_dict()["data"])

    for one in (answer.docs[0], again):
        assert (one.text, one.scores["cos"].value) == ("x", 0.5)
        assert one.chunks.texts == ["c", "d"]
        assert one.chunks[0].chunks.texts == ["cc"]
        assert (one.matches[0].text, one.matches[0].evaluations["e"].op_name) == ("m", "is")


def test_a_response_can_be_written_as_json(either):
    (answer,) = either.post("/tag", Document(text="x", embedding=np.arange(2)), return_responses=True)

    whole = answer.to_dict()
    assert json.loads(answer.json()) == json.loads(answer.to_json()) == whole
    assert whole["header"]["request_id"] == answer.request_id
    assert [route["executor"] for route in whole["routes"]] == ["gateway", "exec_a"]
    assert (whole["data"][0]["text"], whole["data"][0]["embedding"]) == ("xA", [0, 1])


def test_bytes_and_arrays_become_contents(either):
    docs = either.post("/identity", [b"\x00\xff", np.arange(3), [1.5, 2.5]], results_in_order=True)

    assert docs[0].blob == b"\x00\xff"
    assert list(docs[1].tensor) == [0, 1, 2]
    assert list(docs[2].tensor) == [1.5, 2.5]


def test_the_rows_of_a_matrix_are_documents(either):
    docs = either.post("/identity", np.arange(6).reshape(3, 2))

    assert [list(tensor) for tensor in docs.tensors] == [[0, 1], [2, 3], [4, 5]]


def test_a_document_comes_back_as_it_was_sent(either):
    sent = Document(
        id="d",
        text="x",
        tags={"i": 1, "n": None, "l": [1, "a"], "d": {"b": True}},
        weight=0.5,
        embedding=np.arange(4.0),
        chunks=[Document(id="c", text="chunk")],
        matches=[Document(id="m", blob=b"\x01", scores={"cos": NamedScore(value=0.25)})],
    )

    (got,) = either.post("/identity", sent)

    assert (got.id, got.text, got.tags, got.weight) == ("d", "x", sent.tags, 0.5)
    assert list(got.embedding) == [0, 1, 2, 3]
    assert (got.chunks[0].text, got.chunks[0].parent_id) == ("chunk", "d")
    assert (got.matches[0].blob, got.matches[0].scores["cos"].value) == (b"\x01", 0.25)


@pytest.mark.parametrize(("size", "counts"), [(2, [2, 2, 1]), (100, [5]), (0, [5]), (-1, [5]), (1, [1] * 5)])
def test_a_request_holds_as_many_documents_as_asked_for(either, size, counts):
    answers = either.post(
        "/results", DocumentArray.empty(5), request_size=size, return_responses=True, results_in_order=True
    )

    assert [len(answer.docs) for answer in answers] == counts
    assert [answer.parameters["__results__"]["exec_a/rep-0"]["n"] for answer in answers] == counts


def test_a_response_has_everything_about_its_request(either):
    (answer,) = either.post("/params", "x", parameters={"k": [1, {"b": None}]}, return_responses=True)

    assert answer.docs[0].tags["params"] == {"k": [1.0, {"b": None}]}
    assert answer.data.docs is answer.docs
    assert answer.parameters["k"] == [1.0, {"b": None}]
    assert [route.executor for route in answer.routes] == ["gateway", "exec_a"]
    assert answer.routes[0].end_time.seconds >= answer.routes[0].start_time.seconds > 0
    assert (answer.header.exec_endpoint, answer.status.code, answer.failed) == ("/params", 0, False)
    assert len(answer.request_id) == 32


@pytest.mark.parametrize("call", ["index", "search", "update", "delete"])
def test_the_four_verbs_are_posts_to_their_endpoints(either, call):
    (answer,) = getattr(either, call)(Document(text="x"), return_responses=True)

    assert answer.header.exec_endpoint == f"/{call}"
    assert answer.docs.texts == ["xA"]


def test_a_target_that_no_executor_has_leaves_the_documents_alone(either):
    assert either.post("/tag", "x", target_executor="nobody").texts == ["x"]
    assert either.post("/tag", "x", target_executor="exec_a").texts == ["xA"]


def test_answers_come_in_the_order_of_the_input_if_asked_for(either):
    waits = [0.3, 0.2, 0.1, 0.0]
    inputs = [Document(id=str(i), tags={"t": t}) for i, t in enumerate(waits)]

    arrived = either.post("/asleep", inputs, request_size=1)
    ordered = either.post("/asleep", inputs, request_size=1, results_in_order=True)

    assert ordered[:, "id"] == ["0", "1", "2", "3"]
    assert arrived[:, "id"] == ["3", "2", "1", "0"]


def test_without_a_stream_every_request_is_a_call_of_its_own(gateway):
    with Client(host="127.0.0.1", port=gateway.ports["grpc"]) as client:
        docs = client.post("/tag", "xyz", stream=False, request_size=1)
        many = client.post("/tag", ["a", "b", "c"], stream=False, request_size=1, results_in_order=True)

    assert docs.texts == ["xyzA"]
    assert many.texts == ["aA", "bA", "cA"]


@pytest.mark.parametrize("compression", ["NoCompression", "Deflate", "gzip"])
def test_requests_can_be_compressed(gateway, compression):
    with Client(host="127.0.0.1", port=gateway.ports["grpc"]) as client:
        assert client.post("/tag", "x" * 10_000, compression=compression).texts == ["x" * 10_000 + "A"]


def test_an_unknown_compression_is_refused(client):
    with pytest.raises(ValueError, match="'brotli' is not one of NoCompression, Deflate, Gzip"):
        client.post("/tag", "x", compression="brotli")


def test_a_misspelt_keyword_is_passed_over(client):
    with pytest.warns(UserWarning, match=r"requestsize \(did you mean request_size"):
        assert client.post("/tag", "x", requestsize=3).texts == ["xA"]


# -- callbacks ---------------------------------------------------------------------------------------


def test_on_done_gets_successes_on_error_failures_and_on_always_all(either):
    heard = {"done": [], "error": [], "always": []}
    inputs = [{"text": "fine"}, {"text": "fine too"}]
    keywords = {f"on_{name}": heard[name].append for name in heard}

    assert either.post("/tag", inputs, request_size=1, **keywords) is None
    assert either.post("/raise", inputs, request_size=1, **keywords) is None

    assert {name: len(answers) for name, answers in heard.items()} == {"done": 2, "error": 2, "always": 4}
    assert {answer.status.exception.name for answer in heard["error"]} == {"ValueError"}


def test_on_error_alone_leaves_the_documents_to_be_returned(either):
    heard = []

    docs = either.post("/raise", "x", on_error=heard.append)

    assert len(docs) == len(heard) == 1


def test_a_failure_without_on_error_is_raised_with_the_executors_traceback(either):
    with pytest.raises(BadServer) as caught:
        either.post("/raise", "x")

    error = caught.value
    assert (error.executor, error.name, error.args_text) == ("Rec", "ValueError", ("boom", "1"))
    assert 'raise ValueError("boom", 1)' in str(error)
    assert error.header.status.code == 1
    assert error.args[0] is error.header
    assert any("executors.py" in line for line in error.stacks)


def test_a_failure_is_logged_when_going_on_is_asked_for(either, caplog):
    with caplog.at_level(logging.ERROR, "gatewayd.client"):
        docs = either.post("/raise", ["x", "y"], request_size=1, continue_on_error=True)

    assert len(docs) == 2
    assert "boom" in caplog.text


def test_an_exception_of_a_callback_is_raised_with_its_name(either):
    def judge(response):
        raise KeyError("no")

    with pytest.raises(BadClientCallback, match=r"exception in callback judge\(\): KeyError\('no'\)"):
        either.post("/tag", "x", on_done=judge)


def test_an_exception_of_a_callback_is_logged_when_going_on_is_asked_for(either, caplog):
    def judge(response):
        raise KeyError("no")

    with caplog.at_level(logging.ERROR, "gatewayd.client"):
        either.post("/tag", "x", on_always=judge, continue_on_error=True)

    assert "uncaught exception in callback judge()" in caplog.text


def test_an_asynchronous_client_awaits_its_callbacks(gateway, protocol):
    heard = []

    async def hear(response):
        await asyncio.sleep(0)
        heard.append(response.docs.texts)

    async def post():
        client = Client(host="127.0.0.1", port=gateway.ports[protocol], protocol=protocol, asyncio=True)
        return [part.texts async for part in client.post("/tag", "x", on_done=hear)]

    assert asyncio.run(post()) == [["xA"]] == heard


def test_a_waiting_client_refuses_asynchronous_callbacks(client):
    async def hear(response):
        pass

    with pytest.raises(BadClient, match="asynchronous callback"):
        client.post("/tag", "x", on_done=hear)


# -- beside posting ----------------------------------------------------------------------------------


def test_a_running_flow_is_ready(either):
    assert either.is_flow_ready()
    assert either.dry_run(timeout=5)


def test_profiling_shows_where_the_time_of_a_request_went(either, capsys):
    times = either.profiling()

    assert set(times) == {
        "Roundtrip",
        "Client-server network",
        "Server",
        "Gateway-executors network",
        "exec_a",
    }
    assert times["Roundtrip"] >= times["Server"] >= times["exec_a"] >= 0
    assert "Roundtrip" in capsys.readouterr().out


def test_profiling_can_be_silent(client, capsys):
    assert client.profiling(show_table=False)["Roundtrip"] > 0
    assert not capsys.readouterr().out


def test_progress_is_shown_on_standard_error(either, capsys):
    either.post("/tag", ["x", "y"], request_size=1, show_progress=True)

    shown = capsys.readouterr()
    assert "2/2" in shown.err
    assert not shown.out


@pytest.mark.parametrize("kind", [Client, Waiting])
def test_graphql_is_answered_by_the_executors(gateway, kind):
    with kind(host="127.0.0.1", port=gateway.ports["http"], protocol="http") as client:
        query = """
            mutation($inputs: [StrawberryDocumentInput!]) {
                docs(data: $inputs, execEndpoint: "/tag") { text }
            }
        """
        answer = client.mutate(query, variables={"inputs": [{"text": "x"}]})

    assert answer["data"] == {"docs": [{"text": "xA"}]}
