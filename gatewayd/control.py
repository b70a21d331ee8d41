"""
How ``gatewayd reload`` reaches a service of this machine: the name of its socket, and a question with its
answer.

The socket is an abstract one (unix(7)), named after the process: no file that could be left behind, or be
hidden from the one or the other. Its name protects nothing; each side asks the kernel who the other one is.
One line of JSON goes each way: ``{"command": ...}``, and ``{"ok": ..., "text": ...}``.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
from typing import Final

import attrs

# Longer questions are no questions.
LONGEST_BYTES: Final = 1024
# The mistakes of a large Flow file.
_LONGEST_ANSWER_BYTES: Final = 1 << 20
_PEER: Final = struct.Struct("iII")  # struct ucred: pid, uid, gid

EXISTS: Final = sys.platform == "linux"


class NotReached(Exception):
    """Nobody answers for that process. ``str(error)`` says why."""


@attrs.frozen
class Answered:
    """What the service says: whether it did as it was told, and a text for people."""

    ok: bool
    text: str

    def to_line(self) -> bytes:
        return json.dumps(attrs.asdict(self)).encode() + b"\n"


def address_of(pid: int) -> str:
    """The name of the socket of a process."""
    return f"\0gatewayd/{pid}"


def peer_of(connection: socket.socket) -> tuple[int, int]:
    """The process and the user at the other end, as they were when it connected, or began to listen."""
    pid, uid, _ = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return pid, uid


def may_command(uid: int) -> bool:
    """Whether a user may command this process: its own, and root."""
    return uid in (0, os.geteuid())


def command_in(line: bytes) -> str:
    """The command of a question. Raises ValueError."""
    try:
        return str(json.loads(line)["command"])
    except (KeyError, TypeError):
        raise ValueError("no command") from None


def ask(pid: int, command: str) -> Answered:
    """Have the service of process ``pid`` do something; blocks until it has, or not. Raises NotReached."""
    if not EXISTS:
        raise NotReached("services are reached on Linux only")
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(address_of(pid))
        except OSError as error:
            reason = "there is no such process" if not _runs(pid) else "it is no gatewayd that serves a file"
            raise NotReached(reason) from error
        if peer_of(connection)[0] != pid:
            raise NotReached("another process has taken its place")
        connection.sendall(json.dumps({"command": command}).encode() + b"\n")
        with connection.makefile("rb") as answers:
            line = answers.readline(_LONGEST_ANSWER_BYTES)
    if not line.endswith(b"\n"):
        raise NotReached("it has ended, or only root and its own user may ask it")
    return Answered(**json.loads(line))


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
