"""The JSON form against what was captured from the reference, and against input that was not captured."""

from __future__ import annotations

import base64
import json
import math
import re
import struct
import sys
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.errors import BadRequest, ExecutorUnreachable, GatewayError, TooManyDocuments
from gatewayd.messages.json_form import arrays as arrays_module
from gatewayd.messages.json_form import documents as documents_module
from gatewayd.messages.json_form import requests, responses
from gatewayd.messages.json_form.values import Problems, fill_struct, struct_of
from gatewayd.messages.request import Request, Response, Route
from gatewayd.pb import DataContentProto, DataRequestProto, DocumentProto, StatusProto, Struct
from tests.paths import GOLDEN

CRUD = {"/index", "/search", "/update", "/delete"}
HEX_ID = re.compile(r"[0-9a-f]{32}")


def load(name: str) -> Any:
    return json.loads((GOLDEN / name).read_text())


def recorded_requests(*names: str) -> list[Any]:
    """The golden cases that are a request for executors."""
    cases = [case for name in names for case in load(name)]
    return [
        pytest.param(case, id=case["name"])
        for case in cases
        if case["request"]["method"] in ("POST", "PUT", "DELETE")
        and case["request"]["path"] in CRUD | {"/post"}
        and case["response"]["status"] not in (404, 405, 307)
    ]


def decode(request: dict[str, Any]) -> Request:
    if "raw_body" in request:
        body = request["raw_body"].encode()
        content_type = request.get("headers", {}).get("content-type")
    else:
        body = json.dumps(request["json"]).encode()
        content_type = "application/json"
    path = request["path"]
    return requests.decode_request(
        body, content_type=content_type, endpoint=path if path in CRUD else None, request_id="r"
    )


def decode_json(value: object, endpoint: str | None = "/x") -> Request:
    return requests.decode_request(
        json.dumps(value).encode(), content_type="application/json", endpoint=endpoint, request_id="r"
    )


def documents_of(request: Request) -> Any:
    return DataContentProto.FromString(request.documents).docs.docs


def problems_of(value: object, endpoint: str | None = None) -> list[Any]:
    with pytest.raises(BadRequest) as caught:
        decode_json(value, endpoint)
    return list(caught.value.problems)


def http(response: Response) -> Any:
    return json.loads(responses.encode_http(response), parse_constant=pytest.fail)


def echo(value: object) -> Any:
    """The documents of a body, as JSON, after they went through a Flow that leaves them alone."""
    return http(Response("r", "/", decode_json(value).documents))["data"]


def like(found: Any, expected: Any) -> bool:
    """Equal, where <volatile> stands for any string."""
    if expected == "<volatile>":
        return isinstance(found, str)
    if isinstance(expected, dict):
        return (
            isinstance(found, dict)
            and found.keys() == expected.keys()
            and all(like(found[key], value) for key, value in expected.items())
        )
    if isinstance(expected, list):
        return isinstance(found, list) and len(found) == len(expected) and all(map(like, found, expected))
    return bool(found == expected and type(found) is type(expected))


# Integers 0 and 1 in tags turn into booleans in the reference: not copied.
BOOLEANS_FROM_NUMBERS = {"tags: round trip", "_metadata"}
# The reference answers 500; the better answer is 422, or for an object without docs as well.
BETTER = {
    "dict without docs key",
    "blob bad base64",
    "NaN in parameters",
}


@pytest.mark.parametrize(
    "case",
    [
        case
        for case in recorded_requests("http_requests.json", "http_documents.json")
        if case.values[0]["response"]["status"] == 422
    ],
)
def test_a_refused_request_gets_the_detail_that_the_reference_gives(case: dict[str, Any]) -> None:
    with pytest.raises(BadRequest) as caught:
        decode(case["request"])
    assert json.loads(responses.encode_bad_request(caught.value)) == case["response"]["json"]


@pytest.mark.parametrize(
    "case",
    [
        case
        for case in recorded_requests("http_requests.json", "http_documents.json", "http_topologies.json")
        if case.values[0]["response"]["status"] != 422
    ],
)
def test_an_accepted_request_means_what_its_json_says(case: dict[str, Any]) -> None:
    if case["name"] in BETTER:
        with pytest.raises(BadRequest) as caught:
            decode(case["request"])
        assert caught.value.problems
        return
    found = decode(case["request"])
    body = case["request"].get("json") or json.loads(case["request"].get("raw_body", "{}"))
    path = case["request"]["path"]
    named = body.get("execEndpoint", body.get("exec_endpoint", "/")) if body else "/"
    assert found.request_id == "r"
    assert found.endpoint == (path if path in CRUD else str(named))
    assert found.target == ((body or {}).get("targetExecutor") or (body or {}).get("target_executor") or "")
    data = (body or {}).get("data") or []
    given = data.get("docs", []) if isinstance(data, dict) else data
    assert len(documents_of(found)) == len(given)
    parameters = Struct.FromString(found.parameters)
    assert dict(parameters.items()).keys() == ((body or {}).get("parameters") or {}).keys()


