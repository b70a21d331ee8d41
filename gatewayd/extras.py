"""
What only an extra of the installation brings: docarray, with which executors and Clients hand out documents.

A gateway passes documents on as bytes: without executors of its own, it needs no extra.
"""

from __future__ import annotations

import functools
import re
from importlib import metadata, util

# 0.30 began another format of documents (setup.py).
_FIRST, _END = (0, 21), (0, 30)


def docarray_problem(what: str, extra: str) -> str | None:
    """Why ``what`` cannot have docarray here, and the command that installs it; None if it can."""
    state = _docarray_state()
    return f"{what} docarray 0.21, and {state}: pip install 'gatewayd[{extra}]'" if state else None


def require_docarray(what: str, extra: str) -> None:
    """Raises ImportError with the text of ``docarray_problem``."""
    if problem := docarray_problem(what, extra):
        raise ImportError(problem, name="docarray")


@functools.cache
def _docarray_state() -> str | None:
    try:
        found = util.find_spec("docarray")
    except (ImportError, ValueError):
        found = None
    if found is None:
        return "it is not installed"
    try:
        version = metadata.version("docarray")
    except metadata.PackageNotFoundError:
        return None  # put there by hand
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers is None or _FIRST <= (int(numbers[1]), int(numbers[2])) < _END:
        return None
    return f"{version} is installed, whose documents are of another kind"
