"""
Heavy pure work: done here when it is small, in a pool thread when it would hold up the reactor.

What takes long, for its size, goes through ``here_or_offloaded`` (in a coroutine), or asks ``is_small`` where
a callback has to serve.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

T = TypeVar("T")

# Decoding or encoding this much JSON, or merging two parts of this size, takes about a millisecond; a trip to
# a pool thread and back costs well under one, and leaves the reactor free meanwhile.
SMALL_BYTES: Final = 64 * 1024


class Offload(Protocol):
    """
    Runs a pure function in a pool thread, as ``Bridge.offload``.

    Cancelling the Deferred drops the answer. A function that has begun runs to its end all the same, so that
    work which may take long has to come in steps.
    """

    def __call__(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> Deferred[T]: ...


def is_small(size_bytes: int) -> bool:
    """Whether work on ``size_bytes`` costs less than the trip to another thread and back."""
    return size_bytes <= SMALL_BYTES


async def here_or_offloaded(
    offload: Offload, size_bytes: int, function: Callable[..., T], /, *args: Any, **kwargs: Any
) -> T:
    """Call a pure ``function`` whose cost grows with ``size_bytes``: at once if small, else offloaded."""
    if size_bytes <= SMALL_BYTES:
        return function(*args, **kwargs)
    return await offload(function, *args, **kwargs)
