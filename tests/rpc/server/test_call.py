"""gRPC calls on a server's connection: heads, messages, deadlines, statuses; without sockets."""

from __future__ import annotations

import base64
import gc
import sys
from itertools import pairwise

import hpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.buffers import Buffers
from gatewayd.rpc.frames import FrameReader
from gatewayd.rpc.server.head import RequestHead, trailers
from gatewayd.rpc.server.messages import MessageReader, NotGrpc, TooLong
from tests.rpc.server.clients import (
    DATA,
    HEADERS,
    Client,
    Server,
    block,
    frame,
    head,
    message,
)


def answered(**fields: str) -> dict[str, str]:
    client = Client(Server())
    asked = client.ask("/echo", b"x", **fields)
    client.settle()
    return client.trailers.get(asked) or client.heads[asked]


# -- heads -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1H", 3600),
        ("2M", 120),
        ("3S", 3),
        ("40m", 0.04),
        ("5u", 5e-6),
        ("99999999n", 0.099999999),
        ("0S", 0),
    ],
)
def test_timeouts_in_every_unit(text: str, seconds: float) -> None:
    fields = [*head(), ("grpc-timeout", text)]
    found = RequestHead.of([(name.encode(), value.encode()) for name, value in fields])
    assert found.timeout_s == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "1", "S", "1s", "-1S", "123456789S", "1.5S", "\u00b2S"])
def test_what_is_no_timeout_is_found(text: str) -> None:
    fields = [*head(), ("grpc-timeout", text)]
    found = RequestHead.of([(name.encode(), value.encode()) for name, value in fields])
    assert found.bad_timeout
    assert not found.malformed


def test_metadata_are_what_the_protocol_does_not_say_itself() -> None:
    fields = head(x_a="1", k_bin="AAE=,Ag", grpc_trace="?", user_agent="me", bad_bin="!")
    found = RequestHead.of([(name.encode(), value.encode()) for name, value in fields])
    assert found.metadata == (("x-a", "1"), ("k-bin", b"\0\1"), ("k-bin", b"\2"), ("user-agent", "me"))
    assert found.path == "/echo"


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"__method": "GET"}, "405"),
        ({"content_type": "text/html"}, "415"),
        ({"content_type": "application/grpc-web"}, "415"),
    ],
)
def test_what_is_not_grpc_gets_an_answer_of_http(fields: dict[str, str], status: str) -> None:
    assert answered(**fields) == {":status": status, "content-length": "0"}


@pytest.mark.parametrize("kind", ["application/grpc", "application/grpc+proto", "Application/gRPC; a=b"])
def test_every_kind_of_grpc_is_served(kind: str) -> None:
    assert answered(content_type=kind)["grpc-status"] == "0"


def test_messages_compressed_in_a_way_we_do_not_know() -> None:
    found = answered(grpc_encoding="snappy")
    assert (found["grpc-status"], found["grpc-accept-encoding"]) == ("12", "identity, deflate, gzip")


@settings(deadline=None)
@given(fields=st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=20)), max_size=10))
def test_any_fields_make_a_head(fields: list[tuple[bytes, bytes]]) -> None:
    RequestHead.of(fields)
    RequestHead.of([(name.encode(), value.encode()) for name, value in head()] + fields)


@settings(deadline=None)
@given(details=st.text(), value=st.binary(max_size=40))
def test_trailers_say_any_text_and_any_bytes(details: str, value: bytes) -> None:
    found = dict(hpack.Decoder().decode(trailers("INTERNAL", details, [("a-bin", value)]), raw=True))
    assert found[b"grpc-status"] == b"13"
    assert all(0x20 <= byte < 0x7F for byte in found.get(b"grpc-message", b""))
    text = found[b"a-bin"]
    assert base64.b64decode(text + b"=" * (-len(text) % 4)) == value


