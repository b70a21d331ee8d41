"""
The signals that stop the process, from the first moment of our own code on, and the one that has it reload.

Python's and Twisted's own handlers lose a signal, or die of it, at some moments of a start: a
KeyboardInterrupt raised in a callback of C code is only printed, and Twisted takes the signals over when its
reactor starts. A handler that just remembers the signal loses none.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger

log = Logger()

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


class ReloadSignal:
    """
    SIGHUP asks for a reload, and never ends the process. Main thread only.

    One that comes before ``connect`` is remembered.
    """

    def __init__(self) -> None:
        self._received = False
        self._reload: Callable[[], None] | None = None

    def install(self) -> None:
        """Take the signal."""
        signal.signal(signal.SIGHUP, self._handle)

    def connect(self, reload: Callable[[], None]) -> None:
        """Call ``reload`` for every signal from now on, and at once if there has been one: in its handler."""
        self._reload = reload
        if self._received:
            reload()

    def _handle(self, number: int, _frame: object) -> None:
        if self._reload is not None:
            self._reload()
        self._received = True


class ReactorStop:
    """
    Stops the reactor in order, once, when one of ``signals`` comes or ``stop`` is called.

    ``take_back`` is for the moment at which the reactor runs: Twisted has taken the signals over by then.
    """

    def __init__(self, signals: StopSignals, reactor: Any) -> None:
        self._signals = signals
        self._reactor = reactor
        self._stopping = False

    def take_back(self) -> None:
        """Pass on the signals from now on, and the one that came before, if there was one."""
        self._signals.connect(self._signalled)
        # One that came in between stops the reactor, and twistd would let the process die of it.
        if getattr(self._reactor, "_exitSignal", None) is not None:
            vars(self._reactor)["_exitSignal"] = None
            self._stopping = True

    def stop(self) -> None:
        """Harmless when repeated."""
        if not self._stopping:
            self._stopping = True
            with contextlib.suppress(ReactorNotRunning):
                self._reactor.stop()

    def _signalled(self, number: signal.Signals) -> None:
        self._reactor.callFromThread(self._stop_for, number.name)

    def _stop_for(self, name: str) -> None:
        if self._stopping:
            log.info("{name}: already stopping", name=name)
            return
        log.info("{name}: stopping; what is under way may finish", name=name)
        self.stop()
