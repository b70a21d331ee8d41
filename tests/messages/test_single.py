"""Single documents, as they are in a list and alone."""

from __future__ import annotations

import json
import time
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd import pb
from gatewayd.messages.documents import UnreadableDocuments
from gatewayd.messages.methods import STREAM_DOC
from gatewayd.messages.parts import PartResponses, SingleResponses
from gatewayd.messages.request import Answer, Response, Route
from gatewayd.messages.single import (
    PART_OF_A_STREAM,
    SingleCalls,
    content_of,
    contents_of,
    decode_single_answer,
    decode_single_request,
    encode_single_calls,
    encode_single_responses,
)
from gatewayd.messages.wire import DATA, Malformed, encode_call, encode_response, field, split
from gatewayd.pb import DataContentProto, SingleDocumentRequestProto, second
from tests.paths import GOLDEN34

TEXTS = st.lists(st.text(max_size=200), max_size=5)


def content(*texts: str) -> DataContentProto:
    made = DataContentProto()
    made.docs.SetInParent()
    for text in texts:
        made.docs.docs.add(text=text)
    return made


@given(TEXTS)
def test_a_content_is_taken_apart_as_protobuf_does_it(texts: list[str]) -> None:
    made = content(*texts)

    assert [bytes(each) for each in contents_of(made.SerializeToString())] == [
        content(text).SerializeToString() for text in texts
    ]


@pytest.mark.parametrize("module", [pb, second])
def test_a_request_of_either_generation_becomes_one_of_one_document(module: Any) -> None:
    sent = module.SingleDocumentRequestProto()
    sent.header.request_id = "r"
    sent.header.exec_endpoint = "/gen"
    sent.parameters.fields["n"].number_value = 3

    request = decode_single_request(sent.SerializeToString())

    assert (request.request_id, request.endpoint) == ("r", "/gen")
    assert request.parameters == sent.parameters.SerializeToString()
    assert len(module.DataContentProto.FromString(bytes(request.documents)).docs.docs) == 1


def test_calls_have_the_header_of_the_request_and_a_document_each() -> None:
    documents = content("a", "b").SerializeToString()
    calls = encode_single_calls(encode_call("r", "/gen", Answer(documents, b"", (b"\x0a\x01g",))))

    found = [SingleDocumentRequestProto.FromString(bytes(each)) for each in calls]
    assert [(each.header.request_id, each.document.text) for each in found] == [("r", "a"), ("r", "b")]
    assert [route.executor for route in found[0].routes] == ["g"]


def test_an_answer_is_a_content_of_one_document_and_an_error_may_have_none() -> None:
    good = SingleDocumentRequestProto()
    good.document.text = "x" * 300
    bad = SingleDocumentRequestProto()
    bad.header.status.code = 1
    bad.header.status.description = "boom"

    answer, failed = (decode_single_answer(each.SerializeToString()) for each in (good, bad))

    assert answer.documents == content("x" * 300).SerializeToString()
    assert (failed.failed, failed.documents) == (True, b"")
    assert b"boom" in failed.status


def test_a_response_is_one_message_for_each_document_with_the_id_of_its_request() -> None:
    response = Response(
        "r", "/gen", content("a", "b").SerializeToString(), b"", (Route("gateway", 1.0, 2.0),)
    )

    found = [SingleDocumentRequestProto.FromString(bytes(each)) for each in encode_single_responses(response)]

    assert [(each.header.request_id, each.document.text) for each in found] == [("r", "a"), ("r", "b")]
    (empty,) = encode_single_responses(Response("r", "/gen", b""))
    assert not SingleDocumentRequestProto.FromString(bytes(empty)).HasField("document")


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["r", "other"]),
            st.binary(max_size=300) | st.integers(120, 140).map(bytes) | st.integers(16370, 16400).map(bytes),
            st.sampled_from([b"", None, b"\x0a\x05\x0a\x01a\x12\x00"]),
            st.sampled_from(
                [(), (Route("gateway", 1.0, 2.0),), (Route("gateway", 1.0, 3.0), Route("g", 2.0))]
            ),
            st.sampled_from([b"", b"\x08\x01"]),
            st.sampled_from([(), (("x-a", "1"),)]),
            st.integers(0, 2),
        ),
        max_size=6,
    )
)
def test_the_answers_of_a_stream_are_encoded_as_each_by_itself(answers: list[Any]) -> None:
    encode, part = SingleResponses(), PartResponses("q", "/e")
    for request_id, document, parameters, routes, status, headers, count in answers:
        documents = b"".join(content_of(document) for _ in range(count))
        response = Response(request_id, "/gen", documents, parameters, routes, status, headers)

        assert encode(response) == encode_single_responses(response)
        named = attrs.evolve(response, request_id="q", endpoint="/e", headers=(*headers, PART_OF_A_STREAM))
        assert part(response) == encode_response(named)


