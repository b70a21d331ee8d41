"""Server-sent events are read as the standard says, wherever reads cut them."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.client.transports.events import Event, EventParser
from tests.paths import ROOT

ACCEPTS = json.loads((ROOT / "tests" / "golden34" / "client_accepts.json").read_text())


def events(*reads):
    parser = EventParser()
    return [event for read in reads for event in parser.feed(read)]


def cut(body, at):
    bounds = [0, *sorted(place % (len(body) + 1) for place in at), len(body)]
    return [body[start:end] for start, end in pairwise(bounds)]


LINES = (
    *(b": comment", b"event: update", b"id: 1", b'data: {"text": "a event: b"}', b""),
    *(b"data:x", b"data: y", b"", b"retry: 5", b"", b"event: end", b"", b"data: cut off"),
)


@given(end=st.sampled_from([b"\r\n", b"\n", b"\r"]), at=st.lists(st.integers(0, 500), max_size=8))
def test_any_cut_and_any_line_end_gives_the_same(end, at):
    body = b"\xef\xbb\xbf" + end.join(LINES)

    assert events(*cut(body, at)) == [
        Event("update", b'{"text": "a event: b"}'),
        Event("message", b"x\ny"),
        Event("end", b""),
    ]


def test_a_body_that_comes_byte_by_byte():
    body = b"event: update\r\ndata: 1\r\n\r\nevent: update\r\ndata: 2\r\n\r\n"

    assert events(*(body[place : place + 1] for place in range(len(body)))) == [
        Event("update", b"1"),
        Event("update", b"2"),
    ]


FRAMINGS = [case for case in ACCEPTS if "event-stream" in case["server sent"][0]]


@pytest.mark.parametrize("case", FRAMINGS, ids=lambda case: case["case"])
def test_every_framing_that_was_tried_on_jinas_client_is_read(case):
    _, _, chunked = "".join(case["server sent"]).encode().partition(b"\r\n\r\n")
    body = b""
    while chunked:
        size, _, rest = chunked.partition(b"\r\n")
        body += rest[: int(size or b"0", 16)]
        chunked = rest[int(size or b"0", 16) + 2 :]
    updates = [json.loads(event.data) for event in events(body) if event.name == "update"]

    assert len(updates) == body.count(b"event: update")
    assert all(update["id"] for update in updates)
