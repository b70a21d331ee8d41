"""One request of a client over HTTP/2, as its server sees it, and what a server's connections need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import attrs

from gatewayd.messages.rope import Buffer
from gatewayd.rpc.flow_control import Unsent

if TYPE_CHECKING:
    from gatewayd.rpc.server.connection import Connection


class Held(Protocol):
    """A count of the bytes that all connections hold together, and its limit."""

    held_bytes: int
    limit_bytes: int

    @property
    def is_half_full(self) -> bool: ...

    def has_room(self, count: int) -> bool: ...


@attrs.frozen
class Limits:
    """
    What we allow a client.

    ``stream_window_bytes`` is how much of one request may be on its way or unread by its method,
    ``window_bytes`` how much of all of them may be on its way. ``frame_bytes`` bounds frames of plain data,
    ``whole_bytes`` all others. ``headers_bytes`` bounds the fields of a
    header block: larger ones fail their own request; ``block_bytes`` and ``block_frames`` bound what is
    received of one, encoded: larger ones end the connection. ``streams`` may be open at once, 0 for no limit.
    ``ping_interval_s`` and ``resets`` are as in ``Conduct``.
    """

    window_bytes: int = 1 << 22
    stream_window_bytes: int = 1 << 19
    frame_bytes: int = 1 << 20
    whole_bytes: int = 1 << 16
    headers_bytes: int = 1 << 14
    block_bytes: int = 1 << 17
    block_frames: int = 8
    streams: int = 2000
    ping_interval_s: float = 0.0
    resets: int = 2000


class Stream:
    """One request and its answer."""

    __slots__ = (
        "connection",
        "credit",
        "half_closed",
        "returned",
        "stream_id",
        "trailers",
        "unsent",
        "window",
    )

    end_flag = 0  # trailers end the stream, not its last piece of data

    def __init__(self) -> None:
        self.connection: Connection | None = None
        self.stream_id = 0  # 0 again when it is over
        self.window = 0  # what the client allows us to send
        self.credit = 0  # what we allow it
        self.returned = 0  # what of it was consumed since
        self.half_closed = False  # the request is complete
        self.unsent: Unsent | None = None
        self.trailers: bytes | None = None  # a block that follows what is unsent

    def on_head(self, head: Any, ended: bool) -> None:
        """The request's head as ``read`` has decoded it, None if it is too large."""
        raise NotImplementedError

    def on_data(self, data: Buffer, ended: bool) -> None:
        """A piece of the request's content, to be given back by ``consumed``; may be empty at the end."""
        raise NotImplementedError

    def on_trailers(self, head: Any) -> None:
        """The request ends with a block of fields, which ``head`` is as in ``on_head``."""
        self.on_data(b"", True)

    def on_sent(self) -> None:
        """What ``send_data`` could not send at once has left."""
        raise NotImplementedError

    def on_broken(self) -> None:
        """The client has given up, or is gone. Not called after ``end``, ``answer`` and ``reset``."""
        raise NotImplementedError


class Owner(Protocol):
    """What owns the transport."""

    def write(self, data: bytes) -> None:
        """May call ``pause`` before it returns."""

    def write_all(self, buffers: list[Buffer]) -> None:
        """Several pieces, in order: as ``write``, but large ones should not be copied."""

    def new_stream(self) -> Stream: ...

    def on_idle(self) -> None:
        """No stream is left after ``drain``: disconnect."""

    def on_failed(self, why: str) -> None:
        """The client broke the protocol: disconnect once what was written has left."""
