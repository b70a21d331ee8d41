"""Which headers are forwarded, and in what form."""

from __future__ import annotations

import re

import pytest
from hypothesis import given as given_by_chance
from hypothesis import strategies as st

from gatewayd.errors import HeadersTooLarge, IllegalHeader
from gatewayd.messages.headers import (
    AllowList,
    as_metadata,
    check_entry,
    client_headers,
    given,
    joined,
    received,
    size_bytes,
)
from gatewayd.messages.request import Answer, Call, Request, Response


def rules(*entries: str, limit_bytes: int = 4096) -> AllowList:
    return AllowList.of([check_entry(entry) for entry in entries], limit_bytes)


@pytest.mark.parametrize(
    ("entry", "headers"),
    [
        ("X-Tenant", ["x-tenant"]),
        (" x-tenant ", ["x-tenant"]),
        ("x-*", ["x-tenant", "x-request-id"]),
        ("x-t*", ["x-tenant"]),
        ("authorization", ["authorization"]),
        # By a pattern, what logs a user in is never forwarded, nor what belongs to the protocol.
        ("auth*", []),
        ("c*", []),
        ("set-*", []),
        ("te*", []),
        ("cookie", ["cookie"]),
    ],
)
def test_an_entry_and_what_it_forwards(entry: str, headers: list[str]) -> None:
    names = ("x-tenant", "x-request-id", "authorization", "cookie", "set-cookie", "content-type", "te")

    assert [name for name in names if rules(entry).allows(name)] == headers


@pytest.mark.parametrize(
    "entry",
    [
        *("te", "Host", "connection", "keep-alive", "Transfer-Encoding", "upgrade", "trailer", "expect"),
        *("content-type", "content-*", "Content-Length", "grpc-timeout", "grpc-*", ":authority", ":path"),
        *("user-agent", "accept", "accept-encoding", "proxy-authorization", "access-control-allow-origin"),
        *("sec-websocket-protocol", "endpoint", "is-error", "__prefetch__", "vary", "date", "server"),
        *("*", "", "x *", "x-*-id", "*-id", "x-ä", "x-a,x-b", "x-\r\nhost"),
    ],
)
def test_what_no_list_may_name(entry: str) -> None:
    with pytest.raises(ValueError, match=r"cannot be forwarded|every header|is no header's name"):
        check_entry(entry)


NAMES = st.sampled_from(["x-a", "X-B", "x-raw-bin", "authorization", "te", "x-é", "x b"]) | st.text(
    max_size=4
)


@given_by_chance(st.lists(st.tuples(NAMES, st.text(max_size=40) | st.binary(max_size=40)), max_size=5))
def test_whatever_a_client_sends_is_refused_or_fits(fields: list[tuple[str, str | bytes]]) -> None:
    listed = rules("x-*", "authorization", limit_bytes=120)
    try:
        headers = listed.of_request(fields)
    except (IllegalHeader, HeadersTooLarge):
        return

    assert size_bytes(headers) <= 120
    assert all(re.fullmatch(r"[0-9a-z_.-]+", name) and listed.allows(name) for name, _ in headers)
    assert all(re.fullmatch(r"[ -~]*", value) for _, value in headers)
    assert given(dict(as_metadata(headers))) is not None
    assert listed.of_request(headers) == headers


def test_what_moves_shows_no_values() -> None:
    headers = (("authorization", "s3cret"),)
    moving = [
        Request("r", "/", headers=headers),
        Call((b"",), "/", headers=headers),
        Answer(b"", headers=headers),
        Response("r", "/", b"", headers=headers),
    ]

    assert "s3cret" not in repr(moving)


def test_nothing_is_forwarded_without_a_list() -> None:
    assert not AllowList()
    assert AllowList().of_request([("x-tenant", "a")]) == ()


def test_a_request_gives_what_is_listed_with_names_in_lower_case() -> None:
    fields = [("X-Tenant", " a "), ("Other", "b"), ("x-tenant", "c"), ("Content-Type", "text/plain")]

    assert rules("x-*").of_request(fields) == (("x-tenant", "a"), ("x-tenant", "c"))


@pytest.mark.parametrize("value", ["a\r\nhost: b", "a\nb", "é", "a\0b", "a\tb", "\x7f"])
def test_a_value_that_metadata_cannot_hold_is_refused_and_not_shown(value: str) -> None:
    with pytest.raises(IllegalHeader) as refused:
        rules("x-secret").of_request([("x-secret", value)])

    assert str(refused.value) == (
        "the header 'x-secret' cannot be forwarded: its value has characters that are not printable ASCII"
    )


