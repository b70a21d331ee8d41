"""
Accepts the connections of gRPC clients on an asyncio loop, and ends them together.

A connection is admitted before its TLS handshake begins; ``admit`` may take its time to answer.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Protocol

from gatewayd.crowd import YIELD_S, Courtesy
from gatewayd.rpc.server.transport import ConnectionSettings, ServerProtocol

# Connections that are accepted in one turn of the loop, so that others get theirs.
_AT_ONCE: Final = 64
# How long nothing is accepted after the system had no descriptor, or memory, for one.
_PAUSE_S: Final = 0.2


class Admissions(Protocol):
    """Who may connect."""

    def ask(self, host: str, answer: Callable[[bool], object]) -> None:
        """Calls ``answer`` once, now or later; a connection that may be counts until ``give_back``."""

    def give_back(self, host: str) -> None: ...


class Everybody:
    """Admits all."""

    def ask(self, host: str, answer: Callable[[bool], object]) -> None:
        answer(True)

    def give_back(self, host: str) -> None:
        """Nothing is counted."""


class Listener:
    """The listening ``sockets`` of one port, and the connections that came through them. Loop thread only."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sockets: list[socket.socket],
        settings: ConnectionSettings,
        admissions: Admissions,
        tls: Callable[[], ssl.SSLContext | None] = lambda: None,
        *,
        shared: bool = False,
        should_yield: Callable[[], bool] = lambda: False,
    ) -> None:
        """
        ``tls`` gives the context of the next connection, None for one without. From ``shared`` sockets other
        processes accept as well: connections are taken one by one, and left alone for a moment if
        ``should_yield()``.
        """
        self._loop = loop
        self._sockets = sockets
        self._settings = settings
        self._admissions = admissions
        self._tls = tls
        self._shared = shared
        self._courtesy = Courtesy(should_yield)
        self._is_drained = False
        self._open: set[ServerProtocol] = set()
        self._handshakes: set[asyncio.Task[None]] = set()
        self._ticking: asyncio.TimerHandle | None = None
        self._empty: asyncio.Event = asyncio.Event()

    @property
    def connections(self) -> int:
        return len(self._open) + len(self._handshakes)

    def start(self) -> None:
        for each in self._sockets:
            each.setblocking(False)
            self._loop.add_reader(each, self._accept, each)
        self._ticking = self._loop.call_later(1.0, self._tick)

    def copies(self) -> list[socket.socket]:
        """Copies of the sockets, for another listener beside this one: both take one connection at a time."""
        self._shared = True
        return [each.dup() for each in self._sockets]

    def retire(self) -> None:
        """Accept nothing more, and have clients open their next connection elsewhere."""
        self._stop_listening()
        for connection in tuple(self._open):
            connection.drain()

    async def drain(self, grace_s: float) -> None:
        """Accept nothing more, let calls finish, and end what is left after ``grace_s``."""
        self._is_drained = True
        self.retire()
        deadline = self._loop.time() + grace_s
        while self.connections and (left := deadline - self._loop.time()) > 0:
            self._empty.clear()
            try:
                await asyncio.wait_for(self._empty.wait(), left)
            except TimeoutError:
                break
        for task in tuple(self._handshakes):
            task.cancel()
        for connection in tuple(self._open):
            connection.abort()
        # Transports report their end in the next turns.
        while self._open:
            self._empty.clear()
            await self._empty.wait()
        if self._ticking is not None:
            self._ticking.cancel()
            self._ticking = None

    def _stop_listening(self) -> None:
        for each in self._sockets:
            self._loop.remove_reader(each)
            each.close()
        self._sockets.clear()

    def _accept(self, listening: socket.socket) -> None:
        if not self._courtesy.takes():
            self._loop.remove_reader(listening)
            self._loop.call_later(YIELD_S, self._go_on, listening)
            return
        for _ in range(1 if self._shared else _AT_ONCE):
            try:
                accepted, address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:
                # Out of descriptors, mostly: the connection waits in the kernel, and would wake us at once.
                self._loop.remove_reader(listening)
                self._loop.call_later(_PAUSE_S, self._listen_again, listening)
                return
            accepted.setblocking(False)
            host = ""
            if accepted.family != socket.AF_UNIX:
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                host = str(address[0]).removeprefix("::ffff:")
            if self._shared:
                # It counts once it is admitted: only then is it known who has more.
                self._loop.remove_reader(listening)
            self._admissions.ask(host, partial(self._admitted, accepted, host, listening))

    def _go_on(self, listening: socket.socket) -> None:
        self._courtesy.waited()
        self._listen_again(listening)

    def _listen_again(self, listening: socket.socket) -> None:
        if listening in self._sockets:
            self._loop.add_reader(listening, self._accept, listening)

    def _admitted(self, accepted: socket.socket, host: str, listening: socket.socket, may: bool) -> None:
        if self._shared:
            self._listen_again(listening)
        if not may:
            accepted.close()
            return
        if self._is_drained:  # meanwhile
            accepted.close()
            self._admissions.give_back(host)
            return
        task = self._loop.create_task(self._connect(accepted, host))
        self._handshakes.add(task)
        task.add_done_callback(self._connected)

    async def _connect(self, accepted: socket.socket, host: str) -> None:
        """Hand the socket to a connection, after the TLS handshake."""
        made: list[_Counted] = []

        def make() -> ServerProtocol:
            made.append(_Counted(self._loop, self._settings, self._open, host, self._lost))
            return made[0]

        context = self._tls()
        tls: Any = {}
        if context is not None:
            tls = {"ssl": context, "ssl_handshake_timeout": self._settings.handshake_s}
        try:
            await self._loop.connect_accepted_socket(make, accepted, **tls)
        except (OSError, asyncio.CancelledError):
            # A handshake that failed, or took too long.
            if made:
                made[0].give_back()
            else:
                self._lost(host)
            accepted.close()

    def _connected(self, task: asyncio.Task[None]) -> None:
        self._handshakes.discard(task)
        if not task.cancelled() and task.exception() is None and not self._sockets:
            for connection in tuple(self._open):
                connection.drain()
        self._tell_empty()

    def _lost(self, host: str) -> None:
        self._admissions.give_back(host)
        self._tell_empty()

    def _tell_empty(self) -> None:
        if not self.connections:
            self._empty.set()

    def _tick(self) -> None:
        self._ticking = self._loop.call_later(1.0, self._tick)
        for connection in tuple(self._open):
            connection.tick()


class _Counted(ServerProtocol):
    """A connection that was admitted, and is given back once."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        settings: ConnectionSettings,
        open: set[ServerProtocol],
        peer: str,
        lost: Callable[[str], None],
    ) -> None:
        super().__init__(loop, settings, open, peer)
        self._lost: Callable[[str], None] | None = lost

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self.give_back()

    def give_back(self) -> None:
        """Harmless when repeated."""
        lost, self._lost = self._lost, None
        if lost is not None:
            lost(self.peer)
