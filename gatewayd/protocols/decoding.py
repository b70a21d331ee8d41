"""
Decodes JSON of clients, with room for the values that it becomes.

They take up to thirty times the memory of their text: three bytes, ``[],``, are a Python object. So a large
body counts among the held bytes as what it becomes, while it is decoded, and is refused if that is too much.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from gatewayd.buffers import Buffers
from gatewayd.errors import Overloaded
from gatewayd.offload import is_small
from gatewayd.protocols.backend import Backend

T = TypeVar("T")

# About what CPython and orjson take for an object, a list, and one more value in either.
_OBJECT_BYTES: Final = 200
_LIST_BYTES: Final = 90
_VALUE_BYTES: Final = 32
# The most that a byte of JSON can become: ``[{},{},...]`` is three bytes for an object that is a value.
_MOST_BYTES: Final = 80
# A body that cannot become more than this part of what is free is not counted, which costs a trip to a thread
# and about as much as parsing it.
_PART_OF_FREE: Final = 16


def decoded_bytes(body: bytes) -> int:
    """About how much memory the values of a JSON text take; too much for texts with many such characters."""
    return _OBJECT_BYTES * body.count(b"{") + _LIST_BYTES * body.count(b"[") + _VALUE_BYTES * body.count(b",")


@contextmanager
def room(buffers: Buffers, size: int) -> Iterator[None]:
    """Hold ``size`` bytes meanwhile. Raises Overloaded."""
    if not buffers.take(size):
        free = buffers.limit_bytes - buffers.held_bytes
        raise Overloaded(
            f"the JSON would take about {size} bytes of memory, and {free} are free "
            "(gateway.max_buffered_bytes); send it in parts, or as protobuf"
        )
    try:
        yield
    finally:
        buffers.give_back(size)


async def room_needed(backend: Backend, body: bytes) -> int:
    """What ``room`` has to hold while ``body`` is decoded; 0 for small ones, which need little."""
    if is_small(len(body)):
        return 0
    most, buffers = _MOST_BYTES * len(body), backend.buffers
    if most * _PART_OF_FREE <= buffers.limit_bytes - buffers.held_bytes:
        return most
    return await backend.offload(decoded_bytes, body)


async def decoded_in_room(
    backend: Backend, decode: Callable[..., T], body: bytes, *args: Any, **kwargs: Any
) -> T:
    """``decode(body, ...)``, in a pool thread if the body is large. Raises Overloaded, and its errors."""
    if is_small(len(body)):
        return decode(body, *args, **kwargs)
    with room(backend.buffers, await room_needed(backend, body)):
        return await backend.offload(decode, body, *args, **kwargs)