@given(st.binary(max_size=40))
def test_what_is_no_single_document_is_refused_alike(documents: bytes) -> None:
    response = Response("r", "/gen", documents)
    try:
        wanted = encode_single_responses(response)
    except (Malformed, UnreadableDocuments) as error:
        with pytest.raises(type(error)):
            SingleResponses()(response)
    else:
        assert SingleResponses()(response) == wanted


SIZES = st.integers(0, 300) | st.integers(16_370, 16_400)


@given(
    st.binary(max_size=60) | SIZES.map(bytes),
    st.sampled_from(["", "r", "r" * 200, "\u00e9"]),
    st.sampled_from(["", "boom"]),
    st.booleans(),
    st.binary(max_size=3),
    st.integers(0, 5),
)
def test_a_usual_answer_is_read_as_any_other(
    document: bytes, request_id: str, boom: str, routed: bool, behind: bytes, cut: int
) -> None:
    sent = SingleDocumentRequestProto()
    sent.header.request_id = request_id
    if boom:
        sent.header.status.code = 1
        sent.header.status.description = boom
    if routed:
        sent.routes.add(executor="g")
    message = sent.SerializeToString() + b"".join(field(DATA, document)) + behind
    message = message[: len(message) - cut]
    try:
        # An empty field in front is skipped, and makes it an unusual one.
        wanted = decode_single_answer(b"\x2a\x00" + message)
    except Malformed:
        with pytest.raises(Malformed):
            decode_single_answer(message)
    else:
        assert decode_single_answer(message) == wanted


def test_what_cannot_be_taken_apart_is_refused() -> None:
    with pytest.raises(UnreadableDocuments, match="docs_bytes"):
        contents_of(DataContentProto(docs_bytes=b"pickle").SerializeToString())
    for broken in (b"\x0a", b"\x0a\x05ab", b"\x08\x01", b"\x0a\x02\x0a\x09"):
        with pytest.raises(Malformed):
            contents_of(broken)
    assert contents_of(b"") == []
    assert DataContentProto.FromString(content_of(b"")).docs.docs[0].ByteSize() == 0


RECORDED = [
    talk
    for talk in json.loads((GOLDEN34 / "grpc/manifest.json").read_text())
    if talk["method"] == STREAM_DOC
    and all((GOLDEN34 / "grpc" / part["file"]).exists() for part in talk["requests"] + talk["responses"])
    and len(talk["requests"]) == 1
]


@pytest.mark.parametrize("talk", RECORDED, ids=lambda talk: f"{talk['n']} {talk['name']}")
def test_recorded_conversations_keep_their_documents_byte_for_byte(talk: dict[str, Any]) -> None:
    """What the reference's client, gateway and executors sent, on its way through ours."""
    (sent,) = ((GOLDEN34 / "grpc" / each["file"]).read_bytes() for each in talk["requests"])
    asked = second.SingleDocumentRequestProto.FromString(sent)
    document = content_of(split(sent)[3] or b"")
    request_id, endpoint = asked.header.request_id, asked.header.exec_endpoint
    (call,) = encode_single_calls(encode_call(request_id, endpoint, Answer(document)))
    called = second.SingleDocumentRequestProto.FromString(bytes(call))

    assert called.document == asked.document
    assert called.header.exec_endpoint == asked.header.exec_endpoint
    for each in talk["responses"]:
        received = (GOLDEN34 / "grpc" / each["file"]).read_bytes()
        answer = decode_single_answer(received)
        response = Response(request_id, endpoint, answer.documents, status=answer.status)
        (given,) = encode_single_responses(response)
        wanted = second.SingleDocumentRequestProto.FromString(received)
        found = second.SingleDocumentRequestProto.FromString(bytes(given))
        assert found.document == wanted.document
        assert found.header.status == wanted.header.status
        assert found.header.request_id == request_id


def test_calls_are_made_one_by_one_however_many_documents_there_are() -> None:
    list_of_empty = b"\x0a\0" * 2_000_000
    began = time.process_time()
    calls = SingleCalls(encode_call("r", "/gen", Answer(b"".join(field(0x0A, list_of_empty)))))
    assert calls.take() == calls.take()
    assert calls
    assert time.process_time() - began < 1.0
