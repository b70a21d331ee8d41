"""Small protobuf messages of gRPC's own services, which clients may compress."""

from __future__ import annotations

from typing import Final, TypeVar

from google.protobuf.message import DecodeError, Message

from gatewayd.inflating import Damaged, inflated_here

M = TypeVar("M", bound=Message)

MAX_BYTES: Final = 64 * 1024


class Unreadable(ValueError):
    """The text says what the message is not, and why."""


def read_small(kind: type[M], message: bytes, compressed: bool) -> M:
    """Raises Unreadable."""
    try:
        return kind.FromString(inflated_here(message, MAX_BYTES) if compressed else message)
    except (Damaged, DecodeError) as error:
        raise Unreadable(f"this is no {kind.DESCRIPTOR.name}: {error}") from error
