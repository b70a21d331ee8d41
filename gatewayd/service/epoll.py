"""
The reactor of a gateway's processes: Twisted's for epoll, with less around each event.

Twisted's sets up a context for its legacy log before each read and each write, which tells a line's
``system``. Ours names the module instead, and nothing here asks for that context. It is some ten calls, of
two hundred that a small request takes, and more of a document that comes by itself.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.epollreactor import EPollReactor
from twisted.logger import Logger

log = Logger()


class GatewayReactor(EPollReactor):
    """As its base, but for that context."""

    def doIteration(self, timeout: float | None) -> None:
        """Wait up to ``timeout`` seconds, None for ever, and serve what is ready."""
        poller: Any = self._poller
        selectables: dict[int, Any] = self._selectables
        serve: Any = self._doReadOrWrite
        # A signal does not end the wait: it goes on by itself (PEP 475).
        for descriptor, event in poller.poll(-1 if timeout is None else timeout, len(selectables)):
            # One that was served before it in this round may have removed it.
            selectable = selectables.get(descriptor)
            if selectable is not None:
                try:
                    serve(selectable, descriptor, event)
                except Exception:
                    log.failure("an event of a descriptor failed")

    doPoll = doIteration
