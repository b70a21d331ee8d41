"""The codec of headers and routes writes and reads what protobuf's message classes do."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.messages import header_codec, wire
from gatewayd.messages.request import Answer, Response, Route
from gatewayd.pb import DataRequestProto, HeaderProto, RouteProto, StatusProto

ASCII = st.text(st.characters(max_codepoint=127), max_size=140)
TEXTS = st.one_of(ASCII, st.text(max_size=60))
# From before the epoch to beyond the seconds that five bytes hold.
TIMES = st.one_of(
    st.floats(-2e9, 4e10),
    st.floats(1.6e9, 1.9e9),
    st.integers(-(2**31), 2**35).map(float),
)
HEADERS = st.builds(
    lambda texts, timeout, code: _header(*texts, timeout, code),
    st.tuples(TEXTS, st.none() | TEXTS, st.none() | TEXTS),
    st.none() | st.integers(0, 2**32 - 1),
    st.none() | st.integers(0, 1),
)


def _header(
    request_id: str, endpoint: str | None, target: str | None, timeout: int | None, code: int | None
) -> bytes:
    header = HeaderProto(
        request_id=request_id, exec_endpoint=endpoint, target_executor=target, timeout=timeout
    )
    if code is not None:
        header.status.code = code  # type: ignore[assignment]
    return header.SerializeToString()


BYTES = st.lists(st.binary(), max_size=3)
# Fields in any order, several times, unknown ones, cut off or changed.
DISORDER = st.builds(
    lambda parts, end, junk: b"".join(parts)[: end or None] + junk,
    st.lists(HEADERS, max_size=3),
    st.integers(-3, 0),
    st.binary(max_size=6),
)


def _read(data: bytes) -> tuple[str, str, str, int]:
    found = HeaderProto.FromString(data)
    return found.request_id, found.exec_endpoint, found.target_executor, found.timeout


@given(st.one_of(HEADERS, DISORDER, st.binary(max_size=40)))
def test_a_header_reads_as_protobuf_reads_it_or_is_left_to_protobuf(data: bytes) -> None:
    known = header_codec.read_request_header(data)

    assert known is None or known == _read(data)


@given(st.one_of(HEADERS, DISORDER, st.binary(max_size=40)))
def test_what_counts_as_success_is_a_header_without_a_status(data: bytes) -> None:
    if header_codec.is_success(data):
        assert not HeaderProto.FromString(data).status.SerializeToString()


@pytest.mark.parametrize("code", [None, 0])
def test_the_usual_header_is_not_left_to_protobuf(code: int | None) -> None:
    data = _header("0" * 32, "/search", "", None, code)

    assert header_codec.is_success(data)
    assert header_codec.read_request_header(_header("0" * 32, "/search", "exec.*", 100, None)) == (
        "0" * 32,
        "/search",
        "exec.*",
        100,
    )


def test_a_failed_status_is_no_success() -> None:
    assert not header_codec.is_success(_header("0", "/", "", None, 1))


@given(TEXTS, TEXTS)
def test_a_header_is_written_as_protobuf_writes_it(request_id: str, endpoint: str) -> None:
    known = header_codec.header_field(request_id, endpoint)
    expected = DataRequestProto(
        header=HeaderProto(request_id=request_id, exec_endpoint=endpoint, target_executor="")
    )

    assert known is None or known == expected.SerializeToString()
    short = len(request_id) + len(endpoint) < 120 and (request_id + endpoint).isascii()
    assert known is not None or not short


@given(TEXTS, TIMES, st.none() | TIMES)
def test_a_route_is_written_as_protobuf_writes_it(name: str, start: float, end: float | None) -> None:
    expected = RouteProto(executor=name)
    expected.start_time.seconds, expected.start_time.nanos = _parts(start)
    if end is not None:
        expected.end_time.seconds, expected.end_time.nanos = _parts(end)

    assert wire.encode_route(Route(name, start, end)) == expected.SerializeToString()
    assert header_codec.route(name, start, end) in (None, expected.SerializeToString())
    assert header_codec.ended_route_field(name, start, end) in (
        None,
        b"".join(wire.field(wire.ROUTE, expected.SerializeToString())),
    )


def test_the_route_of_a_usual_answer_is_written_by_hand() -> None:
    assert header_codec.ended_route_field("a" * 87, -(2.0**30), 1.7e9) is not None
    assert header_codec.ended_route_field("a" * 88, 1.7e9, 1.7e9) is None
    assert header_codec.ended_route_field("a", 1.7e9, None) is None


def _parts(seconds: float) -> tuple[int, int]:
    whole, micros = divmod(round(seconds * 1_000_000), 1_000_000)
    return whole, micros * 1000


@given(
    TEXTS, TEXTS, st.none() | st.integers(0, 1), st.binary(max_size=200), st.lists(st.binary(), max_size=3)
)
def test_a_call_is_written_as_protobuf_would_write_its_parts(
    request_id: str, endpoint: str, code: int | None, documents: bytes, routes: list[bytes]
) -> None:
    status = b"" if code is None else StatusProto(code=code, description="d").SerializeToString()
    header = HeaderProto(request_id=request_id, exec_endpoint=endpoint, target_executor="")
    if status:
        header.status.ParseFromString(status)

    call = wire.encode_call(request_id, endpoint, Answer(documents, b"", tuple(routes), status))
    response = wire.encode_response(Response(request_id, endpoint, documents, status=status))

    for message in (call, response):
        found = wire.split(message)
        assert found[0] == header.SerializeToString()
        assert (found[3] or b"") in (documents, wire.NO_DOCUMENTS)
    assert wire.split(call)[2] == tuple(routes)


@given(st.one_of(DISORDER, st.binary(max_size=40)))
def test_a_request_fails_to_decode_where_protobuf_refuses_its_header(header: bytes) -> None:
    message = b"".join(wire.field(wire.HEADER, header))
    try:
        expected = _read(header)
    except DecodeError:
        with pytest.raises(wire.Malformed):
            wire.decode_request(message)
        with pytest.raises(wire.Malformed):
            wire.decode_answer(message)
        return
    request = wire.decode_request(message)

    assert (request.request_id, request.endpoint, request.target) == expected[:3]
    assert request.timeout_s == (expected[3] / 1000 if expected[3] else None)
    answer = wire.decode_answer(message)
    assert answer.failed == (HeaderProto.FromString(header).status.code != 0)
