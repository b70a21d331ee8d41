"""What an answer means in gRPC's terms, frame by frame."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.rpc.call import AnswerHead, CallError, IllegalMetadata, RequestHead, compress, expand, prefix
from tests.rpc.peer import Asked

OK = AnswerHead.of([(b":status", b"200"), (b"content-type", b"application/grpc+proto")])
DONE = AnswerHead.of([(b"grpc-status", b"0")])


def asked(**options: object) -> Asked:
    class Alone(Asked):
        __slots__ = ("resets",)

        def reset(self) -> None:
            self.resets = getattr(self, "resets", 0) + 1

    return Alone(**options)  # type: ignore[arg-type]


def framed(*messages: bytes) -> bytes:
    return b"".join(prefix(len(message), compressed=False) + message for message in messages)


@given(st.binary(max_size=200), st.lists(st.integers(0, 205), max_size=6))
def test_a_message_may_come_in_any_pieces(message: bytes, cuts: list[int]) -> None:
    call, data = asked(), framed(message)
    call.on_headers(OK, False)
    for begin, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(data)], strict=True):
        if data[begin:end]:
            call.on_data(data[begin:end], False)
    call.on_headers(DONE, True)

    assert call.ends == [(message, False)]


@pytest.mark.parametrize(
    ("fields", "code", "details"),
    [
        (
            [(b":status", b"200"), (b"grpc-status", b"5"), (b"grpc-message", b"gr%C3%BC%zz")],
            "NOT_FOUND",
            "grü%zz",
        ),
        ([(b":status", b"200"), (b"grpc-status", b"99")], "UNKNOWN", ""),
        ([(b":status", b"200"), (b"grpc-status", b"x")], "UNKNOWN", ""),
        ([(b":status", b"503")], "UNAVAILABLE", "Received http2 header with status: 503"),
        (
            [(b":status", b"404"), (b"content-type", b"text/html")],
            "UNIMPLEMENTED",
            "Received http2 header with status: 404",
        ),
        ([(b":status", b"418")], "UNKNOWN", "Received http2 header with status: 418"),
        (
            [(b":status", b"200"), (b"content-type", b"text/html")],
            "UNKNOWN",
            "the server's answer is not gRPC",
        ),
        ([(b":status", b"200"), (b"grpc-status", b"0")], "INTERNAL", "there is no answer"),
        ([(b":status", b"200")], "INTERNAL", "the server ended its answer without a status"),
        ([], "UNKNOWN", "Received http2 header with status: None"),
    ],
)
def test_an_answer_of_nothing_but_a_head(fields: list[tuple[bytes, bytes]], code: str, details: str) -> None:
    call = asked()
    call.on_headers(AnswerHead.of(fields), True)

    assert (call.code, call.ends[0].details) == (code, details)


def test_interim_heads_are_read_over_until_there_are_too_many() -> None:
    call, interim = asked(), AnswerHead.of([(b":status", b"103")])
    call.on_headers(interim, False)
    call.on_headers(OK, False)
    call.on_data(framed(b"m"), False)
    call.on_headers(DONE, True)
    endless = asked()
    for _ in range(100):
        endless.on_headers(interim, False)

    assert call.ends == [(b"m", False)]
    assert endless.code == "INTERNAL"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (framed(b"one", b"two"), "INTERNAL"),
        (b"\x02\0\0\0\0", "INTERNAL"),
        (prefix(1001, compressed=False), "RESOURCE_EXHAUSTED"),
        (b"\0\xff\xff\xff\xff", "RESOURCE_EXHAUSTED"),
    ],
)
def test_anything_but_one_message_within_the_limit_fails_at_once(data: bytes, code: str) -> None:
    call = asked(limit_bytes=1000)
    call.on_headers(OK, False)
    call.on_data(data, False)
    call.on_data(b"more of it", False)
    call.on_headers(DONE, True)

    assert call.code == code
    assert call.resets == 1


def test_an_end_in_the_middle_of_a_message_fails_the_call() -> None:
    call = asked()
    call.on_headers(OK, False)
    call.on_data(framed(b"message")[:-1], False)
    call.on_headers(DONE, True)

    assert call.code == "INTERNAL"


def test_an_end_without_trailers_fails_the_call() -> None:
    call = asked()
    call.on_headers(OK, False)
    call.on_data(framed(b"message"), True)

    assert call.code == "INTERNAL"


def test_of_a_stream_the_first_message_counts() -> None:
    call = asked(stream=True)
    call.on_headers(OK, False)
    call.on_data(framed(b"one", b"two"), False)
    call.on_data(framed(b"three"), False)
    call.on_headers(AnswerHead.of([(b"grpc-status", b"13"), (b"is-error", b"")]), True)
    patient = asked(stream=True)
    patient.on_headers(OK, False)
    patient.stop_waiting()
    patient.on_data(framed(b"one"), False)
    patient.stop_waiting()
    patient.stop_waiting()

    assert call.ends == [(b"one", True)]
    assert patient.ends == [(b"one", False)]
    assert patient.resets == 1


@given(st.binary(max_size=3000), st.sampled_from(["gzip", "deflate"]))
def test_compressed_messages_are_those_of_the_format(message: bytes, how: str) -> None:
    assert {"gzip": gzip.decompress, "deflate": zlib.decompress}[how](compress(message, how)) == message
    assert expand(compress(message, how), how, 3000) == message


@pytest.mark.parametrize(
    ("message", "encoding", "code"),
    [
        (compress(bytes(1 << 20), "gzip"), "gzip", "RESOURCE_EXHAUSTED"),
        (compress(b"message", "gzip")[:-9], "gzip", "INTERNAL"),
        (b"garbage", "deflate", "INTERNAL"),
        (b"", "identity", "INTERNAL"),
        (b"", "snappy", "INTERNAL"),
    ],
)
def test_what_cannot_be_expanded_within_the_limit_is_an_error(
    message: bytes, encoding: str, code: str
) -> None:
    with pytest.raises(CallError) as caught:
        expand(message, encoding, 1000)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("timeout_s", "text"),
    [(0.0001, b"1m"), (5.0, b"5001m"), (90_000.0, b"90000001m"), (1e6, b"1000001S"), (1e12, b"99999999S")],
)
def test_timeouts_have_eight_digits_at_most_and_are_never_too_short(timeout_s: float, text: bytes) -> None:
    head = RequestHead.of("/p", tls=True, authority="a", agent="t", compression="gzip", metadata=())
    assert b"\x0cgrpc-timeout" + bytes([len(text)]) + text in head.block(timeout_s)


@pytest.mark.parametrize(
    ("key", "value"), [("endpoint", "/a\nb"), ("endpoint", "/é"), ("", "v"), ("a b", "v"), (":path", "/")]
)
def test_metadata_that_no_header_can_carry_is_illegal(key: str, value: str) -> None:
    with pytest.raises(IllegalMetadata):
        RequestHead.of(
            "/p", tls=False, authority="a", agent="t", compression="none", metadata=((key, value),)
        )


def test_binary_metadata_are_sent_in_base64() -> None:
    head = RequestHead.of(
        "/p", tls=False, authority="a", agent="t", compression="none", metadata=(("K-Bin", "\0é"),)
    )
    assert b"\x05k-bin\x04AMOp" in head.whole
