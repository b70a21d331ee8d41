"""Documents of the second generation in the engine: the merge of a join above all."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.messages.documents import UnreadableDocuments
from gatewayd.messages.second.documents import document_ids, key_of, merge, select, sort_like
from gatewayd.pb.second import DataContentProto, DocListProto, DocProto, NodeProto
from tests.messages.second.made import Doc, Docs, content, doc, fill, plain


def merged(base: Any, *parts: Any) -> Any:
    """What becomes of one field of one document that was sent as ``base``, and came back as ``parts``."""
    contents = [content({"id": "d", "x": part}) for part in parts]
    sent = [content({"id": "d", "x": base})] * len(parts)
    (found,) = plain(merge(contents, sent))
    return found["x"]


@pytest.mark.parametrize(
    ("base", "first", "second", "expected"),
    [
        # Who changed nothing wins nothing, in either order.
        (0, 1, 0, 1),
        (0, 0, 1, 1),
        ("a", "b", "a", "b"),
        ([1], [1, 2], [1], [1, 2]),
        ([1], [], [1], []),
        (None, "n", None, "n"),
        ("n", None, "n", None),
        (3, 4.0, 3.0, 4.0),
        # Both changed it: the later one counts, unless it is None.
        (0, 1, 2, 2),
        ("a", "b", None, "b"),
        ("a", None, "b", "b"),
        ((1, 2), (3, 2), (1, 4), (1, 4)),
        (b"", b"1", b"2", b"2"),
        (0, "text", 5, 5),
        ([1], "text", [1, 2], [1, 2]),
        # Lists: what was added is appended.
        (["c"], ["c", "f1"], ["c", "f2"], ["c", "f1", "f2"]),
        (["c"], ["c", "c"], ["c", "f2"], ["c", "c", "f2"]),
        (["c"], ["f1"], ["c", "f2"], ["f1", "f2"]),
        ([1, 2], [1, 2, 3], [1.0, 2.0, 4.0], [1, 2, 3, 4.0]),
        ([["a"]], [["a"], ["b"]], [["a"], ["c"]], [["a"], ["b"], ["c"]]),
        ([], ["same"], ["same"], ["same"]),
        # Sets are united, dicts key by key, what was removed included.
        ({1}, {1, 2}, {1, 3}, {1, 2, 3}),
        ({"a": 1}, {"a": 1, "b": 2}, {"a": 1, "c": 3}, {"a": 1, "b": 2, "c": 3}),
        ({"a": 1}, {"a": 2}, {"a": 1, "b": 1}, {"a": 2, "b": 1}),
        ({"a": 1, "b": 2}, {"a": 1, "b": 2, "c": 3}, {"b": 2}, {"b": 2, "c": 3}),
        ({"a": 1, "b": 2}, {"b": 2}, {"a": 1, "b": 3}, {"b": 3}),
        ({"a": 1}, {}, {"a": 2}, {"a": 2}),
        ({"a": {"b": [1]}}, {"a": {"b": [1, 2]}}, {"a": {"b": [1, 3]}}, {"a": {"b": [1, 2, 3]}}),
        # Documents within: field by field, unless they are others.
        (
            Doc(id="n", a=0, b=0),
            Doc(id="n", a=1, b=0),
            Doc(id="n", a=0, b=2),
            Doc(id="n", a=1, b=2),
        ),
        (Doc(id="n", a=0), Doc(id="n", a=1), Doc(id="m", a=2), Doc(id="m", a=2)),
        (None, Doc(id="n", a=1), None, Doc(id="n", a=1)),
        (
            Docs(),
            Docs([Doc(id="k1", t="p1")]),
            Docs([Doc(id="k2", t="p2"), Doc(id="k1", t="p2")]),
            Docs([Doc(id="k1", t="p2"), Doc(id="k2", t="p2")]),
        ),
        (
            Docs([Doc(id="k", a=0, b=0)]),
            Docs([Doc(id="k", a=1, b=0)]),
            Docs([Doc(id="k", a=0, b=2)]),
            Docs([Doc(id="k", a=1, b=2)]),
        ),
        # What one removed and the other left alone stays away.
        (
            Docs([Doc(id="k"), Doc(id="l")]),
            Docs([Doc(id="l"), Doc(id="m")]),
            Docs([Doc(id="k"), Doc(id="l"), Doc(id="n")]),
            Docs([Doc(id="l"), Doc(id="m"), Doc(id="n")]),
        ),
        # Without an id there is nothing to merge by: the new ones are appended.
        (
            Docs([Doc(id=None, a=1)]),
            Docs([Doc(id=None, a=1), Doc(id=None, a=2)]),
            Docs([Doc(id=None, a=1), Doc(id=None, a=3)]),
            Docs([Doc(id=None, a=1), Doc(id=None, a=2), Doc(id=None, a=3)]),
        ),
    ],
)
def test_two_branches_and_one_value(base: Any, first: Any, second: Any, expected: Any) -> None:
    assert merged(base, first, second) == expected


def test_an_unchanged_nan_is_no_change() -> None:
    assert merged(math.nan, 1.0, math.nan) == 1.0
    assert key_of(fill(NodeProto(), math.nan)) == key_of(fill(NodeProto(), math.nan))


def test_an_array_counts_by_its_elements_and_the_name_of_a_type_not_at_all() -> None:
    def array(buffer: bytes, of: str = "<f4") -> DocProto:
        made = doc(id="d")
        dense = made.data["x"].ndarray.dense
        dense.buffer, dense.dtype = buffer, of
        dense.shape.append(len(buffer) // 4)
        made.data["x"].type = "ndarray"
        return made

    def whole(*documents: DocProto) -> bytes:
        return DataContentProto(docs=DocListProto(docs=documents)).SerializeToString()

    base, changed = array(bytes(8)), array(b"12345678")
    untyped = array(bytes(8))
    untyped.data["x"].ClearField("type")
    found = DataContentProto.FromString(bytes(merge([whole(changed), whole(untyped)], [whole(base)] * 2)))

    assert list(found.docs.docs) == [changed]  # its type is kept


def test_a_default_of_a_class_overwrites_nothing_in_a_field_that_was_not_sent() -> None:
    sent = [content({"id": "d"})] * 2
    parts = [content({"id": "d", "i": 1, "t": "x"}), content({"id": "d", "i": 0, "t": "", "j": 0})]

    assert plain(merge(parts, sent)) == [{"id": "d", "i": 1, "t": "x", "j": 0}]
    parts[1] = content({"id": "d", "i": 2, "t": ""})
    assert plain(merge(parts, sent)) == [{"id": "d", "i": 2, "t": "x"}]


def test_a_field_that_a_class_leaves_out_is_not_removed() -> None:
    sent = [content({"id": "d", "a": 1, "b": 1})] * 2
    parts = [content({"id": "d", "a": 2}), content({"id": "d", "b": 2})]

    assert plain(merge(parts, sent)) == [{"id": "d", "a": 2, "b": 2}]


def test_documents_of_one_part_alone_are_appended_and_those_without_an_id_never_merged() -> None:
    sent = [content({"id": "a"}, {"id": None, "t": "same"})] * 2
    parts = [
        content({"id": "a", "x": 1}, {"id": None, "t": "same"}),
        content({"id": "new"}, {"id": None, "t": "same"}, {"id": "a"}, {"t": "no field"}),
    ]

    assert plain(merge(parts, sent)) == [
        {"id": "a", "x": 1},
        {"id": None, "t": "same"},
        {"id": "new"},
        {"id": None, "t": "same"},
        {"t": "no field"},
    ]


def test_branches_that_were_sent_different_documents_are_each_compared_with_their_own() -> None:
    # The second branch went on from what the first had made.
    parts = [content({"id": "d", "l": ["r", "a", "b"]}), content({"id": "d", "l": ["r", "a", "c"]})]
    sent = [content({"id": "d", "l": ["r"]}), content({"id": "d", "l": ["r", "a"]})]

    assert plain(merge(parts, sent)) == [{"id": "d", "l": ["r", "a", "b", "c"]}]


def test_what_there_is_nothing_to_do_with_is_passed_on_as_it_is() -> None:
    part = content({"id": "d"})

    assert merge([], []) == b""
    assert merge([b""], [b""]) == b""
    assert merge([b"", part, b"\n\x00"], [part] * 3) is part
    assert select(part, lambda document: True) is part
    assert select(b"", lambda document: False) == b""
    assert sort_like(part, ["d"]) is part
    assert sort_like(b"", ["d"]) == b""


def test_documents_are_filtered_and_sorted_by_their_ids() -> None:
    some = content({"id": "new"}, {"id": "b", "i": 2}, {"id": None}, {"id": "a", "i": 1})

    assert document_ids(some) == ["new", "b", "", "a"]
    assert document_ids(b"") == []
    assert [each["id"] for each in plain(sort_like(some, ["a", "b", "a"]))] == ["a", "b", "new", None]
    assert plain(select(some, lambda each: "i" in each.data)) == [{"id": "b", "i": 2}, {"id": "a", "i": 1}]
    assert plain(select(some, lambda each: False)) == []


def test_documents_in_docs_bytes_count_as_others() -> None:
    listed = DocListProto(docs=[doc(id="b", i=1), doc(id="a")])
    packed = DataContentProto(docs_bytes=listed.SerializeToString()).SerializeToString()

    assert document_ids(packed) == ["b", "a"]
    assert [each["id"] for each in plain(sort_like(packed, ["a"]))] == ["a", "b"]
    changed = content({"id": "a", "i": 2})
    assert plain(merge([packed, changed], [packed] * 2)) == [{"id": "b", "i": 1}, {"id": "a", "i": 2}]
    nothing = DataContentProto(docs_bytes=b"").SerializeToString()
    assert document_ids(nothing) == []


@pytest.mark.parametrize(
    "documents",
    [
        DataContentProto(docs_bytes=b"\x80\x04\x95abc").SerializeToString(),  # a pickle
        DataContentProto(docs_bytes=b"\x02" + bytes(8)).SerializeToString(),  # the protocol "protobuf"
        DataContentProto(docs_bytes=b"\n\x7f").SerializeToString(),
        b"\n\x7f",
    ],
)
def test_what_cannot_be_read_is_refused(documents: bytes) -> None:
    for function in (
        lambda: document_ids(documents),
        lambda: merge([documents, content({"id": "d"})], [b"", b""]),
        lambda: merge([content({"id": "d"})] * 2, [documents] * 2),
        lambda: select(documents, lambda each: True),
        lambda: sort_like(documents, []),
    ):
        with pytest.raises(UnreadableDocuments):
            function()


# -- whatever the documents ---------------------------------------------------------------------------------

texts = st.text("ab", max_size=2)
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.floats(allow_nan=False, width=16),
    texts,
    st.binary(max_size=2),
)
values: st.SearchStrategy[Any] = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(texts, inner, max_size=3),
        st.dictionaries(st.sampled_from("xyz"), inner, max_size=2).map(lambda found: Doc(id="n", **found)),
        st.lists(st.dictionaries(st.sampled_from("xyz"), inner, max_size=2), max_size=3).map(
            lambda several: Docs([Doc(id=f"k{index}", **each) for index, each in enumerate(several)])
        ),
    ),
    max_leaves=6,
)


@st.composite
def contents(draw: st.DrawFn) -> bytes:
    """Documents with different ids, some of them perhaps without one."""
    names = draw(st.lists(st.sampled_from("abcd"), unique=True, max_size=4))
    made = [
        {"id": name, **draw(st.dictionaries(st.sampled_from("xyz"), values, max_size=3))} for name in names
    ]
    return content(*made)


def same(first: Any, second: Any) -> bool:
    def seen(documents: Any) -> list[Any]:
        found = DataContentProto.FromString(bytes(documents)).docs.docs
        return [{name: key_of(node) for name, node in each.data.items()} for each in found]

    return seen(first) == seen(second)


def by_id(documents: Any) -> dict[str, Any]:
    found = DataContentProto.FromString(bytes(documents)).docs.docs
    return {each.data["id"].text: {name: key_of(node) for name, node in each.data.items()} for each in found}


@settings(deadline=None)
@given(contents(), contents())
def test_a_branch_that_did_nothing_changes_nothing(base: bytes, part: bytes) -> None:
    untouched = {name: fields for name, fields in by_id(base).items() if name not in by_id(part)}
    for parts in itertools.permutations([part, base]):
        found = by_id(merge(parts, [base, base]))
        for name, fields_ in by_id(part).items():
            # Fields that a class leaves out are no change.
            assert fields_.items() <= found[name].items()
        assert untouched.items() <= found.items()
        assert set(found) == set(by_id(part)) | set(by_id(base))


@settings(deadline=None)
@given(contents(), contents())
def test_the_same_answer_of_two_branches_is_that_answer(base: bytes, part: bytes) -> None:
    assert same(merge([part, part], [base, base]), part)
    assert same(merge([part, part, part], [base, base, base]), part)


@settings(deadline=None)
@given(contents(), st.lists(contents(), min_size=3, max_size=3))
def test_parts_may_be_merged_in_one_go_or_one_after_the_other(base: bytes, parts: list[bytes]) -> None:
    at_once = merge(parts, [base] * 3)
    first_two = merge(parts[:2], [base] * 2)
    assert same(at_once, merge([first_two, parts[2]], [base, base]))


@settings(deadline=None)
@given(contents(), contents(), contents())
def test_nothing_is_changed_but_the_result_and_every_document_is_in_it_once(
    base: bytes, first: bytes, second: bytes
) -> None:
    found = document_ids(merge([first, second], [base, base]))
    assert found == [
        *document_ids(first),
        *(name for name in document_ids(second) if name not in document_ids(first)),
    ]
