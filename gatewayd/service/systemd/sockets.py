"""
Sockets that systemd has opened for the gateway's ports (sd_listen_fds(3)), so that a restart refuses nobody.

    LISTEN_FDS=2 LISTEN_FDNAMES=grpc:http    descriptors 3 and 4

A socket is for the port that has its number, or else for one with its name: ``http``, ``grpc``,
``websocket``, ``http+websocket``.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from typing import Final

import attrs
from twisted.logger import Logger

from gatewayd.config import Listener
from gatewayd.errors import ConfigError

log = Logger()

_FIRST: Final = 3  # SD_LISTEN_FDS_START
_MOST: Final = 1000


@attrs.frozen
class GivenSocket:
    """One socket: its ``name``, and the port that it listens at, None for one that is not of TCP."""

    name: str
    port: int | None
    socket: socket.socket = attrs.field(repr=False, eq=False)

    def __str__(self) -> str:
        return f"{self.name or 'without a name'} ({self._kind})"

    @property
    def _kind(self) -> str:
        if self.port is not None:
            return f"port {self.port}"
        name = self.socket.getsockname()
        where = f" at {name}" if isinstance(name, str) and name else ""
        return f"{socket.AddressFamily(self.socket.family).name}{where}, which no port of gatewayd listens at"


class GivenSockets:
    """Those of one process, until its ports have taken them."""

    def __init__(self, sockets: Iterable[GivenSocket] = ()) -> None:
        self._left = list(sockets)

    @classmethod
    def taken_from(cls, environ: MutableMapping[str, str], pid: int) -> GivenSockets:
        """
        What the variables name, which are taken out: neither executors nor workers are to look for them.

        Raises ConfigError for what are no such sockets.
        """
        count, of = environ.pop("LISTEN_FDS", ""), environ.pop("LISTEN_PID", "")
        names = environ.pop("LISTEN_FDNAMES", "").split(":")
        if of != str(pid) or not count.isdecimal():
            return cls()
        found = []
        for index in range(min(int(count), _MOST)):
            name = names[index] if index < len(names) else ""
            found.append(_given(_FIRST + index, name))
        return cls(found)

    def for_listeners(self, listeners: Sequence[Listener]) -> list[list[socket.socket]]:
        """
        The sockets of each listener, none for one that binds its port itself.

        Those that are left are for nobody: ``rest``.
        """
        taken = [self._at(listener.port) for listener in listeners]
        for index, listener in enumerate(listeners):
            if not taken[index]:
                taken[index] = self._named("+".join(listener.protocols), *listener.protocols)
        return taken

    def take(self, name: str, port: int = 0) -> list[socket.socket]:
        """Those with this port, or else with this name, for what is no port of clients."""
        return self._at(port) or self._named(name)

    def refuse_rest(self) -> None:
        """Say which sockets nobody has taken, whose clients would wait for ever. Close them here."""
        for given in self._left:
            log.warn(
                "systemd passes a socket that is for no port of the Flow, and its clients get no answer: "
                "{socket}; name it (FileDescriptorName=) as the protocol of its port, or remove it from the "
                "socket unit",
                socket=str(given),
            )
            given.socket.close()
        self._left = []

    def _at(self, port: int) -> list[socket.socket]:
        return self._take(lambda given: given.port == port) if port else []

    def _named(self, *names: str) -> list[socket.socket]:
        return self._take(lambda given: given.port is not None and given.name in names)

    def _take(self, wanted: Callable[[GivenSocket], bool]) -> list[socket.socket]:
        taken = [given.socket for given in self._left if wanted(given)]
        self._left = [given for given in self._left if given.socket not in taken]
        return taken


def _given(descriptor: int, name: str) -> GivenSocket:
    try:
        os.set_inheritable(descriptor, False)
        found = socket.socket(fileno=descriptor)
    except OSError as error:
        raise ConfigError(
            f"LISTEN_FDS: descriptor {descriptor} ({name or 'without a name'}) is no socket: {error.strerror}"
        ) from error
    is_tcp = found.family in (socket.AF_INET, socket.AF_INET6) and found.type == socket.SOCK_STREAM
    if is_tcp and not found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise ConfigError(
            f"LISTEN_FDS: socket {name or descriptor} does not listen; the socket unit needs Accept=no"
        )
    return GivenSocket(name, int(found.getsockname()[1]) if is_tcp else None, found)
