"""
The rules of RFC 6455 and RFC 7692, category by category as in Autobahn|Testsuite, over a raw socket.

The suite itself needs Python 2.7 (``make test-wstest``); these cases need nothing. The numbers in the
names of the tables are the suite's categories.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as _reactor

from tests.protocols.harness import closed, in_thread
from tests.protocols.websocket.frames_by_hand import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    Frame,
    Talk,
    closing,
    frame,
)
from tests.wstest.echo import echo_port

reactor: Any = _reactor
LIMIT = 200_000
DEFLATE = "permessage-deflate"
GREETING = "Hello-µ@ßöäüàá-UTF-8!!".encode()
WRONG = 1002
NOT_UTF8 = 1007
TOO_BIG = 1009


def hold(
    port: int, sent: bytes, echoes: list[Frame], code: int, *, extensions: str = "", chop: int = 0
) -> None:
    """
    Send, and expect these frames and then a close frame with ``code``.

    With 1000 nothing is wrong: it is this client that closes, when all the frames have come.
    """
    talk = Talk(port, extensions)
    found: list[Frame] = []
    try:
        talk.send(sent, chop)
        if code == 1000 and not echoes:
            talk.send(closing(1000))
        for flags, opcode, payload in talk.frames():
            if opcode == CLOSE:
                assert struct.unpack("!H", payload[:2])[0] == code, payload
                payload[2:].decode()
                assert found == echoes
                talk.send(frame(CLOSE, payload[:2]))
                assert list(talk.frames()) == []  # the server ends the connection
                return
            assert flags & 8, "answers come in one frame"
            found.append((opcode, inflate(payload) if flags & 4 else payload))
            if code == 1000 and len(found) == len(echoes):
                talk.send(closing(1000))
        raise AssertionError(f"no close frame after {found}")
    finally:
        talk.close()


async def echo(check: Any, *args: Any, **options: Any) -> Any:
    """Run ``check(port, ...)`` in a thread against an echo."""
    port = echo_port(max_message_bytes=LIMIT, websocket_close_timeout_s=5.0)
    port.listen()
    try:
        return await in_thread(check, port.report().port, *args, **options)
    finally:
        await closed(port)
        assert port.site.buffers.held_bytes == 0


def inflate(payload: bytes) -> bytes:
    return zlib.decompressobj(-15).decompress(payload + b"\x00\x00\xff\xff")


def deflate(payload: bytes, stream: Any = None) -> bytes:
    stream = stream or zlib.compressobj(wbits=-15)
    return (stream.compress(payload) + stream.flush(zlib.Z_SYNC_FLUSH))[:-4]


SIZES = [0, 1, 125, 126, 127, 128, 65535, 65536, LIMIT]


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("size", SIZES)
@pytest_twisted.ensureDeferred
async def test_1_messages_of_every_length_encoding_come_back(opcode: int, size: int) -> None:
    await echo(hold, frame(opcode, b"*" * size), [(opcode, b"*" * size)], 1000)


@pytest.mark.parametrize("chop", [1, 7, 997])
@pytest_twisted.ensureDeferred
async def test_1_messages_may_arrive_in_pieces_of_any_size(chop: int) -> None:
    sent = frame(TEXT, GREETING) + frame(BINARY, b"*" * 1000) + frame(PING, b"p")
    echoes = [(TEXT, GREETING), (BINARY, b"*" * 1000), (PONG, b"p")]
    await echo(hold, sent, echoes, 1000, chop=chop)


# What is sent, the frames that come back, and the code of the close frame.
CASES: dict[str, tuple[bytes, list[Frame], int]] = {
    "1 unmasked": (frame(TEXT, b"x", masked=False), [], WRONG),
    "1 16 bits where 7 would do": (b"\x81\xfe\x00\x7d" + bytes(4) + bytes(125), [], WRONG),
    "1 64 bits where 16 would do": (b"\x82\xff" + struct.pack("!Q", 65535) + bytes(4), [], WRONG),
    "1 63 bits exceeded": (b"\x82\xff\xff" + bytes(7) + bytes(4), [], WRONG),
    "2 empty ping": (frame(PING), [(PONG, b"")], 1000),
    "2 ping with text": (frame(PING, b"Hello, world!"), [(PONG, b"Hello, world!")], 1000),
    "2 ping with any bytes": (frame(PING, b"\x00\xff\xfe\xfd"), [(PONG, b"\x00\xff\xfe\xfd")], 1000),
    "2 ping of 125": (frame(PING, b"\xfe" * 125), [(PONG, b"\xfe" * 125)], 1000),
    "2 ping of 126": (frame(PING, b"\xfe" * 126), [], WRONG),
    "2 pong unasked": (frame(PONG) + frame(PONG, b"unasked"), [], 1000),
    "2 pong unasked, ping": (frame(PONG, b"unasked") + frame(PING, b"p"), [(PONG, b"p")], 1000),
    "2 ten pings": (
        b"".join(frame(PING, b"%d" % n) for n in range(10)),
        [(PONG, b"%d" % n) for n in range(10)],
        1000,
    ),
    **{f"3 reserved bits {rsv}": (frame(TEXT, b"x", rsv=rsv), [], WRONG) for rsv in range(1, 8)},
    "3 after a message": (frame(TEXT, b"x") + frame(TEXT, b"y", rsv=2), [(TEXT, b"x")], WRONG),
    "3 in a ping": (frame(TEXT, b"x") + frame(PING, rsv=3), [(TEXT, b"x")], WRONG),
    "3 in a close frame": (frame(CLOSE, b"\x03\xe8", rsv=7), [], WRONG),
    **{f"4 opcode {code}": (frame(code, b"x"), [], WRONG) for code in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "4 after a message": (frame(TEXT, b"x") + frame(5) + frame(PING), [(TEXT, b"x")], WRONG),
    "5 ping in two fragments": (frame(PING, b"a", fin=False) + frame(0, b"b"), [], WRONG),
    "5 pong in two fragments": (frame(PONG, b"a", fin=False) + frame(0, b"b"), [], WRONG),
    "5 text in two": (frame(TEXT, b"a", fin=False) + frame(0, b"b"), [(TEXT, b"ab")], 1000),
    "5 a ping between": (
        frame(TEXT, b"a", fin=False) + frame(PING, b"p") + frame(0, b"b"),
        [(PONG, b"p"), (TEXT, b"ab")],
        1000,
    ),
    "5 continuation of nothing": (frame(0, b"x") + frame(TEXT, b"y"), [], WRONG),
    "5 continuation of nothing, unfinished": (frame(0, b"x", fin=False) + frame(TEXT, b"y"), [], WRONG),
    "5 text within text": (frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"), [], WRONG),
    "5 continuation after the end": (
        frame(TEXT, b"a", fin=False) + frame(0, b"b") + frame(0, b"c"),
        [(TEXT, b"ab")],
        WRONG,
    ),
    "5 empty fragments": (frame(TEXT, fin=False) + frame(0, fin=False) + frame(0), [(TEXT, b"")], 1000),
    "5 many fragments": (
        frame(BINARY, b"0", fin=False)
        + b"".join(frame(0, b"%d" % (n % 10), fin=False) for n in range(1, 2000))
        + frame(0, b"!"),
        [(BINARY, b"".join(b"%d" % (n % 10) for n in range(2000)) + b"!")],
        1000,
    ),
    "6 text": (frame(TEXT, GREETING), [(TEXT, GREETING)], 1000),
    "6 cut within a character": (
        frame(TEXT, GREETING[:7], fin=False) + frame(0, GREETING[7:]),
        [(TEXT, GREETING)],
        1000,
    ),
    "6 a byte a fragment": (
        frame(TEXT, fin=False) + b"".join(frame(0, bytes([b]), fin=False) for b in GREETING) + frame(0),
        [(TEXT, GREETING)],
        1000,
    ),
    "6 ends within a character": (frame(TEXT, "é".encode()[:1]), [], NOT_UTF8),
    "6 ends within a character, in fragments": (
        frame(TEXT, b"a", fin=False) + frame(0, "€".encode()[:2]),
        [],
        NOT_UTF8,
    ),
    **{
        f"6 no UTF-8: {payload.hex()}": (frame(TEXT, b"ok " + payload), [], NOT_UTF8)
        for payload in (
            b"\xce\xba\xed\xa0\x80edited",  # a surrogate
            b"\xf4\x90\x80\x80",  # beyond U+10FFFF
            b"\xc0\xaf", b"\xe0\x80\xaf", b"\xf0\x80\x80\xaf", b"\xc1\xbf",  # overlong
            b"\x80", b"\xbf\x80", b"\xfe", b"\xff", b"\xf8\x88\x80\x80\x80", b"\xc0 ", b"\xed\xbf\xbf",
        )
    },
    **{
        f"6 UTF-8 after all: {text!r}": (frame(TEXT, text.encode()), [(TEXT, text.encode())], 1000)
        for text in ("\x00", "\x7f", "\x80", "\u07ff", "\u0800", "\uffff", "\U00010000", "\U0010ffff")
    },
    "6 any bytes are fine in binary": (frame(BINARY, b"\xff\xc0"), [(BINARY, b"\xff\xc0")], 1000),
    "7 close of one byte": (frame(CLOSE, b"\x03"), [], WRONG),
    "7 close of 126": (frame(CLOSE, b"\x03\xe8" + b"x" * 124), [], WRONG),
    "7 reason that is no UTF-8": (closing(1000, b"\xff"), [], NOT_UTF8),
    "7 a message before": (frame(TEXT, b"x") + closing(1000), [(TEXT, b"x")], 1000),
    "7 a message after": (closing(1000) + frame(TEXT, b"x") + frame(PING), [], 1000),
    "7 close within a message": (frame(TEXT, b"a", fin=False) + closing(1000) + frame(0, b"b"), [], 1000),
    "7 close twice": (closing(1000) + closing(1000), [], 1000),
    "9 one byte too large": (frame(BINARY, bytes(LIMIT + 1)), [], TOO_BIG),
    "9 told too large": (b"\x82\xff" + struct.pack("!Q", 1 << 40) + bytes(4), [], TOO_BIG),
    "9 fragments too large": (
        frame(BINARY, bytes(LIMIT // 2), fin=False) + frame(0, bytes(LIMIT // 2), fin=False) + frame(0, b"x"),
        [],
        TOO_BIG,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
@pytest_twisted.ensureDeferred
async def test_the_rule_is_kept(name: str) -> None:
    sent, echoes, code = CASES[name]
    await echo(hold, sent, echoes, code)


@pytest.mark.parametrize("rest", [b"", b"\xcf\x80"])
@pytest_twisted.ensureDeferred
async def test_6_text_that_is_no_utf_8_is_refused_before_it_has_all_arrived(rest: bytes) -> None:
    whole = frame(TEXT, b"\xce\xba\xed\xa0\x80" + rest + b"x" * 1000)
    await echo(hold, whole[:40], [], NOT_UTF8)
    await echo(hold, frame(TEXT, b"\xce\xba\xed\xa0\x80", fin=False), [], NOT_UTF8)


@pytest.mark.parametrize(
    "code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999]
)
@pytest_twisted.ensureDeferred
async def test_7_a_code_that_may_be_sent_is_answered(code: int) -> None:
    def check(port: int) -> None:
        for reason in (b"", b"x" * 123):
            talk = Talk(port)
            talk.send(closing(code, reason))
            ((_, opcode, payload),) = talk.frames()
            assert (opcode, payload[:2]) in ((CLOSE, struct.pack("!H", code)), (CLOSE, b"\x03\xe8"))
            talk.close()

    await echo(check)


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65535])
@pytest_twisted.ensureDeferred
async def test_7_a_code_that_must_not_be_sent_is_a_violation(code: int) -> None:
    def check(port: int) -> None:
        talk = Talk(port)
        talk.send(closing(code))
        ((_, opcode, payload), *_) = talk.frames()
        assert (opcode, struct.unpack("!H", payload[:2])[0]) == (CLOSE, WRONG)
        talk.close()

    await echo(check)


@pytest_twisted.ensureDeferred
async def test_7_a_close_frame_without_a_code_is_answered() -> None:
    def check(port: int) -> None:
        talk = Talk(port)
        talk.send(frame(CLOSE))
        ((_, opcode, _payload),) = talk.frames()
        assert opcode == CLOSE
        talk.close()

    await echo(check)


# -- permessage-deflate (12, 13) ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offer", "agreed"),
    [
        (DEFLATE, DEFLATE),
        (f"{DEFLATE}; client_max_window_bits", DEFLATE),
        (f"{DEFLATE}; server_no_context_takeover", f"{DEFLATE}; server_no_context_takeover"),
        (f"{DEFLATE}; client_no_context_takeover", DEFLATE),
        (f"{DEFLATE}; server_max_window_bits=9", f"{DEFLATE}; server_max_window_bits=9"),
        (f"{DEFLATE}; unknown=1, {DEFLATE}", DEFLATE),
        (f"{DEFLATE}; server_max_window_bits=7", None),
        (f"{DEFLATE}; server_max_window_bits", None),
        (f'{DEFLATE}; client_max_window_bits="12"', DEFLATE),
        (f"{DEFLATE}; client_max_window_bits; client_max_window_bits", None),
        ("x-webkit-deflate-frame", None),
        ("", None),
    ],
)
@pytest_twisted.ensureDeferred
async def test_13_the_extension_is_agreed_on_as_offered(offer: str, agreed: str | None) -> None:
    def check(port: int) -> None:
        talk = Talk(port, offer)
        try:
            assert talk.status == "HTTP/1.1 101 Switching Protocols"
            assert talk.headers.get("sec-websocket-extensions") == agreed
            talk.send(frame(TEXT, b"x" * 1000))
            flags, _, payload = next(iter(talk.frames()))
            assert bool(flags & 4) == (agreed is not None)
            assert (inflate(payload) if flags & 4 else payload) == b"x" * 1000
        finally:
            talk.close()

    await echo(check)


def repeated() -> bytes:
    """Ten messages of one stream: each after the first refers back to it."""
    stream = zlib.compressobj(wbits=-15)
    return b"".join(frame(TEXT, deflate(GREETING, stream), rsv=4) for _ in range(10))


LONG = bytes(range(256)) * 600
ZIPPED = deflate(LONG)

DEFLATED: dict[str, tuple[bytes, list[Frame], int]] = {
    "text": (frame(TEXT, deflate(GREETING), rsv=4), [(TEXT, GREETING)], 1000),
    "empty": (frame(BINARY, b"\x00", rsv=4), [(BINARY, b"")], 1000),
    "not compressed": (frame(TEXT, GREETING), [(TEXT, GREETING)], 1000),
    "referring back": (repeated(), [(TEXT, GREETING)] * 10, 1000),
    "large": (frame(BINARY, ZIPPED, rsv=4), [(BINARY, LONG)], 1000),
    "a stored block": (
        frame(TEXT, b"\x00\x05\x00\xfa\xffHello\x00", rsv=4), [(TEXT, b"Hello")], 1000,
    ),
    "in fragments": (
        frame(BINARY, ZIPPED[:100], fin=False, rsv=4) + frame(PING) + frame(0, ZIPPED[100:]),
        [(PONG, b""), (BINARY, LONG)],
        1000,
    ),
    "the bit in a continuation": (
        frame(BINARY, ZIPPED[:100], fin=False, rsv=4) + frame(0, ZIPPED[100:], rsv=4), [], WRONG,
    ),
    "the bit in a ping": (frame(PING, deflate(b"x"), rsv=4), [], WRONG),
    "other bits": (frame(TEXT, deflate(b"x"), rsv=6), [], WRONG),
    "no deflate": (frame(TEXT, b"\xff\xff\xff\xff", rsv=4), [], NOT_UTF8),
    "no UTF-8 within": (frame(TEXT, deflate(b"ab\xff"), rsv=4), [], NOT_UTF8),
    "a bomb": (frame(BINARY, deflate(bytes(50_000_000)), rsv=4), [], TOO_BIG),
    "a bomb in fragments": (
        frame(BINARY, deflate(bytes(300_000))[:150], fin=False, rsv=4)
        + frame(0, deflate(bytes(300_000))[150:]),
        [],
        TOO_BIG,
    ),
    "exactly the limit": (frame(BINARY, deflate(bytes(LIMIT)), rsv=4), [(BINARY, bytes(LIMIT))], 1000),
    "one byte more": (frame(BINARY, deflate(bytes(LIMIT + 1)), rsv=4), [], TOO_BIG),
}  # fmt: skip


@pytest.mark.parametrize("name", DEFLATED)
@pytest_twisted.ensureDeferred
async def test_12_a_compressed_message_is_held_to_the_rules(name: str) -> None:
    sent, echoes, code = DEFLATED[name]
    await echo(hold, sent, echoes, code, extensions=DEFLATE)


@pytest_twisted.ensureDeferred
async def test_12_the_bit_means_nothing_where_nothing_was_agreed_on() -> None:
    await echo(hold, frame(TEXT, deflate(b"x"), rsv=4), [], WRONG)
