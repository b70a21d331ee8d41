"""``when`` on documents of the second generation; what docarray 0.40's filter_docs says, but for errors."""

from __future__ import annotations

from typing import Any

import pytest

from gatewayd.messages.conditions import BadCondition, compile_condition
from gatewayd.messages.second.conditions import SecondFields
from tests.messages.second.made import Doc, Docs, doc

A = doc(id="a", i=0, t=None, l=[], d={}, n=None, ks=Docs(), f=0.5, on=True)
B = doc(
    id="b",
    i=5,
    t="x",
    l=[1, 2],
    d={"k": {"m": 3}, "odd__key": 1},
    n=Doc(t="q"),
    ks=Docs([Doc(id="z", t="z")]),
    f=2.5,
    on=False,
)
B.data["arr"].ndarray.dense.shape.extend([3, 2])
B.data["s"].set.SetInParent()
B.data["two__parts"].integer = 7


def matching(query: Any) -> list[str]:
    condition = compile_condition(query, SecondFields())
    return [each.data["id"].text for each in (A, B) if condition(each)]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, ["a", "b"]),
        ({"i": {"$gt": 2}}, ["b"]),
        ({"i": {"$lte": 0}}, ["a"]),
        ({"f": {"$lt": 1}}, ["a"]),
        ({"on": {"$eq": True}}, ["a"]),
        # What is there exists, whatever its value.
        ({"i": {"$exists": True}}, ["a", "b"]),
        ({"t": {"$exists": True}}, ["a", "b"]),
        ({"zz": {"$exists": True}}, []),
        ({"zz": {"$exists": False}}, ["a", "b"]),
        ({"d__k__zz": {"$exists": False}}, ["a", "b"]),
        ({"n__t": {"$exists": True}}, ["b"]),
        # What is not there matches nothing else.
        ({"zz": {"$eq": 1}}, []),
        ({"zz": {"$neq": 1}}, []),
        ({"zz": {"$nin": [1]}}, []),
        ({"$not": {"zz": {"$eq": 1}}}, ["a", "b"]),
        ({"t": {"$neq": "x"}}, ["a"]),
        ({"t": {"$eq": None}}, ["a"]),
        ({"l": {"$size": 2}}, ["b"]),
        ({"l__1": {"$eq": 2}}, ["b"]),
        ({"l__2": {"$eq": 2}}, []),
        ({"l__x": {"$exists": True}}, []),
        ({"l": {"$eq": [1, 2]}}, ["b"]),
        ({"d__k__m": {"$eq": 3}}, ["b"]),
        ({"d__odd__key": {"$eq": 1}}, []),
        ({"two__parts": {"$eq": 7}}, ["b"]),
        ({"n__t": {"$eq": "q"}}, ["b"]),
        ({"n__t__more": {"$eq": "q"}}, []),
        ({"ks": {"$size": 1}}, ["b"]),
        ({"ks__0__t": {"$regex": "^z$"}}, ["b"]),
        ({"ks__0__t": {"$eq": "{ks__0__id}"}}, ["b"]),
        ({"t": {"$eq": "{nothing}"}}, []),
        ({"t": {"$lt": "y"}}, ["b"]),
        ({"t": {"$lt": 3}}, []),
        ({"i": {"$in": [5, 6]}}, ["b"]),
        ({"i": {"$nin": [5, 6]}}, ["a"]),
        ({"arr": {"$size": 3}}, ["b"]),
        ({"arr": {"$eq": 3}}, []),
        ({"arr": {"$lt": 3}}, []),
        ({"s": {"$size": 0}}, ["b"]),
        ({"$or": [{"i": {"$gt": 2}}, {"f": {"$lt": 1}}]}, ["a", "b"]),
        ({"$and": {"i": {"$gt": 2}, "on": {"$eq": False}}}, ["b"]),
    ],
)
def test_a_condition_matches(query: Any, expected: list[str]) -> None:
    before = A.SerializeToString(deterministic=True), B.SerializeToString(deterministic=True)
    assert matching(query) == expected
    # Looking for what is not there adds nothing.
    assert (A.SerializeToString(deterministic=True), B.SerializeToString(deterministic=True)) == before


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"i": {"$gtt": 2}}, "i.$gtt: no such operator"),
        ({"": {"$gt": 2}}, "the name of a field is empty"),
        ({"i": {"$eq": "{}"}}, None),
        ({"i": 3}, "i: 3 is not an object of operators"),
        ({"$nor": []}, "$nor: no such logical operator"),
    ],
)
def test_what_is_wrong_with_a_query_is_found_when_it_is_compiled(query: Any, message: str | None) -> None:
    if message is None:
        compile_condition(query, SecondFields())
        return
    with pytest.raises(BadCondition) as caught:
        compile_condition(query, SecondFields())
    assert message in str(caught.value)
