"""
What a reload has replaced, until it has ended: earlier graphs with the requests that they have, and ports
whose clients are led away. Reactor thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from twisted.internet.defer import CancelledError, Deferred, DeferredList, gatherResults
from twisted.logger import Logger
from twisted.python.failure import Failure

from gatewayd.clocks import Clock, Timer
from gatewayd.protocols.port import Port
from gatewayd.service.graph import Graph
from gatewayd.waiters import Waiters

log = Logger()

# How long a port that was replaced serves on: an HTTP client that is silent for longer finds its connection
# closed. By feel.
RETIRING_S: Final = 2.0
# Each has connections, and perhaps processes, of its own: what hangs must not pile up with every reload.
MOST_GRAPHS: Final = 8


class Leaving:
    """The graphs and ports of earlier settings that have not ended yet."""

    def __init__(self, clock: Clock) -> None:
        self.graphs: list[Graph] = []
        self.ports: list[Port] = []
        self._clock = clock
        self._timers: dict[Deferred[None], Timer] = {}
        self._stopping = False
        self._empty: Waiters[None] = Waiters()

    def add_graph(self, graph: Graph) -> Deferred[None]:
        """
        Close ``graph`` when what it has is answered, which may take any time.

        Fires when that is done, and earlier graphs have ended as well: they may call the same executors. When
        there are too many, those under way in the oldest one are refused.
        """
        if len(self.graphs) >= MOST_GRAPHS:
            oldest = self.graphs[0]
            log.warn(
                "{count} requests are still under way from before the last {most} reloads; they are refused",
                count=oldest.dispatcher.in_flight,
                most=MOST_GRAPHS,
            )
            oldest.dispatcher.refuse_awaited()
            oldest.dispatcher.abandon()
        earlier = [each.dispatcher.drain() for each in self.graphs]
        self.graphs.append(graph)

        def ended(_: None) -> None:
            self.graphs.remove(graph)
            graph.dispatcher.close()
            graph.pool.close()

        closed = graph.dispatcher.drain().addCallback(ended)
        return gatherResults([*earlier, closed]).addCallback(lambda _: None)

    def add_ports(self, ports: Sequence[Port], grace_s: float, ended: Callable[[], None]) -> None:
        """Have the clients of ``ports`` leave, and close them; ``ended()`` is called when that is done."""
        self.ports += ports

        async def lead_away() -> None:
            for port in ports:
                port.retire()
            await self._moment()
            await DeferredList([port.drain(grace_s) for port in ports], consumeErrors=True)
            for port in ports:
                await port.stop()

        def done(result: Failure | None) -> None:
            if isinstance(result, Failure) and not result.check(CancelledError):
                log.failure("a port that was replaced could not be closed", failure=result)
            for port in ports:
                self.ports.remove(port)
            ended()
            if not self.ports:
                self._empty.fire(None)

        Deferred.fromCoroutine(lead_away()).addBoth(done)

    def hurry(self) -> None:
        """The gateway stops: drain all ports now. Their own grace periods are no longer than its."""
        self._stopping = True
        for waiting, timer in tuple(self._timers.items()):
            timer.cancel()
            self._over(waiting)

    def ports_closed(self) -> Deferred[None]:
        """Fires when no port is left."""
        closed = self._empty.wait()
        if not self.ports:
            self._empty.fire(None)
        return closed

    def _moment(self) -> Deferred[None]:
        waiting: Deferred[None] = Deferred()
        if self._stopping:
            waiting.callback(None)
        else:
            self._timers[waiting] = self._clock.callLater(RETIRING_S, self._over, waiting)
        return waiting

    def _over(self, waiting: Deferred[None]) -> None:
        del self._timers[waiting]
        waiting.callback(None)
