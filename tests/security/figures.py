"""
What the attacks have measured: one JSON line for each test, in the file that GATEWAYD_FIGURES names.

``python -m tests.security`` makes the table of docs/security.md of them. A test that uses a ``Bystander`` has
its figures recorded; ``record`` adds others.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

_current: dict[str, str] = {}


def record(**figures: str) -> None:
    """Figures of the test that runs, by name, as they are to be shown."""
    _current.update(figures)


def finish(test: str, what: str, outcome: str) -> None:
    """Write the figures of ``test``, which has ended; ``what`` is its attack in words."""
    found = dict(_current)
    _current.clear()
    file = os.environ.get("GATEWAYD_FIGURES")
    if file:
        with Path(file).open("a") as lines:
            lines.write(json.dumps({"test": test, "what": what, "outcome": outcome, **found}) + "\n")