# -- messages ----------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    contents=st.lists(st.tuples(st.binary(max_size=50), st.booleans()), max_size=8),
    cuts=st.lists(st.integers(0, 400), max_size=12),
)
def test_messages_are_read_however_they_are_cut(contents: list[tuple[bytes, bool]], cuts: list[int]) -> None:
    whole = b"".join(message(*each) for each in contents)
    held, found = Buffers(1 << 20), []
    reader = MessageReader(100, held)
    places = sorted({min(cut, len(whole)) for cut in cuts} | {0, len(whole)})
    for begin, end in pairwise(places):
        reader.add(whole[begin:end])
        while (each := reader.next()) is not None:
            found.append(each)
    assert found == contents
    assert reader.empty
    assert held.held_bytes == 0


def test_a_message_too_long_is_refused_by_its_prefix() -> None:
    reader = MessageReader(100, Buffers(1 << 20))
    reader.add(b"\0\0\0\0\x65")
    with pytest.raises(TooLong):
        reader.next()
    reader = MessageReader(100, Buffers(1 << 20))
    reader.add(b"\2\0\0\0\1")
    with pytest.raises(NotGrpc):
        reader.next()


def test_many_small_messages_in_one_piece_are_not_copied_again_and_again() -> None:
    reader = MessageReader(100, Buffers(1 << 30))
    reader.add(message(b"x") * 200_000)  # a minute, if what is left were copied each time
    found = 0
    while reader.next() is not None:
        found += 1
    assert found == 200_000


def status_of(
    *contents: bytes, raw: bytes | None = None, path: str = "/echo", **more: int
) -> tuple[str, str]:
    client = Client(Server(**more))
    asked = client.ask(path, *contents)
    if raw is not None:
        client.unsent[asked] = raw
    client.settle()
    return client.status(asked)


def test_a_message_over_the_limit_fails_its_call() -> None:
    assert status_of(b"x" * 101, max_received_bytes=100) == (
        "8",
        "Received message larger than max (101 vs. 100)",
    )
    assert status_of(b"x" * 100, max_received_bytes=100) == ("0", "")


def test_an_answer_over_the_limit_fails_its_call() -> None:
    for path in ("/echo", "/stream"):
        assert status_of(b"x" * 101, path=path, max_sent_bytes=100) == (
            "8",
            "Sent message larger than max (101 vs. 100)",
        )


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"", "12"),
        (message(b"a") + message(b"b"), "12"),
        (b"\0\0\0", "13"),
        (b"\0\0\0\0\5abc", "13"),
        (b"\2\0\0\0\1a", "13"),
        (message(b"a", compressed=True), "13"),
    ],
)
def test_requests_that_are_not_one_message(raw: bytes, status: str) -> None:
    assert status_of(raw=raw)[0] == status


@pytest.mark.parametrize("raw", [b"\0\0\0", b"\0\0\0\0\5abc", b"\2\0\0\0\1a", message(b"a", compressed=True)])
def test_streams_that_are_not_messages(raw: bytes) -> None:
    server = Server()
    client = Client(server)
    asked = client.ask("/stream")
    client.unsent[asked] = raw
    client.settle()
    assert client.status(asked)[0] == "13"
    assert server.log == ["cancelled"]


def test_what_all_connections_hold_is_bounded() -> None:
    server = Server(held=100)
    client = Client(server, INITIAL_WINDOW_SIZE=0)
    unfinished = client.ask("/echo", end=False)
    client.unsent[unfinished] = message(b"x" * 200)[:150]
    client.settle()
    assert client.status(unfinished)[0] == "8"
    assert "gateway.max_buffered_bytes" in client.status(unfinished)[1]
    assert server.held.held_bytes == 0
    # Small answers are not asked to find room, large ones are.
    large = client.ask("/echo", b"x" * 70_000)
    client.settle()
    assert client.status(large)[0] == "8"


# -- deadlines and failures ----------------------------------------------------------------------------------


def test_a_deadline_ends_the_call_and_cancels_the_work() -> None:
    server = Server()
    client = Client(server)
    asked = client.ask("/held", b"x", grpc_timeout="2S")
    client.settle()
    assert server.waiting[0].time_remaining() == 2.0
    server.clock.advance(1.9)
    assert server.log == []
    server.clock.advance(0.2)
    client.settle()
    assert server.log == ["cancelled"]
    assert client.status(asked) == ("4", "Deadline Exceeded")
    server.waiting[0].respond(b"too late")
    client.settle()
    assert client.messages(asked) == []


