"""
Serves one Executor over gRPC, with a server of our own: where it listens, its limits, and how it stops.

    starting ── start() ──> serving ── stop() ──> NOT_SERVING, batches flushed, running calls
                                                   finished within the grace period, close() called

Messages stay bytes until ``handling.py`` splits them. Reflection lists exactly what a gateway of the
reference expects. In the first generation it refuses an executor that lists anything else (spec wire.md): so
``stream_doc``, which is served in both, is listed in the second only.
"""

from __future__ import annotations

import asyncio
import inspect
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from gatewayd.binding import EVERYWHERE, addresses_of, listening_at, listening_everywhere, reason_of
from gatewayd.buffers import Buffers
from gatewayd.config.addresses import authority
from gatewayd.executor.callers import Callers
from gatewayd.executor.executor import Executor
from gatewayd.executor.handling import Handling
from gatewayd.executor.servicer import Servicer
from gatewayd.executor.spec import ExecutorSpec
from gatewayd.extras import docarray_generation
from gatewayd.messages import methods
from gatewayd.messages.generations import Generation
from gatewayd.messages.headers import METADATA_BYTES
from gatewayd.pb import POOL, second
from gatewayd.rpc.server.call import CallSettings
from gatewayd.rpc.server.health import Health
from gatewayd.rpc.server.listener import Everybody, Listener
from gatewayd.rpc.server.loop_clock import LoopClock
from gatewayd.rpc.server.reflecting import V1_ALPHA, Reflection
from gatewayd.rpc.server.stream import Limits
from gatewayd.rpc.server.transport import ConnectionSettings
from gatewayd.rpc.timeouts import Timeouts
from gatewayd.schemes import unix_address

if TYPE_CHECKING:
    from gatewayd.executor.tracing import Tracing

SERVICES: Final = (*map(methods.service_of, methods.OF_AN_EXECUTOR), V1_ALPHA)
# By the last of them gateways of the reference know the second generation (spec 34/interop.md).
SECOND_SERVICES: Final = (*SERVICES, methods.service_of(methods.STREAM_DOC))

# The largest message that gRPC has.
_LARGEST_BYTES: Final = (1 << 32) - 1
# What unfinished requests and unread answers may hold: more than any one of them, less than what is endless.
_HELD_BYTES: Final = 1 << 33
# What gateways may do on one connection, over which the calls of all their clients go: have any number of
# calls under way, give up many at once, and ping at any time, as keepalive does.
_LIMITS: Final = Limits(
    window_bytes=1 << 24,
    stream_window_bytes=1 << 22,
    headers_bytes=2 * METADATA_BYTES,
    block_bytes=8 * METADATA_BYTES,
    streams=0,
    ping_interval_s=0.0,
    resets=100_000,
)
_KEEPALIVE_S: Final = 10.0
_KEEPALIVE_TIMEOUT_S: Final = 5.0


class Runtime:
    """
    One executor's gRPC server. ``on_fatal(reason)`` is called if the process has to end.

    Its methods have spans with ``tracing``, which ends with it. ``callers`` says who may call it, whoever
    knows the spec's secret if it is None.
    """

    def __init__(
        self,
        executor: Executor,
        spec: ExecutorSpec,
        on_fatal: Callable[[str], None],
        tracing: Tracing | None = None,
        callers: Callers | None = None,
    ) -> None:
        self._callers = Callers(spec.secret) if callers is None else callers
        self._executor = executor
        self._spec = spec
        self._tracing = tracing
        self._handling = Handling(executor, spec, on_fatal, tracing)
        self._most_bytes = _LARGEST_BYTES if spec.max_message_bytes < 0 else spec.max_message_bytes
        self._servicer = Servicer(self._handling, self._most_bytes)
        is_second = docarray_generation() is Generation.SECOND
        self._services = SECOND_SERVICES if is_second else SERVICES
        self._pool = second.POOL if is_second else POOL
        self._health = Health(("", *self._services))
        self._held = Buffers(_HELD_BYTES)
        self._listener: Listener | None = None
        self._timeouts: Timeouts | None = None
        self._remove_socket: Callable[[], None] = _nothing

    @property
    def busy(self) -> bool:
        """Whether a plain method is still running after the grace period."""
        return self._handling.busy

    async def start(self) -> str:
        """Listen and serve. Returns the address. Raises RuntimeError if the port is taken."""
        loop = asyncio.get_running_loop()
        address, sockets = self._listen()
        self._timeouts = Timeouts(LoopClock(loop))
        self._listener = Listener(loop, sockets, self._settings(loop, self._timeouts), Everybody())
        self._listener.start()
        self._health.set_serving(True)
        return address

    async def stop(self) -> None:
        """Stop as in the module's diagram. Returns when the executor's ``close()`` has returned."""
        self._health.set_serving(False)
        await self._handling.drain()
        if self._listener is not None:
            await self._listener.drain(self._spec.grace_s)
        await self._handling.end_streams()
        if self._timeouts is not None:
            self._timeouts.close()
        self._remove_socket()
        closed = self._executor.close()
        if inspect.isawaitable(closed):
            await closed
        self._handling.close()
        if self._tracing is not None:
            await self._tracing.stop()

    def _listen(self) -> tuple[str, list[socket.socket]]:
        """The address, and the sockets that listen there."""
        spec = self._spec
        wanted = authority(spec.host, spec.port) if spec.socket is None else unix_address(spec.socket)
        try:
            if spec.socket is not None:
                sockets, self._remove_socket = listening_at(spec.socket)
                return wanted, sockets
            sockets = listening_everywhere(addresses_of(spec.host), spec.port)
        except OSError as error:
            raise RuntimeError(f"cannot listen on {wanted}: {reason_of(error)}") from error
        host = "127.0.0.1" if spec.host in EVERYWHERE else spec.host
        return authority(host, sockets[0].getsockname()[1]), sockets

    def _settings(self, loop: asyncio.AbstractEventLoop, timeouts: Timeouts) -> ConnectionSettings:
        calls = CallSettings(
            methods={
                **self._servicer.methods(),
                **self._health.methods(),
                **Reflection(self._services, self._pool).methods(),
            },
            held=self._held,
            timeouts=timeouts,
            seconds=loop.time,
            max_received_bytes=self._most_bytes,
            max_sent_bytes=None,
            max_headers_bytes=_LIMITS.headers_bytes,
            identify=self._callers.identify if self._spec.secret is not None else None,
            full=lambda: f"the executor holds as many bytes as it may ({_HELD_BYTES}); try again later",
        )
        return ConnectionSettings(
            calls, _LIMITS, keepalive_s=_KEEPALIVE_S, keepalive_timeout_s=_KEEPALIVE_TIMEOUT_S
        )


def _nothing() -> None:
    """A port leaves no file."""
