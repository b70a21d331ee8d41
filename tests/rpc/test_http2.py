"""HTTP/2 without sockets: against the h2 package, and against servers that break every rule."""

from __future__ import annotations

from struct import pack
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.rpc.call import CallError
from gatewayd.rpc.headers import encode
from gatewayd.rpc.http2 import Limits
from tests.rpc.peer import SETTINGS, Asked, Memory, Peer, frame

HEADERS = encode([(b":status", b"200"), (b"content-type", b"application/grpc")])
TRAILERS = encode([(b"grpc-status", b"0")])
MESSAGE = b"\0\0\0\0\2hi"

DATA, HEADERS_, PRIORITY, RST, SETTINGS_, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)


def number(value: int) -> bytes:
    return pack(">I", value)


def ready(limits: Limits | None = None) -> Memory:
    memory = Memory(limits)
    memory.connection.receive(SETTINGS)
    memory.sent.clear()
    return memory


def answer(stream_id: int) -> bytes:
    return (
        frame(HEADERS_, 4, stream_id, HEADERS)
        + frame(DATA, 0, stream_id, MESSAGE)
        + frame(HEADERS_, 5, stream_id, TRAILERS)
    )


# -- against the h2 package ----------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.sampled_from([0, 1, 100, 16_379, 16_384, 70_000, 300_000]), min_size=1, max_size=8),
    chunk=st.sampled_from([0, 1000, 9, 16_393]),
    window=st.sampled_from([65_535, 1, 1000, 1 << 20]),
    streams=st.sampled_from([1, 2, 100]),
    largest=st.sampled_from([16_384, 100_000]),
)
def test_messages_come_back_as_they_went_whatever_the_servers_settings(
    sizes: list[int], chunk: int, window: int, streams: int, largest: int
) -> None:
    if window < 1000:
        sizes = [min(size, 100) for size in sizes]
    peer = Peer(
        Limits(window_bytes=65_535 if window == 1000 else 1 << 20),
        INITIAL_WINDOW_SIZE=window,
        MAX_CONCURRENT_STREAMS=streams,
        MAX_FRAME_SIZE=largest,
    )
    messages = [bytes([65 + at]) * size for at, size in enumerate(sizes)]
    calls = [peer.ask(message) for message in messages]
    peer.settle(chunk=chunk)

    assert [call.ends for call in calls] == [[(message, False)] for message in messages]
    assert peer.most_at_once <= streams
    assert peer.idle


def test_every_byte_may_come_by_itself() -> None:
    peer = Peer()
    calls = [peer.ask(bytes([at]) * 3000) for at in range(5)]
    peer.settle(chunk=1)

    assert [call.code for call in calls] == ["OK"] * 5


