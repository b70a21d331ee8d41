"""What executors of both generations tell of themselves, read from what the real ones sent."""

import pytest
from google.protobuf.message import DecodeError

from gatewayd.messages.discovery import DRY_RUN, Told, of_flow
from gatewayd.messages.endpoints_codec import read_endpoints, write_endpoints
from gatewayd.messages.generations import Generation
from gatewayd.pb import EndpointsProto
from gatewayd.pb.second import EndpointsProto as SecondEndpoints
from tests.paths import ROOT

GOLDEN = ROOT / "tests" / "golden34" / "grpc"


def recorded(number: int) -> Told:
    return read_endpoints((GOLDEN / f"{number}_resp0.bin").read_bytes())


def test_an_executor_of_the_first_generation_tells_names():
    message = EndpointsProto(endpoints=["/x", DRY_RUN]).SerializeToString()

    assert read_endpoints(message) == Told({"/x": "", DRY_RUN: ""}, Generation.FIRST)


def test_ours_tells_docstrings_and_what_streams():
    message = EndpointsProto(endpoints=["/x", "/s"], descriptions={"/x": "does x"}, streaming=["/s"])

    assert read_endpoints(message.SerializeToString()) == Told(
        {"/x": "does x", "/s": ""}, Generation.FIRST, streaming=frozenset({"/s"})
    )


def test_one_of_the_second_tells_schemas():
    told = recorded(39)

    assert told.generation is Generation.SECOND
    assert list(told.bound)[:2] == ["/echo", "/len"]
    assert list(told.typed) == list(told.bound)  # whatever the order of the map that has the schemas
    length = told.typed["/len"]
    assert (length.input_name, length.output_name) == ("In", "Out")
    assert length.input["properties"]["num"]["default"] == 3
    assert length.input["required"] == ["text"]
    assert (length.streams, length.single, length.parameters) == (False, False, None)
    assert told.typed["/single"].single
    assert told.typed["/params"].parameters_name == "Params"
    assert told.typed["/params"].parameters is not None
    assert not told.streaming


def test_generators_stream():
    told = recorded(38)

    assert told.typed["/stream"].streams
    assert "/stream" in told.streaming
    assert told.streaming == {name for name, one in told.typed.items() if one.streams}


def test_an_executor_without_types_is_of_the_second_generation_too():
    assert recorded(40).generation is Generation.SECOND


def test_a_newer_executor_with_documents_of_the_first_generation_is_of_the_first():
    message = SecondEndpoints(endpoints=["/x"])
    model = {"name": "PydanticDocument", "model": {"title": "PydanticDocument"}}
    message.schemas.update({"/x": {"input": model, "output": model, "parameters": {}}})

    assert read_endpoints(message.SerializeToString()) == Told({"/x": ""}, Generation.FIRST)


@pytest.mark.parametrize(
    "schema",
    [{}, {"input": {"name": "A", "model": "text"}}, {"input": 1.0}, "text"],
)
def test_schemas_that_are_none_are_refused(schema):
    message = SecondEndpoints(endpoints=["/x"])
    message.schemas.update({"/x": schema})

    with pytest.raises(DecodeError, match="schemas of endpoint '/x' cannot be read"):
        read_endpoints(message.SerializeToString())


def test_a_gateway_of_the_reference_tells_schemas_without_names():
    message = SecondEndpoints(endpoints=["/x"])
    schema = {"title": "In", "properties": {"text": {"type": "string"}}}
    message.schemas.update({"/x": {"input": schema, "output": schema, "is_generator": True}})
    told = read_endpoints(message.SerializeToString())

    assert (told.typed["/x"].input_name, told.typed["/x"].input) == ("In", schema)
    assert told.streaming == {"/x"}


@pytest.mark.parametrize("number", [38, 39, 40])
def test_a_gateway_tells_of_one_executor_what_that_tells(number):
    told = recorded(number)

    assert read_endpoints(write_endpoints(of_flow({"a": told}))) == told
