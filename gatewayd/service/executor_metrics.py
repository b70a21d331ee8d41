# mypy: disable-error-code="no-untyped-call"
"""Asks the executors that are started here for their metrics, over HTTP, with a limit on time and size."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool

# A scraper waits meanwhile, and its own limit is ten seconds.
_TIMEOUT_S: Final = 2.0
# Of one executor; its own metrics may be many, and these are held for all executors at once.
_MOST_BYTES: Final = 1 << 20


class ExecutorMetrics:
    """Gets what executors expose. Reactor thread only."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        pool = HTTPConnectionPool(reactor, persistent=False)
        # Its factories write two lines into the log for each connection.
        pool._factory.noisy = False
        self._agent = Agent(reactor, connectTimeout=_TIMEOUT_S, pool=pool)

    async def gather(self, asked: Iterable[tuple[str, str]]) -> tuple[list[tuple[str, str]], int]:
        """
        The texts by the runtime names of ``asked``, pairs of those and ``host:port``.

        Also how many have not answered in time, or too much.
        """
        pairs = list(asked)
        asking = [Deferred.fromCoroutine(self._get(address)) for _, address in pairs]
        for each in asking:
            each.addTimeout(_TIMEOUT_S, self._reactor)
        outcomes = await DeferredList(asking, consumeErrors=True)
        texts = [
            (name, text)
            for (name, _), (succeeded, text) in zip(pairs, outcomes, strict=True)
            if succeeded and text is not None
        ]
        return texts, len(pairs) - len(texts)

    async def _get(self, address: str) -> str | None:
        response: Any = await self._agent.request(b"GET", f"http://{address}/metrics".encode())
        ended: Deferred[bytes | None] = Deferred(lambda _: _cut_off(response._transport))
        response.deliverBody(_Bounded(ended))
        body = await ended
        return None if body is None or response.code != 200 else body.decode("utf-8", "replace")


class _Bounded(Protocol):
    """Takes a body; None if it is too long."""

    def __init__(self, ended: Deferred[bytes | None]) -> None:
        self._ended = ended
        self._parts: list[bytes] = []
        self._left_bytes = _MOST_BYTES

    def dataReceived(self, data: bytes) -> None:
        self._left_bytes -= len(data)
        self._parts.append(data)
        if self._left_bytes < 0:
            self._parts.clear()
            _cut_off(self.transport)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self._ended.called:
            self._ended.callback(None if self._left_bytes < 0 else b"".join(self._parts))


def _cut_off(transport: Any) -> None:
    """End the connection of an answer now; Twisted's transport for bodies can only ask the other side to."""
    (getattr(transport, "_producer", None) or transport).abortConnection()
