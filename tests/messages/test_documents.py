"""Merging, filtering and sorting documents: against the reference's answers, docarray, and properties."""

from __future__ import annotations

import json
from typing import Any

import pytest
from docarray import DocumentArray
from docarray.proto import docarray_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.messages import documents
from gatewayd.messages.documents import UnreadableDocuments, count, document_ids, merge, select, sort_like
from gatewayd.messages.json_form import requests, responses
from gatewayd.messages.request import Response
from gatewayd.messages.wire import NO_DOCUMENTS
from gatewayd.pb import DataContentProto, DataRequestProto, DocumentProto
from tests.paths import GOLDEN

PICKLED = DataContentProto(docs_bytes=b"\x80\x04.").SerializeToString()


def content(*found: DocumentProto) -> bytes:
    message = DataContentProto()
    message.docs.SetInParent()
    message.docs.docs.extend(found)
    return bytes(message.SerializeToString())


def from_json(*found: dict[str, Any]) -> bytes:
    body = json.dumps({"data": found}).encode()
    return requests.decode_request(body, content_type=None, endpoint="/", request_id="r").documents


def as_json(serialised: bytes) -> Any:
    return json.loads(responses.encode_http(Response("r", "/", serialised)))["data"]


def plain(*ids: str) -> bytes:
    return content(*(DocumentProto(id=one) for one in ids))


def branch(letter: str, *, weight: float | None) -> bytes:
    """What executor A or B of the golden topology answers to /branchj for documents d0 and d1."""
    found: list[dict[str, Any]] = []
    for index in (0, 1):
        document: dict[str, Any] = {
            "id": f"d{index}",
            "text": f"text by {letter}",
            "tags": {"who": letter},
            "chunks": [{"id": f"c{letter}{index}", "text": f"chunk {letter}"}],
            "matches": [
                {"id": f"m{index}"} | ({"text": "match A"} if letter == "A" else {"uri": "match B uri"})
            ],
        }
        if index == 0 and weight:
            document["weight"] = weight
        if letter == "B":
            document |= {"embedding": [1.0, 2.0], "uri": "http://b"}
        found.append(document)
    return from_json(*found, {"id": f"new{letter}", "text": f"new from {letter}"})


@pytest.mark.parametrize(("name", "order"), [("A answers first", "AB"), ("B answers first", "BA")])
def test_a_join_gets_what_the_reference_merges(name: str, order: str) -> None:
    (case,) = [case for case in json.loads((GOLDEN / "http_reduce.json").read_text()) if case["name"] == name]
    merged = merge([branch(letter, weight=1.5) for letter in order])
    assert as_json(merged) == case["response"]["json"]["data"]


@pytest.mark.parametrize(
    ("name", "order"),
    [("order of merged docs, A first", "AB"), ("order of merged docs, B first", "BA")],
)
def test_documents_stand_in_the_order_of_the_first_part_then_of_the_others(name: str, order: str) -> None:
    (case,) = [case for case in json.loads((GOLDEN / "http_reduce.json").read_text()) if case["name"] == name]
    merged = merge([plain(f"x{letter}", "d2", "d1", "d0") for letter in order])
    assert document_ids(merged) == [one["id"] for one in case["response"]["json"]["data"]]


def test_a_merge_has_the_bytes_meaning_of_the_recorded_grpc_answer() -> None:
    case = json.loads((GOLDEN / "grpc" / "manifest.json").read_text())[13]
    recorded = DataRequestProto.FromString((GOLDEN / case["response_file"]).read_bytes())
    found = DataContentProto.FromString(merge([branch(letter, weight=None) for letter in "AB"]))
    for document in [*found.docs.docs, *recorded.data.docs.docs]:
        # JSON makes float64 of what the recorded executor kept as float32.
        document.ClearField("embedding")
    assert found == recorded.data


def test_filtering_and_sorting_give_the_recorded_answer_of_a_flow_with_conditions() -> None:
    case = json.loads((GOLDEN / "grpc" / "manifest.json").read_text())[14]
    sent = DataRequestProto.FromString((GOLDEN / case["request_file"]).read_bytes())
    answered = DataRequestProto.FromString((GOLDEN / case["response_file"]).read_bytes())
    asked = sent.data.SerializeToString()
    small = select(asked, lambda document: bool(document.tags.fields["k"].number_value < 2))
    large = select(asked, lambda document: bool(document.tags.fields["k"].number_value >= 2))
    assert (document_ids(small), document_ids(large)) == (["d1", "d3"], ["d0", "d2"])
    merged = sort_like(merge([small, large]), document_ids(asked))
    assert document_ids(merged) == document_ids(answered.data.SerializeToString()) == ["d0", "d1", "d2", "d3"]


def test_content_of_another_kind_replaces_what_the_document_had() -> None:
    both = merge([from_json({"id": "a", "text": "x"}), from_json({"id": "a", "blob": "AAAA"})])
    assert [(one["text"], one["blob"]) for one in as_json(both)] == [(None, "AAAA")]


def test_a_chunk_that_moves_in_belongs_to_its_new_document() -> None:
    base = from_json({"id": "a", "granularity": 2, "adjacency": 1})
    chunk, match = DocumentProto(id="c", parent_id="zz"), DocumentProto(id="m", parent_id="zz")
    (found,) = as_json(merge([base, content(DocumentProto(id="a", chunks=[chunk], matches=[match]))]))
    assert [(one["id"], one["parent_id"], one["granularity"]) for one in found["chunks"]] == [("c", "a", 3)]
    assert [(one["id"], one["parent_id"], one["adjacency"]) for one in found["matches"]] == [("m", "zz", 2)]


