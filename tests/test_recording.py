"""The file of recorded requests, written and read."""

from __future__ import annotations

import contextlib

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.recording import Heading, NotARecording, Recorded, heading_of, recorded_of
from gatewayd.telemetry.metrics.outcomes import OUTCOMES

ONE = Recorded(1.5, 0.25, "http", "/search", "r1", "ok", b"\x00asked", b"\xffanswered")
FAILED = Recorded(2.5, 0.5, "grpc", "", "r2", "overloaded", b"", None, "Overloaded: no room")
HEADING = Heading("shop", 1.0, ("text", "parameters.key"))


def test_what_is_written_is_read() -> None:
    assert heading_of(HEADING.to_line()) == HEADING
    assert [*recorded_of([ONE.to_line(), FAILED.to_line()])] == [ONE, FAILED]


def test_a_client_can_tell_four_outcomes() -> None:
    for outcome in OUTCOMES:
        known = outcome in ("ok", "executor_error", "cancelled")
        assert attrs.evolve(ONE, outcome=outcome).kind == (outcome if known else "failed")


def test_a_person_can_read_all_but_the_messages() -> None:
    assert ONE.to_line().startswith(
        b'{"at":1.5,"took_s":0.25,"protocol":"http","endpoint":"/search","request_id":"r1","outcome":"ok",'
    )


def test_a_gateway_that_was_started_again_goes_on_in_the_same_file() -> None:
    assert [*recorded_of([ONE.to_line(), HEADING.to_line(), FAILED.to_line()])] == [ONE, FAILED]


def test_a_line_that_was_cut_off_by_a_kill_is_left_out() -> None:
    assert [*recorded_of([ONE.to_line(), FAILED.to_line()[:-5]])] == [ONE]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"no json\n", "line 2: no JSON"),
        (b"[]\n", "line 2: found list"),
        (b"{}\n", "line 2: KeyError"),
        (ONE.to_line().replace(b'"request":"', b'"request":"*'), "line 2: "),
    ],
)
def test_what_is_none_is_told_with_its_line(line: bytes, reason: str) -> None:
    with pytest.raises(NotARecording, match=reason):
        list(recorded_of([line]))


@pytest.mark.parametrize("line", [b"{}\n", b'{"gatewayd_recording":2}\n', ONE.to_line(), b"\n"])
def test_a_file_of_another_kind(line: bytes) -> None:
    with pytest.raises(NotARecording, match="line 1: "):
        heading_of(line)


@given(st.binary(max_size=200))
def test_no_line_does_anything_else(content: bytes) -> None:
    for read in (heading_of, lambda line: list(recorded_of([line]))):
        with contextlib.suppress(NotARecording):
            read(content + b"\n")
