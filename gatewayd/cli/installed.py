"""``gatewayd unit``: systemd units of this installation, as in conf, and of the ports of a Flow."""

from __future__ import annotations

import re
import sys
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Final

import gatewayd
from gatewayd.binding import EVERYWHERE, addresses_of
from gatewayd.cli.checking import context_of
from gatewayd.cli.output import fail, say
from gatewayd.config import load_flow
from gatewayd.errors import ConfigError

# Settings of the unit's sandbox: the folders that each hides, and the value that makes them readable.
_HIDING: Final[Mapping[str, tuple[tuple[str, ...], str]]] = {
    "ProtectHome": (("/home", "/root", "/run/user"), "read-only"),
    "PrivateTmp": (("/tmp", "/var/tmp"), "no"),
}

_SOCKET_HEAD: Final = """[Unit]
Description=The ports of gatewayd

[Socket]"""
_SOCKET_END: Final = """Backlog=1024

[Install]
WantedBy=sockets.target"""


def print_unit(flow: Path, user: str) -> int:
    """Print the systemd unit with this installation's paths. Returns the exit code."""
    template = _template()
    if template is None:
        return fail("conf/gatewayd.service is missing from this installation: install gatewayd again")
    twistd = _twistd()
    if twistd is None:
        return fail("twistd is missing from this installation: install twisted again")
    read = [twistd, Path(sys.prefix), Path(sys.base_prefix), flow]
    say(unit(template.read_text(encoding="utf-8"), twistd=twistd, flow=flow.absolute(), user=user, read=read))
    return 0


def print_socket_unit(flow: Path, variables: Sequence[str]) -> int:
    """Print the systemd unit of the ports of a Flow. Returns the exit code."""
    try:
        gateway = load_flow(flow, context=context_of(variables)).gateway
    except ConfigError as error:
        return fail(str(error))
    if missing := ["+".join(each.protocols) for each in gateway.listeners if not each.port]:
        return fail(f"gateway.port: systemd has to know each port, and {', '.join(missing)} has none")
    say(socket_unit(gateway.host, [each.port for each in gateway.listeners]))
    return 0


def socket_unit(host: str, ports: Iterable[int]) -> str:
    """The unit of ports at ``host``. Blocks while a host name is looked up."""
    everywhere = host in EVERYWHERE
    places = (
        [""] if everywhere else [f"[{each}]:" if ":" in each else f"{each}:" for each in addresses_of(host)]
    )
    lines = [f"ListenStream={place}{port}" for port in ports for place in places]
    return "\n".join([_SOCKET_HEAD, *lines, _SOCKET_END])


def unit(template: str, *, twistd: Path, flow: Path, user: str, read: Iterable[Path]) -> str:
    """
    The unit, without the template's comments on other installations.

    ``read`` are the files and folders that the service must be able to read: settings that hide one of them
    are relaxed.
    """
    options = f"--nodaemon --pidfile= gateway --config {_word(str(flow)).replace('$', '$$')}"
    settings = {
        "ExecStart": f"{_word(str(twistd))} {options}",
        "ExecReload": f"{_word(sys.executable)} -P -m gatewayd reload --pid $MAINPID",
        "User": user,
        "Group": user,
    }
    folders = [each for path in read for each in (path.absolute(), path.resolve())]
    for setting, (hidden, shown) in _HIDING.items():
        if any(folder.is_relative_to(root) for folder in folders for root in hidden):
            settings[setting] = shown
    lines = template[template.index("[Unit]") :].rstrip().splitlines()
    return "\n".join(_with(settings, line) for line in lines)


def _with(settings: Mapping[str, str], line: str) -> str:
    key = line.partition("=")[0]
    return f"{key}={settings[key]}" if key in settings else line


def _word(text: str) -> str:
    """
    ``text`` quoted as one word of ExecStart (systemd.service(5), "Command lines").

    Doubling dollar signs is left to the caller: in the program's own path systemd takes them literally.
    """
    text = text.replace("%", "%%")
    if re.fullmatch(r"[\w@%+=:,./$-]+", text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _template() -> Path | None:
    sources = Path(gatewayd.__file__).resolve().parents[1] / "conf" / "gatewayd.service"
    return sources if sources.is_file() else _file_of("gatewayd", "gatewayd.service")


def _twistd() -> Path | None:
    scripts = Path(sysconfig.get_path("scripts")) / "twistd"
    return scripts if scripts.is_file() else _file_of("twisted", "twistd")


def _file_of(distribution: str, name: str) -> Path | None:
    """A file installed with a distribution, wherever pip put it: in a venv or a user's folder."""
    for file in metadata.files(distribution) or ():
        path = Path(str(file.locate()))
        if file.name == name and path.is_file():
            return path.resolve()
    return None
