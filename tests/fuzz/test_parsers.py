"""
Parsers of our own, against made-up and damaged input: they raise what they say, and nothing else.

Other parsers have such tests beside their examples; ``python -m tests.fuzz`` finds all of them.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from graphql import GraphQLSyntaxError, parse, validate
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.web.http import _DataLoss, _MalformedChunkedDataError

from gatewayd.client.address import Certificates, parse_address
from gatewayd.config.addresses import resolve
from gatewayd.config.kinds import Refused
from gatewayd.dispatch.target_pattern import compile_target_pattern
from gatewayd.errors import BadRequest, HttpRefusal, InvalidHttp, TooManyFrames
from gatewayd.inflating import Damaged, Inflation, inflated_here, looks_compressed
from gatewayd.protocols.graphql.limits import QueryLimits, check_size
from gatewayd.protocols.graphql.schema import SCHEMA
from gatewayd.protocols.http import grammar
from gatewayd.protocols.http.chunks import ChunkedBody
from gatewayd.protocols.websocket.conversation import CANCEL_REQUESTS, Close, Conversation, Dispatch
from gatewayd.protocols.websocket.deflate import usable_offers
from gatewayd.protocols.websocket.frames import BYTES_FRAMES, JSON_FRAMES, Frames
from gatewayd.protocols.websocket.pace import Pace

pytestmark = pytest.mark.slow
ANY = settings(deadline=None)


def damaged(whole: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """What is near to a right input: some of it cut, changed or doubled."""

    def damage(data: bytes, at: int, other: int, noise: bytes, how: int) -> bytes:
        start, end = sorted((at % (len(data) + 1), other % (len(data) + 1)))
        middle = (b"", noise, data[start:end] * 2, noise + data[start:end])[how]
        return data[:start] + middle + data[end:]

    anywhere = st.integers(0, 1 << 20)
    changed = st.builds(damage, whole, anywhere, anywhere, st.binary(max_size=20), st.integers(0, 3))
    return whole | changed


# -- HTTP ---------------------------------------------------------------------------------------------

TOKENS = st.sampled_from(
    [
        *b'GET * / http://x x:1 [::1]:2 [::g] chunked , \x00 a=b \xff %41 # @ 5 0x5 -1 +1 1_0 ; " :'.split(
            b" "
        ),
        b" ",
        b"\t",
        b"\r",
        b"\n",
    ]
)
WORDS = st.lists(TOKENS, max_size=6).map(b"".join) | st.binary(max_size=60)


CHECKS: tuple[Callable[[bytes, bytes], object], ...] = (
    lambda one, two: grammar.check_target(one, two),
    lambda one, two: grammar.check_host([one], b"HTTP/1.1"),
    lambda one, two: grammar.check_host([one, two], b"HTTP/1.0"),
    lambda one, two: grammar.check_field_line(one + two),
    lambda one, two: grammar.content_length(one),
    lambda one, two: grammar.check_transfer_coding(one, b"HTTP/1.1"),
    lambda one, two: grammar.chunk_size(one + two),
)


@ANY
@given(one=WORDS, two=WORDS)
def test_grammar(one: bytes, two: bytes) -> None:
    for check in CHECKS:
        try:
            check(one, two)
        except HttpRefusal as error:
            str(error).encode()


@ANY
@given(value=WORDS)
def test_a_length_that_is_taken_reads_the_same_everywhere(value: bytes) -> None:
    try:
        length = grammar.content_length(value)
    except InvalidHttp:
        return
    assert value.isdigit()
    assert int(value) == length


@ANY
@given(values=st.lists(WORDS, max_size=4))
def test_members(values: list[bytes]) -> None:
    assert grammar.members(values) == grammar.members([b",".join(values)])


def chunked(parts: list[bytes]) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts if part) + b"0\r\n\r\n"


def decoded(data: bytes, cuts: list[int]) -> tuple[bytes, bytes | None]:
    """The body, and what comes after it; None if it is not complete."""
    body: list[bytes] = []
    rest: list[bytes] = []
    decoder = ChunkedBody(body.append, rest.append)
    marks = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for start, end in pairwise(marks):
        if rest:
            rest.append(data[start:end])
        else:
            decoder.dataReceived(data[start:end])
    return b"".join(body), b"".join(rest) if rest else None


CUTS = st.lists(st.integers(0, 1 << 16), max_size=5)


@ANY
@given(parts=st.lists(st.binary(max_size=50), max_size=5), cuts=CUTS, rest=st.binary(max_size=9))
def test_chunks_come_back_however_they_are_cut(parts: list[bytes], cuts: list[int], rest: bytes) -> None:
    assert decoded(chunked(parts) + rest, cuts) == (b"".join(parts), rest)


@ANY
@given(data=damaged(st.lists(st.binary(max_size=20), max_size=4).map(chunked)), cuts=CUTS)
def test_damaged_chunks(data: bytes, cuts: list[int]) -> None:
    def outcome(cuts: list[int]) -> object:
        try:
            return decoded(data, cuts)
        except (InvalidHttp, _MalformedChunkedDataError, _DataLoss):
            return "refused"

    # However they come, they are read in one way.
    assert outcome(cuts) == outcome([])


# -- compression --------------------------------------------------------------------------------------

COMPRESSED = st.lists(st.binary(max_size=200), min_size=1, max_size=3).map(
    lambda parts: b"".join(gzip.compress(part, mtime=0) for part in parts)
) | st.binary(max_size=300).map(zlib.compress)


@ANY
@given(data=damaged(COMPRESSED), most=st.integers(1, 1000))
def test_inflating(data: bytes, most: int) -> None:
    inflation, found = Inflation(data), b""
    try:
        while not inflation.done:
            piece = inflation.piece(most)
            assert len(piece) <= most
            found += piece
    except Damaged:
        return
    assert inflated_here(data, len(found)) == found
    if found:
        with pytest.raises(Damaged):
            inflated_here(data, len(found) - 1)


@ANY
@given(data=COMPRESSED)
def test_what_is_compressed_is_seen(data: bytes) -> None:
    assert looks_compressed(data)


# -- WebSocket ----------------------------------------------------------------------------------------

PARAMETERS = [
    "permessage-deflate",
    "client_max_window_bits",
    "server_max_window_bits",
    "=",
    '"10"',
    "8",
    "15",
]
OFFERS = st.lists(
    st.sampled_from([*PARAMETERS, "server_no_context_takeover", "x-webkit-deflate-frame", "; ", ", ", " "]),
    max_size=10,
).map("".join)


@ANY
@given(header=OFFERS | st.text(max_size=50))
def test_offers_of_extensions(header: str) -> None:
    usable = usable_offers(header)
    assert usable_offers(usable) == usable
    assert all(offer.split(";")[0].strip() == "permessage-deflate" for offer in usable.split(", ") if offer)


PAYLOADS = damaged(
    st.sampled_from(
        [b"{}", b"[]", b"\0", b'{"data": [{"text": "x"}]}', b'{"data": null}', b"\x0a\x04\x0a\x02ab"]
    )
)


@ANY
@given(payload=PAYLOADS, frames=st.sampled_from([JSON_FRAMES, BYTES_FRAMES]))
def test_messages(payload: bytes, frames: Frames) -> None:
    frames.ends_input(payload)
    try:
        frames.decode(payload, 1000)
    except BadRequest as error:
        str(error).encode()


EVENTS = st.tuples(
    st.sampled_from(["message", "answer", "sent", "behind", "caught up", "drain", "close", "ended"]),
    st.binary(max_size=3),
)


@ANY
@given(
    events=st.lists(EVENTS, max_size=30), prefetch=st.integers(0, 3), ordered=st.booleans(), dry=st.booleans()
)
def test_conversations(events: list[tuple[str, bytes]], prefetch: int, ordered: bool, dry: bool) -> None:
    """Whatever happens in whatever order: one end, after which nothing is begun, and every ticket is new."""
    conversation = Conversation(BYTES_FRAMES, prefetch, ordered=ordered, is_dry_run=dry, unsent_bytes=100)
    open_tickets: list[int] = []
    going_out, ends, tickets = 0, 0, set()
    for kind, payload in events:
        actions: tuple[Any, ...] = ()
        if kind == "message" and conversation.is_reading:
            actions = conversation.message_received(payload, is_binary=True)
        elif kind == "answer" and open_tickets:
            actions = conversation.answered(open_tickets.pop(), payload * 20)
        elif kind == "sent" and going_out:
            going_out -= 1
            actions = conversation.sent()
        elif kind == "behind":
            actions = conversation.client_fell_behind()
        elif kind == "caught up":
            actions = conversation.client_caught_up()
        elif kind in ("drain", "close", "ended"):
            act = {"drain": conversation.drain, "close": conversation.close_now, "ended": conversation.ended}
            actions = act[kind]()
        for action in actions:
            if isinstance(action, Dispatch):
                assert not ends
                assert action.ticket not in tickets
                tickets.add(action.ticket)
                open_tickets.append(action.ticket)
            elif isinstance(action, Close) or action is CANCEL_REQUESTS:
                ends += action is CANCEL_REQUESTS
            elif type(action).__name__ == "SendMessage":
                going_out += 1
        assert ends <= 1
        assert prefetch == 0 or len(open_tickets) <= prefetch


@ANY
@given(
    frames=st.lists(st.tuples(st.sampled_from([0, 1, 2, 8, 9, 10]), st.integers(0, 300), st.booleans())),
    most=st.integers(0, 5),
)
def test_pace(frames: list[tuple[int, int, bool]], most: int) -> None:
    pace, counted = Pace(most, lambda: 0.0), 0
    for opcode, size, fin in frames:
        counted += opcode in (8, 9) or (opcode == 0 and not fin and size < 256)
        try:
            pace.frame(opcode, size, fin=fin)
        except TooManyFrames:
            assert counted > most > 0
            return
    assert not 0 < most < counted


# -- GraphQL ------------------------------------------------------------------------------------------

WORDS_OF_QUERIES = st.sampled_from(
    [
        "{",
        "}",
        "(",
        ")",
        "[",
        "]",
        "docs",
        "id",
        "chunks",
        "tags",
        "a:",
        "...",
        "...f",
        "...g",
        "query",
        "mutation",
        "$a",
        ":",
        "Int",
        "@skip",
        "data:",
        "1",
        "null",
        "#",
        ",",
        "fragment f on StrawberryDocument",
        "fragment g on StrawberryDocument",
        "... on StrawberryDocument",
        "@include(if: true)",
        "parameters:",
        '"x"',
        '"""',
        "{a: 1}",
        "\n",
    ]
)
SELECTIONS = st.recursive(
    st.sampled_from(["id", "a: text", "tags", "...f", "...g", "... { id }"]),
    lambda inner: st.lists(inner, min_size=1, max_size=4).map(
        lambda parts: f"chunks {{ {' '.join(parts)} }} b: matches {{ {parts[0]} }}"
    ),
    max_leaves=20,
)
QUERIES = st.tuples(SELECTIONS, SELECTIONS, SELECTIONS).map(
    lambda parts: (
        f"{{ docs {{ {parts[0]} }} }} fragment f on StrawberryDocument {{ {parts[1]} }} "
        f"fragment g on StrawberryDocument {{ {parts[2]} }}"
    )
)
LIMITS = QueryLimits(query_bytes=10_000, tokens=500, depth=10, fields=200, root_fields=3)