@pytest.mark.parametrize(
    "case",
    [
        case
        for case in recorded_requests("http_documents.json")
        if case.values[0]["executor"].startswith("/identity") and case.values[0]["response"]["status"] == 200
    ],
)
def test_documents_come_back_as_they_come_back_from_the_reference(case: dict[str, Any]) -> None:
    request = decode(case["request"])
    expected = case["response"]["json"]
    if case["name"] in BOOLEANS_FROM_NUMBERS:
        for tags in (expected["data"][0]["tags"] or {}, expected["data"][0].get("_metadata", {})):
            tags.update({key: float(tags[key]) for key in ("zero", "one", "a") if key in tags})
    routes = tuple(Route(route["executor"], 1.5, 2.25) for route in expected["routes"])
    found = http(Response("r", request.endpoint, request.documents, request.parameters, routes))
    assert like(found, expected)
    assert list(found) == list(expected)
    assert [list(one) for one in found["data"]] == [list(one) for one in expected["data"]]


# Not in the golden files; seen on the reference (an empty graph, POST /post).
NOT_A_DICT = {"loc": ["body", "data"], "msg": "value is not a valid dict", "type": "type_error.dict"}
SEEN = [
    (
        {"data": 5, "targetExecutor": {}, "parameters": 5, "execEndpoint": {}},
        [
            {"loc": ["body", "data"], "msg": "value is not a valid list", "type": "type_error.list"},
            NOT_A_DICT,
            {"loc": ["body", "targetExecutor"], "msg": "str type expected", "type": "type_error.str"},
            {"loc": ["body", "parameters"], "msg": "value is not a valid dict", "type": "type_error.dict"},
            {"loc": ["body", "execEndpoint"], "msg": "str type expected", "type": "type_error.str"},
        ],
    ),
    (
        {"data": [{"scores": {"a": {"value": "x", "ref_id": {}}, "b": 5, "c": None, "d": []}}]},
        [
            {
                "loc": ["body", "data", 0, "scores", "a", "value"],
                "msg": "value is not a valid float",
                "type": "type_error.float",
            },
            {
                "loc": ["body", "data", 0, "scores", "a", "ref_id"],
                "msg": "str type expected",
                "type": "type_error.str",
            },
            {
                "loc": ["body", "data", 0, "scores", "b"],
                "msg": "value is not a valid dict",
                "type": "type_error.dict",
            },
            {
                "loc": ["body", "data", 0, "scores", "c"],
                "msg": "none is not an allowed value",
                "type": "type_error.none.not_allowed",
            },
            NOT_A_DICT,
        ],
    ),
    (
        {"data": [{"chunks": [{"text": {}}, {"chunks": [5]}, None]}]},
        [
            {
                "loc": ["body", "data", 0, "chunks", 0, "text"],
                "msg": "str type expected",
                "type": "type_error.str",
            },
            {
                "loc": ["body", "data", 0, "chunks", 1, "chunks", 0],
                "msg": "value is not a valid dict",
                "type": "type_error.dict",
            },
            {
                "loc": ["body", "data", 0, "chunks", 2],
                "msg": "none is not an allowed value",
                "type": "type_error.none.not_allowed",
            },
            NOT_A_DICT,
        ],
    ),
    (
        {"data": [["docs", [{"text": {}}]]]},
        [
            {"loc": ["body", "data", 0], "msg": "value is not a valid dict", "type": "type_error.dict"},
            {
                "loc": ["body", "data", "docs", 0, "text"],
                "msg": "str type expected",
                "type": "type_error.str",
            },
        ],
    ),
    (
        {"data": {"docs": [{"text": {}}], "b": 5, "c": [{"text": {}}], "d": None}},
        [
            {"loc": ["body", "data"], "msg": "value is not a valid list", "type": "type_error.list"},
            {
                "loc": ["body", "data", "docs", 0, "text"],
                "msg": "str type expected",
                "type": "type_error.str",
            },
            {"loc": ["body", "data", "b"], "msg": "value is not a valid list", "type": "type_error.list"},
            {"loc": ["body", "data", "c", 0, "text"], "msg": "str type expected", "type": "type_error.str"},
            {
                "loc": ["body", "data", "d"],
                "msg": "none is not an allowed value",
                "type": "type_error.none.not_allowed",
            },
        ],
    ),
    (
        {"data": [{"location": ["1", True, "x", None], "granularity": "3.0"}]},
        [
            {
                "loc": ["body", "data", 0, "granularity"],
                "msg": "value is not a valid integer",
                "type": "type_error.integer",
            },
            {
                "loc": ["body", "data", 0, "location", 2],
                "msg": "value is not a valid float",
                "type": "type_error.float",
            },
            {
                "loc": ["body", "data", 0, "location", 3],
                "msg": "none is not an allowed value",
                "type": "type_error.none.not_allowed",
            },
            {
                "loc": ["body", "data", "location"],
                "msg": "value is not a valid list",
                "type": "type_error.list",
            },
        ],
    ),
    (
        {"data": [{"tags": False, "_metadata": 5}]},
        [
            {
                "loc": ["body", "data", 0, "tags"],
                "msg": "value is not a valid dict",
                "type": "type_error.dict",
            },
            {"loc": ["body", "data", "tags"], "msg": "value is not a valid list", "type": "type_error.list"},
        ],
    ),
    (
        {"data": [{"_metadata": 0}]},
        [
            {
                "loc": ["body", "data", 0, "metadata"],
                "msg": "value is not a valid dict",
                "type": "type_error.dict",
            },
            NOT_A_DICT,
        ],
    ),
]


