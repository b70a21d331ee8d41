"""How a call ends whose last message could not be sent: with what the gateway said, not gRPC's writer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
import pytest

from gatewayd.client.transports import grpc as transport
from gatewayd.client.transports.grpc import Status

NOT_SENT = (grpc.StatusCode.INTERNAL, "Internal error from Core")
REFUSED = (grpc.StatusCode.RESOURCE_EXHAUSTED, "the message is larger than 4 MiB")
BROKEN = (grpc.StatusCode.INTERNAL, "a bug")


class FakeCall:
    """Has one status after the other."""

    def __init__(self) -> None:
        self._callbacks: list[Callable[[Any], None]] = []
        self._status: tuple[grpc.StatusCode, str] | None = None

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._callbacks.append(callback)

    def set(self, status: tuple[grpc.StatusCode, str]) -> None:
        self._status = status
        for callback in self._callbacks:
            callback(self)

    async def code(self) -> grpc.StatusCode:
        assert self._status is not None
        return self._status[0]

    async def details(self) -> str:
        assert self._status is not None
        return self._status[1]

    async def trailing_metadata(self) -> Any:
        return grpc.aio.Metadata()

    initial_metadata = trailing_metadata


def error_of(status: tuple[grpc.StatusCode, str]) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(status[0], grpc.aio.Metadata(), grpc.aio.Metadata(), status[1])


def raised(error: tuple[grpc.StatusCode, str], *statuses: tuple[grpc.StatusCode, str]) -> Any:
    """What a reader that saw ``error`` raises, where the call has these statuses at last."""

    async def ask() -> tuple[Any, Any]:
        call = FakeCall()
        status = Status(call)
        call.set(statuses[0])
        asking = asyncio.ensure_future(status.instead_of(error_of(error)))
        await asyncio.sleep(0)
        for later in statuses[1:]:
            call.set(later)
        found = await asking
        return found.code(), found.details()

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("error", "statuses", "expected"),
    [
        (NOT_SENT, (NOT_SENT, REFUSED), REFUSED),  # the gateway's comes later
        (NOT_SENT, (REFUSED, NOT_SENT), REFUSED),  # it was written over
        (REFUSED, (REFUSED,), REFUSED),
        (BROKEN, (BROKEN,), BROKEN),
    ],
)
def test_it_is_what_the_gateway_said(error: Any, statuses: Any, expected: Any) -> None:
    assert raised(error, *statuses) == expected


def test_without_another_the_writers_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "_STATUS_S", 0.01)
    assert raised(NOT_SENT, NOT_SENT) == NOT_SENT
