"""
The log of a process that serves, in each way of running: under twistd, in a Flow in Python, in a worker.

SIGUSR1 has its files opened anew. From the first moment of our own code on that signal ends nobody, wherever
the log goes: ``Reopening`` remembers one that comes too early.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from gatewayd.config.model import GatewayConfig
from gatewayd.telemetry.logs.forms import form_of
from gatewayd.telemetry.logs.observer import FileSink, Logs, Sink, SyslogSink, stream_logs
from gatewayd.telemetry.logs.settings import LogSettings

REOPENING: Final = signal.SIGUSR1


class Reopening:
    """The signal that has files of logs opened anew. Main thread only."""

    def __init__(self) -> None:
        self._reopen: Callable[[], object] | None = None
        self._came = False

    def install(self) -> None:
        """Take the signal."""
        signal.signal(REOPENING, self._handle)

    def connect(self, reopen: Callable[[], object]) -> None:
        """
        Call ``reopen`` for every signal from now on, and at once if there has been one.

        It is called in a signal handler: between any two instructions of the main thread.
        """
        self._reopen = reopen
        if self._came:
            self._came = False
            reopen()

    def _handle(self, _number: int, _frame: object) -> None:
        if self._reopen is None:
            self._came = True
        else:
            self._reopen()


def logs_under_twistd(
    gateway: GatewayConfig, twistd: Mapping[str, Any], environ: Mapping[str, str]
) -> Logs | None:
    """
    The log as twistd's own options place it: ``--logfile``, ``--syslog``, ``--nodaemon``.

    None where twistd is to log in another way (``--logger``), or cannot. Raises OSError for a file that
    cannot be opened. Standard output must not have been replaced yet.
    """
    if twistd.get("logger"):
        return None
    settings = LogSettings.of(gateway, environ)
    file = twistd.get("logfile")
    if not twistd.get("syslog") and (file == "-" or (twistd["nodaemon"] and not file)):
        if not twistd["nodaemon"]:
            return None  # twistd refuses it
        return stream_logs(sys.stdout, settings, environ)
    sink: Sink
    if twistd.get("syslog"):
        sink = SyslogSink(twistd.get("prefix") or "twisted")
        form = form_of(settings.log_format, journal=True)
    else:
        sink = FileSink(Path(file or "twistd.log"))
        form = form_of(settings.log_format, journal=False)
    return Logs(settings.levels(), form, sink, settings.problems)
