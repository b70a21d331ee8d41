"""
Connections of gRPC clients on an asyncio loop: what reads, writes and times ``connection.py``.

What is written while the loop handles one event goes out together. A connection whose socket takes no more is
not read, either: so nothing that a client causes us to send can pile up.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Final

import attrs

from gatewayd.messages.rope import Buffer
from gatewayd.rpc.frames import CANCEL, NO_ERROR
from gatewayd.rpc.server.backlog import Backlog
from gatewayd.rpc.server.call import CallSettings, ServerCall
from gatewayd.rpc.server.connection import Connection
from gatewayd.rpc.server.head import RequestHead
from gatewayd.rpc.server.stream import Limits, Stream

# What is collected before it is written, so that a transport that is full can say so.
_FLUSH_BYTES: Final = 1 << 18
_HIGH_WATER_BYTES: Final = 1 << 18
# How long the client may take to hear that no more streams are taken.
_GOODBYE_S: Final = 1.0
# How long what a client goes on sending is read and dropped once its connection has failed. Closed at once,
# the socket would answer it with a reset, which makes the client's kernel forget the GOAWAY that says why.
_LINGER_S: Final = 2.0


def _no_limit(_received_bytes: int) -> float:
    return float("inf")


@attrs.frozen
class ConnectionSettings:
    """
    What all connections of a server have in common; times in seconds, infinite where there is no limit.

    ``max_unsent_bytes`` is as in ``Backlog``. ``write_timeout_s`` is how long a client may take nothing of
    what is sent. A client that is silent for ``keepalive_s`` is pinged, and gone if it then sends nothing for
    ``keepalive_timeout_s``. One without calls is asked to leave after ``max_idle_s``, any client after
    ``max_age_s``; it is cut off ``age_grace_s`` later. A message of which so many bytes have come may take
    ``arrival_s`` of them. ``soon`` is what calls a function as ``call_soon`` of the loop does, if there is
    something that does so in the same turn.
    """

    calls: CallSettings
    limits: Limits = attrs.field(factory=Limits)
    max_unsent_bytes: int = 0
    handshake_s: float = 10.0
    write_timeout_s: float = 60.0
    keepalive_s: float = float("inf")
    keepalive_timeout_s: float = 20.0
    max_idle_s: float = float("inf")
    max_age_s: float = float("inf")
    age_grace_s: float = float("inf")
    arrival_s: Callable[[int], float] = _no_limit
    soon: Callable[[Callable[[], None]], object] | None = None


class ServerProtocol(asyncio.Protocol):
    """One connection of a client (``stream.Owner``). ``open`` is the set of those that are open."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        settings: ConnectionSettings,
        open: set[ServerProtocol],
        peer: str,
    ) -> None:
        self.peer = peer
        self.certificate: bytes | None = None  # what the client has shown of itself in TLS, as DER
        self._loop = loop
        self._soon = settings.soon or loop.call_soon
        self._settings = settings
        self._open = open
        self._transport: Any = None
        self._connection = Connection(self, RequestHead.of, loop.time, settings.calls.held, settings.limits)
        self._backlog = Backlog(settings.max_unsent_bytes)
        self._parts: list[Buffer] = []
        self._size = 0
        self._will_flush = False
        self._unwritten = 0  # by the socket, a second ago
        now = loop.time()
        self._began_s = self._heard_s = self._busy_s = self._took_s = now
        self._pinged_s: float | None = None
        self._goodbye_s: float | None = None
        self._cut_off_s = float("inf")
        self._lingers_s: float | None = None  # until then, after the connection has failed
        self._stalled: dict[Stream, tuple[int, float]] = {}
        self._arriving: dict[Stream, tuple[int, float]] = {}

    # -- asyncio -------------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() != "h2":
            transport.abort()
            return
        if tls is not None:
            self.certificate = tls.getpeercert(binary_form=True)
        self._transport = transport
        transport.set_write_buffer_limits(_HIGH_WATER_BYTES)
        self._open.add(self)
        self.write(self._connection.begin())

    def data_received(self, data: bytes) -> None:
        if self._lingers_s is not None:
            return
        self._heard_s = self._loop.time()
        self._pinged_s = None
        self._will_flush = True  # below, and so not by itself
        self._connection.receive(data)
        if self._parts or self._backlog.waiting:
            self._flush()
        else:
            self._will_flush = False

    def pause_writing(self) -> None:
        self._took_s = self._loop.time()
        self._connection.pause()
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._transport.resume_reading()
        self._connection.resume()

    def eof_received(self) -> bool:
        # A client that sends nothing more cannot give us windows.
        return False

    def connection_lost(self, exc: BaseException | None) -> None:
        self._open.discard(self)
        self._parts.clear()
        self._stalled.clear()
        self._arriving.clear()
        self._backlog.clear()
        if not self._connection.closed:
            self._connection.lost()
        self._connection.release()

    # -- stream.Owner --------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        self._parts.append(data)
        self._size += len(data)
        if self._size >= _FLUSH_BYTES:
            self._write_out()
        elif not self._will_flush:
            self._will_flush = True
            self._soon(self._flush)

    def write_all(self, buffers: list[Buffer]) -> None:
        self._parts += buffers
        self._size += sum(map(len, buffers))
        if self._size >= _FLUSH_BYTES:
            self._write_out()
        elif not self._will_flush:
            self._will_flush = True
            self._soon(self._flush)

    def new_stream(self) -> Stream:
        return ServerCall(self._settings.calls, self._backlog, self)

    def on_idle(self) -> None:
        self.close()

    def on_failed(self, why: str) -> None:
        transport = self._transport
        if transport is None or transport.is_closing() or self._goodbye_s is not None:
            self.close()
        elif transport.can_write_eof():
            self._flush()
            with contextlib.suppress(OSError):  # the client has gone
                transport.write_eof()
            self._lingers_s = self._loop.time() + _LINGER_S
        else:  # TLS has no half-closed connections here.
            self.close()

    # -- the server ----------------------------------------------------------------------------------

    @property
    def open_streams(self) -> int:
        return self._connection.open_streams

    def drain(self) -> None:
        """Ask the client to leave, and close when its calls are over."""
        if self._lingers_s is not None:
            self._transport.abort()
        elif self._goodbye_s is None and not self._connection.closed:
            self._goodbye_s = self._loop.time() + _GOODBYE_S
            self._connection.drain()
            if not self._connection.ready:
                self._connection.refuse()

    def close(self) -> None:
        """Close once what was written has left."""
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """End the connection at once; calls that are under way are cancelled."""
        if not self._connection.closed:
            self._connection.fail(NO_ERROR, "the server is shutting down")
        if self._transport is not None:
            self._transport.abort()

    def tick(self) -> None:
        """A second has passed."""
        connection, settings = self._connection, self._settings
        now = self._loop.time()
        if self._lingers_s is not None and now > self._lingers_s:
            self._transport.abort()
            return
        connection.conduct.refill()
        if self._transport.is_closing():
            # Closed, but not everything has left.
            if now - self._took_s > settings.write_timeout_s:
                self._transport.abort()
            return
        if not connection.ready:
            if now - self._began_s > settings.handshake_s:
                self._transport.abort()
            return
        if connection.open_streams:
            self._busy_s = now
            self._check_arriving(now)
            if connection.unsent_bytes:
                self._check_stalled(now)
            else:
                self._stalled.clear()
        self._check_written(now)
        self._check_silence(now)
        if self._goodbye_s is not None and now > self._goodbye_s:
            connection.refuse()
        elif now - self._busy_s > settings.max_idle_s:
            self.drain()
        elif now - self._began_s > settings.max_age_s:
            if self._cut_off_s == float("inf"):
                self._cut_off_s = now + settings.age_grace_s
            self.drain()
        if now > self._cut_off_s:
            self.abort()

    def _check_written(self, now: float) -> None:
        """End a connection whose socket has taken nothing for too long."""
        before, self._unwritten = self._unwritten, self._transport.get_write_buffer_size()
        if not self._unwritten or self._unwritten < before:
            self._took_s = now
        elif now - self._took_s > self._settings.write_timeout_s:
            self._transport.abort()

    def _check_stalled(self, now: float) -> None:
        """Reset the streams whose windows have let nothing out for too long."""
        before, self._stalled = self._stalled, {}
        for stream in self._connection.stalled():
            assert stream.unsent is not None
            left = stream.unsent.left
            known, since_s = before.get(stream, (-1, now))
            if known != left:
                since_s = now
            elif now - since_s > self._settings.write_timeout_s:
                over = stream.trailers is not None
                self._connection.reset(stream, CANCEL)
                if not over:
                    stream.on_broken()
                continue
            self._stalled[stream] = left, since_s

    def _check_arriving(self, now: float) -> None:
        """Fail the calls whose messages take too long to arrive."""
        before, self._arriving = self._arriving, {}
        for call in self._connection.streams():
            assert isinstance(call, ServerCall)
            found = call.unfinished()
            if found is None:
                continue
            messages, kept_bytes = found
            known, since_s = before.get(call, (-1, now))
            if known != messages:
                since_s = now
            if now - since_s > self._settings.arrival_s(kept_bytes):
                call.end_slow()
            else:
                self._arriving[call] = messages, since_s

    def _check_silence(self, now: float) -> None:
        settings = self._settings
        if self._pinged_s is not None:
            if now - self._pinged_s > settings.keepalive_timeout_s:
                self._transport.abort()
        elif now - self._heard_s >= settings.keepalive_s and self._transport.is_reading():
            self._pinged_s = now
            self._connection.ping()

    def _flush(self) -> None:
        # What has left may make room for calls that wait.
        if self._backlog.waiting:
            while (call := self._backlog.next(self._connection.unsent_bytes)) is not None:
                call.begin()
        self._will_flush = False
        if self._parts:
            self._write_out()

    def _write_out(self) -> None:
        parts, self._parts = self._parts, []
        self._size = 0
        if self._transport is None or self._transport.is_closing() or self._lingers_s is not None:
            return
        if len(parts) == 1:
            self._transport.write(parts[0])
        else:
            self._transport.writelines(parts)
