"""What executors bind, put together."""

from __future__ import annotations

from gatewayd.messages.discovery import DRY_RUN, Endpoints, of_flow, united


def test_endpoints_of_a_flow_stand_in_its_order_without_the_dry_run() -> None:
    found = of_flow({"a": {"/x": "does x", DRY_RUN: ""}, "b": {"/y": "", "/x": ""}, "c": {DRY_RUN: ""}})
    assert found == Endpoints({"/x": "does x", "/y": ""})
    assert list(found.bound) == ["/x", "/y"]


def test_deployments_that_have_not_reported_are_named() -> None:
    assert of_flow({"a": None, "b": {"/x": ""}, "c": None}) == Endpoints({"/x": ""}, ("a", "c"))
    assert of_flow({}) == Endpoints()


def test_docstrings_of_several_deployments_have_their_names() -> None:
    found = of_flow({"a": {"/x": "encodes"}, "b": {"/x": ""}, "c": {"/x": "ranks"}})
    assert found.bound == {"/x": "a: encodes\n\nc: ranks"}


def test_a_docstring_that_several_deployments_share_stands_once() -> None:
    assert of_flow({"a": {"/x": "same"}, "b": {"/x": "same"}}).bound == {"/x": "same"}


def test_replicas_are_united_and_the_first_docstring_counts() -> None:
    assert united([{"/x": ""}, {"/x": "x", "/y": "y"}, {"/y": "other"}]) == {"/x": "x", "/y": "y"}
    assert united([{}]) == {}
    assert united([]) is None
