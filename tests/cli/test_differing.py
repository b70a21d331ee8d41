"""What differs between two answers."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.cli.differing import Difference, Ignored, differences
from gatewayd.pb import DataRequestProto, DocumentProto, StatusProto
from gatewayd.pb.second import DataRequestProto as SecondDataRequestProto


def answer(change: Any = None) -> DataRequestProto:
    made = DataRequestProto()
    made.header.request_id = "r"
    made.header.exec_endpoint = "/search"
    made.parameters.update({"limit": 3, "deep": {"list": [1, {"a": "b"}]}})
    made.routes.add(executor="gateway").start_time.GetCurrentTime()
    made.routes.add(executor="encoder").start_time.GetCurrentTime()
    document = made.data.docs.docs.add(id="d", text="a red apple", weight=0.5)
    array(document.embedding, [1.0, 2.0])
    document.scores["cosine"].value = 0.25
    document.tags.update({"shop": "a"})
    document.chunks.add(id="c")
    if change is not None:
        change(made, document)
    return made


def array(proto: Any, numbers: list[float]) -> None:
    found = np.array(numbers, "<f4")
    proto.dense.buffer, proto.dense.dtype = found.tobytes(), "<f4"
    proto.dense.shape[:] = found.shape


def found(change: Any, *ignored: str, tolerance: float = 0.0) -> list[Difference]:
    before, now = answer().SerializeToString(), answer(change).SerializeToString()
    return differences(before, now, ignored=Ignored(ignored), tolerance=tolerance)


def test_the_same_at_another_time() -> None:
    assert found(None) == []


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (lambda _, d: setattr(d, "text", "b"), Difference("data.docs[0].text", "'a red apple'", "'b'")),
        (lambda _, d: d.chunks[0].ClearField("id"), Difference("data.docs[0].chunks[0].id", "'c'", "''")),
        (lambda _, d: d.tags.update({"shop": "b"}), Difference("data.docs[0].tags.shop", "'a'", "'b'")),
        (
            lambda _, d: setattr(d.scores["cosine"], "value", 0.5),
            Difference("data.docs[0].scores.cosine.value", "0.25", "0.5"),
        ),
        (
            lambda _, d: array(d.embedding, [1.0, 2.5]),
            Difference("data.docs[0].embedding", "float32[2] [1, 2]", "float32[2] [1, 2.5]"),
        ),
        (lambda m, _: m.data.docs.docs.add(), Difference("data.docs.length", "1", "2")),
        (lambda m, _: m.parameters.update({"limit": 4}), Difference("parameters.limit", "3.0", "4.0")),
        (lambda m, _: m.parameters.update({"more": None}), Difference("parameters.more", "", "null")),
        (
            lambda m, _: m.parameters["deep"]["list"][1].update({"a": "c"}),
            Difference("parameters.deep.list[1].a", "'b'", "'c'"),
        ),
        (
            lambda m, _: setattr(m.routes[1], "executor", "other"),
            Difference("routes", "encoder, gateway", "gateway, other"),
        ),
        (
            lambda m, _: setattr(m.header.status, "description", "boom"),
            Difference("header.status.description", "''", "'boom'"),
        ),
        (lambda m, _: setattr(m.data, "docs_bytes", b"x"), Difference("data.docs.length", "1", "0")),
    ],
)
def test_one_difference(change: Any, difference: Difference) -> None:
    assert found(change)[0] == difference


def test_the_order_of_branches_and_the_lines_of_a_program_do_not_count() -> None:
    def change(message: Any, _: Any) -> None:
        message.routes[0].executor, message.routes[1].executor = "encoder", "gateway"
        message.header.headers["x-a"] = "1"
        message.header.status.CopyFrom(StatusProto())
        message.header.status.exception.stacks.append("line 1")

    assert found(change) == []


def test_numbers_within_the_tolerance() -> None:
    def change(message: Any, document: Any) -> None:
        message.parameters.update({"limit": 3.00001})
        document.weight = 0.500001
        array(document.embedding, [1.00001, 2.0])

    assert len(found(change)) == 3
    assert found(change, tolerance=1e-4) == []


@pytest.mark.parametrize(
    "ignored", ["data.docs[].text", "data.docs[0].text", "data.docs[]", "data.docs", "data"]
)
def test_what_is_ignored(ignored: str) -> None:
    assert found(lambda _, d: setattr(d, "text", "b"), ignored) == []
    assert found(lambda m, _: setattr(m.header, "exec_endpoint", "/b"), ignored)


_TEXT = st.text("abc", max_size=3)
_DOCUMENT = st.builds(
    DocumentProto,
    id=_TEXT,
    text=_TEXT,
    weight=st.floats(0, 1, width=32),
    uri=_TEXT,
    granularity=st.integers(0, 3),
)


@st.composite
def messages(draw: st.DrawFn) -> DataRequestProto:
    made = DataRequestProto()
    made.parameters.update(draw(st.dictionaries(_TEXT.filter(bool), st.integers(0, 2) | _TEXT, max_size=2)))
    for document in draw(st.lists(_DOCUMENT, max_size=2)):
        made.data.docs.docs.add().CopyFrom(document)
        made.data.docs.docs[-1].chunks.extend(draw(st.lists(_DOCUMENT, max_size=1)))
    return made


@given(messages(), messages())
def test_there_is_a_difference_if_and_only_if_they_are_not_the_same(
    one: DataRequestProto, other: DataRequestProto
) -> None:
    same = list(one.data.docs.docs) == list(other.data.docs.docs) and one.parameters == other.parameters
    found = differences(one.SerializeToString(), other.SerializeToString(), ignored=Ignored(()))

    assert (found == []) == same
    assert differences(one.SerializeToString(), one.SerializeToString(), ignored=Ignored(())) == []


def test_an_answer_that_differs_everywhere_is_not_listed_whole() -> None:
    before, now = DataRequestProto(), DataRequestProto()
    for number in range(1000):
        before.data.docs.docs.add(text=str(number))
        now.data.docs.docs.add(text="x" * 10_000)

    found = differences(before.SerializeToString(), now.SerializeToString(), ignored=Ignored(()))

    assert len(found) == 100
    assert len(found[0].now) < 100


def second_answer(change: Any = None) -> bytes:
    made = SecondDataRequestProto()
    fields = made.data.docs.docs.add().data
    fields["id"].text = "d"
    fields["id"].type = "id"
    fields["number"].integer = 5
    fields["blob"].blob = b"\xff"
    fields["vector"].ndarray.dense.buffer = np.array([0.1, 2.0], "<f4").tobytes()
    fields["vector"].ndarray.dense.dtype = "<f4"
    fields["vector"].ndarray.dense.shape[:] = [2]
    fields["nothing"].SetInParent()
    fields["inner"].doc.data["text"].text = "in"
    fields["several"].doc_array.docs.add().data["text"].text = "one"
    fields["tags"].dict.data["flag"].boolean = True
    fields["set"].set.data.add().text = "a"
    fields["set"].set.data.add().text = "b"
    if change is not None:
        change(fields)
    return made.SerializeToString()


def as_json(fields: Any) -> None:
    """The same, as JSON has it."""
    fields["id"].ClearField("type")
    fields["number"].float = 5.0
    fields["blob"].text = "/w=="
    for number in (0.1, 2.0):
        fields["vector"].list.data.add().float = number
    del fields["nothing"]
    fields["inner"].dict.data["text"].text = "in"
    fields["several"].list.data.add().dict.data["text"].text = "one"
    for text in "ba":
        fields["set"].list.data.add().text = text
    fields["set"].list.data[0].text, fields["set"].list.data[1].text = "a", "b"


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (lambda f: setattr(f["number"], "integer", 6), Difference("data.docs[0].number", "5", "6")),
        (lambda f: setattr(f["number"], "text", "5"), Difference("data.docs[0].number", "5", "'5'")),
        (lambda f: setattr(f["number"], "boolean", True), Difference("data.docs[0].number", "5", "True")),
        (lambda f: f.pop("number"), Difference("data.docs[0].number", "5", "")),
        (lambda f: setattr(f["new"], "text", "x"), Difference("data.docs[0].new", "", "'x'")),
        (lambda f: setattr(f["inner"].doc.data["text"], "text", "x"),
         Difference("data.docs[0].inner.text", "'in'", "'x'")),
        (lambda f: setattr(f["several"].doc_array.docs[0].data["text"], "text", "x"),
         Difference("data.docs[0].several[0].text", "'one'", "'x'")),
        (lambda f: f["several"].doc_array.docs.add(), Difference("data.docs[0].several.length", "1", "2")),
        (lambda f: setattr(f["tags"].dict.data["flag"], "boolean", False),
         Difference("data.docs[0].tags.flag", "True", "False")),
        (lambda f: f["vector"].ndarray.dense.shape.append(1),
         Difference("data.docs[0].vector", "float32[2] [0.1, 2]", "float32[2, 1] [0.1, 2]")),
        (lambda f: setattr(f["id"], "type", "url"), Difference("data.docs[0].id.type", "'id'", "'url'")),
    ],
)  # fmt: skip
def test_one_difference_of_the_second_generation(change: Any, difference: Difference) -> None:
    found = differences(second_answer(), second_answer(change), ignored=Ignored(()))

    assert [attrs.astuple(each) for each in found] == [attrs.astuple(difference)]


def test_documents_of_the_second_generation_are_the_same_as_in_json() -> None:
    assert differences(second_answer(), second_answer(as_json), ignored=Ignored(())) == []
    assert differences(second_answer(as_json), second_answer(), ignored=Ignored(())) == []


def test_what_is_redacted_is_ignored_wherever_it_is() -> None:
    def change(fields: Any) -> None:
        fields["inner"].doc.data["text"].text = ""
        fields["several"].doc_array.docs[0].data["text"].text = ""
        fields["tags"].dict.data["flag"].boolean = False

    ignored = Ignored((), ["text", "tags.flag"])
    assert differences(second_answer(), second_answer(change), ignored=ignored) == []


def test_documents_of_two_generations_are_told_as_one_difference() -> None:
    (only,) = differences(answer().SerializeToString(), second_answer(), ignored=Ignored(()))

    assert (only.field, "0.21" in only.before, "0.30" in only.now) == ("data", True, True)


def test_an_array_that_json_has_widened_is_the_same() -> None:
    def change(_: Any, document: Any) -> None:
        numbers = np.array([0.1, 0.2])
        document.embedding.dense.buffer, document.embedding.dense.dtype = numbers.tobytes(), "<f8"

    def before(_: Any, document: Any) -> None:
        array(document.embedding, [0.1, 0.2])

    one, other = answer(before).SerializeToString(), answer(change).SerializeToString()
    assert differences(one, other, ignored=Ignored(())) == []