def test_a_deadline_ends_a_stream() -> None:
    server = Server()
    client = Client(server)
    asked = client.ask("/stream", b"a", end=False, grpc_timeout="1S")
    client.settle()
    server.clock.advance(1.1)
    client.settle()
    assert client.messages(asked) == [b"a"]
    assert client.status(asked)[0] == "4"
    assert server.log == ["cancelled"]


def test_a_call_without_a_deadline_has_all_the_time() -> None:
    server = Server()
    client = Client(server)
    client.ask("/held", b"x")
    client.settle()
    assert server.waiting[0].time_remaining() is None


def test_a_failure_has_its_code_text_and_metadata() -> None:
    client = Client(Server())
    asked = client.ask("/fail", b"x")
    client.settle()
    assert client.status(asked) == ("10", "%C3%A9%25%0A")
    assert client.heads[asked]["k"] == "v"
    assert client.heads[asked]["b-bin"] == "AA"
    assert client.heads[asked][":status"] == "200"


# -- slow readers --------------------------------------------------------------------------------------------


def test_calls_wait_while_a_client_does_not_read_its_answers() -> None:
    server = Server(max_unsent_bytes=100_000)
    client = Client(server)
    client.reads = False
    asked = [client.ask("/echo", b"x" * 40_000) for _ in range(12)]
    client.settle()
    assert len(server.calls) == 12
    assert 80_000 < server.connection.unsent_bytes <= 420_000
    waiting = sum(not call.over for call in server.calls)
    assert waiting
    client.h2.increment_flow_control_window(1 << 20)
    client.settle()
    assert [client.messages(stream_id) for stream_id in asked] == [[b"x" * 40_000]] * 12
    assert server.held.held_bytes == 0


def test_calls_that_wait_and_are_given_up_do_not_begin() -> None:
    server = Server(max_unsent_bytes=1000)
    client = Client(server)
    first = client.ask("/echo", b"x" * 10_000)
    client.settle()
    held = [client.ask("/held", b"x") for _ in range(3)]
    client.settle()
    assert len(server.waiting) == 1  # one may always be under way
    client.h2.reset_stream(held[1])
    client.settle()
    server.waiting[0].respond(b"")
    client.settle()
    assert len(server.waiting) == 2
    assert client.messages(first) == [b"x" * 10_000]


def test_a_call_whose_client_floods_fails() -> None:
    server = Server(max_unsent_bytes=20_000, held=190_000)
    client = Client(server, INITIAL_WINDOW_SIZE=0)
    other = client.ask("/held", b"x")
    client.settle()
    asked = client.ask("/stream", b"x" * 100_000)
    client.settle()
    server.waiting[0].respond(b"x" * 70_000)
    client.settle()
    assert client.status(other)[0] == "8"
    assert "gateway.max_unsent_bytes" in client.status(other)[1]
    assert asked not in client.trailers


def test_a_stream_that_is_not_read_stops_its_client() -> None:
    server = Server()
    client = Client(server, INITIAL_WINDOW_SIZE=0)
    asked = client.ask("/stream", *[b"x" * 1000] * 2000)
    client.settle()
    assert len(client.unsent[asked]) > 1_000_000
    assert server.held.held_bytes < 600_000
    client.h2.increment_flow_control_window(3_000_000, asked)
    client.h2.increment_flow_control_window(3_000_000)
    client.settle()
    assert len(client.messages(asked)) == 2000
    assert server.held.held_bytes == 0


# -- what stays ----------------------------------------------------------------------------------------------


