"""
What happens to responses in the caller's thread: how many may be outstanding, their order, their callbacks.

Plain Python, driven by conversation.py.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Final

import attrs

from gatewayd.client.errors import BadClientCallback, BadServer
from gatewayd.client.inputs import Message
from gatewayd.client.post import Callback, Post
from gatewayd.client.response import Response

log = logging.getLogger(__name__)

# Of all requests in flight together, however many there may be; a single larger one is sent alone.
IN_FLIGHT_BYTES: Final = 64 << 20


class InFlightLimit:
    """
    The requests that were sent and whose responses the user does not have yet.

    ``limit`` is their number; 0 or less leaves IN_FLIGHT_BYTES as the only bound. In order, a response that
    came before its turn waits here, and its request still counts.
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
        return self._bytes >= IN_FLIGHT_BYTES or 0 < self._limit <= len(self._sizes)

    def sent(self, message: Message) -> None:
        self._sizes[message.request_id] = len(message.payload)
        self._bytes += len(message.payload)

    def answered(self, request_id: str, response: Response) -> Iterator[Response]:
        """The responses whose turn it is now; the request of each stops counting when it is taken."""
        if not self._in_order:
            self._forget(request_id)
            yield response
            return
        self._early[request_id] = response
        while self._sizes and (first := next(iter(self._sizes))) in self._early:
            self._forget(first)
            yield self._early.pop(first)

    def _forget(self, request_id: str) -> None:
        self._bytes -= self._sizes.pop(request_id)


@attrs.frozen
class Callbacks:
    """The callbacks of a post, and what it raises or logs for failures (spec client.md)."""

    post: Post

    def due(self, response: Response) -> list[Callback]:
        chosen = (self.post.on_error if response.failed else self.post.on_done, self.post.on_always)
        return [callback for callback in chosen if callback is not None]

    def raised(self, callback: Callback, error: Exception) -> None:
        """Raises BadClientCallback, or logs it."""
        name = getattr(callback, "__name__", type(callback).__name__)
        message = f"uncaught exception in callback {name}(): {error!r}"
        if not self.post.continue_on_error:
            raise BadClientCallback(message) from error
        log.error(message, exc_info=error)

    def check(self, response: Response) -> None:
        """Raises BadServer for a failure without an ``on_error``, or logs it."""
        if response.failed and self.post.on_error is None:
            error = BadServer(response.header, response)
            if not self.post.continue_on_error:
                raise error
            log.error("%s", error)
