"""``gatewayd unit``: files that are installed beside the package."""

from __future__ import annotations

import re
import shlex
import sysconfig
from pathlib import Path

import gatewayd
from gatewayd.cli.output import fail, say


def print_unit(flow: Path, user: str) -> int:
    """Print the systemd unit with this installation's paths. Returns the exit code."""
    path = _find("conf/gatewayd.service")
    if path is None:
        return fail("the unit is not part of this installation; reinstall gatewayd")
    twistd = Path(sysconfig.get_path("scripts")) / "twistd"
    command = f"{_quoted(twistd)} --nodaemon --pidfile= gateway --config {_quoted(flow.absolute())}"
    # Everything up to the first section is about the unit that lies in the sources.
    text = path.read_text(encoding="utf-8").partition("[Unit]")
    unit = "".join(text[1:])
    for key, value in {"ExecStart": command, "User": user, "Group": user}.items():
        unit = re.sub(rf"^{key}=.*$", lambda _: f"{key}={value}", unit, count=1, flags=re.M)  # noqa: B023
    say(unit.rstrip())
    return 0


def _quoted(path: Path) -> str:
    """As a word of ExecStart: systemd takes quotes as a shell does, and % as the start of a specifier."""
    return shlex.quote(str(path)).replace("%", "%%")


def _find(name: str) -> Path | None:
    """A file of share/gatewayd, or of the sources that we run from."""
    sources = Path(gatewayd.__file__).resolve().parents[1]
    for folder in (sources, Path(sysconfig.get_path("data")) / "share" / "gatewayd"):
        if (folder / name).is_file():
            return folder / name
    return None