@pytest.mark.parametrize(
    ("value", "held"),
    [(b"\x00\xff", ["AP8"]), ("AP8", ["AP8"]), ("AP8=", ["AP8"]), ("AP8=,AQ", ["AP8", "AQ"]), (b"", [""])],
)
def test_bytes_are_base64_without_padding(value: str | bytes, held: list[str]) -> None:
    assert [text for _, text in rules("x-*").of_request([("x-raw-bin", value)])] == held


def test_a_text_that_is_not_base64_is_no_value_of_a_binary_name() -> None:
    with pytest.raises(IllegalHeader, match="base64"):
        rules("x-*").of_request([("x-raw-bin", "?!")])


def test_the_sum_is_bounded_as_http2_counts_it() -> None:
    small = rules("x-*", limit_bytes=100)

    assert small.of_request([("x-a", "v" * 65), ("other", "v" * 1000)])
    for fields in ([("x-a", "v" * 66)], [("x-a", "")] * 3):
        with pytest.raises(HeadersTooLarge, match=r"of 100 \(gateway\.forward_headers_max_bytes\)"):
            small.of_request(fields)


def test_an_answer_gives_what_is_listed_and_can_be_sent() -> None:
    fields = [("x-cache", "hit"), ("y", "no"), ("x-bad", "é"), ("x-request-id", "r"), ("x-raw-bin", "AP8=")]

    assert rules("x-*").of_answer(fields) == (("x-cache", "hit"), ("x-raw-bin", "AP8"))


def test_what_goes_back_is_bounded_and_not_repeated() -> None:
    headers = [("x-a", "1"), ("x-b", "2"), ("x-a", "1"), ("x-c", "3" * 100)]

    assert rules("x-*", limit_bytes=100).bounded(headers) == (("x-a", "1"), ("x-b", "2"))


def test_several_values_of_a_name_are_joined_as_its_kind_wants() -> None:
    headers = [
        ("x-a", "1"),
        ("x-a", "2"),
        ("cookie", "a=1"),
        ("cookie", "b=2"),
        ("r-bin", "AQ"),
        ("r-bin", "Ag"),
    ]

    assert joined(headers) == {"x-a": "1, 2", "cookie": "a=1; b=2", "r-bin": "AQ,Ag"}


def test_an_executor_gets_metadata_without_what_is_of_grpc_and_of_the_gateway() -> None:
    metadata = [
        ("user-agent", "g"),
        ("endpoint", "/x"),
        ("x-tenant", "a"),
        ("x-raw-bin", b"\xff"),
        ("x-bad", "é"),
    ]

    assert received(metadata) == {"x-tenant": "a", "x-raw-bin": "/w"}


def test_an_executor_gives_texts_bytes_and_lists() -> None:
    assert given({"X-Cache": "hit", "x-raw-bin": b"\xff", "x-many": ["a", "b"]}) == (
        ("x-cache", "hit"),
        ("x-raw-bin", "/w"),
        ("x-many", "a"),
        ("x-many", "b"),
    )
    assert as_metadata(given({"x-raw-bin": b"\xff", "x-a": "b"})) == (("x-raw-bin", b"\xff"), ("x-a", "b"))


@pytest.mark.parametrize(
    "headers", [{"x-n": 1}, {"grpc-status": "0"}, {"x-a": "b\r\nc"}, {"x a": "b"}, {1: "a"}]
)
def test_what_an_executor_gives_has_to_be_a_header(headers: dict[str, object]) -> None:
    with pytest.raises(IllegalHeader):
        given(headers)


def test_a_client_sends_only_what_no_protocol_says_itself() -> None:
    fields = [("Content-Type", "application/json"), ("Host", "é"), ("X-Tenant", "a"), ("Authorization", "b")]

    assert client_headers(fields) == (("x-tenant", "a"), ("authorization", "b"))


def test_what_the_gateway_reads_for_itself_is_never_refused() -> None:
    rule = AllowList(names=frozenset({"x-a"}), own=frozenset({"traceparent"}), limit_bytes=40)

    assert rule
    assert AllowList(own=frozenset({"traceparent"}))
    assert rule.of_request([("X-A", "1"), ("Traceparent", " p ")]) == (("x-a", "1"), ("traceparent", "p"))
    assert rule.of_request([("traceparent", "\x00"), ("traceparent", "x" * 5000)]) == ()
    assert len(rule.of_request([("traceparent", "p" * 30)] * 100)) == 8
    assert rule.of_answer([("traceparent", "p"), ("x-a", "1")]) == (("x-a", "1"),)
