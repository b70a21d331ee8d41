"""The format of recordings."""

from __future__ import annotations

import json

import attrs
import pytest

from gatewayd.recording import Answers, Heading, NotARecording, Recorded, heading_of, recorded_of

SINGLE = Recorded(1.5, 0.25, "http", "/search", "r1", "ok", b"request", b"response")
STREAM = attrs.evolve(
    SINGLE, protocol="grpc", response=None, answers=Answers(((0.1, b"one"), (0.2, b"two")), 3, 0.1)
)
EMPTY = attrs.evolve(SINGLE, response=None, answers=Answers())
BROKEN = attrs.evolve(STREAM, outcome="unavailable", error="ExecutorNetworkError: gone")


def test_what_is_written_is_read() -> None:
    several = [SINGLE, STREAM, EMPTY, BROKEN]

    assert [*recorded_of(each.to_line() for each in several)] == several
    heading = Heading("shop", 1.0, ("text",))
    assert heading_of(heading.to_line()) == heading


def test_a_file_of_the_first_version_is_read() -> None:
    assert heading_of(b'{"gatewayd_recording": 1, "flow": null, "began": 1}').version == 1


def test_a_file_of_a_newer_version_is_refused_by_name() -> None:
    with pytest.raises(NotARecording, match="the file is of version 3, and those up to 2 are read here"):
        heading_of(b'{"gatewayd_recording": 3, "flow": null, "began": 1}')


@pytest.mark.parametrize("answers", [5, [5], [[0.1]], [["a", "b"]], [[0.1, "$"]], None])
def test_answers_that_are_none(answers: object) -> None:
    plain = {**json.loads(STREAM.to_line()), "answers": answers}

    with pytest.raises(NotARecording, match="line 2"):
        next(recorded_of([json.dumps(plain).encode() + b"\n"]))


def test_a_line_that_is_too_long_is_cut_behind_an_answer() -> None:
    long = attrs.evolve(STREAM, answers=Answers(tuple((0.1, b"x" * 100) for _ in range(100)), 7, 0.1))

    for most in (400, 1000, 5000, 14_000):
        cut = long.fitted(most)
        assert cut is not None
        assert cut.answers is not None
        assert len(cut.to_line()) <= most
        assert (cut.answers.count, cut.answers.first_s) == (107, 0.1)
        assert len(cut.to_line()) > most - 400  # no room for two more
    assert long.fitted(1_000_000) is long
    assert long.fitted(100) is None
    assert SINGLE.fitted(100) is None
