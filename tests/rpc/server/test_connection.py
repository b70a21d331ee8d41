"""A server's HTTP/2 without sockets: against the h2 package, and against clients that break every rule."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.rpc.server.stream import Limits
from tests.rpc.server.clients import (
    CONTINUATION,
    DATA,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    PRIORITY,
    PUSH,
    RST,
    SETTINGS,
    WINDOW,
    Client,
    Server,
    block,
    frame,
    head,
    message,
    number,
)

NO_ERROR, PROTOCOL, FLOW_CONTROL, STREAM_CLOSED, FRAME_SIZE, REFUSED = 0, 1, 3, 5, 6, 7
CANCEL, COMPRESSION, CALM = 8, 9, 11
SIZES = st.sampled_from([0, 1, 100, 16_379, 16_384, 70_000, 300_000])


# -- against the h2 package ----------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(
    calls=st.lists(st.tuples(st.booleans(), st.lists(SIZES, min_size=1, max_size=4)), min_size=1, max_size=6),
    chunk=st.sampled_from([0, 1000, 9, 16_393]),
    window=st.sampled_from([65_535, 1000, 1 << 20]),
    ours=st.sampled_from([Limits(), Limits(window_bytes=70_000, stream_window_bytes=65_535)]),
    largest=st.sampled_from([16_384, 100_000]),
)
def test_messages_come_back_as_they_went_whatever_the_settings(
    calls: list[tuple[bool, list[int]]], chunk: int, window: int, ours: Limits, largest: int
) -> None:
    server = Server(ours)
    client = Client(server, INITIAL_WINDOW_SIZE=window, MAX_FRAME_SIZE=largest)
    asked = []
    for at, (streaming, sizes) in enumerate(calls):
        contents = [bytes([65 + at]) * size for size in (sizes if streaming else sizes[:1])]
        asked.append((client.ask("/stream" if streaming else "/echo", *contents), contents))
    client.settle(chunk)

    for stream_id, contents in asked:
        assert client.messages(stream_id) == contents
        assert client.status(stream_id) == ("0", "")
    assert not client.resets
    assert server.connection.open_streams == 0
    assert server.held.held_bytes == server.connection.unsent_bytes == 0


def test_every_byte_may_come_by_itself() -> None:
    client = Client(Server())
    asked = [client.ask("/echo", bytes([at]) * 300) for at in range(3)]
    client.settle(chunk=1)
    assert [client.messages(stream_id) for stream_id in asked] == [[bytes([at]) * 300] for at in range(3)]


def test_a_client_that_gives_no_window_gets_nothing_and_then_all() -> None:
    server = Server()
    client = Client(server, INITIAL_WINDOW_SIZE=0)
    asked = client.ask("/echo", b"x" * 1000)
    client.settle()
    assert client.heads[asked][":status"] == "200"
    assert server.connection.unsent_bytes == server.held.held_bytes == 1005
    client.h2.increment_flow_control_window(5000, asked)
    client.settle()
    assert client.messages(asked) == [b"x" * 1000]
    assert server.held.held_bytes == 0


def test_answers_take_turns_when_the_transport_is_slow() -> None:
    server = Server()
    client = Client(server, INITIAL_WINDOW_SIZE=1 << 20)
    client.h2.increment_flow_control_window(1 << 22)
    client.settle()
    server.pause_after = 0
    asked = [client.ask("/echo", bytes([at]) * 300_000) for at in range(3)]
    for _ in range(400):
        client.turn(0)
        server.connection.resume()
    assert [client.messages(stream_id) for stream_id in asked] == [[bytes([at]) * 300_000] for at in range(3)]


def test_an_answer_before_the_end_of_its_request_stops_the_request() -> None:
    server = Server()
    client = Client(server)
    asked = client.ask("/nothing", b"x" * 10, end=False)
    client.settle()
    assert client.status(asked) == ("12", "Method not found!")
    assert client.resets == {asked: NO_ERROR}
    assert server.connection.open_streams == 0


# -- streams that end early ----------------------------------------------------------------------------


def ask(stream_id: int, path: str = "/held", content: bytes = b"x", **fields: str) -> bytes:
    return frame(HEADERS, 4, stream_id, block(head(__path=path, **fields))) + frame(
        DATA, 1, stream_id, message(content)
    )


def test_a_client_that_resets_cancels() -> None:
    server = Server().begin()
    server.receive(ask(1))
    assert server.waiting
    server.receive(frame(RST, 0, 1, number(CANCEL)))
    assert server.log == ["cancelled"]
    server.waiting[0].respond(b"too late")
    assert not server.frames()


def test_a_lost_connection_cancels_all_of_its_calls_once() -> None:
    server = Server().begin()
    server.receive(ask(1) + ask(3) + frame(HEADERS, 4, 5, block(head(__path="/stream"))))
    server.connection.lost()
    server.connection.lost()
    assert server.log == ["cancelled"] * 3
    server.waiting[0].respond(b"too late")
    server.waiting[1].fail("INTERNAL", "too late")
    assert not server.frames()


def test_streams_beyond_the_limit_are_refused_and_nothing_else() -> None:
    server = Server(Limits(streams=2)).begin()
    server.receive(ask(1) + ask(3) + ask(5))
    assert server.resets() == {5: REFUSED}
    server.waiting[0].respond(b"")
    server.frames()
    server.receive(ask(7))
    assert server.resets() == {}
    assert len(server.waiting) == 3


def test_frames_that_were_on_their_way_when_we_ended_a_stream_are_ignored() -> None:
    server = Server().begin()
    server.receive(frame(HEADERS, 4, 1, block(head(__path="/nothing"))))
    server.frames()
    server.receive(
        frame(DATA, 0, 1, b"late")
        + frame(WINDOW, 0, 1, number(5))
        + frame(HEADERS, 5, 1, block([("a", "b")]))
        + frame(RST, 0, 1, number(CANCEL))
    )
    assert not server.frames()
    assert not server.connection.closed


def test_drain_lets_calls_finish_and_refuses_what_comes_later() -> None:
    server = Server().begin()
    server.receive(ask(1))
    server.connection.drain()
    (goaway, ping) = server.frames()
    assert goaway[0] == "GOAWAY"
    assert goaway[3] == number(2**31 - 1) + number(NO_ERROR)
    server.receive(ask(3) + frame(PING, 1, 0, ping[3]))  # the request was on its way
    assert server.frames()[0][3] == number(3) + number(NO_ERROR)
    server.receive(ask(5))
    assert len(server.waiting) == 2
    for call in server.waiting:
        assert "idle" not in server.log
        call.respond(b"")
    assert server.log == ["idle"]


# -- clients that break the rules -----------------------------------------------------------------------

ASKED = frame(HEADERS, 4, 1, block(head(__path="/held")))
ENDED = frame(HEADERS, 5, 1, block(head(__path="/held")))
BROKEN = {
    "DATA of no stream": (frame(DATA, 0, 0, b"x"), PROTOCOL),
    "DATA of an idle stream": (frame(DATA, 0, 1, b"x"), PROTOCOL),
    "HEADERS of no stream": (frame(HEADERS, 5, 0, block()), PROTOCOL),
    "HEADERS of an even stream": (frame(HEADERS, 5, 2, block()), PROTOCOL),
    "CONTINUATION of nothing": (frame(CONTINUATION, 4, 1, block()), PROTOCOL),
    "an interrupted block": (frame(HEADERS, 1, 1, block()) + frame(PING, 0, 0, bytes(8)), PROTOCOL),
    "another stream's CONTINUATION": (
        frame(HEADERS, 1, 1, block()) + frame(CONTINUATION, 4, 3, b""),
        PROTOCOL,
    ),
    "padding longer than its frame": (ASKED + frame(DATA, 8, 1, b"\x05abc"), PROTOCOL),
    "HEADERS that depend on themselves": (frame(HEADERS, 37, 1, number(1) + b"\0" + block()), PROTOCOL),
    "a block that is no HPACK": (frame(HEADERS, 5, 1, b"\xff\xff\xff\xff\xff"), COMPRESSION),
    "an index beyond the table": (frame(HEADERS, 5, 1, b"\xfe"), COMPRESSION),
    "RST_STREAM of an idle stream": (frame(RST, 0, 1, number(0)), PROTOCOL),
    "RST_STREAM of no stream": (frame(RST, 0, 0, number(0)), PROTOCOL),
    "RST_STREAM of a wrong size": (ASKED + frame(RST, 0, 1, b"abc"), FRAME_SIZE),
    "SETTINGS of a stream": (frame(SETTINGS, 0, 1), PROTOCOL),
    "SETTINGS of a wrong size": (frame(SETTINGS, 0, 0, bytes(5)), FRAME_SIZE),
    "SETTINGS with ACK and content": (frame(SETTINGS, 1, 0, bytes(6)), FRAME_SIZE),
    "a window that is too large": (frame(SETTINGS, 0, 0, b"\0\4" + number(1 << 31)), FLOW_CONTROL),
    "a frame size that is too small": (frame(SETTINGS, 0, 0, b"\0\5" + number(100)), PROTOCOL),
    "ENABLE_PUSH of 2": (frame(SETTINGS, 0, 0, b"\0\2" + number(2)), PROTOCOL),
    "a window that grows too large": (frame(WINDOW, 0, 0, number(2**31 - 1)), FLOW_CONTROL),
    "WINDOW_UPDATE of nothing": (frame(WINDOW, 0, 0, number(0)), PROTOCOL),
    "WINDOW_UPDATE of a wrong size": (frame(WINDOW, 0, 0, b"abc"), FRAME_SIZE),
    "WINDOW_UPDATE of an idle stream": (frame(WINDOW, 0, 1, number(1)), PROTOCOL),
    "PING of a stream": (frame(PING, 0, 1, bytes(8)), PROTOCOL),
    "PING of a wrong size": (frame(PING, 0, 0, bytes(7)), FRAME_SIZE),
    "GOAWAY of a stream": (frame(GOAWAY, 0, 1, bytes(8)), PROTOCOL),
    "GOAWAY of a wrong size": (frame(GOAWAY, 0, 0, bytes(7)), FRAME_SIZE),
    "PUSH_PROMISE": (frame(PUSH, 4, 1, number(2) + block()), PROTOCOL),
    "PRIORITY of no stream": (frame(PRIORITY, 0, 0, bytes(5)), PROTOCOL),
    "PRIORITY of a wrong size": (frame(PRIORITY, 0, 1, bytes(4)), FRAME_SIZE),
    "a frame that is too large": (frame(DATA, 0, 1, bytes((1 << 20) + 1)), FRAME_SIZE),
    "a padded frame that is too large": (frame(DATA, 8, 1, bytes((1 << 16) + 1)), CALM),
    "headers that are too large": (frame(HEADERS, 4, 1, bytes((1 << 16) + 1)), CALM),
}


@pytest.mark.parametrize(("sent", "code"), BROKEN.values(), ids=BROKEN)
def test_what_breaks_the_connection(sent: bytes, code: int) -> None:
    server = Server().begin()
    server.receive(sent)
    assert server.goaway() == code
    assert server.log[-1].startswith("failed")
    server.receive(ask(9))
    assert not server.calls[1:]


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nxx", PREFACE + ASKED])
def test_what_is_not_http2_ends_the_connection(sent: bytes) -> None:
    server = Server()
    server.receive(sent)
    assert server.connection.closed
    assert not server.calls


STREAM_ERRORS = {
    "DATA after the end": (ENDED + frame(DATA, 0, 1, b"x"), STREAM_CLOSED),
    "HEADERS after the end": (ENDED + frame(HEADERS, 5, 1, block()), STREAM_CLOSED),
    "trailers that do not end": (ASKED + frame(HEADERS, 4, 1, block([("a", "b")])), PROTOCOL),
    "WINDOW_UPDATE of nothing": (ASKED + frame(WINDOW, 0, 1, number(0)), PROTOCOL),
    "a window that grows too large": (ASKED + frame(WINDOW, 0, 1, number(2**31 - 1)), FLOW_CONTROL),
    "an upper-case name": (frame(HEADERS, 5, 1, block([*head(), ("A", "b")])), PROTOCOL),
    "an unknown pseudo-field": (frame(HEADERS, 5, 1, block(head(__x="y"))), PROTOCOL),
    "a pseudo-field after others": (frame(HEADERS, 5, 1, block([*head()[1:], head()[0]])), PROTOCOL),
    "a pseudo-field twice": (frame(HEADERS, 5, 1, block([head()[0], *head()])), PROTOCOL),
    "no path": (frame(HEADERS, 5, 1, block([field for field in head() if field[0] != ":path"])), PROTOCOL),
    "an empty path": (frame(HEADERS, 5, 1, block(head(__path=""))), PROTOCOL),
    "connection": (frame(HEADERS, 5, 1, block(head(connection="close"))), PROTOCOL),
    "te: gzip": (frame(HEADERS, 5, 1, block(head(te="gzip"))), PROTOCOL),
    "a line break in a value": (frame(HEADERS, 5, 1, block(head(a="b\r\nc: d"))), PROTOCOL),
    "less than its content-length": (ask(1, content_length="7"), PROTOCOL),
    "more than its content-length": (ask(1, content_length="5"), PROTOCOL),
}


@pytest.mark.parametrize(("sent", "code"), STREAM_ERRORS.values(), ids=STREAM_ERRORS)
def test_what_breaks_a_stream_only(sent: bytes, code: int) -> None:
    server = Server().begin()
    server.receive(sent)
    assert server.resets() == {1: code}
    server.receive(ask(3, "/echo"))
    assert [kind for kind, *_ in server.frames()] == ["HEADERS", "DATA", "HEADERS"]


def test_more_data_than_the_windows_allow() -> None:
    server = Server(Limits(stream_window_bytes=65_535)).begin()
    server.receive(frame(HEADERS, 4, 1, block(head(__path="/stream"))))
    handler = server.calls[0]
    handler.pause_reading()
    for _ in range(4):
        server.receive(frame(DATA, 0, 1, bytes(16_384)))
    assert server.resets() == {1: FLOW_CONTROL}
    assert server.held.held_bytes == 0


# -- floods ---------------------------------------------------------------------------------------------

FLOODS = {
    "pings": frame(PING, 1, 0, bytes(8)),
    "settings": frame(SETTINGS, 0, 0),
    "acknowledged settings": frame(SETTINGS, 1, 0),
    "priorities": frame(PRIORITY, 0, 1, number(3) + b"\0"),
    "unknown frames": frame(99, 0, 0),
    "empty data": frame(DATA, 0, 1),
    "tiny data": frame(DATA, 0, 1, b"\0"),
    "updates of the window": frame(WINDOW, 0, 0, number(1)),
    "updates of a stream's window": frame(WINDOW, 0, 1, number(1)),
    "resets of one stream": frame(RST, 0, 3, number(CANCEL)),
}


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
def test_a_flood_ends_the_connection(flood: bytes) -> None:
    server = Server().begin()
    server.receive(frame(HEADERS, 4, 1, block(head(__path="/stream"))) + frame(DATA, 0, 1, b"\0\0\0\xff\xff"))
    server.receive(frame(HEADERS, 5, 3, block(head(__path="/nothing"))))
    for _ in range(100):
        server.receive(flood * 100)
        if server.connection.closed:
            break
    assert server.goaway() == CALM


def test_the_same_frames_over_a_longer_time_do_not() -> None:
    server = Server().begin()
    for _ in range(50):
        server.receive(frame(SETTINGS, 1, 0) * 1000)
        server.connection.conduct.refill()
    assert not server.connection.closed


def test_rapid_reset_ends_the_connection() -> None:
    server = Server().begin()
    for stream_id in range(1, 40_001, 2):
        server.receive(ask(stream_id) + frame(RST, 0, stream_id, number(CANCEL)))
        server.waiting.clear()
        if server.connection.closed:
            break
    assert server.goaway() == CALM
    assert len(server.calls) < 3000


def test_streams_that_break_rules_are_resets_too() -> None:
    server = Server().begin()
    for stream_id in range(1, 40_001, 2):
        server.receive(
            frame(HEADERS, 4, stream_id, block(head(__path="/held"))) + frame(WINDOW, 0, stream_id, number(0))
        )
        if server.connection.closed:
            break
    assert server.goaway() == CALM


def test_a_client_may_give_up_a_thousand_calls_at_once_again_and_again() -> None:
    server = Server().begin()
    stream_id = 1
    for _ in range(5):
        for _ in range(1000):
            server.receive(ask(stream_id))
            server.receive(frame(RST, 0, stream_id, number(CANCEL)))
            stream_id += 2
        for _ in range(10):  # seconds
            server.connection.conduct.refill()
    assert not server.connection.closed


def test_pings_that_come_too_early_are_told_so_as_grpc_does() -> None:
    server = Server(Limits(ping_interval_s=5.0)).begin()
    for _ in range(3):
        server.clock.advance(5.0)
        server.receive(frame(PING, 0, 0, bytes(8)))
    assert not server.connection.closed
    for _ in range(3):
        server.receive(frame(PING, 0, 0, bytes(8)))
    sent = server.frames()
    assert sent[-1][3][4:] == number(CALM) + b"too_many_pings"
    assert server.connection.closed


def test_pings_between_answers_are_welcome() -> None:
    server = Server(Limits(ping_interval_s=5.0)).begin()
    for stream_id in range(1, 101, 2):
        server.receive(frame(PING, 0, 0, bytes(8)) + ask(stream_id, "/echo"))
    assert not server.connection.closed


def test_pings_while_a_client_uploads_are_welcome() -> None:
    server = Server(Limits(ping_interval_s=5.0, window_bytes=1 << 17, stream_window_bytes=1 << 16)).begin()
    server.receive(frame(HEADERS, 4, 1, block(head(__path="/echo"))) + frame(DATA, 0, 1, b"\0\0\xff\xff\xff"))
    for _ in range(100):
        server.receive(frame(DATA, 0, 1, bytes(16_384)) * 3 + frame(PING, 0, 0, bytes(8)))
    assert not server.connection.closed


@pytest.mark.parametrize("frames", [9, 40])
def test_a_block_of_many_frames_ends_the_connection(frames: int) -> None:
    server = Server().begin()
    server.receive(frame(HEADERS, 1, 1, b"\0"))
    for _ in range(frames):
        server.receive(frame(CONTINUATION, 0, 1, b""))
    assert server.goaway() == CALM


def test_a_block_that_goes_on_and_on_ends_the_connection() -> None:
    server = Server().begin()
    server.receive(frame(HEADERS, 1, 1, bytes(16_000)))
    for _ in range(10):
        server.receive(frame(CONTINUATION, 0, 1, bytes(16_000)))
    assert server.goaway() == CALM


def test_a_block_that_decodes_to_very_much_ends_the_connection() -> None:
    server = Server().begin()
    entry = b"\x40\x01a\x7f\x81\x1e" + b"x" * 4000  # into the table
    server.receive(frame(HEADERS, 5, 1, block() + entry + b"\xbe" * 60_000))
    assert server.goaway() == CALM


def test_headers_over_the_limit_fail_their_call_only() -> None:
    client = Client(Server(Limits(headers_bytes=4096)))
    large = client.ask("/echo", b"x", big="y" * 5000)
    small = client.ask("/echo", b"x")
    client.settle()
    assert client.status(large) == ("8", "received metadata size exceeds the limit (4096 bytes)")
    assert client.messages(small) == [b"x"]


def test_a_client_that_grants_a_byte_at_a_time_is_cut_off() -> None:
    server = Server().begin()
    server.receive(frame(SETTINGS, 0, 0, b"\0\4" + number(0)))
    server.receive(ask(1, "/echo", b"x" * 60_000))
    for _ in range(10_000):
        server.receive(frame(WINDOW, 0, 1, number(1)))
        if server.connection.closed:
            break
    assert server.goaway() == CALM
    assert server.held.held_bytes == 0
