"""
The versions of all that is installed beside this interpreter, for the Makefile.

``freeze`` prints them as pip's constraints; ``compare FILE`` prints those that differ from FILE's.
"""

# ruff: noqa: T201

from __future__ import annotations

import re
import sys
from importlib.metadata import distributions
from pathlib import Path

OURS = {"gatewayd"}


def installed() -> dict[str, str]:
    """Canonical names (PEP 503) and versions."""
    found = {re.sub(r"[-_.]+", "-", each.name).lower(): each.version for each in distributions()}
    return {name: found[name] for name in sorted(found) if name not in OURS}


def constrained(path: Path) -> dict[str, str]:
    pinned = (line.split("==") for line in path.read_text().splitlines() if "==" in line)
    return {name.strip(): version.strip() for name, version in pinned}


def main(arguments: list[str]) -> int:
    if arguments == ["freeze"]:
        print("# Made by `make constraints`; do not edit.")
        for name, version in installed().items():
            print(f"{name}=={version}")
        return 0
    if len(arguments) == 2 and arguments[0] == "compare":
        before, now = constrained(Path(arguments[1])), installed()
        changed = [name for name in now if now[name] != before.get(name)]
        print(f"{len(changed)} versions differ from {arguments[1]}")
        for name in changed:
            print(f"  {name}: {before.get(name, '(not there)')} -> {now[name]}")
        return 0
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