@ANY
@given(text=QUERIES | st.lists(WORDS_OF_QUERIES, max_size=40).map(" ".join))
def test_sizes_of_queries(text: str) -> None:
    try:
        document = parse(text, max_lexical_tokens=LIMITS.tokens)
    except GraphQLSyntaxError:
        return
    if not check_size(document, LIMITS):
        validate(SCHEMA, document, max_errors=3)


# -- addresses, patterns ------------------------------------------------------------------------------

PIECES = st.sampled_from(
    [
        "grpc",
        "http",
        "ws",
        "s",
        "://",
        ":",
        "/",
        "@",
        "[",
        "]",
        "::1",
        "1.2.3.4",
        "host",
        "80",
        "99999",
        "0",
        "unix:",
        "%41",
        "?",
        "#",
        "é",
        "\x00",
        "-1",
        ",",
        " ",
    ]
)
HOSTS = st.lists(PIECES, max_size=8).map("".join) | st.text(max_size=30)


@ANY
@given(host=HOSTS, port=st.none() | st.integers(-1, 70_000) | HOSTS, tls=st.none() | st.booleans())
def test_addresses_of_clients(host: str, port: int | str | None, tls: bool | None) -> None:
    try:
        address = parse_address(host, port, None, tls, Certificates())
    except ValueError:
        return
    assert 0 <= address.port <= 65535


@ANY
@given(
    hosts=st.lists(HOSTS, max_size=3).map(tuple), ports=st.lists(st.integers(1, 65535), max_size=3).map(tuple)
)
def test_addresses_of_executors(hosts: tuple[str, ...], ports: tuple[int, ...]) -> None:
    try:
        resolve(hosts, ports)
    except Refused as error:
        str(error)


PATTERNS = st.lists(
    st.sampled_from(
        [
            "(",
            ")",
            "a",
            "*",
            "+",
            "?",
            "{2,3}",
            "|",
            "[",
            "]",
            "^",
            "\\1",
            "(?P<n>",
            "(?R)",
            ".",
            "\\",
            "(?i)",
        ]
    ),
    max_size=12,
).map("".join)


@ANY
@given(
    pattern=PATTERNS | st.text(max_size=20),
    name=st.sampled_from(["a", "aaaaaaaaaaaaaaaaaaaaaaaab", "encoder"]),
)
def test_target_patterns(pattern: str, name: str) -> None:
    try:
        compile_target_pattern(pattern).matches(name)
    except BadRequest as error:
        str(error).encode()