@pytest.mark.parametrize(("body", "expected"), SEEN)
def test_every_mistake_is_reported_in_the_references_order(body: Any, expected: list[Any]) -> None:
    assert problems_of(body) == expected


# Python 3.13 has words of its own for it.
TRAILING_COMMA = (
    (6, "Illegal trailing comma before end of object: line 1 column 7 (char 6)")
    if sys.version_info >= (3, 13)
    else (7, "Expecting property name enclosed in double quotes: line 1 column 8 (char 7)")
)


@pytest.mark.parametrize(
    ("text", "position", "message"),
    [
        ('{"a":1} x', 8, "Extra data: line 1 column 9 (char 8)"),
        ('{"a":1,}', *TRAILING_COMMA),
        ('{"a":"\x01"}', 6, "Invalid control character at: line 1 column 7 (char 6)"),
        ("   ", 3, "Expecting value: line 1 column 4 (char 3)"),
    ],
)
def test_a_syntax_error_has_the_position_and_words_of_pythons_parser(
    text: str, position: int, message: str
) -> None:
    with pytest.raises(BadRequest) as caught:
        requests.decode_request(text.encode(), content_type=None, endpoint=None, request_id="r")
    (problem,) = caught.value.problems
    assert (problem["loc"], problem["msg"]) == (["body", position], message)
    assert problem["ctx"]["doc"] == text  # type: ignore[index]


