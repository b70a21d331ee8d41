"""The table that ``make security`` writes into docs/security.md."""

from __future__ import annotations

import json

from tests.security.__main__ import BEGIN, END, PAGE, shown, table, write

LINES = "\n".join(
    json.dumps(line)
    for line in (
        {"test": "a", "what": "one | two", "outcome": "passed", "memory": "+3 MB", "p50": "2", "p99": "5"},
        {"test": "b", "what": "stops", "outcome": "passed", "result": "50 stops"},
        {"test": "c", "what": "broken", "outcome": "failed", "memory": "+9 MB"},
        {"test": "d", "what": "without figures", "outcome": "passed"},
        {"test": "e", "what": "broken early", "outcome": "failed"},
    )
)


def test_attacks_with_figures_and_failures_have_a_row() -> None:
    rows = table(shown(LINES)).splitlines()
    assert rows[-4:] == [
        r"| one \| two | +3 MB | 2 | 5 |  |",
        "| stops |  |  |  | 50 stops |",
        "| broken | +9 MB |  |  | **FAILED** |",
        "| broken early |  |  |  | **FAILED** |",
    ]


def test_the_page_has_the_place_and_keeps_the_rest() -> None:
    page = PAGE.read_text()
    first, second = write(page, "one\n"), write(write(page, "two\n"), "one\n")
    assert first == second
    assert first.partition(BEGIN)[0] == page.partition(BEGIN)[0]
    assert first.partition(END)[2] == page.partition(END)[2] != ""
