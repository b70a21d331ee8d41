"""
Every attack of tests/security, and the figures of docs/security.md made anew.

    python -m tests.security [--table FILE] [ARGUMENT OF PYTEST ...]

With ``--table`` nothing is attacked: the table is made of a file of figures that is there. What fails is in
the table as such.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.paths import ROOT

PAGE = ROOT / "docs" / "security.md"
BEGIN, END = "<!-- figures: written by make security -->\n", "<!-- end of figures -->\n"

# The columns, and those figures that have none of their own.
COLUMNS = {"memory": "memory", "p50": "others' median, ms", "p99": "others' p99, ms"}
OTHERS = ("result", "quiet")


def table(figures: Sequence[Mapping[str, str]]) -> str:
    """The section's text."""
    today = datetime.datetime.now(tz=datetime.UTC).date()
    lines = [
        f"Measured {today} on {os.cpu_count()} CPUs ({platform.machine()}, {platform.system()}, Python "
        f"{platform.python_version()}), which other work may share.",
        "Memory is the most that the gateway's process had above its size at rest: what it held, and what",
        "Python had not given back. The others are an ordinary client that asks over HTTP during the attack,",
        "and waits for the one executor while that makes the large answers of an attack.",
        "",
        f"| attack | {' | '.join(COLUMNS.values())} | remarks |",
        "| --- |" + " --- |" * (len(COLUMNS) + 1),
    ]
    for found in figures:
        remarks = [found[name] for name in OTHERS if name in found]
        if found["outcome"] != "passed":
            remarks.insert(0, "not tried" if found["outcome"] == "skipped" else "**FAILED**")
        cells = [found["what"].replace("|", "\\|"), *(found.get(name, "") for name in COLUMNS)]
        lines.append(f"| {' | '.join((*cells, '; '.join(remarks)))} |")
    return "\n".join(lines) + "\n"


def write(page: str, section: str) -> str:
    """``page`` with ``section`` between its marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{section}\n{END}{after}"


def shown(lines: str) -> list[Mapping[str, str]]:
    """The figures worth a row: attacks that were measured, and whatever did not pass."""
    found = [json.loads(line) for line in lines.splitlines()]
    return [one for one in found if len(one) > 3 or one["outcome"] == "failed"]


def main(arguments: Sequence[str]) -> int:
    if arguments[:1] == ["--table"]:
        code, lines = 0, Path(arguments[1]).read_text()
    else:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "figures"
            file.touch()
            command = [sys.executable, "-m", "pytest", "-m", "security", "tests/security", *arguments]
            code = subprocess.run(
                command, cwd=ROOT, env={**os.environ, "GATEWAYD_FIGURES": str(file)}
            ).returncode
            lines = file.read_text()
    PAGE.write_text(write(PAGE.read_text(), table(shown(lines))))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