@pytest.mark.parametrize(
    "body",
    [
        b'"\xff"',
        b'{"parameters":{"a":"\xff"}}',
        b'{"parameters":{"a":"\\ud800"}}',
        b'{"data":[{"text":"\\udc00"}]}',
        b'{"data":[{"weight":1e999}]}',
        b'{"data":[{"weight":-Infinity}]}',
        b'{"data":[{"tensor":[NaN]}]}',
        b'{"parameters":{"a":1' + b"0" * 400 + b"}}",
        b"[" * 5000,
        b'{"a":' * 5000,
        b"[" * 100_000 + b"]" * 100_000,
        "{}".encode("utf-16")[:-1],
        b'\xed\xa0\x80{"',
    ],
)
def test_what_is_almost_json_is_refused_with_a_body_that_can_be_sent(body: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        requests.decode_request(body, content_type=None, endpoint=None, request_id="r")
    assert json.loads(responses.encode_bad_request(caught.value))["detail"]


@pytest.mark.parametrize("body", [b"\xef\xbb\xbf{}", "{}".encode("utf-16"), b'""', b"[]", b'[["data",[]]]'])
def test_what_the_reference_takes_for_an_empty_object_is_taken(body: bytes) -> None:
    found = requests.decode_request(body, content_type=None, endpoint=None, request_id="r")
    assert found == Request("r", "/")


def test_numbers_that_only_a_byte_order_mark_keeps_from_orjson_are_read_alike() -> None:
    body = b'{"parameters":{"a":12345678901234567890123,"b":-5,"c":0.1}}'
    plain = requests.decode_request(body, content_type=None, endpoint=None, request_id="r")
    marked = requests.decode_request(b"\xef\xbb\xbf" + body, content_type=None, endpoint=None, request_id="r")
    assert plain == marked


@pytest.mark.parametrize(
    ("content_type", "accepted"),
    [
        (None, True),
        ("application/json", True),
        ("APPLICATION/JSON; charset=utf-8", True),
        ("application/vnd.api+json", True),
        ("text/plain", False),
        ("application/xml", False),
        ("text/json", False),
        ("garbage", False),
    ],
)
def test_a_body_is_json_when_its_type_says_so_or_is_absent(content_type: str | None, accepted: bool) -> None:
    if accepted:
        requests.decode_request(b"{}", content_type=content_type, endpoint=None, request_id="r")
    else:
        with pytest.raises(BadRequest):
            requests.decode_request(b"{}", content_type=content_type, endpoint=None, request_id="r")


def decode_own_id(value: dict[str, Any], request_id: str | None = None) -> str:
    body = json.dumps(value).encode()
    return requests.decode_request(body, content_type=None, endpoint=None, request_id=request_id).request_id


@pytest.mark.parametrize(
    ("body", "request_id"),
    [
        ({"requestId": "mine"}, "mine"),
        ({"request_id": "mine"}, "mine"),
        ({"requestId": "mine", "request_id": "other", "header": {"requestId": "third"}}, "mine"),
        ({"header": {"requestId": "mine"}}, "mine"),
        ({"header": {"request_id": "mine", "exec_endpoint": "/x"}}, "mine"),
        ({"requestId": "", "header": {"requestId": None, "request_id": "mine"}}, "mine"),
        ({"requestId": 7}, "7"),
        ({"requestId": "\u00fc \n"}, "\u00fc \n"),
    ],
)
def test_the_id_in_a_body_is_the_requests(body: dict[str, Any], request_id: str) -> None:
    assert decode_own_id(body) == request_id
    assert decode_own_id(body, "given") == "given"


@pytest.mark.parametrize(
    "body", [{}, {"requestId": None}, {"requestId": ""}, {"header": None}, {"header": 5}]
)
def test_a_body_without_an_id_gets_a_new_one(body: dict[str, Any]) -> None:
    found = decode_own_id(body), decode_own_id(body)
    assert [len(each) for each in found] == [32, 32]
    assert found[0] != found[1]


@pytest.mark.parametrize(
    ("body", "loc"),
    [
        ({"requestId": {}}, ["body", "requestId"]),
        ({"header": {"request_id": ["x"]}}, ["body", "header", "requestId"]),
    ],
)
def test_an_id_that_is_no_text_is_refused(body: dict[str, Any], loc: list[str]) -> None:
    with pytest.raises(BadRequest) as caught:
        decode_own_id(body)
    assert [problem["loc"] for problem in caught.value.problems] == [loc]


def test_camel_case_wins_even_when_it_is_null() -> None:
    assert decode_json({"targetExecutor": None, "target_executor": "x"}).target == ""
    assert problems_of({"execEndpoint": None, "exec_endpoint": "/a"})


def test_an_object_of_lists_without_docs_is_refused() -> None:
    *_, problem = problems_of({"data": {"other": [{"text": "x"}]}})
    assert problem == {
        "loc": ["body", "data", "docs"],
        "msg": "field required",
        "type": "value_error.missing",
    }


@pytest.mark.parametrize(
    "document",
    [
        {"granularity": -1},
        {"granularity": 2**32},
        {"granularity": 1e300},
        {"weight": 1e300},
        {"blob": "abc"},
        {"blob": "é"},
        {"blob": "!!!!"},
        {"tensor": [True, None]},
        {"tensor": [1.5, None, True]},
        {"tensor": ["a", None]},
        {"tensor": [{"a": 1}]},
        {"tensor": [[[[1], 2]]]},
        {"embedding": ["x" * 1_000_000] + ["y"] * 100},
    ],
)
def test_a_value_that_fits_no_field_is_refused(document: Any) -> None:
    (first, *_) = problems_of({"data": [document]})
    assert first["loc"] == ["body", "data", 0, next(iter(document))]


@pytest.mark.parametrize("blob", ["AAH-_w==", "AAH-_w", "AAH+/w==", "AAH+\n/w==\n"])
def test_a_blob_may_be_in_either_alphabet_of_base64(blob: str) -> None:
    (document,) = documents_of(decode_json({"data": [{"blob": blob}]}))
    assert document.blob == b"\x00\x01\xfe\xff"


@pytest.mark.parametrize("tensor", [[1.5, None], [[None, 2.5], [1, 0.0]], [None, None], [1, None]])
def test_null_among_numbers_is_not_a_number(tensor: Any) -> None:
    (document,) = documents_of(decode_json({"data": [{"tensor": tensor}]}))
    assert document.tensor.dense.dtype == "<f8"
    assert echo({"data": [{"tensor": tensor}]})[0]["tensor"] == tensor


def nested(levels: int, key: str) -> Any:
    document: Any = {"text": "x", "tensor": [[1]], "scores": {"a": {"value": 1}}}
    for _ in range(levels):
        document = {key: [document]}
    return document


@pytest.mark.parametrize("key", ["chunks", "matches"])
@pytest.mark.parametrize("levels", [1, 50, 92, 93, 120, 400])
def test_documents_nest_as_deep_as_every_protobuf_parser_follows(levels: int, key: str) -> None:
    if levels > 92:
        assert "nested too deeply" in problems_of({"data": [nested(levels, key)]})[0]["msg"]
        return
    request = decode_json({"data": [nested(levels, key)]})
    assert echo({"data": [nested(levels, key)]})
    DataRequestProto.FromString(DataRequestProto(data=documents_message(request)).SerializeToString())


def documents_message(request: Request) -> Any:
    return DataContentProto.FromString(request.documents)


@pytest.mark.parametrize("wrap", [lambda value: {"a": value}, lambda value: [value]])
@pytest.mark.parametrize("levels", [5, 25, 31, 32, 33, 47, 48, 49, 50, 60, 200])
def test_tags_and_parameters_nest_as_deep_as_a_parser_follows_or_are_refused(wrap: Any, levels: int) -> None:
    value: Any = "x"
    for _ in range(levels):
        value = wrap(value)
    for body in ({"data": [{"tags": {"t": value}}]}, {"parameters": {"t": value}}):
        try:
            request = decode_json(body)
        except BadRequest as caught:
            refused = str(caught)
            assert levels > 30
            assert "nested too deeply" in refused
            continue
        message = DataRequestProto(data=documents_message(request))
        message.parameters.ParseFromString(request.parameters)
        DataRequestProto.FromString(message.SerializeToString())
        http(Response("r", "/", request.documents, request.parameters))


def test_endless_mistakes_make_a_bounded_answer() -> None:
    assert len(problems_of({"data": [5] * 100_000})) <= 2000


def test_ids_are_made_where_none_are_given_and_chunks_know_whose_they_are() -> None:
    (found,) = echo(
        {
            "data": [
                {
                    "granularity": 3,
                    "adjacency": 2,
                    "chunks": [{"granularity": 9, "adjacency": 7, "parent_id": "zz"}],
                    "matches": [{"granularity": 4, "adjacency": 9, "parent_id": "u"}],
                }
            ]
        }
    )
    (chunk,), (match,) = found["chunks"], found["matches"]
    assert HEX_ID.fullmatch(found["id"])
    assert (chunk["parent_id"], chunk["granularity"], chunk["adjacency"]) == (found["id"], 4, 7)
    assert (match["parent_id"], match["granularity"], match["adjacency"]) == ("u", 4, 3)
    assert len({found["id"], chunk["id"], match["id"]}) == 3


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"mime_type": "application/x-foo"}, "application/x-foo"),
        ({"mime_type": "txt"}, "text/plain"),
        ({"mime_type": "PNG"}, "image/png"),
        ({"mime_type": ".png"}, "image/png"),
        ({"mime_type": "gz"}, "gz"),
        ({"mime_type": "a/b", "uri": "x.png"}, "a/b"),
        ({"mime_type": "", "uri": "x.png"}, "image/png"),
        ({"uri": "data:image/png;base64,AAAA"}, "image/png"),
        ({"uri": "x.unknown"}, None),
    ],
)
def test_a_mime_type_is_guessed_as_the_reference_guesses_it(document: Any, expected: str | None) -> None:
    assert echo({"data": [document]})[0]["mime_type"] == expected


