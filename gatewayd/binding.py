"""
Which IP addresses a ``host`` stands for where something listens, and sockets that listen there.

Every protocol asks here, so that all listen on the same addresses: gRPC's own server and Twisted read a host
differently.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import stat
from collections.abc import Callable
from typing import Final

EVERYWHERE: Final = ("0.0.0.0", "::", "")
# A port that was free at one address of a host name may be taken at another.
FREE_PORT_TRIES: Final = 8
_BACKLOG: Final = 1024


def addresses_of(host: str) -> tuple[str, ...]:
    """
    The IP addresses to listen on: at least one, each of which gets the same port.

    Both ``0.0.0.0`` and ``::`` stand for all interfaces, with IPv6 where the system has it: one socket then
    serves both families. A name stands for all its addresses on this machine. Blocks while it is looked up.
    """
    if host in EVERYWHERE:
        return _everywhere()
    try:
        ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        return (host,)
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        return (host,)  # binding it says why
    addresses = tuple(dict.fromkeys(str(address[0]) for *_, address in found))
    usable = tuple(address for address in addresses if bind_error(address, 0) is None)
    return usable or addresses


def _everywhere() -> tuple[str, ...]:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::", 0))
            ipv6_only = probe.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    except OSError:
        return ("0.0.0.0",)
    return ("::", "0.0.0.0") if ipv6_only else ("::",)


def listening(address: str, port: int) -> socket.socket:
    """A socket that listens at an IP address; ``port`` 0 is a free one. Raises OSError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((address, port))
        bound.listen(_BACKLOG)
    except BaseException:
        bound.close()
        raise
    return bound


def listening_everywhere(addresses: tuple[str, ...], port: int) -> list[socket.socket]:
    """A socket for each of the addresses, all with the same port; 0 is a free one. Raises OSError."""
    for left in reversed(range(1 if port else FREE_PORT_TRIES)):
        opened: list[socket.socket] = []
        try:
            for address in addresses:
                opened.append(listening(address, opened[0].getsockname()[1] if opened else port))
            return opened
        except OSError:
            for each in opened:
                each.close()
            if not left:
                raise
    raise AssertionError("unreachable")


def listening_at(path: str) -> tuple[list[socket.socket], Callable[[], None]]:
    """
    A Unix socket that listens at ``path``, in place of one that an earlier process has left there.

    Also a function that removes its file, unless another process has replaced it. Raises OSError.
    """
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.stat(path).st_mode):
            os.unlink(path)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        bound.bind(path)
        made = os.stat(path)
        bound.listen(_BACKLOG)
    except BaseException:
        bound.close()
        raise

    def remove() -> None:
        with contextlib.suppress(OSError):
            found = os.stat(path)
            if (found.st_dev, found.st_ino) == (made.st_dev, made.st_ino):
                os.unlink(path)

    return [bound], remove


def reason_of(error: OSError) -> str:
    """What the system says, without the number."""
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)


def bind_error(host: str, port: int) -> str | None:
    """What the system says to a socket that is bound there; None where it can be."""
    try:
        # As the servers do it: the address decides the family, and a port that was just left is free.
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            # With SO_REUSEADDR two sockets may be bound to one port, but only one may listen.
            probe.listen(1)
    except OSError as error:
        return reason_of(error)
    return None
