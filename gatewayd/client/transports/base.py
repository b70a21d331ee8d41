"""What a Client needs of a protocol; ``make_transport`` picks the one that its target names."""

from __future__ import annotations

from typing import Any, Final, Protocol

from gatewayd.client.exchange import Deliver, Options, Outbox, Retries
from gatewayd.client.target import Target
from gatewayd.messages.request import Request

# Of a gateway that does not say why.
DRY_RUN_FAILED: Final = "the dry run of its executors failed"


class Transport(Protocol):
    """
    Connections to one gateway. Made in any thread and connected on first use; coroutines are for the
    loop thread. Used by many exchanges at once; after ``close`` it is of no use.
    """

    def encode(self, request: Request) -> bytes:
        """Any thread: the form in which a request is sent. Raises BadClientInput."""

    async def exchange(self, outbox: Outbox, deliver: Deliver, options: Options, retries: Retries) -> None:
        """Send what the outbox holds until it ends, and deliver all answers. Raises errors.py's tree."""

    async def unready(self, options: Options) -> str | None:
        """Why a dry run through all executors failed; None if it succeeded. Raises errors.py's tree."""

    async def mutate(self, body: dict[str, Any], options: Options) -> dict[str, Any]:
        """Post a GraphQL query. Raises errors.py's tree; BadClient where there is no GraphQL."""

    async def close(self) -> None: ...


def make_transport(target: Target) -> Transport:
    # Imported here, because nobody speaks all three and each brings a library of its own.
    if target.protocol == "grpc":
        from gatewayd.client.transports.grpc import GrpcTransport

        return GrpcTransport(target)
    if target.protocol == "http":
        from gatewayd.client.transports.http import HttpTransport

        return HttpTransport(target)
    from gatewayd.client.transports.websocket import WebSocketTransport

    return WebSocketTransport(target)
