"""
The process group of an executor, so that every process it starts ends with it.

The supervisor ends the group once the executor has ended; ``end`` does so if the supervisor has gone, and the
process that ``lead_alone`` starts where there is none.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import stat
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


def lead_alone() -> None:
    """
    Lead a group without a supervisor: a process of its own ends it once this one has ended, in whatever way.

    Not where the group is another's. In the foreground of a terminal a new group would miss Ctrl-C, which
    reaches the children by itself there; and the group of a pipeline has its other commands.

    Call it before there are threads.
    """
    if not _has_own_group():
        return
    leader = os.getpid()
    if os.fork():
        return
    try:
        _end_after(leader)
    finally:
        os._exit(0)


def _has_own_group() -> bool:
    """Whether this process leads a group of its own, perhaps from now on."""
    if os.getsid(0) == os.getpid():
        return True
    if os.getpgrp() == os.getpid():
        return not any(map(_is_pipe, range(3)))
    if _is_in_foreground():
        return False
    os.setpgid(0, 0)
    return True


def _is_pipe(descriptor: int) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(descriptor).st_mode)
    except OSError:
        return False


def _is_in_foreground() -> bool:
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:  # there is none
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def _end_after(leader: int) -> None:
    """Wait until the process ``leader``, our parent, has ended; then end its group."""
    os.setpgid(0, 0)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(null, descriptor)
    with contextlib.suppress(OSError, AttributeError):  # there is no pidfd, or the parent has ended
        descriptor = os.pidfd_open(leader)
        if os.getppid() == leader:
            select.select([descriptor], [], [])
    while os.getppid() == leader:
        time.sleep(_PATIENCE_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGTERM)
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            os.killpg(leader, 0)
            time.sleep(_LOOK_S)
        os.killpg(leader, signal.SIGKILL)


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