# --- what goes out -------------------------------------------------------------------------------


def answer(document: DocumentProto) -> bytes:
    content = DataContentProto()
    content.docs.docs.append(document)
    return bytes(content.SerializeToString())


def one(document: DocumentProto) -> Any:
    return http(Response("r", "/", answer(document)))["data"][0]


def with_array(array: np.ndarray[Any, Any]) -> DocumentProto:
    document = DocumentProto(id="d")
    dense = document.tensor.dense
    dense.buffer, dense.dtype = array.tobytes(), array.dtype.str
    dense.shape.extend(array.shape)
    document.tensor.cls_name = "numpy"
    return document


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.array(3, np.float32), 3.0),
        (np.array([0.1], np.float32), [0.10000000149011612]),
        (np.array([0.1, np.nan, np.inf], np.float64), [0.1, None, None]),
        (np.array([0.5, -2], np.float16), [0.5, -2.0]),
        (np.array([[1, 2]], ">i4"), [[1, 2]]),
        (np.array([1.5], ">f8"), [1.5]),
        (np.array([True, False]), [True, False]),
        (np.array([255], np.uint8), [255]),
        (np.array([2**64 - 1], np.uint64), [2**64 - 1]),
        (np.array(["a", "bc"]), ["a", "bc"]),
        (np.zeros((2, 0)), [[], []]),
        (np.zeros(0), []),
    ],
)
def test_arrays_are_shown_as_nested_lists(array: Any, expected: Any) -> None:
    found = one(with_array(array))["tensor"]
    assert found == expected
    assert type(found) is type(expected)


def dense_of(value: Any) -> tuple[bytes, str, list[int]] | None:
    """The buffer, dtype and shape of nested lists; None if they are refused."""
    dense = DocumentProto().tensor.dense
    try:
        arrays_module.fill_dense(dense, value)
    except ValueError:
        return None
    return dense.buffer, dense.dtype, list(dense.shape)


NUMBERS = st.floats(allow_nan=False) | st.integers(-(2**63), 2**64 - 1) | st.booleans()


@given(
    st.lists(NUMBERS | st.floats(allow_nan=False), min_size=1, max_size=20),
    st.none() | st.sampled_from([None, "a", [1.5], {}]),
)
def test_a_vector_of_floats_is_read_as_any_other_array(numbers: list[Any], other: Any) -> None:
    for value in (numbers, [1.5, *numbers], [1.5, *numbers, other]):
        # Within another list it goes the way of all arrays.
        found, wanted = dense_of(value), dense_of([value])

        if found is None or wanted is None:
            assert found == wanted
        else:
            buffer, dtype, shape = wanted
            assert found == (buffer, dtype, shape[1:])


def test_a_long_vector_is_the_same_as_a_short_one_and_as_the_length_that_it_must_have() -> None:
    long = [0.5] * 5000
    assert dense_of(long) == (struct.pack("<5000d", *long), "<f8", [5000])
    dense = DocumentProto().tensor.dense
    with pytest.raises(ValueError, match="the array has 3 elements, not 2"):
        arrays_module.fill_dense(dense, [0.5, 1.5], 3)
    arrays_module.fill_dense(dense, [0.5, 1.5, 2.5], 3)
    assert dense.shape == [3]


