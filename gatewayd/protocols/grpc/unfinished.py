"""
Ends connections of gRPC's own server on which HTTP/2 has not begun.

That server may crash, in its C library, if it is stopped while a handshake is under way; one that fails
before the stop is harmless. It does not say which connections it has, so they are looked for among the
descriptors of the process. Only Linux tells how much has come on a connection; elsewhere nothing is done.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

# What a client says at least: HTTP/2's preface and an empty SETTINGS frame; over TLS a hello comes before.
PLAIN_BYTES: Final = 24 + 9
TLS_BYTES: Final = 200

_DESCRIPTORS: Final = Path("/proc/self/fd")
# tcpi_bytes_received of struct tcp_info (Linux 4.1).
_RECEIVED: Final = struct.Struct("=Q")
_RECEIVED_AT: Final = 128


def end_unfinished(port: int, least_bytes: int) -> int:
    """Shut the connections to ``port`` on which fewer bytes than ``least_bytes`` have come; their number."""
    if sys.platform != "linux":
        return 0
    return sum(_end_if_unfinished(int(entry.name), port, least_bytes) for entry in _DESCRIPTORS.iterdir())


def _end_if_unfinished(descriptor: int, port: int, least_bytes: int) -> bool:
    # The descriptor belongs to another thread, which may close it at any time: a duplicate of it stays.
    with suppress(OSError), _duplicate(descriptor) as connection:
        if connection.family not in (socket.AF_INET, socket.AF_INET6) or connection.getsockname()[1] != port:
            return False
        connection.getpeername()  # a listening socket has none
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        if _RECEIVED.unpack_from(info, _RECEIVED_AT)[0] < least_bytes:
            connection.shutdown(socket.SHUT_RDWR)
            return True
    return False


def _duplicate(descriptor: int) -> socket.socket:
    """Raises OSError for what is closed, or no socket."""
    duplicate = os.dup(descriptor)
    try:
        return socket.socket(fileno=duplicate)
    except OSError:
        os.close(duplicate)
        raise
