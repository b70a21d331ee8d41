"""Documents read and written by hand: docarray's own results, on random documents and on damaged bytes."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from docarray import Document, DocumentArray
from docarray.document.data import DocumentData
from docarray.proto.docarray_pb2 import DocumentArrayProto, DocumentProto, NdArrayProto
from docarray.score import NamedScore
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.messages import document_bytes
from gatewayd.messages.document_bytes import (
    array_layout_is_known,
    array_of,
    documents_bytes,
    read_documents,
)
from gatewayd.messages.documents_codec import read_document
from tests.messages.test_documents_codec import documents, seen

# Every type that an array can have on the wire, in both orders of bytes.
DTYPES = [
    np.dtype(order + kind + str(size))
    for kind, sizes in {"f": (2, 4, 8), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8), "c": (8, 16), "b": (1,)}.items()
    for size in sizes
    for order in "<>"
]


@st.composite
def arrays(draw: st.DrawFn) -> Any:
    """With any content, NaN and infinity among it; contiguous or not, writable or not."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    size = int(np.prod(shape, dtype=int)) * dtype.itemsize
    content = draw(st.binary(min_size=size, max_size=size))
    array = np.frombuffer(content, dtype).reshape(shape)
    change = draw(st.sampled_from(["as it is", "copy", "transposed", "reversed", "fortran"]))
    if change == "copy":
        return array.copy()
    if change == "transposed":
        return array.T
    if change == "reversed":
        return array[..., ::-1] if array.ndim else array
    return np.asfortranarray(array) if change == "fortran" else array


def theirs(data: bytes) -> Any:
    return DocumentArray.from_protobuf(DocumentArrayProto.FromString(data))


def with_ids(data: bytes) -> bytes:
    """The same documents; those without an id, which gets a random one, have one."""
    message = DocumentArrayProto.FromString(data)

    def fill(found: Any) -> None:
        for number, each in enumerate(found):
            each.id = each.id or f"id {number}"
            fill(each.chunks)
            fill(each.matches)

    fill(message.docs)
    return bytes(message.SerializeToString())


def state(array: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(array).items() if name != "_data"}


def test_the_installed_docarray_has_the_arrays_that_are_made_here() -> None:
    assert array_layout_is_known()


def test_another_layout_of_arrays_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document_bytes, "_EMPTY_ARRAY", {**document_bytes._EMPTY_ARRAY, "_new": 1})
    assert not array_layout_is_known()


@given(st.lists(documents, max_size=3))
@settings(max_examples=100, deadline=None)
def test_documents_are_read_as_docarray_reads_them(given_: list[Document]) -> None:
    data = with_ids(DocumentArray(given_).to_protobuf().SerializeToString())
    found, expected = read_documents(data), theirs(data)

    assert seen(found) == seen(expected)
    assert state(found) == state(expected)


@given(st.lists(documents, max_size=3), st.sampled_from([None, "numpy"]))
@settings(max_examples=100, deadline=None)
def test_documents_are_written_as_docarray_writes_them(given_: list[Document], array_type: Any) -> None:
    array = DocumentArray(given_)
    data = documents_bytes(array, array_type)

    assert DocumentArrayProto.FromString(data) == array.to_protobuf(ndarray_type=array_type)
    # What is written by hand is read by hand: the fields are in the order of their numbers.
    assert seen(read_documents(with_ids(data))) == seen(theirs(with_ids(data)))


@given(arrays(), st.sampled_from(["embedding", "tensor"]))
@settings(max_examples=200, deadline=None)
def test_arrays_are_docarrays_to_the_byte_and_flag(array: Any, name: str) -> None:
    document = Document(id="d", **{name: array})
    expected = DocumentArray([document]).to_protobuf().SerializeToString()

    assert documents_bytes(DocumentArray([document]), None) == expected
    (found,), (read) = read_documents(expected), getattr(theirs(expected)[0], name)
    ours = getattr(found, name)
    if read is None:
        assert ours is None
        return
    assert (ours.dtype, ours.shape, ours.tobytes()) == (read.dtype, read.shape, read.tobytes())
    assert str(ours.flags) == str(read.flags)


