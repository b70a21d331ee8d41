"""What an executor logs is one line on its way to the supervisor, and one entry there."""

import logging

import pytest

from gatewayd.executor.priorities import Entry, PriorityFormatter, entry_of

TRACEBACK = "Traceback (most recent call last):\n  here\nValueError: boom"


def sent(message, level=logging.ERROR, **more):
    record = logging.LogRecord("shop", level, "shop.py", 1, message, (), None)
    record.__dict__.update(more)
    return PriorityFormatter("%(levelname)s %(name)s: %(message)s").format(record)


@pytest.mark.parametrize(
    ("message", "more", "entry"),
    [
        ("sold out", {}, Entry(3, "ERROR shop: sold out")),
        ("one\ntwo", {}, Entry(3, "ERROR shop: one\ntwo")),
        (f"failed\n{TRACEBACK}", {}, Entry(3, "ERROR shop: failed", TRACEBACK)),
        ("failed", {"exc_text": TRACEBACK}, Entry(3, "ERROR shop: failed", TRACEBACK)),
        (
            f"failed\n{TRACEBACK}\n\nDuring handling of it\n\n{TRACEBACK}",
            {"request_id": "r\n1"},
            Entry(
                3,
                "ERROR shop: failed",
                f"{TRACEBACK}\n\nDuring handling of it\n\n{TRACEBACK}",
                "r\n1",
            ),
        ),
        ("a\x1eb\x1dc", {}, Entry(3, r"ERROR shop: a\x1eb\x1dc")),
    ],
)
def test_a_record_is_one_line_and_one_entry(message, more, entry):
    line = sent(message, **more)

    assert "\n" not in line
    assert entry_of(line) == entry


def test_a_group_of_exceptions_is_a_traceback():
    try:
        raise ExceptionGroup("several", [ValueError("boom")])
    except ExceptionGroup as error:
        line = sent("failed", exc_info=(type(error), error, error.__traceback__))

    entry = entry_of(line)
    assert entry.message == "ERROR shop: failed"
    assert entry.traceback.startswith("  + Exception Group Traceback (most recent call last):")


def test_what_is_too_long_for_one_line_keeps_its_priority():
    lines = sent("\n".join(["x" * 100] * 1000), logging.WARNING).split("\n")

    assert len(lines) == 1000
    assert {entry_of(line).priority for line in lines} == {4}


@pytest.mark.parametrize("line", ["", "printed", "<x>printed", "<9>printed", "a\x1eb\x1d1"])
def test_what_is_printed_is_as_it_is(line):
    assert entry_of(line) == Entry(None, line)
