"""What a Client needs of a protocol, and what transports share."""

from __future__ import annotations

from typing import Any, Final, Protocol

from gatewayd.client.exchange import Deliver, Outbox
from gatewayd.client.inputs import Message
from gatewayd.client.post import Post, PostOptions
from gatewayd.client.streaming import Arrive
from gatewayd.messages.request import Request

# For gateways that give no reason.
DRY_RUN_FAILED: Final = "the dry run of its executors failed"


class Transport(Protocol):
    """
    Connections to one gateway, shared by all exchanges with it.

    Made in any thread and connected on first use; coroutines run on the loop thread. Unusable after
    ``close``.
    """

    def encode(self, request: Request) -> bytes:
        """Any thread: the form in which a request is sent. Raises BadClientInput."""

    async def exchange(self, post: Post, outbox: Outbox, deliver: Deliver) -> None:
        """Send what the outbox holds until it ends, and deliver all responses. Raises errors.py's tree."""

    async def stream(self, post: Post, message: Message, arrive: Arrive) -> None:
        """Send a request of one document, and hand over the answers to it. Raises errors.py's tree."""

    async def unready(self, options: PostOptions) -> str | None:
        """Why a dry run through all executors failed; None if it succeeded. Raises errors.py's tree."""

    async def mutate(self, body: dict[str, Any], options: PostOptions) -> dict[str, Any]:
        """Post a GraphQL query. Raises errors.py's tree; BadClient where there is no GraphQL."""

    async def close(self) -> None: ...
