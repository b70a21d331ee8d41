"""What executors bind, put together."""

from __future__ import annotations

from gatewayd.messages.discovery import DRY_RUN, Endpoints, Told, TypedEndpoint, of_chain, of_flow, united
from gatewayd.messages.generations import Generation


def test_endpoints_of_a_flow_stand_in_its_order_without_the_dry_run() -> None:
    found = of_flow(
        {"a": Told({"/x": "does x", DRY_RUN: ""}), "b": Told({"/y": "", "/x": ""}), "c": Told({DRY_RUN: ""})}
    )
    assert found == Endpoints({"/x": "does x", "/y": ""})
    assert list(found.bound) == ["/x", "/y"]


def test_deployments_that_have_not_reported_are_named() -> None:
    assert of_flow({"a": None, "b": Told({"/x": ""}), "c": None}) == Endpoints({"/x": ""}, ("a", "c"))
    assert of_flow({}) == Endpoints()


def test_docstrings_of_several_deployments_have_their_names() -> None:
    found = of_flow({"a": Told({"/x": "encodes"}), "b": Told({"/x": ""}), "c": Told({"/x": "ranks"})})
    assert found.bound == {"/x": "a: encodes\n\nc: ranks"}


def test_a_docstring_that_several_deployments_share_stands_once() -> None:
    assert of_flow({"a": Told({"/x": "same"}), "b": Told({"/x": "same"})}).bound == {"/x": "same"}


def test_replicas_are_united_and_the_first_docstring_counts() -> None:
    found = united([Told({"/x": ""}), Told({"/x": "x", "/y": "y"}), Told({"/y": "other"})])
    assert found == Told({"/x": "x", "/y": "y"})
    assert united([Told({})]) == Told({})
    assert united([]) is None


# -- the second generation --------------------------------------------------------------------------------


def typed(name, **more):
    schema = {"title": name, "type": "object"}
    return TypedEndpoint(schema, schema, name, name, **more)


def told(*, streaming=(), **endpoints):
    named = {f"/{name}": one for name, one in endpoints.items()}
    return Told(dict.fromkeys(named, ""), Generation.SECOND, named, frozenset(streaming))


def test_a_client_sees_the_input_of_the_first_executor_and_the_output_of_the_last():
    found = of_flow(
        {
            "last": told(x=typed("C")),
            "first": told(x=typed("A")),
            "between": told(x=typed("B"), y=typed("Y")),
        },
        order=("first", "between", "last"),
    )

    assert (found.typed["/x"].input_name, found.typed["/x"].output_name) == ("A", "C")
    assert found.typed["/y"].input_name == "Y"
    assert found.generation is Generation.SECOND


def test_an_endpoint_streams_if_any_executor_on_the_way_streams():
    found = of_flow({"a": told(x=typed("A", streams=True), streaming=["/x"]), "b": told(x=typed("B"))})

    assert found.typed["/x"].streams
    assert found.streaming == {"/x"}


def test_floating_executors_are_not_part_of_the_answer():
    found = of_flow({"a": told(x=typed("A")), "f": told(x=typed("F"), z=typed("Z"))}, floating=("f",))

    assert found.typed["/x"].output_name == "A"
    assert "/z" not in found.typed
    assert "/z" in found.bound


def test_heads_of_shards_take_and_answer_for_the_deployment():
    shard = told(x=typed("A"))
    assert of_chain((None, shard, None)) is shard
    found = of_chain((told(x=typed("Before")), shard, told(x=typed("After"))))
    assert found is not None
    assert (found.typed["/x"].input_name, found.typed["/x"].output_name) == ("Before", "After")
    assert of_chain((None, None)) is None


def test_two_classes_of_one_name_are_two_schemas():
    one = TypedEndpoint({"properties": {"a": {}}}, {}, "In", "Out")
    other = TypedEndpoint({"properties": {"b": {}}}, {}, "In", "Out")
    found = of_flow({"a": told(x=one), "b": told(y=other)})
    assert found.typed["/x"].input != found.typed["/y"].input


def test_the_flow_file_has_the_last_word_on_the_generation():
    assert of_flow({"a": None}, said=Generation.SECOND).generation is Generation.SECOND
    assert of_flow({"a": None}).generation is None
    assert of_flow({"a": Told({}), "b": Told({}, Generation.FIRST)}).generation is Generation.FIRST
