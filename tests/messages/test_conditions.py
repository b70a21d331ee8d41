"""The language of ``when``: its rules, what it refuses, and docarray's own ``find`` as the judge."""

from __future__ import annotations

from typing import Any

import pytest
from docarray import Document, DocumentArray
from docarray.array.queryset.lookup import LookupyError
from docarray.score import NamedScore
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.messages.conditions import BadCondition, compile_condition
from gatewayd.pb import DocumentProto


def proto(document: Document) -> DocumentProto:
    return DocumentProto.FromString(document.to_protobuf().SerializeToString())


FULL = Document(
    id="full",
    text="hello",
    tags={
        "k": 2, "s": "abc", "n": None, "l": [1, 2, 3], "d": {"e": 5}, "b": True, "z": 0, "es": "",
    },
    weight=0.5,
    granularity=1,
    uri="u.png",
    location=[1, 2],
    scores={"cos": NamedScore(value=0.25)},
    chunks=[Document(id="c", text="chunk")],
)  # fmt: skip
EMPTY = Document(id="empty")
BOTH = DocumentArray.from_protobuf(DocumentArray([FULL, EMPTY]).to_protobuf())


def found(query: Any) -> list[str]:
    condition = compile_condition(query)
    return [document.id for document in BOTH if condition(proto(document))]


FIELDS = [
    "text", "tags__k", "tags__s", "tags__n", "tags__l", "tags__d__e", "tags__d", "tags__zz", "tags__zz__y",
    "tags__b", "tags__z", "tags__es", "tags__l__0", "tags", "weight", "granularity", "uri",
    "mime_type", "id", "modality", "parent_id", "offset", "location", "location__0",
    "scores", "scores__cos__value", "scores__zz__value", "chunks", "matches", "chunks__0__id",
    "chunks__0__text", "blob", "content",
]  # fmt: skip
ENTRIES: list[tuple[str, Any]] = [
    ("$exists", True), ("$exists", False), ("$eq", 2), ("$eq", "hello"), ("$eq", True), ("$neq", "q"),
    ("$eq", [1, 2, 3]), ("$eq", {"e": 5}), ("$lt", 100), ("$lte", 2), ("$gt", -1), ("$gte", 5),
    ("$gt", "abb"), ("$lt", "i"), ("$in", [2, "hello"]), ("$nin", [2]), ("$nin", ["abc", None]), ("$in", []),
    ("$regex", "h"),
    ("$regex", "^a.c$"), ("$size", 3), ("$size", 1), ("$eq", "{tags__k}"), ("$neq", "{tags__zz}"),
    ("$gt", "{weight}"), ("$lte", "{tags__s}"), ("$in", "{tags__l}"), ("$regex", "{tags__s}"),
    ("$size", "{tags__k}"), ("$eq", "x{tags__s}"),
]  # fmt: skip


@pytest.mark.parametrize("field", FIELDS)
def test_every_operator_on_a_field_agrees_with_docarray(field: str) -> None:
    compared = 0
    for name, operand in ENTRIES:
        query = {field: {name: operand}}
        mine = found(query)
        try:
            expected = [document.id for document in BOTH.find(query)]
        except (TypeError, IndexError, LookupyError):
            # What docarray cannot compare or look up fails there, and with it the request.
            continue
        assert mine == expected, query
        compared += 1
    assert compared >= 10


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, ["full", "empty"]),
        ({"$and": {}}, ["full", "empty"]),
        ({"$and": []}, ["full", "empty"]),
        ({"$or": []}, []),
        ({"$not": {}}, []),
        ({"$not": {"tags__k": {"$eq": 2}}}, ["empty"]),
        ({"$not": [{"tags__k": {"$eq": 2}}]}, ["empty"]),
        ({"$not": {"tags__k": {"$eq": 2}, "text": {"$eq": "q"}}}, ["full", "empty"]),
        ({"$and": [{"tags__k": {"$eq": 2}}, {"text": {"$eq": "hello"}}]}, ["full"]),
        ({"$or": [{"tags__k": {"$eq": 3}}, {"text": {"$eq": "hello"}}]}, ["full"]),
        ({"$or": {"tags__k": {"$eq": 2}, "text": {"$eq": "q"}}}, ["full"]),
        ({"$and": {"tags__k": {"$eq": 2}, "text": {"$eq": "q"}}}, []),
        ({"tags__k": {"$gt": 1, "$lt": 3}}, ["full"]),
        ({"tags__k": {"$eq": 2}, "text": {"$eq": "x"}}, []),
        ({"$and": [{"$or": [{"tags__k": {"$eq": 2}}]}]}, ["full"]),
    ],
)
def test_several_conditions_combine_as_in_docarray(query: Any, expected: list[str]) -> None:
    assert found(query) == expected == [document.id for document in BOTH.find(query)]


