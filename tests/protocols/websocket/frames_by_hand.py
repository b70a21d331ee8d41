"""WebSocket frames made and read by hand, for what no client library would send."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
Frame = tuple[int, bytes]


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool = True) -> bytes:
    """A client's frame."""
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    mask_bit, size = 0x80 if masked else 0, len(payload)
    if size < 126:
        head = struct.pack("!BB", first, mask_bit | size)
    elif size < 65536:
        head = struct.pack("!BBH", first, mask_bit | 126, size)
    else:
        head = struct.pack("!BBQ", first, mask_bit | 127, size)
    if not masked:
        return head + payload
    mask = os.urandom(4)
    key = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
    return head + mask + (int.from_bytes(payload, "big") ^ key).to_bytes(size, "big")


def closing(code: int, reason: bytes = b"") -> bytes:
    """A client's close frame."""
    return frame(CLOSE, struct.pack("!H", code) + reason)


class Talk:
    """One WebSocket connection of a client that knows no rules. Blocks; to be used in a thread."""

    def __init__(self, port: int, extensions: str = "", path: str = "/", subprotocol: str = "") -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        offer = f"Sec-WebSocket-Extensions: {extensions}\r\n" if extensions else ""
        offer += f"Sec-WebSocket-Protocol: {subprotocol}\r\n" if subprotocol else ""
        self._socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{offer}\r\n".encode()
        )
        self._data = b""
        while b"\r\n\r\n" not in self._data:
            self._data += self._more()
        head, self._data = self._data.split(b"\r\n\r\n", 1)
        self.status, *lines = head.decode().split("\r\n")
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}

    def send(self, data: bytes, chop: int = 0) -> None:
        """All at once, or ``chop`` bytes at a time."""
        for start in range(0, len(data), chop or len(data) or 1):
            self._socket.sendall(data[start : start + (chop or len(data))])

    def frames(self) -> Iterator[tuple[int, int, bytes]]:
        """First byte's flags, opcode and payload of each frame, until the server ends the connection."""
        while True:
            try:
                head = self._take(2)
                size = head[1]
                if size == 126:
                    (size,) = struct.unpack("!H", self._take(2))
                elif size == 127:
                    (size,) = struct.unpack("!Q", self._take(8))
                yield head[0] >> 4, head[0] & 15, self._take(size)
            except (EOFError, ConnectionResetError):
                return

    def close(self) -> None:
        self._socket.close()

    def _take(self, count: int) -> bytes:
        parts = [self._data]
        have = len(self._data)
        while have < count:
            parts.append(self._more())
            have += len(parts[-1])
        whole = b"".join(parts)
        self._data = whole[count:]
        return whole[:count]

    def _more(self) -> bytes:
        found = self._socket.recv(1 << 20)
        if not found:
            raise EOFError
        return found