@given(
    st.sampled_from(["<f4", "<f8", ">f4", ">f8", "<f2", "<i4"]),
    st.lists(st.floats(width=16), min_size=1, max_size=20),
)
def test_a_vector_is_shown_as_a_row_of_a_matrix_is(dtype: str, numbers: list[float]) -> None:
    array = np.array([each if math.isfinite(each) else 0 for each in numbers]).astype(dtype)
    if "f" in dtype:
        array = np.array(numbers).astype(dtype)

    assert [one(with_array(array))["tensor"]] == one(with_array(array.reshape(1, -1)))["tensor"]


def test_an_array_that_is_a_shape_only_keeps_its_type() -> None:
    document = with_array(np.zeros(0, np.int64))
    document.tensor.dense.shape[:] = [2]
    assert orjson.dumps(one(document)["tensor"]) == b"[0,0]"


def test_an_array_of_nothing_or_of_an_unknown_framework_is_null() -> None:
    empty = DocumentProto(id="d")
    empty.tensor.cls_name = "numpy"
    unknown = with_array(np.zeros(3))
    unknown.tensor.cls_name = "jax"
    assert one(empty)["tensor"] is None
    assert one(unknown)["tensor"] is None


@pytest.mark.parametrize("framework", ["scipy", "torch"])
def test_sparse_arrays_are_filled_up(framework: str) -> None:
    document = DocumentProto(id="d")
    sparse = document.embedding.sparse
    document.embedding.cls_name = framework
    sparse.shape.extend([2, 3])
    coordinates = np.array([[0, 0], [1, 2], [1, 2]])
    indices = coordinates.T if framework == "torch" else coordinates
    sparse.indices.CopyFrom(with_array(np.ascontiguousarray(indices)).tensor.dense)
    sparse.values.CopyFrom(with_array(np.array([1.5, 2, 3], np.float32)).tensor.dense)
    assert one(document)["embedding"] == [[1.5, 0, 0], [0, 0, 5.0]]

    sparse.shape[:] = [2, 2]
    with pytest.raises(GatewayError, match="do not fit"):
        one(document)
    sparse.shape[:] = [1 << 20, 1 << 20]
    with pytest.raises(GatewayError, match="too large"):
        one(document)


@pytest.mark.parametrize(
    ("dtype", "shape", "buffer"),
    [
        ("|O", [1], b"12345678"),
        ("<c16", [1], b"0" * 16),
        ("i4,i4", [1], b"12345678"),
        ("<M8[s]", [1], b"12345678"),
        ("<f8", [3], b"12345678"),
        ("<U1", [1], b"\xff\xff\xff\xff"),
        ("<U1", [1], b"\x00\xd8\x00\x00"),
        ("<U0", [0], b"x"),
        ("<f8", [1 << 20, 1 << 20], b""),
        ("<f8", [0, 1 << 31], b""),
        ("<f8", [1] * 40, b"12345678"),
        ("nonsense", [1], b"1"),
        ("<f3", [1], b"123"),
    ],
)
def test_an_array_without_a_json_form_is_an_error_that_says_so(dtype: str, shape: Any, buffer: bytes) -> None:
    document = DocumentProto(id="d")
    document.tensor.cls_name = "numpy"
    dense = document.tensor.dense
    dense.dtype, dense.buffer = dtype, buffer
    dense.shape.extend(shape)
    with pytest.raises(GatewayError):
        one(document)


def test_pickled_documents_are_never_opened() -> None:
    content = DataContentProto(docs_bytes=b"\x80\x04cos\nsystem\n.").SerializeToString()
    with pytest.raises(GatewayError, match="docs_bytes"):
        responses.encode_http(Response("r", "/", content))


def test_what_json_lacks_is_null_in_arrays_and_tags_and_text_in_other_fields() -> None:
    document = with_array(np.array([1.5, math.nan]))
    document.weight, document.offset = math.nan, math.inf
    document.scores["s"].value = -math.inf
    document.tags.fields["a"].number_value = -math.inf
    document.location.extend((math.nan, 0.0))
    found = one(document)
    assert (found["tensor"], found["tags"]) == ([1.5, None], {"a": None})
    texts = {"weight": "NaN", "offset": "Infinity", "location": ["NaN", 0.0]}
    assert {key: found[key] for key in texts} == texts
    assert found["scores"]["s"]["value"] == "-Infinity"
    (again,) = documents_of(decode_json({"data": [found]}))
    assert math.isnan(again.weight)
    assert math.isnan(again.location[0])
    assert (again.offset, again.scores["s"].value) == (math.inf, -math.inf)


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_whatever_an_executor_sends_gives_json_or_an_error_that_can_be_explained(noise: bytes) -> None:
    for response in (
        Response("r", "/", noise),
        Response("r", "/", b"", parameters=noise),
        Response("r", "/", b"", status=noise),
        Response("r", "/", answer(DocumentProto(id="d")), routes=(Route("a", 1.0, status=noise),)),
    ):
        for encode in (responses.encode_http, responses.encode_websocket):
            try:
                found = encode(response)
            except GatewayError:
                continue
            json.loads(found, parse_constant=pytest.fail)


STATUS = StatusProto(
    code=1,
    description="ValueError('boom', 1)",
    exception=StatusProto.ExceptionProto(
        name="ValueError", args=["boom", "1"], stacks=["line"], executor="Rec"
    ),
).SerializeToString()