def test_a_large_header_block_is_continued() -> None:
    peer = Peer(MAX_HEADER_LIST_SIZE=1 << 20)
    block = encode([(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/p"), (b":authority", b"a")])
    call = peer.ask(b"m", block=block + encode([(b"x", b"y" * 40_000)]))
    peer.settle()

    assert call.code == "OK"
    assert len(peer.requests[1][b"x"]) == 40_000


def test_nothing_is_sent_before_the_settings_and_everything_after() -> None:
    peer = Peer()
    before = len(peer.sent)
    call = peer.ask()
    assert len(peer.sent) == before

    peer.settle()
    assert call.code == "OK"


def test_a_cancelled_call_is_reset_and_its_late_answer_dropped() -> None:
    peer = Peer()
    peer.hold = True
    call, other = peer.ask(b"1"), peer.ask(b"2")
    peer.settle()
    peer.connection.cancel(call)
    peer.connection.cancel(call)
    late = frame(HEADERS_, 4, 1, HEADERS) + frame(DATA, 0, 1, MESSAGE)
    peer.connection.receive(late)
    peer.answer(3)
    peer.settle()

    assert peer.resets == [(1, 8)]
    assert call.ends == []
    assert other.code == "OK"


def test_a_cancelled_call_that_waits_for_a_stream_is_never_sent() -> None:
    peer = Peer(MAX_CONCURRENT_STREAMS=1)
    peer.turn()
    first, second, third = peer.ask(b"1"), peer.ask(b"2"), peer.ask(b"3")
    peer.connection.cancel(second)
    peer.settle()

    assert (first.code, third.code, second.ends) == ("OK", "OK", [])
    assert len(peer.requests) == 2


def test_a_transport_that_has_enough_is_given_nothing_more() -> None:
    peer = Peer(INITIAL_WINDOW_SIZE=1 << 24)
    peer.turn()
    peer.server.increment_flow_control_window(1 << 24)
    peer.turn()
    peer.pause_after = 200_000
    calls = [peer.ask(b"x" * 1_000_000) for _ in range(3)]
    assert len(peer.sent) < 400_000

    while peer.turn():
        peer.connection.resume()
    assert [call.code for call in calls] == ["OK"] * 3


def test_an_answer_before_the_request_is_sent_whole_ends_it() -> None:
    peer = Peer(INITIAL_WINDOW_SIZE=10)
    call = peer.ask(b"x" * 1000)
    peer.hold = True
    peer.turn()
    peer.turn()
    peer.server.send_headers(1, [(":status", "200"), ("grpc-status", "8")], end_stream=True)
    peer.settle()

    assert call.code == "RESOURCE_EXHAUSTED"
    assert peer.idle


def test_a_smaller_initial_window_holds_back_what_is_under_way() -> None:
    peer = Peer(INITIAL_WINDOW_SIZE=1000)
    call = peer.ask(b"x" * 5000)
    peer.turn()
    peer.turn()
    peer.server.update_settings({4: 10})
    peer.settle()

    assert call.code == "OK"


# -- endings -------------------------------------------------------------------------------------------


def test_streams_above_the_last_one_were_not_reached_and_others_finish() -> None:
    memory = ready()
    calls = [memory.ask() for _ in range(3)]
    memory.connection.receive(frame(GOAWAY, 0, 0, number(1) + number(0)))
    assert memory.events == ["ready", "leaving"]

    memory.connection.receive(answer(1))
    assert calls[0].code == "OK"
    assert [(call.code, call.ends[0].reached) for call in calls[1:]] == [("UNAVAILABLE", False)] * 2
    assert memory.events[-1] == "idle"


def test_one_of_them_may_cancel_another() -> None:
    memory = ready()
    first, second, third, fourth = (memory.ask() for _ in range(4))

    class Cancelling(list[Any]):
        def append(self, end: object) -> None:
            super().append(end)
            third.give_up(CallError("CANCELLED", "nobody wants it any more"))

    second.ends = Cancelling()
    memory.connection.receive(frame(GOAWAY, 0, 0, number(1) + number(0)))
    memory.connection.receive(answer(1))

    assert [call.code for call in (first, second, third, fourth)] == [
        "OK",
        "UNAVAILABLE",
        "CANCELLED",
        "UNAVAILABLE",
    ]
    assert memory.idle


def test_waiting_streams_are_handed_back_when_the_server_leaves() -> None:
    memory = Memory()
    memory.connection.receive(frame(SETTINGS_, 0, 0, pack(">HI", 3, 1)))
    calls = [memory.ask() for _ in range(3)]
    memory.connection.receive(frame(GOAWAY, 0, 0, number(2**31 - 1) + number(0)))

    assert memory.connection.take_waiting() == calls[1:]
    assert not any(call.ends for call in calls)


@pytest.mark.parametrize(
    ("code", "status", "reached"),
    [
        (7, "UNAVAILABLE", False),
        (8, "CANCELLED", True),
        (2, "UNAVAILABLE", True),
        (11, "RESOURCE_EXHAUSTED", True),
    ],
)
def test_a_reset_stream_fails_with_its_code(code: int, status: str, reached: bool) -> None:
    memory = ready()
    call = memory.ask()
    memory.connection.receive(frame(RST, 0, 1, number(code)))

    assert (call.code, call.ends[0].reached) == (status, reached)
    assert call.ends[0].lost == (code == 2)


def test_a_lost_connection_breaks_what_was_sent_and_what_was_not() -> None:
    memory = Memory()
    memory.connection.receive(frame(SETTINGS_, 0, 0, pack(">HI", 3, 1)))
    sent, waiting = memory.ask(), memory.ask()
    memory.connection.lost("Socket closed")

    assert (sent.code, sent.ends[0].reached, sent.ends[0].lost) == ("UNAVAILABLE", True, True)
    assert (waiting.code, waiting.ends[0].reached, waiting.ends[0].lost) == ("UNAVAILABLE", False, False)


def test_the_last_stream_id_is_the_end_of_a_connection() -> None:
    memory = ready()
    memory.connection._next_id = 2**31 - 1
    call = memory.ask()
    assert memory.connection.leaving

    memory.connection.receive(answer(2**31 - 1))
    assert call.code == "OK"
    assert memory.events == ["ready", "leaving", "idle"]


# -- servers that break the rules ----------------------------------------------------------------------

BROKEN = {
    "HTTP/1": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "data of no stream": frame(DATA, 0, 0, b"x"),
    "data of an idle stream": frame(DATA, 0, 99, b"x"),
    "headers of an even stream": frame(HEADERS_, 4, 2, HEADERS),
    "a frame too large": pack(">I", 1 << 20)[1:] + b"\0\0" + number(1),
    "a push": frame(PUSH, 4, 1, number(2) + HEADERS),
    "a continuation of nothing": frame(CONTINUATION, 4, 1, HEADERS),
    "an interrupted block": frame(HEADERS_, 0, 1, HEADERS) + frame(PING, 0, 0, b"x" * 8),
    "a block of another stream": frame(HEADERS_, 0, 1, HEADERS) + frame(CONTINUATION, 4, 3, b""),
    "an endless block": frame(HEADERS_, 0, 1, b"") + frame(CONTINUATION, 0, 1, b"\0" * 16_000) * 1100,
    "a block of nothing": frame(HEADERS_, 0, 1, b"") + frame(CONTINUATION, 0, 1) * 100,
    "an undecodable block": frame(HEADERS_, 4, 1, b"\xff\xff\xff\xff\xff\xff"),
    "padding beyond the frame": frame(DATA, 8, 1, b"\x09abc"),
    "a short priority": frame(HEADERS_, 36, 1, b"abc"),
    "settings of a stream": frame(SETTINGS_, 0, 1),
    "settings of a wrong size": frame(SETTINGS_, 0, 0, b"abc"),
    "an acknowledgement with content": frame(SETTINGS_, 1, 0, b"abcdef"),
    "an initial window too large": frame(SETTINGS_, 0, 0, pack(">HI", 4, 1 << 31)),
    "a frame size too small": frame(SETTINGS_, 0, 0, pack(">HI", 5, 1)),
    "a stream's window grown too large": frame(WINDOW, 0, 1, number(2**31 - 65_536))
    + frame(SETTINGS_, 0, 0, pack(">HI", 4, 2**31 - 1)),
    "a ping of a stream": frame(PING, 0, 1, b"x" * 8),
    "a ping of a wrong size": frame(PING, 0, 0, b"x"),
    "a goaway of a stream": frame(GOAWAY, 0, 1, number(0) * 2),
    "a short goaway": frame(GOAWAY, 0, 0, number(0)),
    "a short reset": frame(RST, 0, 1, b"x"),
    "a reset of an idle stream": frame(RST, 0, 77, number(0)),
    "a window update of nothing": frame(WINDOW, 0, 0, number(0)),
    "a short window update": frame(WINDOW, 0, 0, b"x"),
    "a window update of an idle stream": frame(WINDOW, 0, 77, number(1)),
    "a window too large": frame(WINDOW, 0, 0, number(2**31 - 1)),
    "a flood of pings": frame(PING, 0, 0, b"x" * 8) * 5000,
    "a flood of settings": frame(SETTINGS_, 0, 0) * 5000,
    "a flood of empty data": frame(HEADERS_, 4, 1, HEADERS) + frame(DATA, 0, 1) * 5000,
    "a flood of unknown frames": frame(200, 0, 1) * 5000,
    "more than the window": frame(DATA, 0, 1, b"\0" * 16_000) * 3,
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_rule_ends_the_connection_and_every_call(what: str) -> None:
    limits = Limits(frame_bytes=16_384, window_bytes=40_000)
    memory = ready(limits) if what != "HTTP/1" else Memory(limits)
    if what == "more than the window":
        # Updates are what keeps a server within its window: forget one.
        memory.connection._credit = 30_000
        memory.connection._limits = Limits(frame_bytes=16_384, window_bytes=2)
    calls = [memory.ask() for _ in range(3)]
    memory.connection.receive(BROKEN[what])

    assert memory.events[-1].startswith("failed: ")
    # What a request provokes of every server is not tried on the next one.
    first = "RESOURCE_EXHAUSTED" if what in ("an endless block", "a block of nothing") else "UNAVAILABLE"
    assert [call.code for call in calls] == [first, "UNAVAILABLE", "UNAVAILABLE"]
    assert memory.connection.closed
    sent = len(memory.sent)
    memory.connection.receive(answer(1))
    memory.connection.ping()
    assert len(memory.sent) == sent


def header_frames(stream_id: int, block: bytes, flags: int) -> bytes:
    pieces = [block[at : at + 16_384] for at in range(0, len(block), 16_384)]
    return (
        frame(HEADERS_, flags, stream_id, pieces[0])
        + b"".join(frame(CONTINUATION, 0, stream_id, piece) for piece in pieces[1:])
        + frame(CONTINUATION, 4, stream_id)
    )


@pytest.mark.parametrize("size", [300_000, 4_000_000, 16_000_000])
@pytest.mark.parametrize("ended", [True, False])
def test_trailers_that_are_too_large_fail_their_own_call(size: int, ended: bool) -> None:
    memory = ready()
    calls = [memory.ask() for _ in range(3)]
    large = encode([(b"grpc-status", b"2"), (b"grpc-message", b"x" * size)])
    memory.connection.receive(frame(HEADERS_, 4, 3, HEADERS) + header_frames(3, large, int(ended)))
    memory.connection.receive(answer(1) + answer(5))

    assert [call.code for call in calls] == ["OK", "RESOURCE_EXHAUSTED", "OK"]
    assert memory.events == ["ready"]
    assert memory.idle


def test_a_list_of_fields_that_only_unfolds_to_too_much_fails_its_own_call() -> None:
    memory = ready(Limits(headers_bytes=10_000))
    calls = [memory.ask(), memory.ask()]
    entry = encode([(b"x", b"y" * 3000)])
    memory.connection.receive(frame(HEADERS_, 4, 1, b"\x40" + entry[1:] + b"\xbe" * 9) + answer(3))

    assert [call.code for call in calls] == ["RESOURCE_EXHAUSTED", "OK"]


def test_one_streams_mistake_ends_that_stream_alone() -> None:
    memory = ready()
    calls = [memory.ask() for _ in range(4)]
    memory.connection.receive(
        frame(WINDOW, 0, 1, number(0))
        + frame(WINDOW, 0, 3, number(2**31 - 1))
        + frame(DATA, 0, 5, b"without headers")
        + answer(7)
    )

    assert [call.code for call in calls] == ["UNAVAILABLE", "UNAVAILABLE", "INTERNAL", "OK"]


def test_padding_and_priorities_are_read_over() -> None:
    memory = ready()
    call = memory.ask()
    memory.connection.receive(
        frame(PRIORITY, 0, 1, b"\0" * 5)
        + frame(HEADERS_, 4 | 8 | 32, 1, b"\x03" + b"\0" * 5 + HEADERS + b"\0" * 3)
        + frame(DATA, 8, 1, b"\x04" + MESSAGE + b"\0" * 4)
        + frame(HEADERS_, 1, 1, TRAILERS[:3])
        + frame(CONTINUATION, 4, 1, TRAILERS[3:])
    )

    assert call.ends == [(b"hi", False)]


def test_pings_are_answered_and_the_flood_count_is_reset_with_time() -> None:
    memory = ready()
    for _ in range(5):
        memory.connection.receive(frame(PING, 0, 0, b"12345678") * 3000)
        memory.connection.reset_noise()

    assert memory.sent.count(frame(PING, 1, 0, b"12345678")) == 15_000


def test_a_server_that_does_not_read_is_not_answered_for_ever() -> None:
    memory = ready()
    memory.connection.pause()
    for _ in range(5):
        memory.connection.receive(frame(PING, 0, 0, b"12345678") * 1000)
        memory.connection.reset_noise()

    assert memory.connection.closed


FRAMES = st.one_of(
    st.builds(answer, st.sampled_from([1, 3, 5, 7])),
    st.builds(frame, st.integers(0, 10), st.integers(0, 255), st.integers(0, 12), st.binary(max_size=12)),
    st.builds(
        frame, st.just(HEADERS_), st.sampled_from([4, 5]), st.sampled_from([1, 3, 5]), st.just(HEADERS)
    ),
    st.builds(
        frame, st.just(HEADERS_), st.sampled_from([4, 5]), st.sampled_from([1, 3, 5]), st.just(TRAILERS)
    ),
    st.builds(frame, st.just(DATA), st.sampled_from([0, 1]), st.sampled_from([1, 3, 5]), st.just(MESSAGE)),
    st.builds(
        frame, st.just(DATA), st.sampled_from([0, 1]), st.sampled_from([1, 3, 5]), st.binary(max_size=9)
    ),
    st.builds(frame, st.just(RST), st.just(0), st.sampled_from([1, 3, 5]), st.just(number(8))),
    st.builds(
        frame, st.just(GOAWAY), st.just(0), st.just(0), st.sampled_from([number(3) * 2, number(0) * 2])
    ),
    st.builds(frame, st.just(SETTINGS_), st.just(0), st.just(0), st.just(pack(">HI", 3, 1))),
    st.binary(max_size=30),
)


@pytest.mark.slow
@settings(deadline=None, max_examples=400)
@given(
    frames=st.lists(FRAMES, max_size=12),
    chunk=st.integers(1, 60),
    cancelled=st.sets(st.integers(0, 4)),
    late=st.booleans(),
)
def test_no_call_hangs_or_ends_twice_whatever_the_server_sends(
    frames: list[bytes], chunk: int, cancelled: set[int], late: bool
) -> None:
    memory = ready() if not late else Memory()
    calls: list[Asked] = [memory.ask(b"x" * 30_000, stream=at == 2) for at in range(5)]
    data = b"".join(frames)
    for at in range(0, len(data), chunk):
        memory.connection.receive(data[at : at + chunk])
        for index in cancelled:
            if at // chunk == index:
                calls[index].give_up(CallError("CANCELLED", "ours"))
    if not memory.connection.leaving and not memory.connection.closed:
        calls.append(memory.ask())
    waiting = memory.connection.take_waiting() if memory.connection.leaving else []
    memory.connection.lost("over")

    for call in calls:
        assert len(call.ends) == (call not in waiting)
    assert memory.idle
