"""What a request's fields say, and which ones HTTP/2 forbids."""

from __future__ import annotations

import pytest

from gatewayd.rpc.server import head
from gatewayd.rpc.server.head import RequestHead

FIELDS = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/a/b"),
    (b":authority", b"here"),
    (b"te", b"trailers"),
    (b"content-type", b"application/grpc"),
]

# Each by its section of RFC 9113.
FORBIDDEN = {
    "8.2 a capital": [(b"X-a", b"1")],
    "8.2.1 an empty name": [(b"", b"1")],
    "8.2.1 a space in a name": [(b"x a", b"1")],
    "8.2.1 a colon in a name": [(b"x:a", b"1")],
    "8.2.1 a name that is not ASCII": [("é".encode(), b"1")],
    "8.2.1 the character DEL": [(b"x\x7f", b"1")],
    "8.2.1 a line's end in a value": [(b"x-a", b"1\n2")],
    "8.2.1 a return in a value": [(b"x-a", b"1\r")],
    "8.2.1 a zero in a value": [(b"x-a", b"\0")],
    "8.2.1 a line's end in a value of the protocol's": [(b"grpc-timeout", b"1S\n")],
    "8.2.2 connection": [(b"connection", b"close")],
    "8.2.2 transfer-encoding": [(b"transfer-encoding", b"chunked")],
    "8.2.2 te with another value": [(b"te", b"gzip")],
    "8.3 a pseudo-header that is not known": [(b":x", b"1")],
    "8.3 a pseudo-header of answers": [(b":status", b"200")],
    "8.3 a pseudo-header after the others": [(b"x-a", b"1"), (b":authority", b"here")],
    "8.3.1 a pseudo-header twice": [(b":path", b"/a/b")],
    "8.1.1 two lengths": [(b"content-length", b"1"), (b"content-length", b"2")],
    "8.1.1 a length that is no number": [(b"content-length", b"+1")],
}


@pytest.mark.parametrize("more", FORBIDDEN.values(), ids=FORBIDDEN)
def test_what_http_2_forbids_is_malformed(more: list[tuple[bytes, bytes]]) -> None:
    assert not RequestHead.of(FIELDS).malformed
    for _ in range(2):  # names are remembered
        assert RequestHead.of(FIELDS + more).malformed
        assert RequestHead.of(more + FIELDS).malformed


@pytest.mark.parametrize("missing", [b":method", b":scheme", b":path"])
def test_a_pseudo_header_that_is_missing(missing: bytes) -> None:
    assert RequestHead.of([field for field in FIELDS if field[0] != missing]).malformed


def test_an_empty_path_is_malformed() -> None:
    assert RequestHead.of([*FIELDS[:2], (b":path", b"")]).malformed


def test_trailers_are_fields_without_pseudo_headers() -> None:
    assert RequestHead.of([(b"x-a", b"1")]).is_trailers
    assert RequestHead.of([]).is_trailers
    for wrong in ([(b":path", b"/")], [(b"x-a", b"1"), (b":status", b"200")], [(b"X-a", b"1")]):
        assert not RequestHead.of(wrong).is_trailers
    assert not RequestHead.of(FIELDS).is_trailers


def test_metadata_is_what_the_protocol_does_not_say_itself() -> None:
    found = RequestHead.of(
        [
            *FIELDS,
            (b"x-a", b" 1\t"),
            (b"x-bin", b"AAE=,Ag"),
            (b"y-bin", b"?"),
            (b"grpc-timeout", b"5S"),
            (b"grpc-previous-rpc-attempts", b"1"),
            (b"content-length", b"12"),
        ]
    )
    assert found.metadata == (("x-a", "1"), ("x-bin", b"\0\1"), ("x-bin", b"\2"))
    assert (found.timeout_s, found.length, found.path) == (5.0, 12, "/a/b")


def test_names_are_remembered_up_to_a_number() -> None:
    for number in range(3000):
        assert RequestHead.of([*FIELDS, (b"x-%d" % number, b"1")]).metadata == ((f"x-{number}", "1"),)
    RequestHead.of([*FIELDS, (b"y" * 5000, b"1")])
    assert len(head._NAMES) <= 1000
    assert max(map(len, head._NAMES)) <= 100
