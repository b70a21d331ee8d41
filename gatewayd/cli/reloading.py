"""``gatewayd reload``: has a service of this machine take up its Flow file, and says what came of it."""

from __future__ import annotations

from pathlib import Path

from gatewayd.cli.output import fail, say
from gatewayd.control import NotReached, ask


def reload_service(flow: Path | None, pid: int | None, pidfile: Path) -> int:
    """
    Ask the process ``pid``, or the one in ``pidfile``. Returns the exit code.

    ``flow`` is one of its Flow files, None for all of them.
    """
    if pid is None:
        try:
            pid = int(pidfile.read_text(encoding="ascii"))
        except OSError as error:
            return fail(f"{pidfile}: {error.strerror}; give --pid, or --pidfile with another file")
        except ValueError:
            return fail(f"{pidfile} has no number of a process in it")
    try:
        answer = ask(pid, "reload" if flow is None else f"reload {flow.absolute()}")
    except NotReached as error:
        return fail(f"process {pid} cannot be asked to reload: {error}")
    if not answer.ok:
        return fail(f"not reloaded, and what served before serves on:\n{answer.text}")
    say(f"reloaded: {answer.text}")
    return 0
