"""Ropes: the same bytes as their pieces joined, however they are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.errors import GatewayError
from gatewayd.messages import wire
from gatewayd.messages.generations import check_generation
from gatewayd.messages.request import Answer, Request, Response, Route
from gatewayd.messages.rope import LONG_BYTES, Content, Rope, concatenated, in_pieces
from gatewayd.pb import DataContentProto, DataRequestListProto, DataRequestProto

PIECES = st.lists(st.binary(max_size=9), max_size=9)


def cut(whole: bytes, *at: int) -> Rope:
    """``whole`` in pieces that end at these positions, every other one a view."""
    ends = [*sorted(position % (len(whole) + 1) for position in at), len(whole)]
    found: list[bytes | memoryview] = []
    begin = 0
    for number, end in enumerate(ends):
        found.append(memoryview(whole)[begin:end] if number % 2 else whole[begin:end])
        begin = end
    return Rope(found)


@given(PIECES)
def test_a_rope_is_its_pieces_joined(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    rope = Rope(pieces)

    assert len(rope) == len(whole)
    assert bool(rope) == bool(whole)
    assert [rope[position] for position in range(len(whole))] == list(whole)
    with pytest.raises(IndexError):
        rope[len(whole)]
    assert rope == whole
    assert rope == Rope([whole])
    assert hash(rope) == hash(whole)
    assert rope != whole + b"x"
    assert rope != "text"


@given(PIECES, st.integers(0, 90), st.integers(0, 90))
def test_what_is_between_two_positions_is_the_slice(pieces: list[bytes], start: int, length: int) -> None:
    whole = b"".join(pieces)
    assert Rope(pieces).between(start, start + length) == whole[start : start + length]


def test_a_rope_is_joined_once() -> None:
    rope = Rope([b"a", memoryview(b"bcd")[1:]])
    assert bytes(rope) is bytes(rope)
    assert rope.pieces == (b"acd",)


def test_bytes_of_bytes_are_the_same_object() -> None:
    content: Content = b"x" * 10
    assert bytes(content) is content


def test_the_text_of_a_rope_shows_no_content() -> None:
    assert repr(Rope([b"secret", b"more"])) == "<Rope of 10 bytes in 2>"


def test_what_is_long_is_not_copied() -> None:
    first, second = b"x" * LONG_BYTES, b"y"
    found = in_pieces([first, second])
    assert isinstance(found, Rope)
    assert list(map(id, found.pieces)) == [id(first), id(second)]


def test_what_is_short_is_bytes() -> None:
    assert in_pieces([b"x" * (LONG_BYTES - 1), b"y"]) == b"x" * (LONG_BYTES - 1) + b"y"
    assert type(in_pieces([b"x" * (LONG_BYTES - 1), b"y"])) is bytes
    assert type(concatenated([b"a", b"b"])) is bytes


def test_views_that_keep_much_more_than_they_hold_are_copied() -> None:
    large, small = bytes(LONG_BYTES), bytes(2 * LONG_BYTES)
    found = in_pieces([memoryview(large)[1:], memoryview(small)[:9], memoryview(small)[20:29]])

    assert isinstance(found, Rope)
    view, copied = found.pieces
    assert isinstance(view, memoryview)
    assert view.obj is large
    assert copied == bytes(18)
    assert isinstance(copied, bytes)


def test_views_of_one_object_that_hold_most_of_it_are_kept() -> None:
    whole = bytes(4 * LONG_BYTES)
    views = [memoryview(whole)[at : at + LONG_BYTES] for at in (0, LONG_BYTES, 2 * LONG_BYTES)]
    found = in_pieces([*views])
    assert isinstance(found, Rope)
    assert all(isinstance(piece, memoryview) for piece in found.pieces)


def test_only_what_is_short_is_joined() -> None:
    long = bytes(LONG_BYTES + 1)
    rope = Rope([long, b"z"])
    found = concatenated([b"a", b"b", long, b"c", rope, b"d", b"e"])
    assert isinstance(found, Rope)
    assert found.pieces == (b"ab", long, b"c", long, b"z", b"de")
    assert found.pieces[1] is long


# -- messages ------------------------------------------------------------------------------------------------


def message(*, long: bool = True) -> bytes:
    request = DataRequestProto()
    request.header.request_id = "0" * 32
    request.header.exec_endpoint = "/search"
    request.header.target_executor = "exec.*"
    request.parameters.fields["k"].string_value = "v"
    request.routes.add(executor="gateway")
    request.routes.add(executor="exec_a")
    for number in range(3):
        request.data.docs.docs.add(id=f"d{number}", blob=bytes(LONG_BYTES if long else 9))
    return request.SerializeToString()


@given(st.lists(st.integers(0, 1 << 30), max_size=9))
def test_a_message_is_split_wherever_it_was_cut(at: list[int]) -> None:
    whole = message()
    found = wire.decode_request(cut(whole, *at))
    assert found == wire.decode_request(whole)
    assert isinstance(found.documents, Rope)


@given(st.lists(st.integers(0, 1 << 30), max_size=9), st.integers(0, 400), st.integers(0, 255))
def test_a_damaged_message_is_refused_alike(at: list[int], position: int, byte: int) -> None:
    damaged = bytearray(message())
    damaged[position] = byte
    whole = bytes(damaged)
    assert outcome(cut(whole, *at)) == outcome(whole)
    assert outcome(cut(whole[:position], *at)) == outcome(whole[:position])


def outcome(content: Content) -> object:
    try:
        return wire.decode_request(content)
    except GatewayError as error:
        return type(error)


def test_documents_that_come_in_several_fields_are_put_together() -> None:
    first, second = message(), message(long=False)
    whole = first + second
    found = wire.decode_request(cut(whole, 70_000, len(first) + 20))
    assert found == wire.decode_request(whole)
    parsed = DataContentProto.FromString(bytes(found.documents))
    assert [document.id for document in parsed.docs.docs] == ["d0", "d1", "d2"] * 2


def test_a_message_of_many_fields_is_read_all_the_same() -> None:
    routes = b"".join(
        b"".join(wire.field(wire.ROUTE, wire.encode_route(Route(f"e{number}", 1.0)))) for number in range(500)
    )
    whole = message() + routes
    found = wire.decode_request(cut(whole, 7, 100_000, len(whole) - 9))
    assert found == wire.decode_request(whole)
    assert len(found.routes) == 502


def test_documents_are_not_copied_on_their_way_to_an_executor_and_back() -> None:
    whole = message()
    pieces = [whole[begin : begin + 50_000] for begin in range(0, len(whole), 50_000)]
    request = wire.decode_request(Rope(pieces))
    call = wire.encode_call(request.request_id, request.endpoint, Answer(request.documents))
    answer = wire.decode_answer(call)
    response = wire.encode_response(Response("1", "/search", answer.documents))

    for content in (request.documents, call, answer.documents, response):
        assert isinstance(content, Rope)
        kept = [piece.obj if isinstance(piece, memoryview) else piece for piece in content.pieces]
        assert [piece for piece in pieces if any(piece is each for each in kept)] == pieces


def test_what_is_written_with_a_rope_is_what_is_written_with_bytes() -> None:
    documents = wire.decode_request(message()).documents
    rope = cut(bytes(documents), 10, 99_999)
    call = wire.encode_call("1", "/x", Answer(rope))
    assert call == wire.encode_call("1", "/x", Answer(documents))
    response = wire.encode_response(Response("1", "/x", documents))
    assert wire.encode_response(Response("1", "/x", rope)) == response
    request = Request("1", "/x", documents=documents)
    assert wire.encode_request(Request("1", "/x", documents=rope)) == wire.encode_request(request)
    listed = wire.encode_call_list([call, b"", call])
    assert DataRequestListProto.FromString(bytes(listed)).requests[0].header.request_id == "1"
    assert listed == wire.encode_call_list([bytes(call), b"", bytes(call)])


@given(st.lists(st.integers(0, 1 << 30), max_size=9))
def test_the_generation_of_documents_is_seen_wherever_they_were_cut(at: list[int]) -> None:
    entry = b"\x0a\x04text\x12\x02hi"
    document = b"\x0a" + bytes([len(entry)]) + entry
    foreign = b"\x0a" + bytes([len(document) + 2]) + b"\x0a" + bytes([len(document)]) + document
    with pytest.raises(GatewayError):
        check_generation(foreign)
    with pytest.raises(GatewayError):
        check_generation(cut(foreign, *at))
