"""
The signals that stop the process, from the first moment of our own code on.

Python's and Twisted's own handlers lose a signal, or die of it, at some moments of a start: a
KeyboardInterrupt raised in a callback of C code is only printed, and Twisted takes the signals over when its
reactor starts. A handler that just remembers the signal loses none.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Final

STOPPING: Final = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """``numbers`` are remembered from ``install`` on, and passed on from ``connect`` on. Main thread only."""

    def __init__(self, numbers: tuple[signal.Signals, ...] = STOPPING) -> None:
        self.numbers = numbers
        self.received: signal.Signals | None = None  # the first, until it can be passed on
        self._stop: Callable[[signal.Signals], None] | None = None

    def install(self) -> None:
        """Take the signals. Do so again after code that may have taken them since."""
        for number in self.numbers:
            signal.signal(number, self._handle)

    def connect(self, stop: Callable[[signal.Signals], None]) -> None:
        """
        Call ``stop`` for every signal from now on, and at once if there has been one.

        It is called in a signal handler: between any two instructions of the main thread.
        """
        self._stop = stop
        self.install()
        if self.received is not None:
            stop(self.received)

    def _handle(self, number: int, _frame: object) -> None:
        if self._stop is not None:
            self._stop(signal.Signals(number))
        elif self.received is None:
            self.received = signal.Signals(number)
