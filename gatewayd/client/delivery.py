"""
What happens to answers in the caller's thread: how many may be missing, in which order, who is told.

Plain Python; what drives it is in conversation.py.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any, Final

import attrs

from gatewayd.client.errors import BadClientCallback, BadServer
from gatewayd.client.requesting import Message
from gatewayd.client.response import Response

log = logging.getLogger(__name__)

Callback = Callable[[Response], Any]

# However many requests may wait for their answers, together they hold no more than this; one alone may.
WINDOW_BYTES: Final = 64 << 20


class Window:
    """
    The requests that were sent and whose answers the user hasn't got yet.

    ``limit`` is their number, 0 or less for none but WINDOW_BYTES. In order, an answer that came
    before its turn waits here, and still counts.
    """

    def __init__(self, limit: int, *, in_order: bool) -> None:
        self._limit = limit
        self._in_order = in_order
        self._sizes: dict[str, int] = {}  # in the order of sending
        self._early: dict[str, Response] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._sizes)

    @property
    def full(self) -> bool:
        return self._bytes >= WINDOW_BYTES or 0 < self._limit <= len(self._sizes)

    def sent(self, message: Message) -> None:
        self._sizes[message.request_id] = len(message.payload)
        self._bytes += len(message.payload)

    def answered(self, request_id: str, response: Response) -> Iterator[Response]:
        """The answers whose turn it is now; each leaves the window when it is taken."""
        if not self._in_order:
            self._leave(request_id)
            yield response
            return
        self._early[request_id] = response
        while self._sizes and (first := next(iter(self._sizes))) in self._early:
            self._leave(first)
            yield self._early.pop(first)

    def _leave(self, request_id: str) -> None:
        self._bytes -= self._sizes.pop(request_id)


@attrs.frozen
class Callbacks:
    """
    Who is told of an answer. ``continue_on_error`` logs what would be raised otherwise: a failed
    executor that no ``on_error`` is told of, and an exception of a callback.
    """

    on_done: Callback | None = None
    on_error: Callback | None = None
    on_always: Callback | None = None
    continue_on_error: bool = False

    @property
    def take_all(self) -> bool:
        """Do callbacks get the answers, so that nothing is to be returned?"""
        return self.on_done is not None or self.on_always is not None

    def due(self, response: Response) -> list[Callback]:
        chosen = (self.on_error if response.failed else self.on_done, self.on_always)
        return [callback for callback in chosen if callback is not None]

    def raised(self, callback: Callback, error: Exception) -> None:
        """Raises BadClientCallback, or logs it."""
        name = getattr(callback, "__name__", type(callback).__name__)
        message = f"uncaught exception in callback {name}(): {error!r}"
        if not self.continue_on_error:
            raise BadClientCallback(message) from error
        log.error(message, exc_info=error)

    def check(self, response: Response) -> None:
        """Raises BadServer for a failure that nobody was told of, or logs it."""
        if response.failed and self.on_error is None:
            error = BadServer(response.header, response)
            if not self.continue_on_error:
                raise error
            log.error("%s", error)
