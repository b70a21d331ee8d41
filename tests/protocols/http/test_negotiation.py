"""Which form a body has and which one its answer gets, and bodies that are compressed."""

import gzip
import random
import time
import zlib

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import succeed

from gatewayd.errors import BadRequest, TooLarge
from gatewayd.protocols.http.coding import decoded, zipped
from gatewayd.protocols.http.negotiation import JSON, PROTOBUF, accepts_gzip, answer_media, body_media


@pytest.mark.parametrize(
    ("accept", "for_json", "for_protobuf"),
    [
        (None, "application/json", "application/x-protobuf"),
        (b"", "application/json", "application/x-protobuf"),
        (b"*/*", "application/json", "application/x-protobuf"),
        (b"application/json", "application/json", "application/json"),
        (b"Application/X-Protobuf", "application/x-protobuf", "application/x-protobuf"),
        (b"application/protobuf", "application/protobuf", "application/protobuf"),
        (b"application/x-protobuf, */*", "application/x-protobuf", "application/x-protobuf"),
        (b"application/x-protobuf;q=0.5, application/json", "application/json", "application/json"),
        (b"application/json;q=0.2, application/x-protobuf;q=0.3", "application/x-protobuf", None),
        (b"application/x-protobuf;q=0, */*;q=0.1", "application/json", None),
        (b"application/*", "application/json", "application/x-protobuf"),
        (b"*/*;q=0.5, application/json;q=0.1", "application/x-protobuf", "application/x-protobuf"),
        (b"application/*;q=0.9, application/json;q=0", "application/x-protobuf", "application/x-protobuf"),
        (b"application/json;q=1e-1, application/x-protobuf;q=0.1", "application/x-protobuf", None),
        (b"text/html, application/xhtml+xml, */*;q=0.8", "application/json", "application/x-protobuf"),
        (b"application/json;charset=utf-8", "application/json", "application/json"),
        (b"json", "application/json", "application/x-protobuf"),
        (b"application/json;q=2", "application/json", "application/x-protobuf"),
    ],
)
def test_the_form_that_a_client_likes_best_is_chosen(accept, for_json, for_protobuf):
    assert answer_media(accept, JSON).content_type.decode() == for_json
    if for_protobuf is not None:
        assert answer_media(accept, PROTOBUF).content_type.decode() == for_protobuf


@pytest.mark.parametrize("accept", [b"text/html", b"application/json;q=0", b"image/*", b"*/*;q=0"])
def test_a_client_that_accepts_none_of_our_forms_gets_none(accept):
    assert answer_media(accept, JSON) is None


@given(st.binary(max_size=60))
def test_no_header_is_too_strange(header):
    answer_media(header, JSON)
    accepts_gzip(header)
    body_media(header)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, False),
        (b"gzip", True),
        (b"deflate, GZIP;q=0.5", True),
        (b"gzip;q=0", False),
        (b"*", True),
        (b"*;q=0", False),
        (b"identity", False),
        (b"gzip;q=0, *", False),
        (b"br;q=1.0, x-gzip", True),
    ],
)
def test_gzip_is_for_those_who_accept_it(header, expected):
    assert accepts_gzip(header) is expected


def inflate(body, limit=1 << 20, hold=lambda count: None):
    """What ``inflated`` gives, with its threads' work done at once."""
    coroutine = decoded(body, limit, hold, lambda function, *args: succeed(function(*args)))
    waiting = None
    while True:
        try:
            waiting = coroutine.send(waiting and waiting.result)
        except StopIteration as end:
            return end.value


@given(st.binary(max_size=300_000) | st.integers(0, 300_000).map(bytes), st.sampled_from([gzip, zlib]))
def test_what_was_compressed_comes_back_whole(content, module):
    assert inflate(module.compress(content)) == content


def test_members_of_a_gzip_file_are_joined():
    assert (
        inflate(b"".join(gzip.compress(part) for part in (b"a", b"", b"bc" * 50_000)))
        == b"a" + b"bc" * 50_000
    )


@given(st.binary(min_size=1, max_size=200), st.data())
def test_damaged_bodies_are_refused_as_such(content, data):
    whole = gzip.compress(content)
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    with pytest.raises(BadRequest, match="Content-Encoding"):
        inflate(cut)
    with pytest.raises(BadRequest, match="Content-Encoding"):
        inflate(b"x" + whole)


def test_a_bomb_is_given_up_when_the_limit_is_passed():
    held = []
    with pytest.raises(TooLarge):
        inflate(gzip.compress(bytes(50_000_000)), 1 << 20, held.append)
    assert sum(held) <= 1 << 20


def test_answers_that_do_not_shrink_are_left_as_they_are():
    noise = random.Random(1).randbytes(100_000)
    assert zipped(noise) is None
    assert zipped(noise[:1000]) is None
    assert gzip.decompress(zipped(b"text " * 10_000)) == b"text " * 10_000


@pytest_twisted.ensureDeferred
async def test_a_hold_that_is_refused_ends_the_inflating():
    def refuse(count):
        raise BadRequest("full")

    with pytest.raises(BadRequest, match="full"):
        await decoded(gzip.compress(b"x"), 10, refuse, None)


@pytest.mark.parametrize("weight", ["", ";q=0.5"])
def test_a_head_full_of_ranges_costs_little(weight):
    # Of each kind, and each time another, so that no answer is kept.
    accept = b",".join(b"a/%d%b" % (number, weight.encode()) for number in range(6000))
    began = time.process_time()
    for number in range(5):
        assert answer_media(b"x/%d,*/*,%b" % (number, accept), JSON) in (JSON, None)
        assert not accepts_gzip(b"%d,%b" % (number, accept))
    assert time.process_time() - began < 6


def test_what_is_liked_best_counts_among_very_many_ranges():
    accept = b",".join(b"a/%d;q=0.1" % number for number in range(6000)) + b",application/x-protobuf"
    assert answer_media(accept, JSON) == PROTOBUF
