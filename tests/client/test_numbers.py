"""Numbers come back from executors as they were sent, whatever the protocol, and of the same type."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from docarray import Document, DocumentArray
from docarray.score import NamedScore
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gatewayd.client.client import Client
from gatewayd.client.errors import BadClientInput
from tests.client.test_failures import http_server
from tests.processes import PROTOCOLS, Gateway

NAN, INF = math.nan, math.inf
STRANGE = (NAN, INF, -INF)


@pytest.fixture(scope="module")
def clients(gateway: Gateway) -> Iterator[dict[str, Any]]:
    with contextlib.ExitStack() as stack:
        yield {
            protocol: stack.enter_context(
                Client(host="127.0.0.1", port=gateway.ports[protocol], protocol=protocol)
            )
            for protocol in PROTOCOLS
        }


def same(left: Any, right: Any) -> bool:
    """Equal, NaN to NaN, and of equal type."""
    if isinstance(left, np.ndarray):
        return (left.dtype, left.shape) == (right.dtype, right.shape) and left.tobytes() == right.tobytes()
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float) and math.isnan(left):
        return math.isnan(right)
    return bool(left == right)


def numbers(document: Any) -> list[Any]:
    return [
        document.tensor,
        document.embedding,
        document.weight,
        document.offset,
        list(document.location),
        document.tags,
        {name: score.value for name, score in document.scores.items()},
        {name: score.value for name, score in document.evaluations.items()},
    ]


@pytest.mark.parametrize("number", STRANGE)
def test_what_json_lacks_survives_in_every_field(clients, protocol, number):
    sent = Document(
        tensor=np.array([1, number], "float16"),
        embedding=np.array([[number]], "float32"),
        weight=number,
        offset=number,
        location=[number, 1.0],
        tags={"a": number, "b": [{"c": number}], "n": 1},
        scores={"s": NamedScore(value=number)},
        evaluations={"e": NamedScore(value=number)},
    )
    sent.chunks.append(Document(tags={"d": number}, matches=[Document(tags={"e": number})]))

    (answer,) = clients[protocol].post(
        "/params", sent, parameters={"p": number, "q": [number]}, return_responses=True
    )

    seen, got = answer.docs
    assert all(map(same, numbers(got), numbers(sent)))
    assert same(seen.tags["params"], {"p": number, "q": [number]})
    assert same({key: answer.parameters[key] for key in "pq"}, {"p": number, "q": [number]})
    assert same(got.chunks[0].tags, sent.chunks[0].tags)
    assert same(got.chunks[0].matches[0].tags, {"e": number})


ARRAYS = st.sampled_from(
    ["?", "int8", "uint8", "int32", "int64", "uint64", "float16", "float32", "float64", ">f4"]
).flatmap(
    lambda dtype: st.lists(st.sampled_from([0, 1, *(STRANGE if "f" in dtype else ())]), min_size=1).map(
        lambda items: np.array(items, dtype)
    )
)
NUMBERS = st.floats(width=32)
JSONS = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(
    tensor=ARRAYS,
    weight=NUMBERS,
    tags=st.dictionaries(st.text(min_size=1, max_size=3), JSONS, max_size=3),
    score=NUMBERS,
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_protocol_gives_the_same_numbers(clients, tensor, weight, tags, score):
    sent = Document(tensor=tensor, weight=weight, tags=tags, scores={"s": NamedScore(value=score)})

    got = [client.post("/identity", sent, parameters={"p": score})[0] for client in clients.values()]

    assert all(same(numbers(one), numbers(got[0])) for one in got)
    assert same(got[0].tensor, tensor)
    assert same(got[0].tags, tags)


# -- a server that takes JSON only -------------------------------------------------------------------

ANSWER = {"header": {"requestId": "r"}, "data": [{"id": "d", "text": "y"}]}


class JsonOnly:
    """What a gateway of the reference answers to a body of another type (recorded from Jina 3.14)."""

    refusal = b'{"detail":[{"loc":["body"],"msg":"value is not a valid dict","type":"type_error.dict"}]}'

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, headers: Any, body: bytes) -> tuple[int, bytes]:
        self.asked.append(headers["Content-Type"])
        if headers["Content-Type"] != "application/json":
            return 422, self.refusal
        json.loads(body)
        return 200, json.dumps(ANSWER).encode()


def test_a_server_that_takes_json_only_is_asked_in_json_from_then_on():
    server = JsonOnly()
    with http_server(server) as port, Client(host="127.0.0.1", port=port, protocol="http") as client:
        for _ in range(3):
            assert client.post("/", Document(text="x")).texts == ["y"]

    assert server.asked == ["application/x-protobuf", *["application/json"] * 3]


@pytest.mark.parametrize(
    ("where", "document"),
    [
        (r"data\[0\]\.tensor", {"tensor": np.array([1, NAN])}),
        (r"data\[0\]\.tags\.a\[0\]", {"tags": {"a": [INF]}}),
        (r"data\[0\]\.chunks\[0\]\.embedding", {"chunks": [Document(embedding=np.array([NAN], "f4"))]}),
    ],
)
def test_what_has_no_json_form_is_refused_by_name_where_only_json_is_taken(where, document):
    server = JsonOnly()
    with (
        http_server(server) as port,
        Client(host="127.0.0.1", port=port, protocol="http") as client,
        pytest.raises(BadClientInput, match=f"{where} holds NaN or infinity.*grpc or websocket"),
    ):
        client.post("/", DocumentArray([Document(**document)]))


def test_numbers_of_fields_that_json_lacks_go_there_as_texts():
    seen: list[Any] = []

    def server(headers: Any, body: bytes) -> tuple[int, bytes]:
        if headers["Content-Type"] == "application/json":
            seen.append(json.loads(body)["data"][0])
        return JsonOnly()(headers, body)

    with http_server(server) as port, Client(host="127.0.0.1", port=port, protocol="http") as client:
        client.post("/", Document(weight=NAN, scores={"s": NamedScore(value=-INF)}, text="NaN"))

    assert (seen[0]["weight"], seen[0]["scores"]["s"]["value"]) == ("NaN", "-Infinity")


def test_an_answer_in_json_may_hold_what_json_lacks():
    body = (
        b'{"header": {"requestId": "r"}, "parameters": {"p": NaN}, '
        b'"data": [{"tensor": [1.5, NaN, null], "weight": Infinity, "tags": {"a": -Infinity}}]}'
    )
    with (
        http_server(lambda _, __: (200, body)) as port,
        Client(host="127.0.0.1", port=port, protocol="http") as client,
    ):
        (answer,) = client.post("/", return_responses=True)

    (got,) = answer.docs
    assert same(got.tensor, np.array([1.5, NAN, NAN]))
    assert (got.weight, got.tags) == (INF, {"a": -INF})
    assert math.isnan(answer.parameters["p"])


def test_a_gateway_that_refuses_a_request_is_not_asked_twice():
    asked = []

    def server(headers: Any, _: bytes) -> tuple[int, bytes]:
        asked.append(headers["Content-Type"])
        return 422, b'{"detail": "wrong"}'

    with (
        http_server(server, name="gatewayd") as port,
        Client(host="127.0.0.1", port=port, protocol="http") as client,
        pytest.raises(ValueError, match="wrong"),
    ):
        client.post("/", "x")

    assert asked == ["application/x-protobuf"]


def test_a_content_type_that_the_user_names_is_the_form_of_the_request(gateway):
    with Client(host="127.0.0.1", port=gateway.ports["http"], protocol="http") as client:
        for content_type in ("application/json", "application/x-protobuf"):
            docs = client.post("/tag", "x", headers={"content-type": content_type})
            assert docs.texts == ["xA"]