def test_the_arrays_of_a_request_do_not_hold_all_of_it() -> None:
    data = documents_bytes(DocumentArray([Document(embedding=np.ones(128)) for _ in range(9)]), None)
    held = read_documents(data)[0].embedding
    while isinstance(held, np.ndarray):
        held = held.base

    assert len(held) == 128 * 8


@given(st.lists(documents, min_size=1, max_size=2), st.data())
@settings(max_examples=150, deadline=None)
def test_damaged_bytes_are_read_as_by_protobuf_or_refused_as_by_it(given_: list[Any], data: Any) -> None:
    good = bytearray(with_ids(DocumentArray(given_).to_protobuf().SerializeToString()))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(good) - 1))
        change = data.draw(st.sampled_from(["set", "cut", "drop", "double"]))
        if change == "set":
            good[at] = data.draw(st.integers(0, 255))
        elif change == "cut":
            del good[at:]
        elif change == "drop":
            del good[at]
        else:
            good[at:at] = good[at : at + data.draw(st.integers(1, 9))]
        if not good:
            break
    damaged = bytes(good)

    def outcome(read: Any) -> Any:
        try:
            return without_made_ids(seen(read(damaged)))
        except Exception as error:
            return type(error)

    assert outcome(read_documents) == outcome(
        lambda data: DocumentArray(read_document(each) for each in DocumentArrayProto.FromString(data).docs)
    )


