"""What differs between the answers of two streams."""

from __future__ import annotations

from typing import Any

import pytest

from gatewayd.cli.differing import Carried, Difference, Ignored
from gatewayd.cli.differing_streams import differences_of_streams
from gatewayd.pb import DataRequestProto
from gatewayd.pb.second import DataRequestProto as SecondDataRequestProto


def first(text: str, name: str = "") -> bytes:
    message = DataRequestProto()
    message.data.docs.docs.add(id=name, text=text)
    return message.SerializeToString()


def second(text: str, name: str = "") -> bytes:
    message = SecondDataRequestProto()
    fields = message.data.docs.docs.add().data
    fields["text"].text = text
    if name:
        fields["id"].text = name
    return message.SerializeToString()


def found(before: list[bytes], now: list[bytes], *ignored: str, **options: Any) -> list[Difference]:
    return differences_of_streams(before, now, ignored=Ignored(ignored), **options)


def fields(several: list[Difference]) -> list[str]:
    return [each.field for each in several]


both = pytest.mark.parametrize("answer", [first, second])


@both
def test_the_same(answer: Any) -> None:
    assert found([], []) == []
    assert found([answer("a"), answer("b")], [answer("a"), answer("b")]) == []


@both
def test_a_document_that_is_another(answer: Any) -> None:
    (only,) = found([answer("a", "1"), answer("b", "2")], [answer("a", "1"), answer("c", "2")])

    assert only == Difference("answers[1].data.docs[0].text", "'b'", "'c'")


@both
@pytest.mark.parametrize("named", [True, False])
def test_missing_and_extra_documents(answer: Any, named: bool) -> None:
    def stream(letters: str) -> list[bytes]:
        return [answer(letter, letter if named else "") for letter in letters]

    assert fields(found(stream("abcd"), stream("acd"))) == ["answers[1].missing"]
    assert fields(found(stream("acd"), stream("abcd"))) == ["answers[1].extra"]
    assert fields(found(stream("ab"), [])) == ["answers[0].missing", "answers[1].missing"]
    (extra,) = found(stream("ab"), stream("abx"))
    assert (extra.before, "x" in extra.now) == ("", True)


@both
def test_another_order(answer: Any) -> None:
    def stream(letters: str, named: bool) -> list[bytes]:
        return [answer(letter, letter if named else "") for letter in letters]

    assert found(stream("abcd", True), stream("acbd", True)) == [
        Difference("answers.order", "b, c, d", "c, b, d")
    ]
    (moved,) = found(stream("abcd", False), stream("acbd", False))
    assert moved.field == "answers.order"
    assert found(stream("abcd", True), stream("acbd", True), "answers.order") == []


@both
def test_a_document_is_compared_with_the_one_of_its_id(answer: Any) -> None:
    several = found(
        [answer("a", "1"), answer("b", "2"), answer("c", "3")],
        [answer("x", "2"), answer("c", "3"), answer("new", "4")],
    )

    assert fields(several) == ["answers[0].missing", "answers[2].extra", "answers[1].data.docs[0].text"]


@both
def test_ids_that_are_made_up_anew_may_differ(answer: Any) -> None:
    before, now = [answer(each, f"1{each}") for each in "abc"], [answer(each, f"2{each}") for each in "ac"]

    assert fields(found(before, now, "data.docs[].id")) == ["answers[1].missing"]
    assert fields(found(before, now, "answers[].data.docs[].id")) == ["answers[1].missing"]


def test_documents_alone() -> None:
    routed = DataRequestProto.FromString(first("a"))
    routed.routes.add(executor="gateway")
    routed.parameters.update({"a": 1})

    assert found([routed.SerializeToString()], [first("a")], carried=Carried.DOCUMENTS) == []
    assert fields(found([routed.SerializeToString()], [first("a")])) == [
        "answers[0].routes",
        "answers[0].parameters.a",
    ]


def test_long_streams_take_no_time_by_their_product() -> None:
    before, now = ([first(f"{side}{index}") for index in range(2100)] for side in "ab")

    assert len(found(before, now)) == 100
