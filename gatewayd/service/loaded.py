"""What a process that serves does about garbage while it loads, and when all is loaded."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading() -> Iterator[None]:
    """Collect no garbage meanwhile: modules leave hardly any, and each search of them takes longer."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def keep_what_was_loaded() -> None:
    """Modules stay: a collection that traverses them would stop the reactor for some 40 ms, now and then."""
    gc.collect()
    gc.freeze()
    # A request of JSON may become a million objects. With Python's own thresholds the collector searches all
    # of them again and again while they are made, six times as long as it takes to make them.
    gc.set_threshold(50_000, 20, 100)
