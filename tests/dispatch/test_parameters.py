"""What each Executor sees of the parameters, and what the client gets back."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.dispatch.parameters import EMPTY_RESULTS, Parameters, parse
from gatewayd.messages.wire import Malformed
from tests.dispatch.fakes import struct


def read(raw: bytes) -> dict[str, Any]:
    return MessageToDict(parse(raw))


@pytest.mark.parametrize(
    ("sent", "seen"),
    [
        ({"k": 1}, {"k": 1}),
        ({"k": 1, "a__k": 2}, {"k": 2}),
        ({"b__k": 3}, {}),
        ({"a": {"m": 1}}, {"a": {"m": 1}, "m": 1}),
        ({"a": {"k": 3}, "a__k": 2, "k": 1}, {"a": {"k": 3}, "k": 3}),
        ({"b": {"m": 1}}, {"b": {"m": 1}}),
        ({"a": "text"}, {"a": "text"}),
        ({"x__": 1, "__x": 2, "__results__": {}}, {"x__": 1, "__x": 2, "__results__": {}}),
        ({"nested": {"a__k": 1}}, {"nested": {"a__k": 1}}),
    ],
)
def test_an_executor_sees_what_is_meant_for_it(sent: dict[str, Any], seen: dict[str, Any]) -> None:
    assert read(Parameters(struct(**sent)).for_executor("a")) == seen


def test_a_name_with_two_underscores_can_be_addressed() -> None:
    assert read(Parameters(struct(a__b__k=1)).for_executor("a__b")) == {"k": 1}


@given(
    st.dictionaries(
        st.text("kx_", min_size=1).filter(lambda key: "__" not in key), st.integers(0, 9), max_size=4
    )
)
def test_parameters_meant_for_all_pass_through_as_the_same_bytes(sent: dict[str, int]) -> None:
    raw = struct(**sent)
    assert Parameters(raw).for_executor("executor0") is raw


@pytest.mark.parametrize("raw", [b"", EMPTY_RESULTS])
def test_what_most_clients_send_is_not_parsed(raw: bytes) -> None:
    assert Parameters(raw).for_executor("a") is raw


@pytest.mark.parametrize(
    ("sent", "seen"),
    [
        ({}, {"__results__": {}}),
        ({"k": 1, "a__k": 2}, {"k": 2, "__results__": {}}),
        ({"k": "__results__"}, {"k": "__results__", "__results__": {}}),
        ({"__results__": {"x": 1}}, {"__results__": {"x": 1}}),
    ],
)
def test_a_join_sees_results_as_after_the_merge(sent: dict[str, Any], seen: dict[str, Any]) -> None:
    assert read(Parameters(struct(**sent)).for_join("a")) == seen


def test_the_client_gets_its_own_parameters_and_all_results() -> None:
    answers = [struct(__results__={"a/rep-0": {"n": 1}, "x": 1}), b"", struct(__results__={"x": 2}, k=7)]
    found = read(Parameters(struct(a__k=1, __results__={"own": 0})).with_results(answers))
    assert found == {"a__k": 1, "__results__": {"a/rep-0": {"n": 1}, "x": 2}}


@pytest.mark.parametrize("own", [{}, {"k": 1}, {"__results__": {}}, {"__results__": {"own": 1}}])
def test_without_results_the_clients_parameters_come_back_as_the_same_bytes(own: dict[str, Any]) -> None:
    raw = struct(**own)
    assert Parameters(raw).with_results([b"", EMPTY_RESULTS, struct(k="__results__")]) is raw


def test_bytes_that_are_no_struct_are_malformed() -> None:
    with pytest.raises(Malformed):
        Parameters(b"\xff__").for_executor("a")


@given(st.dictionaries(st.sampled_from(["a", "a__k", "k", "b__k", "__results__"]), st.integers(0, 3)))
def test_what_is_kept_for_the_documents_of_a_stream_is_the_same(sent: dict[str, Any]) -> None:
    fresh, kept = Parameters(struct(**sent)), Parameters(struct(**sent))
    kept.keep()
    for name in ("a", "b", "a"):
        assert read(kept.for_executor(name)) == read(fresh.for_executor(name))
        assert read(kept.for_join(name)) == read(fresh.for_join(name))


def test_parameters_for_an_executor_behind_a_generator_are_made_once() -> None:
    parameters = Parameters(struct(a__k=1, big="x"))
    assert parameters.for_executor("a") is not parameters.for_executor("a")
    parameters.keep()
    assert parameters.for_executor("a") is parameters.for_executor("a")
    assert parameters.for_join("a") is parameters.for_join("a")


@pytest.mark.parametrize("own", [{}, {"k": 1}])
def test_results_that_are_those_of_the_document_before_are_united_once(own: dict[str, Any]) -> None:
    answers, others = ([struct(__results__={"a": {"n": n}}), EMPTY_RESULTS] for n in (1, 2))
    parameters, fresh = Parameters(struct(**own)), Parameters(struct(**own))
    assert parameters.with_results(answers) is not parameters.with_results(answers)
    parameters.keep()
    assert parameters.with_results(answers) is parameters.with_results([*answers])
    assert parameters.with_results(others) == fresh.with_results(others)
    assert parameters.with_results(answers) == fresh.with_results(answers)
    assert parameters.with_results([EMPTY_RESULTS]) == struct(**own)
