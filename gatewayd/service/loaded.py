"""What a process that serves does when all is loaded."""

from __future__ import annotations

import gc


def keep_what_was_loaded() -> None:
    """Modules stay: a collection that traverses them would stop the reactor for some 40 ms, now and then."""
    gc.collect()
    gc.freeze()