def test_what_stands_beside_a_logical_operator_must_hold_as_well() -> None:
    # In docarray the first key decides: after $or its neighbours are alternatives too.
    assert found({"$or": [{"text": {"$eq": "hello"}}], "tags__k": {"$eq": 3}}) == []


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (None, "None is not an object"),
        ([1], "is not an object"),
        ("x", "is not an object"),
        ({"tags__k": 5}, r"^tags__k: 5 is not an object of operators"),
        ({"tags__k": {}}, r"^tags__k: "),
        ({"tags__k": {"$foo": 1}}, r"^tags__k\.\$foo: no such operator; there are \$eq, "),
        ({"$and": [{}, {"$nor": []}]}, r"^\$and\[1\]\.\$nor: no such logical operator"),
        ({"$and": 5}, r"^\$and: 5 is not"),
        ({"$not": {"$or": [{"a": 1}]}}, r"^\$not\.\$or\[0\]\.a: "),
        ({"nope": {"$eq": 1}}, r"^nope\.\$eq: a document has no field 'nope'"),
        ({"text__a": {"$eq": 1}}, "no field 'text__a'"),
        ({"chunks__x__id": {"$eq": 1}}, "no field 'chunks__x__id'"),
        ({"chunks__0": {"$eq": 1}}, "no field 'chunks__0'"),
        ({"scores__cos__zz": {"$eq": 1}}, "no field"),
        ({"text": {"$eq": "{nope}"}}, "no field 'nope'"),
        ({"text": {"$regex": "("}}, r"^text\.\$regex: '\(' is not a regular expression"),
        ({"text": {"$regex": 5}}, r"^text\.\$regex: 5 is not a string"),
        ({"text": {"$in": "abc"}}, r"^text\.\$in: 'abc' is not a list"),
        ({"text": {"$exists": 1}}, r"^text\.\$exists: 1 is neither true nor false"),
        ({"embedding": {"$eq": [1]}}, "embedding is an array"),
    ],
)
def test_a_query_that_means_nothing_is_refused_with_its_place(query: Any, message: str) -> None:
    with pytest.raises(BadCondition, match=message):
        compile_condition(query)


def test_a_query_too_deep_to_compile_is_refused() -> None:
    query: Any = {}
    for _ in range(5000):
        query = {"$not": query}
    with pytest.raises(BadCondition, match="nested deeper"):
        compile_condition(query)


def test_arrays_can_be_asked_whether_they_exist() -> None:
    document = Document(id="a", embedding=[1.0, 2.0])
    assert compile_condition({"embedding": {"$exists": True}})(proto(document))
    assert compile_condition({"tensor": {"$exists": False}})(proto(document))


def test_values_that_cannot_be_compared_do_not_match() -> None:
    assert found({"tags__s": {"$lt": 5}}) == []
    assert found({"tags__k": {"$regex": "2"}}) == []
    assert found({"tags__k": {"$size": 1}}) == []


@pytest.mark.parametrize("field", ["tags__l__9", "location__7", "chunks__1__id", "tags__s__0"])
def test_a_place_that_is_not_there_is_missing(field: str) -> None:
    assert found({field: {"$exists": True}}) == []
    assert found({field: {"$neq": 1}}) == ["full", "empty"]


def test_asking_changes_no_document() -> None:
    document = proto(EMPTY)
    before = document.SerializeToString()
    for field in FIELDS:
        compile_condition({field: {"$eq": 1}})(document)
        compile_condition({field: {"$exists": True}})(document)
    assert document.SerializeToString() == before


numbers = st.integers(-3, 3)
strings = st.sampled_from(["", "a", "b", "ab", "ba"])
documents = st.builds(
    lambda text, weight, tags: Document(text=text, weight=weight, tags=tags),
    strings,
    st.sampled_from([0.0, 0.5, 2.0]),
    st.fixed_dictionaries(
        {},
        optional={
            "n": numbers,
            "m": numbers,
            "s": strings,
            "l": st.lists(numbers, max_size=3),
            "x": st.none(),
        },
    ),
)
about_numbers = st.sampled_from(["tags__n", "tags__m", "weight", "tags__x"])
about_strings = st.sampled_from(["tags__s", "text", "tags__x"])
orders = st.sampled_from(["$eq", "$neq", "$lt", "$lte", "$gt", "$gte"])
simple = st.one_of(
    st.builds(lambda field, name, value: {field: {name: value}}, about_numbers, orders, numbers),
    st.builds(lambda field, name, value: {field: {name: value}}, about_strings, orders, strings),
    st.builds(
        lambda field, name, value: {field: {name: value}},
        about_numbers,
        st.sampled_from(["$in", "$nin"]),
        st.lists(numbers, max_size=3),
    ),
    st.builds(
        lambda field, value: {field: {"$regex": value}},
        about_strings,
        st.sampled_from(["a", "^b", "b$", "."]),
    ),
    st.builds(lambda size: {"tags__l": {"$size": size}}, st.integers(0, 3)),
    st.builds(lambda field, value: {field: {"$exists": value}}, about_numbers | about_strings, st.booleans()),
    st.builds(
        lambda name, value: {"tags__n": {name: value}},
        st.sampled_from(["$eq", "$neq"]),
        st.sampled_from(["{tags__m}", "{weight}", "{tags__x}"]),
    ),
)
several = st.lists(simple, min_size=1, max_size=3).map(
    lambda parts: {field: value for part in parts for field, value in part.items()}
)
queries = st.recursive(
    simple | several,
    lambda inner: st.one_of(
        st.builds(
            lambda name, parts: {name: parts}, st.sampled_from(["$and", "$or"]), st.lists(inner, max_size=3)
        ),
        st.builds(lambda part: {"$not": part}, inner),
    ),
    max_leaves=6,
)


@given(st.lists(documents, max_size=4), queries)
@settings(max_examples=300, deadline=None)
def test_any_query_finds_what_docarray_finds(some: list[Document], query: Any) -> None:
    array = DocumentArray.from_protobuf(DocumentArray(some).to_protobuf())
    condition = compile_condition(query)
    expected = [document.id for document in array.find(query)] if array else []
    assert [document.id for document in array if condition(proto(document))] == expected