def test_documents_without_an_id_are_never_taken_for_the_same() -> None:
    unnamed = content(DocumentProto(text="a"), DocumentProto(text="b"))
    assert count(merge([unnamed, unnamed])) == 4


@pytest.mark.parametrize("nothing", [b"", NO_DOCUMENTS])
def test_parts_without_documents_leave_the_bytes_alone(nothing: bytes) -> None:
    # Not even parsed: what only passes by may be anything.
    assert merge([nothing, b"\xff\xff", nothing]) == b"\xff\xff"
    assert merge([nothing, nothing]) == nothing
    assert merge([PICKLED]) == PICKLED
    assert select(nothing, lambda document: True) == nothing
    assert sort_like(nothing, ["a"]) == nothing
    assert (count(nothing), document_ids(nothing)) == (0, [])


def test_no_parts_at_all_are_no_documents() -> None:
    assert merge([]) == b""


@pytest.mark.parametrize("bad", [PICKLED, b"\xff\xff", b"\x0a\x05ab"])
def test_documents_that_cannot_be_read_are_an_error_that_can_be_explained(bad: bytes) -> None:
    good = plain("a")
    for work in (
        lambda: merge([good, bad]),
        lambda: merge([bad, good]),
        lambda: select(bad, lambda document: True),
        lambda: sort_like(bad, ["a"]),
        lambda: count(bad),
        lambda: document_ids(bad),
    ):
        with pytest.raises(UnreadableDocuments):
            work()


def test_a_filter_that_takes_nothing_leaves_an_empty_list() -> None:
    assert select(plain("a", "b"), lambda document: False) == NO_DOCUMENTS


def test_unknown_ids_sort_to_the_end_in_their_order() -> None:
    found = sort_like(plain("x", "d2", "y", "d0", "d1"), ["d0", "d1", "d2"])
    assert document_ids(found) == ["d0", "d1", "d2", "x", "y"]


def test_sorting_what_is_sorted_gives_the_same_bytes() -> None:
    once = plain("a", "b")
    assert sort_like(once, ["a", "zz", "b"]) is once


ids = st.sampled_from(["a", "b", "c", "d", "e"])
words = st.sampled_from(["", "x", "y"])
fields: dict[str, Any] = {
    "text": words,
    "weight": st.sampled_from([0.0, 0.5, 1.5]),
    "uri": words,
    "modality": words,
    "tags": st.dictionaries(words, st.integers(2, 5), max_size=2),
    "scores": st.dictionaries(words.filter(bool), st.just({"value": 0.5}), max_size=2),
    "embedding": st.just([1.0, 2.0]),
    "location": st.lists(st.sampled_from([1.0, 2.0]), max_size=2),
}


def one_document(children: Any) -> Any:
    lists = st.lists(children, max_size=3, unique_by=lambda one: one["id"])
    return st.fixed_dictionaries({"id": ids}, optional=fields | {"chunks": lists, "matches": lists})


leaves = st.fixed_dictionaries({"id": ids}, optional=fields)
part = st.lists(
    st.recursive(leaves, one_document, max_leaves=4), max_size=4, unique_by=lambda one: one["id"]
).map(lambda found: from_json(*found))


def ids_below(found: Any) -> set[tuple[str, ...]]:
    """Paths of ids through chunks and matches."""
    paths = set()
    for one in found:
        paths.add((one["id"],))
        for name in ("chunks", "matches"):
            paths |= {(one["id"], name, *below) for below in ids_below(one[name] or [])}
    return paths


@pytest.mark.slow
@given(st.lists(part, min_size=1, max_size=4))
@settings(max_examples=50, deadline=None)
def test_a_merge_loses_no_document_doubles_none_and_keeps_the_order(parts: list[bytes]) -> None:
    merged = as_json(merge(parts))
    expected: list[str] = []
    for one in parts:
        expected += [known for known in document_ids(one) if known not in expected]
    assert [one["id"] for one in merged] == expected
    assert ids_below(merged) == {path for one in parts for path in ids_below(as_json(one))}


@given(part)
@settings(max_examples=30, deadline=None)
def test_merging_a_part_with_itself_changes_nothing(one: bytes) -> None:
    assert as_json(merge([one, one, one])) == as_json(one)


@given(part, part)
@settings(max_examples=60, deadline=None)
def test_a_merge_is_what_docarray_makes_of_it(first: bytes, second: bytes) -> None:
    def array(serialised: bytes) -> DocumentArray:
        docs = DataContentProto.FromString(serialised).docs.SerializeToString()
        return DocumentArray.from_protobuf(docarray_pb2.DocumentArrayProto.FromString(docs))

    base = array(first)
    base.reduce(array(second))
    reduced = DataContentProto()
    reduced.docs.ParseFromString(base.to_protobuf().SerializeToString())
    assert as_json(merge([first, second])) == as_json(reduced.SerializeToString())


@given(st.lists(ids, max_size=6), st.lists(ids, max_size=6))
def test_sorting_moves_documents_and_nothing_else(found: list[str], order: list[str]) -> None:
    done = document_ids(sort_like(plain(*found), order))
    assert sorted(done) == sorted(found)
    known = [one for one in done if one in order]
    assert [order.index(one) for one in known] == sorted(order.index(one) for one in known)
    assert done[len(known) :] == [one for one in found if one not in order]


@given(st.binary(max_size=80), st.binary(max_size=80))
@settings(max_examples=200, deadline=None)
def test_arbitrary_bytes_are_merged_or_refused(first: bytes, second: bytes) -> None:
    try:
        documents.merge([first, second])
    except UnreadableDocuments as refused:
        assert str(refused)  # noqa: PT017
