"""The real client and executors of Jina 3.34 through our gateway, by all protocols."""

import json
import time
import urllib.request

import pytest

from tests.processes import PROTOCOLS

pytestmark = pytest.mark.interop

IN = {"num": 3, "price": 0.5, "flag": False, "note": None}


@pytest.fixture(params=PROTOCOLS)
def protocol(request):
    return request.param


@pytest.fixture(scope="module")
def serving(gateway):
    """The ports of a gateway that knows what its executors bind."""

    def find(*executors):
        ours = gateway({"executors": list(executors)})
        deadline = time.monotonic() + 30
        while _paths(ours.ports["http"]) <= {"/", "/post", "/status", "/dry_run"}:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return ours.ports

    return find


def _paths(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/openapi.json", timeout=30) as answer:
        return set(json.load(answer)["paths"]) - {"/index", "/search", "/update", "/delete"}


@pytest.fixture(params=[False, True], ids=["sync", "asyncio"])
def ask(request, client34, serving, theirs34, protocol):
    """Calls one of their executors; further arguments go into the command."""

    def call(on, docs=None, uses="A", call="post", **command):
        return client34.ask(
            port=serving(theirs34(uses))[protocol],
            protocol=protocol,
            asyncio=request.param,
            call=call,
            on=on,
            docs=docs,
            **{"class": "In", **command},
        )

    return call


def test_the_flow_is_ready(ask):
    assert ask("", call="is_flow_ready")["got"] is True


def test_typed_documents_come_back_typed(ask):
    answer = ask(
        "/echo", [{"id": "d0", "text": "a"}, {"id": "d1", "text": "b", "num": 7}], **{"return": "In"}
    )

    assert answer["got"] == [
        {"id": "d0", "text": "a!", **IN},
        {"id": "d1", "text": "b!", **IN, "num": 7},
    ]


def test_without_a_type_the_fields_come_as_they_are(ask):
    (got,) = ask("/echo", [{"id": "d0", "text": "a"}])["got"]

    assert (got["id"], got["text"], got["num"]) == ("d0", "a!", 3)


def test_one_document_gives_one_document(ask):
    answer = ask("/echo", [{"id": "d0", "text": "a"}], single=True, **{"return": "In", "return single": True})

    assert answer["got"] == [{"id": "d0", "text": "a!", **IN}]


def test_requests_are_cut_and_their_answers_put_together(ask):
    docs = [{"id": f"d{number}", "text": str(number)} for number in range(25)]

    answer = ask("/echo", docs, args={"request_size": 4}, **{"return": "In"})

    assert sorted(got["text"] for got in answer["got"]) == sorted(f"{number}!" for number in range(25))


def test_more_than_a_hundred_documents_all_come_back(ask):
    docs = [{"id": f"d{number}", "text": str(number)} for number in range(250)]

    answer = ask("/echo", docs, args={"request_size": 250}, **{"return": "In"})

    assert len(answer["got"]) == 250


def test_parameters_arrive(ask):
    (got,) = ask("/len", [{"id": "d0", "text": "a"}], parameters={"k": 2}, **{"return": "Out"})["got"]

    assert "('k', 2.0)" in got["tags"]


def test_typed_parameters_arrive(ask):
    (got,) = ask("/params", [{"text": "a"}], parameters={"top": 3}, **{"return": "Out"})["got"]

    assert got["text"] == "Params(top=3, scale=1.0, label=None)"


def test_a_missing_parameter_is_an_error(ask, protocol):
    answer = ask("/params", [{"text": "a"}], **{"return": "Out"})

    # The client itself swallows errors over WebSocket.
    assert answer.get("raised") or protocol == "websocket"
    assert "top" in answer.get("message", "top")


def test_an_executor_that_raises_is_an_error(ask, protocol):
    answer = ask("/raise", [{"text": "a"}], **{"return": "In"})

    assert answer.get("raised") or protocol == "websocket"
    assert "boom" in answer.get("message", "boom")


def test_single_document_endpoints_are_called_for_each(ask):
    docs = [{"id": "d0", "text": "a"}, {"id": "d1", "text": "bcd"}]

    answer = ask("/single", docs, **{"return": "Out"})

    assert [(got["text"], got["length"]) for got in answer["got"]] == [("a", 1), ("bcd", 3)]


def test_rich_documents_come_back_whole(ask):
    rich = {
        "title": "t",
        "i": 5,
        "f": 1.5,
        "b": True,
        "names": ["x", "y"],
        "ds": {"k": 1},
        "d": {"z": [1, {}]},
    }

    (got,) = ask("/rich", [rich], **{"class": "Rich", "return": "Rich"})["got"]

    assert (got["title"], got["i"], got["f"], got["b"]) == ("t!", 5, 1.5, True)
    assert (got["names"], got["ds"]) == ("['x', 'y']", "{'k': 1}")


def test_an_endpoint_that_nobody_binds_gives_the_documents_back(ask):
    answer = ask("/nobody", [{"id": "d0", "text": "a"}], **{"return": "In"})

    assert answer["got"] == [{"id": "d0", "text": "a", **IN}]


# -- streams ----------------------------------------------------------------------------------------------


@pytest.fixture(params=["grpc", "http"])
def stream(request, client34, serving, theirs34):
    """``stream_doc`` of their asyncio client, which has it over gRPC and HTTP."""

    def call(on, uses="S", executors=None, **command):
        return client34.ask(
            port=serving(*(executors or [theirs34(uses)]))[request.param],
            protocol=request.param,
            call="stream_doc",
            on=on,
            docs=[{"id": "d", "text": "hi", "num": 3, **command.pop("doc", {})}],
            single=True,
            **{"class": "In", "return": "Out", **command},
        )

    call.protocol = request.param
    return call


def test_documents_stream(stream):
    assert [got["text"] for got in stream("/stream")["got"]] == ["hi 0", "hi 1", "hi 2"]


def test_they_come_as_they_are_made(stream):
    at = [got["at_s"] for got in stream("/slow", doc={"price": 0.3})["got"]]

    assert len(at) == 3
    assert at[1] - at[0] > 0.2
    assert at[2] - at[1] > 0.2


def test_an_error_in_mid_stream_is_an_error(stream):
    answer = stream("/midraise")

    assert [got["text"] for got in answer["got"]] == ["first", "second"]
    assert answer["raised"]


def test_texts_of_any_kind_survive(stream):
    (got,) = stream("/unicode")["got"]

    assert got["text"] == 'line1\nline2\r\nevent: update é漢 "q"'


def test_who_leaves_early_has_what_came_before(stream):
    assert len(stream("/stream", doc={"num": 1000}, **{"leave after": 2})["got"]) == 2