def test_a_failure_has_the_shape_of_the_references_http_answer() -> None:
    (case,) = [case for case in load("http_requests.json") if case["name"] == "executor raises"]
    document = DocumentProto(id="d0", text="hi")
    routes = (Route("gateway", 1.5, 2.0), Route("exec_a", 1.5, 2.0, STATUS))
    found = http(Response("r", "/raise", answer(document), b"", routes, STATUS))
    assert like(found, case["response"]["json"])


def test_a_failure_has_the_shape_of_the_references_websocket_answer() -> None:
    frames = [
        step["server"]["text_json"]
        for conversation in load("websocket.json")["conversations"]
        for step in conversation["conversation"]
        if "text_json" in step.get("server", {})
    ]
    (failed,) = [frame for frame in frames if "status" in frame.get("header", {})]
    fine = frames[0]
    document = DocumentProto(id="d0", text="hi")
    routes = (Route("gateway", 1.5, 2.0), Route("exec_a", 1.5, 2.0, STATUS))
    found = json.loads(
        responses.encode_websocket(Response("r", "/raise", answer(document), b"", routes, STATUS))
    )
    assert like(found, failed)

    document.text = "hiA"
    document.tags.fields["A"].number_value = 1
    routes = (Route("gateway", 1.5, 2.0), Route("exec_a", 1.5, 2.0))
    found = json.loads(responses.encode_websocket(Response("r", "/tag", answer(document), b"", routes)))
    assert like(found, fine)


def test_unset_things_are_null_over_http_and_absent_over_websocket() -> None:
    response = Response("r", "/", b"", None, (Route("a", 1.5),))
    assert http(response) == {
        "header": {"requestId": "r", "status": None, "execEndpoint": "/", "targetExecutor": ""},
        "parameters": None,
        "routes": [
            {
                "executor": "a",
                "startTime": "1970-01-01T00:00:01.500000+00:00",
                "endTime": None,
                "status": None,
            }
        ],
        "data": [],
    }
    assert json.loads(responses.encode_websocket(response)) == {
        "header": {"request_id": "r", "exec_endpoint": "/", "target_executor": ""},
        "routes": [{"executor": "a", "start_time": "1970-01-01T00:00:01.500000Z"}],
        "data": [],
    }


def test_a_network_error_shows_the_request_and_what_failed() -> None:
    (case,) = [case for case in load("http_executor_down.json") if case["name"] == "executor down: 503"]
    expected = case["response"]["json"]
    error = ExecutorUnreachable(
        "exec_x", ["127.0.0.1:<port>"], details=expected["header"]["status"]["description"].split(" |")[0]
    )
    found = json.loads(responses.encode_network_error(decode(case["request"]), error))
    expected["header"]["status"]["exception"]["stacks"] = []
    expected["parameters"] = {"p": 1.0}
    assert like(found, expected)


def test_the_dry_run_of_a_healthy_flow_is_code_zero() -> None:
    assert json.loads(responses.encode_status(b"")) == {"code": 0, "description": "", "exception": None}
    assert json.loads(responses.encode_status(STATUS))["exception"]["name"] == "ValueError"


# --- properties ----------------------------------------------------------------------------------

float32 = st.floats(allow_nan=False, allow_infinity=False, width=32)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
scalars = st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | text
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
arrays = st.one_of(
    st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=5),
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5),
    st.lists(st.booleans(), min_size=1, max_size=5),
    st.integers(0, 3).flatmap(
        lambda width: st.lists(st.lists(float32, min_size=width, max_size=width), max_size=3)
    ),
)
score = st.fixed_dictionaries({}, optional={"value": float32, "op_name": text, "ref_id": text})


def documents(children: Any) -> Any:
    return st.fixed_dictionaries(
        {"id": text.filter(bool)},
        optional={
            "text": text,
            "weight": float32,
            "offset": float32,
            "granularity": st.integers(0, 1000),
            "tags": st.dictionaries(text, trees, max_size=3),
            "location": st.lists(float32, max_size=3),
            "embedding": arrays,
            "blob": st.binary(max_size=8).map(lambda data: base64.b64encode(data).decode()),
            "scores": st.dictionaries(text, score, max_size=2),
            "chunks": st.lists(children, max_size=2),
            "matches": st.lists(children, max_size=2),
        },
    )


leaf = st.fixed_dictionaries({"id": text.filter(bool)}, optional={"text": text})
trees_of_documents = st.recursive(leaf, documents, max_leaves=4)


@given(st.lists(trees_of_documents, max_size=3))
@settings(max_examples=50, deadline=None)
def test_what_was_written_once_is_read_back_unchanged(given_documents: Any) -> None:
    once = echo({"data": given_documents})
    assert echo({"data": once}) == once
    for before, after in zip(given_documents, once, strict=True):
        for key in ("id", "tags", "location", "embedding", "weight"):
            if before.get(key):
                assert after[key] == before[key]


KEYS = ["data", "docs", "parameters", "execEndpoint", "targetExecutor", "id", "text", "tensor", "blob"]
KEYS += ["tags", "chunks", "scores", "location", "weight", "granularity", "embedding", "uri", "value"]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(KEYS),
            inner,
            max_size=5,
        )
    ),
    max_leaves=25,
)


