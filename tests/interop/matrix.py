"""
Who can talk through our gateway with whom: every client with executors of every kind, over every protocol.

What is found is written into docs/migration.md, between two marks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tests.paths import ROOT

PAGE: Final = ROOT / "docs" / "migration.md"
BEGIN: Final = "<!-- written by make test-interop: begin -->\n"
END: Final = "<!-- written by make test-interop: end -->"

# Names of libraries as the table has them, each with the generation of its documents.
JINA_3_14: Final = "Jina 3.14"
JINA_3_34: Final = "Jina 3.34"
OURS_FIRST: Final = "gatewayd with docarray 0.21"
OURS_SECOND: Final = "gatewayd with docarray 0.41"
GENERATIONS: Final = {JINA_3_14: 1, JINA_3_34: 2, OURS_FIRST: 1, OURS_SECOND: 2}

# By client, executor and protocol.
Cells = Mapping[tuple[str, str, str], str]


def table(cells: Cells) -> str:
    """Markdown: a row for each client, a column for each executor."""
    executors = tuple(GENERATIONS)
    lines = [
        "| client \\ executors | " + " | ".join(executors) + " |",
        "| --- | " + " | ".join("---" for _ in executors) + " |",
    ]
    for client in GENERATIONS:
        found = [_cell(cells, client, executor) for executor in executors]
        lines.append(f"| {client} | " + " | ".join(found) + " |")
    return "\n".join(lines) + "\n"


def _cell(cells: Cells, client: str, executor: str) -> str:
    """One word where all protocols agree; else what each of them gave."""
    by_protocol = {
        protocol: outcome
        for (one, other, protocol), outcome in cells.items()
        if (one, other) == (client, executor)
    }
    outcomes = sorted(set(by_protocol.values()))
    if len(outcomes) == 1:
        return outcomes[0]
    return "; ".join(
        f"{outcome}: {', '.join(name for name, got in by_protocol.items() if got == outcome)}"
        for outcome in outcomes
    )


def written(page: str) -> str:
    """The table that ``page`` has now."""
    return page[page.index(BEGIN) + len(BEGIN) : page.index(END)].strip("\n") + "\n"


def write(page: str, cells: Cells) -> str:
    """``page`` with the table of ``cells``."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table(cells)}\n{END}{after}"
