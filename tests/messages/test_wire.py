"""The hand-made split of DataRequestProto against the generated classes and the recorded bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gatewayd.errors import BadRequest, codes_for
from gatewayd.messages import wire
from gatewayd.messages.request import Answer, Request, Response, Route
from gatewayd.messages.rope import Rope
from gatewayd.pb import (
    DataContentProto,
    DataRequestListProto,
    DataRequestProto,
    HeaderProto,
    RouteProto,
    StatusProto,
    Struct,
)
from tests.paths import GOLDEN

CALLS = GOLDEN / "grpc"
MANIFEST = json.loads((CALLS / "manifest.json").read_text())
RECORDED = sorted(CALLS.glob("*.bin"), key=lambda path: path.name)


def parses(message: bytes) -> bool:
    try:
        DataRequestProto.FromString(message)
    except Exception:
        return False
    return True


def well_formed(pattern: str) -> list[Any]:
    return [
        pytest.param(path.read_bytes(), id=path.name)
        for path in RECORDED
        if pattern in path.name and parses(path.read_bytes())
    ]


def test_the_recorded_messages_are_there() -> None:
    assert len(well_formed("_req")) > 30
    assert len(well_formed("_resp")) > 30


@pytest.mark.parametrize("message", well_formed("_req"))
def test_a_recorded_request_is_split_as_protobuf_splits_it(message: bytes) -> None:
    expected = DataRequestProto.FromString(message)
    found = wire.decode_request(message)
    assert found.request_id == expected.header.request_id
    assert found.endpoint == expected.header.exec_endpoint
    assert found.target == expected.header.target_executor
    assert Struct.FromString(found.parameters) == expected.parameters
    assert DataContentProto.FromString(found.documents) == expected.data
    assert [RouteProto.FromString(route) for route in found.routes] == list(expected.routes)


@pytest.mark.parametrize("message", well_formed("_req"))
def test_a_recorded_request_survives_being_written_again(message: bytes) -> None:
    once = wire.decode_request(message)
    assert wire.decode_request(wire.encode_request(once)) == once


@pytest.mark.parametrize("message", well_formed("_req"))
def test_the_documents_reach_an_executor_as_the_bytes_they_came_as(message: bytes) -> None:
    request = wire.decode_request(message)
    answer = Answer(request.documents, request.parameters, request.routes)
    call = DataRequestProto.FromString(wire.encode_call("id", "/x", answer))
    expected = DataRequestProto.FromString(message)
    assert (call.data, call.parameters, list(call.routes)) == (
        expected.data,
        expected.parameters,
        list(expected.routes),
    )
    assert call.header == HeaderProto(request_id="id", exec_endpoint="/x", target_executor="")
    assert call.header.HasField("target_executor")


# The executors' own answers, recorded too, name no target; a gateway's always do.
OF_GATEWAYS = [
    case
    for case in well_formed("_resp")
    if DataRequestProto.FromString(case.values[0]).header.HasField("target_executor")
]


@pytest.mark.parametrize("message", OF_GATEWAYS)
def test_a_recorded_answer_can_be_written_byte_for_byte(message: bytes) -> None:
    expected = DataRequestProto.FromString(message)
    answer = wire.decode_answer(message)
    response = Response(
        request_id=expected.header.request_id,
        endpoint=expected.header.exec_endpoint,
        documents=answer.documents,
        parameters=answer.parameters if expected.HasField("parameters") else None,
        routes=tuple(route_of(route) for route in expected.routes),
        status=answer.status,
    )
    found = wire.encode_response(response)
    assert DataRequestProto.FromString(found) == expected
    assert len(found) == len(message)


def test_a_broken_call_yields_the_recorded_bytes_before_it_ends() -> None:
    assert wire.encode_request_id("req-0001")[2:] == b"\x0a\x08req-0001"
    recorded = (CALLS / "30_resp1.bin").read_bytes()
    request_id = DataRequestProto.FromString(recorded).header.request_id
    assert wire.encode_request_id(request_id) == recorded


def route_of(route: RouteProto) -> Route:
    return Route(
        executor=route.executor,
        start_time=seconds(route.start_time),
        end_time=seconds(route.end_time) if route.HasField("end_time") else None,
        status=route.status.SerializeToString() if route.HasField("status") else b"",
    )


def seconds(stamp: Any) -> float:
    return float(stamp.seconds + stamp.nanos / 1e9)


def test_no_bytes_at_all_are_an_empty_request() -> None:
    assert wire.decode_request(b"") == Request("", "")


def test_a_failure_is_recognised_by_the_flag_or_by_the_status() -> None:
    status = StatusProto(code=StatusProto.ERROR, description="boom")
    failed = DataRequestProto(header=HeaderProto(status=status)).SerializeToString()
    assert wire.decode_answer(failed).failed
    assert StatusProto.FromString(wire.decode_answer(failed).status) == status
    assert wire.decode_answer(b"", is_error=True).failed
    fine = DataRequestProto(header=HeaderProto(status=StatusProto())).SerializeToString()
    assert wire.decode_answer(fine) == Answer(b"")


def test_an_answer_without_documents_carries_an_empty_list() -> None:
    found = DataRequestProto.FromString(wire.encode_response(Response("id", "/", b"")))
    assert found.data.WhichOneof("documents") == "docs"
    assert found.HasField("parameters")
    absent = DataRequestProto.FromString(wire.encode_response(Response("id", "/", b"", None)))
    assert not absent.HasField("parameters")


def test_several_calls_make_one_list() -> None:
    calls = [wire.encode_call("a", "/x", Answer(b"")), wire.encode_call("b", "/x", Answer(b"\x0a\x00"))]
    found = DataRequestListProto.FromString(wire.encode_call_list(calls))
    assert [one.SerializeToString() for one in found.requests] == [
        DataRequestProto.FromString(call).SerializeToString() for call in calls
    ]


@pytest.mark.parametrize("moment", [0.0, 1.5, 1_700_000_000.123456, 1_700_000_000.9999999, -1.25])
def test_a_time_is_kept_to_the_microsecond(moment: float) -> None:
    found = RouteProto.FromString(wire.encode_route(Route("a", moment)))
    assert seconds(found.start_time) == pytest.approx(moment, abs=1e-6)
    assert 0 <= found.start_time.nanos < 10**9
    assert not found.HasField("end_time")


@pytest.mark.parametrize(
    "message",
    [
        b"\x0a",
        b"\x0a\x05ab",
        b"\x22\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x08\x01",
        b"\x25\x00\x00\x00\x00",
        b"\x00",
        b"\x07",
        b"\x0a\x02\xff\xff",
        b"\x0a\x03\x0a\x01\xff",
        b"\x2d\x00",
        b"\x29\x00\x00",
        b"\xff" * 12,
        b"not protobuf",
        b"\x01",
    ],
)
def test_malformed_input_is_the_clients_mistake(message: bytes) -> None:
    for decode in (wire.decode_request, wire.decode_answer):
        with pytest.raises(wire.Malformed) as caught:
            decode(message)
        assert isinstance(caught.value, BadRequest)
        assert codes_for(caught.value).grpc == "INVALID_ARGUMENT"


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
structs = st.dictionaries(words, st.floats(allow_nan=False) | words | st.booleans(), max_size=3)
unknown = st.sampled_from([b"", b"\x28\x01", b"\x3a\x03abc", b"\x31" + b"\x00" * 8, b"\x3d\x00\x00\x00\x00"])


@st.composite
def messages(draw: st.DrawFn) -> DataRequestProto:
    message = DataRequestProto()
    if draw(st.booleans()):
        message.header.request_id = draw(words)
    for name in ("exec_endpoint", "target_executor"):
        if draw(st.booleans()):
            setattr(message.header, name, draw(words))
    if draw(st.booleans()):
        message.header.timeout = draw(st.integers(0, 2**32 - 1))
    if draw(st.booleans()):
        message.parameters.update(draw(structs))
    for name in draw(st.lists(words, max_size=3)):
        message.routes.add(executor=name).start_time.seconds = 5
    kind = draw(st.sampled_from(["none", "docs", "bytes"]))
    if kind == "docs":
        message.data.docs.SetInParent()
        for text in draw(st.lists(words, max_size=3)):
            message.data.docs.docs.add(id=text, text=text * draw(st.sampled_from([1, 40, 4000])))
    elif kind == "bytes":
        message.data.docs_bytes = draw(st.binary(max_size=300))
    return message


@given(messages(), unknown, unknown)
@settings(max_examples=200, deadline=None)
def test_a_split_agrees_with_protobuf_also_around_unknown_fields(
    message: DataRequestProto, before: bytes, after: bytes
) -> None:
    found = wire.decode_request(before + message.SerializeToString() + after)
    assert found.request_id == message.header.request_id
    assert found.endpoint == message.header.exec_endpoint
    assert found.target == message.header.target_executor
    assert found.timeout_s == (message.header.timeout / 1000 if message.header.timeout else None)
    assert Struct.FromString(found.parameters) == message.parameters
    assert list(found.routes) == [route.SerializeToString() for route in message.routes]
    assert found.documents == message.data.SerializeToString()


@given(messages(), messages())
@settings(max_examples=100, deadline=None)
def test_fields_that_stand_twice_are_merged_as_protobuf_merges_them(
    first: DataRequestProto, second: DataRequestProto
) -> None:
    both = first.SerializeToString() + second.SerializeToString()
    expected = DataRequestProto.FromString(both)
    found = wire.decode_request(both)
    assert (found.request_id, found.endpoint) == (expected.header.request_id, expected.header.exec_endpoint)
    assert Struct.FromString(found.parameters) == expected.parameters
    assert DataContentProto.FromString(found.documents) == expected.data
    assert len(found.routes) == len(expected.routes)


@pytest.mark.parametrize("tag", [wire.HEADER, wire.PARAMETERS, wire.ROUTE, wire.DATA, 0x2A])
@pytest.mark.parametrize("split", [wire.split, lambda message: wire.decode_request(Rope((message,)))])
def test_a_message_of_very_many_fields_is_refused_before_it_has_cost_anything(tag: int, split: Any) -> None:
    # Joined one by one, the same field a million times took minutes.
    part = wire.field(tag, b"\x0a\0" if tag == wire.HEADER else b"\x22\0")
    assert split(b"".join(part) * (wire.MOST_FIELDS - 1))
    with pytest.raises(wire.Malformed, match="more than 10000 fields, of which all documents are one"):
        split(b"".join(part) * 1_000_000)


@given(messages())
@settings(max_examples=100, deadline=None)
def test_a_request_survives_being_written_again(message: DataRequestProto) -> None:
    once = wire.decode_request(message.SerializeToString())
    assert wire.decode_request(wire.encode_request(once)) == once


@given(st.binary(max_size=60))
@example(b"\x0b\x0c")  # a group, which proto3 has not
@example(b"\x2b\x2c")
@settings(max_examples=500, deadline=None)
def test_any_bytes_are_a_request_or_malformed(noise: bytes) -> None:
    for decode in (wire.decode_request, wire.decode_answer):
        try:
            decode(noise)
        except wire.Malformed:
            continue


@given(messages(), st.data())
@settings(max_examples=150, deadline=None)
def test_a_message_cut_short_or_changed_is_a_request_or_malformed(
    message: DataRequestProto, data: Any
) -> None:
    whole = bytearray(message.SerializeToString())
    if not whole:
        return
    position = data.draw(st.integers(0, len(whole) - 1))
    whole[position] = data.draw(st.integers(0, 255))
    for damaged in (bytes(whole), bytes(whole[:position])):
        try:
            request = wire.decode_request(damaged)
        except wire.Malformed:
            continue
        assert isinstance(request, Request)


@pytest.mark.parametrize("documents", [b"", b"documents", b"d" * 200_000])
def test_the_id_of_a_request_is_read_whatever_its_documents_are(documents: bytes) -> None:
    message = wire.encode_call("id", "/x", Answer(documents))
    assert wire.request_id_of(message) == "id"
    assert wire.request_id_of(b"") == ""
    unusual = DataRequestProto(header=HeaderProto(request_id="other", timeout=3, headers={"a": "b"}))
    assert wire.request_id_of(unusual.SerializeToString()) == "other"