def without_made_ids(value: Any) -> Any:
    """Ids that were made have 32 characters, which no id of the tests has."""
    if isinstance(value, dict):
        return {name: without_made_ids(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        if len(value) == 2 and value[0] == "str" and isinstance(value[1], str) and len(value[1]) == 32:
            return "made"
        return [without_made_ids(item) for item in value]
    return repr(value)  # NaN equals itself then


UNUSUAL = {
    "out of order": DocumentProto(text="t").SerializeToString() + DocumentProto(id="d").SerializeToString(),
    "twice": DocumentProto(id="a").SerializeToString() + DocumentProto(id="d").SerializeToString(),
    "two kinds of content": DocumentProto(id="d", blob=b"b").SerializeToString()
    + DocumentProto(text="t").SerializeToString(),
    "an unknown field": DocumentProto(id="d").SerializeToString() + b"\xfa\x07\x01x",
    "a default": DocumentProto(id="d").SerializeToString() + b"\x28\0",
    "minus zero": DocumentProto(id="d").SerializeToString() + b"\x45" + struct.pack("<f", -0.0),
    "a long length": b"\x0a\x81\0d",
    "a large number": DocumentProto(id="d", granularity=4_000_000_000).SerializeToString(),
    "a location": DocumentProto(id="d", location=[1.0, 2.0]).SerializeToString(),
    "a merged array": DocumentProto(id="d", embedding={"dense": {"buffer": b"12"}}).SerializeToString()
    + DocumentProto(
        embedding={"dense": {"shape": [2], "dtype": "|u1"}, "cls_name": "numpy"}
    ).SerializeToString(),
    "a list": Document(id="d", embedding=[1.0, 2.0]).to_protobuf().SerializeToString(),
    "an empty array": Document(id="d", embedding=np.zeros((0, 3))).to_protobuf().SerializeToString(),
    "an array with parameters": DocumentProto(
        id="d",
        embedding=NdArrayProto(
            dense={"buffer": b"12", "shape": [2], "dtype": "|u1"}, cls_name="numpy", parameters={}
        ),
    ).SerializeToString(),
    "empty content": DocumentProto(id="d", text="").SerializeToString(),
    "empty tags": DocumentProto(id="d", tags={}).SerializeToString(),
    "scores": Document(id="d", scores={"a": NamedScore(value=0.5, op_name="x"), "b": NamedScore()})
    .to_protobuf()
    .SerializeToString(),
}


@pytest.mark.parametrize("document", UNUSUAL.values(), ids=UNUSUAL)
def test_what_protobuf_takes_is_taken(document: bytes) -> None:
    data = b"\x0a%c%b" % (len(document), document)

    assert seen(read_documents(data)) == seen(theirs(data))


def test_unknown_fields_between_documents_are_passed_over() -> None:
    document = DocumentProto(id="d").SerializeToString()
    data = b"\x0a%c%b\xfa\x07\x01x\x0a%c%b" % (len(document), document, len(document), document)

    assert [each.id for each in read_documents(data)] == ["d", "d"]
    assert state(read_documents(data)) == state(theirs(data))


@pytest.mark.parametrize(
    "data", [b"\x0a", b"\x0a\x05\x0a", b"\x0a\x03\x0a\x01\xff", b"\x0a\x80\x80\x80\x80\x80\x80"], ids=repr
)
def test_malformed_documents_are_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        read_documents(data)


@pytest.mark.parametrize(
    ("dtype", "shape"), [("|O8", [1]), ("nonsense", [1]), ("<f4", [3]), ("<f8", [2])], ids=str
)
def test_arrays_that_cannot_be_read_fail_as_in_docarray(dtype: str, shape: list[int]) -> None:
    dense = {"buffer": b"12345678", "dtype": dtype, "shape": shape}
    message = DocumentProto(id="d", tensor={"dense": dense, "cls_name": "numpy"})
    data = DocumentArrayProto(docs=[message]).SerializeToString()

    with pytest.raises(Exception) as expected:
        theirs(data)
    for _ in range(2):
        with pytest.raises(type(expected.value)):
            read_documents(data)


def nested(levels: int) -> Document:
    document = Document(id="0")
    for level in range(1, levels):
        document = Document(id=str(level), matches=[document])
    return document


@pytest.mark.parametrize("levels", [10, 40, 95, 105])
def test_nested_documents_are_read_as_deep_as_protobuf_reads_them(levels: int) -> None:
    data = documents_bytes(DocumentArray([nested(levels)]), None)

    def outcome(read: Any) -> Any:
        try:
            return seen(read(data))
        except DecodeError:
            return "refused"

    assert outcome(read_documents) == outcome(theirs)


def test_a_document_that_holds_itself_fails_as_in_docarray() -> None:
    document = Document(id="d")
    document._data.matches = DocumentArray([document])

    with pytest.raises(RecursionError):
        documents_bytes(DocumentArray([document]), None)


def test_an_array_takes_and_finds_documents_as_docarrays_does() -> None:
    data = documents_bytes(DocumentArray([Document(id="a"), Document(id="b"), Document(id="a")]), None)
    found, expected = read_documents(data), theirs(data)
    for array in (found, expected):
        array.append(Document(id="c"))
        array.extend([Document(id="e")])
        del array["b"]
        array[0] = Document(id="z")

    assert [each.id for each in found] == [each.id for each in expected]
    assert ("c" in found, "b" in found) == ("c" in expected, "b" in expected) == (True, False)
    assert type(found[1:]) is type(expected[1:])
    assert found[:, "id"] == expected[:, "id"]


def test_two_arrays_share_nothing() -> None:
    one, other = array_of([], {}), array_of([], {})
    one.append(Document(id="x"))

    assert (len(one), len(other)) == (1, 0)
    assert not [
        name
        for name, value in vars(one).items()
        if isinstance(value, list | dict) and value is vars(other)[name]
    ]


def test_the_layouts_that_are_remembered_have_a_bound() -> None:
    for size in range(1, 400):
        array = DocumentArray([Document(embedding=np.ones(size, "u1"))])
        assert read_documents(documents_bytes(array, None))[0].embedding.shape == (size,)

    assert len(document_bytes._LAYOUTS) <= 256
    assert document_bytes._around.cache_info().currsize <= 256


def test_common_documents_need_no_protobuf(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("protobuf was asked")

    document = Document(
        id="d", text="x", tags={"a": 1.5, "b": ["c", True, None, {"d": "e" * 200}]}, weight=0.5,
        granularity=1, uri="a.png", mime_type="image/png", parent_id="p", modality="m", offset=1.0,
        embedding=np.ones((3, 200), "f4"), chunks=[Document(blob=b"x" * 200)],
        matches=[Document(tensor=np.ones((3, 32, 32), "u1"))],
    )  # fmt: skip
    read_documents(documents_bytes(DocumentArray([document]), None))
    for name in ("read_document", "write_document", "DocumentProto", "DocumentArrayProto"):
        monkeypatch.setattr(document_bytes, name, refuse)

    (found,) = read_documents(documents_bytes(DocumentArray([document]), None))

    assert isinstance(document._data, DocumentData)
    assert found.tags == document.tags
    assert found.matches[0].tensor.shape == (3, 32, 32)
