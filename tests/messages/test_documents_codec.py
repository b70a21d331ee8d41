"""Reading and writing documents: what docarray itself does, on random documents."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from docarray import Document, DocumentArray
from docarray.document.data import DocumentData
from docarray.proto.docarray_pb2 import DocumentArrayProto, DocumentProto
from docarray.score import NamedScore
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.messages import document_arrays
from gatewayd.messages.document_arrays import data_of, documents_of
from gatewayd.messages.documents_codec import layout_is_known, read_document, write_document

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
whole = st.integers(-(2**40), 2**40)
numbers = st.floats(allow_nan=False, allow_infinity=False) | whole
tag_values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
DTYPES = ("<f4", "<f8", "|u1", "<i8", ">i2", "|b1", "<f2")
arrays = st.one_of(
    st.lists(st.integers(0, 3), min_size=0, max_size=3).flatmap(
        lambda shape: st.sampled_from(DTYPES).map(lambda dtype: np.ones(shape, dtype))
    ),
    st.lists(st.floats(-1, 1), min_size=1, max_size=3),
    st.just(np.arange(12.0).reshape(3, 4).T),
)
scores = st.dictionaries(
    texts, st.builds(NamedScore, value=st.floats(0, 1, width=32), op_name=texts, ref_id=texts), max_size=2
)


def fields(children: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    content = st.one_of(
        st.fixed_dictionaries({}),
        st.fixed_dictionaries({"text": texts}),
        st.fixed_dictionaries({"blob": st.binary(max_size=5)}),
        st.fixed_dictionaries({"tensor": arrays}),
    )
    others = st.fixed_dictionaries(
        {},
        optional={
            "id": texts.filter(bool),
            "parent_id": texts,
            "granularity": st.integers(0, 3),
            "adjacency": st.integers(0, 3),
            "weight": st.floats(0, 9, width=32),
            "uri": st.sampled_from(["", "a.png", "b.txt", "data:,x", "no ending"]),
            "mime_type": st.sampled_from(["", "text/plain", "png"]),
            "modality": texts,
            "offset": st.floats(0, 9, width=32),
            "location": st.lists(st.floats(0, 9, width=32), max_size=2),
            "embedding": arrays,
            "tags": st.dictionaries(texts, tag_values, max_size=3),
            "scores": scores,
            "evaluations": scores,
            "chunks": children,
            "matches": children,
        },
    )
    return st.builds(lambda one, more: {**one, **more}, content, others)


documents = st.recursive(
    fields(st.just([])).map(lambda given: Document(**given)),
    lambda inner: fields(st.lists(inner, max_size=2)).map(lambda given: Document(**given)),
    max_leaves=4,
)


def seen(value: Any) -> Any:
    """What can be compared of a document, types included."""
    if isinstance(value, Document):
        assert value._data._reference_doc is value
        return {name: seen(item) for name, item in vars(value._data).items() if name != "_reference_doc"}
    if isinstance(value, DocumentArray):
        return type(value).__name__, [seen(each) for each in value]
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes(), value.flags.writeable
    if isinstance(value, dict):
        return type(value).__name__, {key: seen(item) for key, item in value.items()}
    if isinstance(value, list):
        return [seen(item) for item in value]
    if isinstance(value, NamedScore):
        return {name: getattr(value, name) for name in value.non_empty_fields}
    return type(value).__name__, value


def test_the_installed_docarray_has_the_layout_that_is_written_here() -> None:
    assert layout_is_known()
    assert document_arrays._KNOWN


def test_another_layout_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DocumentData, "__dataclass_fields__", {})
    assert not layout_is_known()


@given(documents)
@settings(max_examples=300, deadline=None)
def test_a_document_is_written_as_docarray_writes_it(document: Document) -> None:
    for array_type in (None, "list", "numpy"):
        try:
            theirs = document.to_protobuf(ndarray_type=array_type)
        except TypeError:  # it makes no list of an array without dimensions
            continue
        ours = DocumentProto()
        write_document(document, ours, array_type)
        assert ours == theirs


@given(documents)
@settings(max_examples=300, deadline=None)
def test_a_document_is_read_as_docarray_reads_it(document: Document) -> None:
    message = document.to_protobuf()
    message.id = message.id or "an id"
    for chunk in (*message.chunks, *message.matches):
        chunk.id = chunk.id or "an id"

    assert seen(read_document(message)) == seen(Document.from_protobuf(message))


def test_documents_without_an_id_get_one_each() -> None:
    data = data_of_messages(DocumentProto(text="a"), DocumentProto(), DocumentProto())
    ids = documents_of(data)[:, "id"]

    assert len(set(ids)) == 3
    assert all(len(each) == 32 for each in ids)


def data_of_messages(*messages: DocumentProto) -> bytes:
    content = DocumentArrayProto(docs=messages).SerializeToString()
    return data_of(DocumentArray.from_protobuf(DocumentArrayProto.FromString(content)))


def test_what_protobufs_json_lacks_is_read() -> None:
    document = Document(id="d", tags={"a": [math.nan, math.inf], "b": 1.0, "c": {"d": -math.inf, "e": None}})
    (found,) = documents_of(data_of(DocumentArray([document])))

    assert math.isnan(found.tags["a"][0])
    assert found.tags["a"][1:] == [math.inf]
    assert (found.tags["b"], type(found.tags["b"])) == (1.0, float)
    assert found.tags["c"] == {"d": -math.inf, "e": None}


def test_a_subclass_of_document_writes_itself() -> None:
    class Mine(Document):
        def to_protobuf(self, ndarray_type: str | None = None) -> Any:
            return DocumentProto(id=self.id, text="mine")

    (found,) = documents_of(data_of(DocumentArray([Mine(id="b", text="x")])))

    assert found.text == "mine"


def test_sparse_arrays_are_docarrays_work() -> None:
    scipy = pytest.importorskip("scipy.sparse")
    array = DocumentArray([Document(id="a", embedding=scipy.csr_matrix(np.eye(3)))])

    assert documents_of(data_of(array))[0].embedding.getformat() == "csr"


@pytest.mark.parametrize(
    "bad",
    [
        {"tags": {"a": object()}},
        {"text": 5},
        {"weight": "heavy"},
        {"location": ["x"]},
        {"tags": {"a": {1, 2}}},
    ],
    ids=["tag", "text", "weight", "location", "set"],
)
def test_what_cannot_be_written_fails_as_in_docarray(bad: dict[str, Any]) -> None:
    array = DocumentArray([Document(id="d")])
    for name, value in bad.items():
        setattr(array[0]._data, name, value)
    with pytest.raises(Exception, match="is problematic") as theirs:
        array.to_protobuf()
    with pytest.raises(type(theirs.value), match="is problematic"):
        data_of(array)