@pytest.mark.slow
@given(json_values)
@settings(max_examples=150, deadline=None)
def test_any_json_is_a_request_or_a_refusal_that_says_where(value: object) -> None:
    body = json.dumps(value).encode()
    try:
        request = requests.decode_request(body, content_type=None, endpoint=None, request_id="r")
    except BadRequest as refused:
        detail = json.loads(responses.encode_bad_request(refused))["detail"]
        assert {problem["loc"][0] for problem in detail} == {"body"}
    else:
        json.loads(responses.encode_http(Response("r", "/", request.documents, request.parameters)))


@given(st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_a_request_or_a_refusal(body: bytes) -> None:
    try:
        requests.decode_request(body, content_type=None, endpoint=None, request_id="r")
    except BadRequest as refused:
        responses.encode_bad_request(refused)


def test_a_float32_is_shown_as_the_double_it_is() -> None:
    assert one(DocumentProto(id="d", weight=0.1))["weight"] == struct.unpack("<f", struct.pack("<f", 0.1))[0]


@pytest.mark.parametrize(
    "data",
    [
        [{}] * 5,
        {"docs": [{}] * 5},
        {"docs": [{}] * 3, "others": [{}] * 2},
        [{"chunks": [{}, {}], "matches": [{}]}, {}],
        [{"chunks": [{"matches": [{"chunks": [{}]}]}]}, {}],
        [["docs", [{}] * 5]],
        [""] * 5,
    ],
)
def test_the_documents_of_a_request_are_bounded(data: object) -> None:
    body = json.dumps({"data": data}).encode()
    options: dict[str, Any] = {"content_type": None, "endpoint": "/", "request_id": "r"}
    requests.decode_request(body, **options, max_documents=6)
    with pytest.raises(TooManyDocuments, match=r"more than 4 documents.*gateway\.max_documents"):
        requests.decode_request(body, **options, max_documents=4)


def test_values_that_are_no_documents_do_not_count() -> None:
    document = {"tags": {"chunks": [{}] * 9}, "tensor": [[0]] * 9, "scores": {"a": {}, "b": {}}}
    decoded = requests.decode_request(
        json.dumps({"data": [document], "parameters": {"data": [{}] * 9}}).encode(),
        content_type=None,
        endpoint="/",
        request_id="r",
        max_documents=1,
    )
    assert len(documents_of(decoded)) == 1


def filled(message: DocumentProto, count: int, *, nested: bool = True) -> DocumentProto:
    message.id = str(count)
    message.text = "t"
    message.weight = -0.0
    message.location.extend([0.5, 0.0, math.nan])
    for number in range(count):
        message.scores[f"s{number}"].value = number
        message.tags.fields[f"t{number}"].list_value.values.add().number_value = number
        listed = message.tags.fields["list"].list_value.values.add()
        listed.struct_value.fields["v"].null_value = 0  # type: ignore[assignment]
        listed.struct_value.fields["w"].bool_value = True
        if nested:
            filled(message.chunks.add(), number % 3, nested=False)
            filled(message.matches.add(), number % 2, nested=False)
    message.tags.fields["empty"].struct_value.SetInParent()
    message._metadata.fields["m"].string_value = "v"
    return message


@pytest.mark.parametrize("count", [0, 1, 256, 257, 600])
def test_answers_written_in_groups_are_those_written_at_once(count: int) -> None:
    content, parameters = DataContentProto(), Struct()
    for _ in range(count):
        content.docs.docs.add()
    for number in range(count):
        parameters.fields[f"p{number}"].number_value = number
    filled(content.docs.docs.add(), count)
    serialised = content.SerializeToString()
    response = Response(
        request_id="r", endpoint="/", documents=serialised, parameters=parameters.SerializeToString()
    )
    expected = json.loads(orjson.dumps(responses.read_documents(serialised)))
    for encode in (responses.encode_http, responses.encode_websocket):
        answer = json.loads(encode(response))
        assert answer["data"] == expected
        assert answer["parameters"] == {f"p{number}": number for number in range(count)}
        assert list(answer)[-1] == "data"


def test_fields_that_are_set_to_nothing_are_null() -> None:
    document = DocumentProto(text="", weight=-0.0)
    document.tags.SetInParent()
    document.tensor.SetInParent()
    assert set(documents_module.read_document(document).values()) == {None}
    document = DocumentProto(blob=b"")
    assert set(documents_module.read_document(document).values()) == {None}


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=30,
)


@given(
    st.dictionaries(st.text(max_size=5), _VALUES, max_size=5)
    | st.just({"a": [[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]})
)
def test_parameters_written_by_hand_are_those_of_protobuf(parameters: dict[str, Any]) -> None:
    problems, expected = Problems(), Struct()
    try:
        fill_struct(expected, parameters, 3, ("body",), problems)
    except OverflowError:
        with pytest.raises(OverflowError):
            struct_of(parameters, 3, ("body",), Problems())
        return
    assert Struct.FromString(struct_of(parameters, 3, ("body",), Problems())) == expected
    assert not problems.entries
