"""
Which file of gatewayd calls which, while some code runs.

As a script, it prints those of one ``Flow.post`` as JSON: the client's loop has a thread of its own, and only
threads that start later can be watched.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from tests.paths import ROOT

PACKAGE = str(ROOT / "gatewayd") + "/"

# (caller, callee); the callee is a file of gatewayd, or a function of a library that gatewayd itself calls.
Calls = set[tuple[str, str]]


@contextmanager
def recorded_calls() -> Iterator[Calls]:
    """The calls made meanwhile, in this thread and in those that start."""
    calls: Calls = set()

    def profile(frame: FrameType, event: str, _: Any) -> None:
        if event != "call":
            return
        callee = frame.f_code.co_filename
        direct = frame.f_back
        if callee.startswith(PACKAGE):
            caller = _nearest(direct)
            if caller is not None and caller != callee:
                calls.add((_short(caller), _short(callee)))
        elif direct is not None and direct.f_code.co_filename.startswith(PACKAGE):
            library = frame.f_globals.get("__name__", "").partition(".")[0]
            calls.add((_short(direct.f_code.co_filename), f"{library} {frame.f_code.co_name}"))

    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        yield calls
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def _nearest(frame: FrameType | None) -> str | None:
    """The file of gatewayd that the call comes from, also through a library."""
    while frame is not None and not frame.f_code.co_filename.startswith(PACKAGE):
        frame = frame.f_back
    return None if frame is None else frame.f_code.co_filename


def _short(filename: str) -> str:
    return filename.removeprefix(PACKAGE)


def main() -> None:
    from docarray import Document

    from gatewayd import Flow

    with Flow() as flow, recorded_calls() as calls:
        flow.post("/", Document(text="hello"))
    json.dump(sorted(calls), sys.stdout)


if __name__ == "__main__":
    main()