def test_nothing_of_a_call_stays() -> None:
    server = Server()
    client = Client(server)
    client.ask("/echo", b"x")
    client.ask("/held", b"x", grpc_timeout="9S")
    client.settle()
    calls, server.calls = server.calls, []
    server.waiting.clear()
    gc.collect()
    gc.disable()
    try:
        server.connection.lost()
        while calls:
            call = calls.pop()
            assert sys.getrefcount(call) == 2
    finally:
        gc.enable()
    assert not server.settings.timeouts._waiters


# -- any bytes at all ----------------------------------------------------------------------------------------

FRAMES = st.builds(
    frame,
    st.sampled_from([*range(10), 77]),
    st.sampled_from([0, 1, 4, 5, 8, 9, 13, 32, 36, 37, 255]),
    st.sampled_from([0, 1, 3, 5, 7, 2, 2**31 - 1]),
    st.one_of(
        st.binary(max_size=40),
        st.sampled_from(
            [block(), block(head(__path="/stream")), block(head(grpc_timeout="1S")), message(b"x")]
        ),
        st.integers(0, 2**31 - 1).map(lambda value: value.to_bytes(4, "big")),
    ),
)


@settings(deadline=None, max_examples=300)
@given(frames=st.lists(FRAMES, max_size=30), cut=st.integers(1, 100))
def test_no_frames_raise_anything_but_end_the_connection_at_most(frames: list[bytes], cut: int) -> None:
    server = Server().begin()
    data = b"".join(frames)
    for at in range(0, len(data), cut):
        server.receive(data[at : at + cut])
    server.clock.advance(5)
    server.connection.lost()
    assert server.connection.unsent_bytes == server.held.held_bytes == 0
    assert server.connection.open_streams == 0


def test_data_in_tiny_segments_is_kept_until_it_is_worth_handing_on() -> None:
    pieces: list[int] = []

    class Handler:
        def on_data(self, flags: int, stream_id: int, payload: bytes) -> None:
            pieces.append(len(payload))

        def on_other(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
            reader.ready = True

    reader = FrameReader(Handler(), frame_bytes=1 << 16, block_bytes=1, block_frames=1)  # type: ignore[arg-type]
    reader.feed(frame(4, 0, 0))
    for byte in frame(DATA, 1, 1, bytes(2000)) + frame(DATA, 0, 1, bytes(3)):
        reader.feed(bytes([byte]))
    assert pieces == [512, 512, 512, 464, 3]
    assert HEADERS == 1


# -- several answers in one piece --------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=3000), min_size=1, max_size=40), st.sampled_from([100, 16_000, 1 << 20]))
def test_answers_that_are_sent_together_arrive_whole_and_in_order(contents: list[bytes], window: int) -> None:
    client = Client(Server(), INITIAL_WINDOW_SIZE=window)
    asked = client.ask("/together", *contents)
    client.settle()

    assert client.messages(asked) == contents
    assert client.status(asked) == ("0", "")
    assert client.server.log == ["sent"]
    assert client.server.connection.unsent_bytes == client.server.held.held_bytes == 0


def test_answers_before_one_that_is_too_large_are_sent_and_the_method_is_told() -> None:
    client = Client(Server(max_sent_bytes=100))
    asked = client.ask("/together", b"a", b"b" * 100, b"c" * 101, b"d")
    client.settle()

    assert client.messages(asked) == [b"a", b"b" * 100]
    assert client.status(asked) == ("8", "Sent message larger than max (101 vs. 100)")
    assert client.server.log == ["cancelled"]


def test_answers_that_find_no_room_together_end_the_call() -> None:
    client = Client(Server(held=100_000))
    asked = client.ask("/together", *[b"x" * 30_000] * 4)
    client.settle()

    assert client.messages(asked) == []
    assert client.status(asked)[0] == "8"
    assert client.server.log == ["cancelled"]


def test_a_client_may_answer_every_message_of_a_piece_with_frames_of_its_own() -> None:
    client = Client(Server())
    noise = client.server.connection.conduct._noise
    client.server.connection.conduct.noise(1000)
    asked = client.ask("/together", *[b"x"] * 125)
    client.settle()

    assert len(client.messages(asked)) == 125
    assert client.server.connection.conduct._noise > noise - 10
