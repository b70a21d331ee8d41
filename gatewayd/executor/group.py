"""
The process group of an executor, so that every process it starts ends with it.

The supervisor ends the group once the executor has ended; ``end`` does so if the supervisor has gone.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Final

# The time that children get between SIGTERM and SIGKILL, an estimate.
_PATIENCE_S: Final = 0.5
_LOOK_S: Final = 0.02

_leader: int | None = None
_parent_handles_signals = False
_forking = threading.local()  # the mask of the thread that forks


def lead() -> None:
    """Make this process the leader of a group. Children stay in it."""
    global _leader
    os.setpgid(0, 0)
    _leader = os.getpid()


def reset_signals_of_children() -> None:
    """
    Give forked children, which ``multiprocessing`` makes, Python's own handling of our signals.

    They would inherit our handlers, and the descriptor through which these wake the event loop: it is the
    same one, so that a child's SIGTERM would stop us, and not the child. A signal that comes at once waits
    until the child has its own handlers.
    """
    global _parent_handles_signals
    _parent_handles_signals = True
    os.register_at_fork(before=_block, after_in_parent=_unblock, after_in_child=_reset_signals)


def end() -> None:
    """End the remaining children: SIGTERM, and soon SIGKILL, which ends this process as well."""
    if _leader != os.getpid():
        return
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(0, signal.SIGTERM)
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        try:
            ended, _ = os.waitpid(0, os.WNOHANG)
        except ChildProcessError:
            return
        if not ended:
            time.sleep(_LOOK_S)
    os.killpg(0, signal.SIGKILL)


def _block() -> None:
    _forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))


def _unblock() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _forking.mask)


def _reset_signals() -> None:
    global _parent_handles_signals
    if _parent_handles_signals:  # else a child of a child, whose handlers are those that the child has set
        _parent_handles_signals = False
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
    _unblock()
