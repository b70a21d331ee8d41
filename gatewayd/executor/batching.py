"""
Dynamic batching: requests with equal parameters wait for one another and are handled together.

``Queues`` decides which batches are due, from the requests that arrived and the time. It neither waits nor
reads a clock; ``handling.py`` does both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

import attrs

from gatewayd.executor.binding import Batching

T = TypeVar("T")


@attrs.define
class Batch(Generic[T]):
    """Requests that will be handled together, at ``due_s`` at the latest."""

    key: str = attrs.field(repr=False)  # parameters and headers may be private
    due_s: float
    items: list[T] = attrs.field(factory=list)
    size: float = 0


class Queues(Generic[T]):
    """
    The waiting requests of one endpoint, in one batch for each set of parameters.

    A batch that is returned is removed; the next request starts a new one.
    """

    def __init__(self, batching: Batching) -> None:
        self._batching = batching
        self._open: dict[str, Batch[T]] = {}

    def add(self, key: str, item: T, size: float, now_s: float) -> Batch[T] | None:
        """
        Queue ``item``; ``size`` is what its documents count for. Returns the batch if it is full now.

        ``key`` stands for the parameters: only items with equal keys share a batch.
        """
        batch = self._open.get(key)
        if batch is None:
            batch = self._open[key] = Batch(key, now_s + self._batching.timeout_s)
        batch.items.append(item)
        batch.size += size
        if batch.size >= self._batching.preferred_batch_size:
            return self._open.pop(key)
        return None

    def discard(self, key: str, item: T, size: float) -> None:
        """Remove an item whose client has gone. Does nothing if its batch was already returned."""
        batch = self._open.get(key)
        if batch is not None and item in batch.items:
            batch.items.remove(item)
            batch.size -= size
            if not batch.items:
                del self._open[key]

    def due(self, now_s: float) -> list[Batch[T]]:
        """Remove and return the batches that are due, oldest first."""
        ready = sorted(
            (batch for batch in self._open.values() if batch.due_s <= now_s), key=lambda one: one.due_s
        )
        for batch in ready:
            del self._open[batch.key]
        return ready

    def flush(self) -> list[Batch[T]]:
        """Remove and return all batches."""
        batches = list(self._open.values())
        self._open.clear()
        return batches

    def next_due_s(self) -> float | None:
        """When the next batch is due; None if nothing waits."""
        return min((batch.due_s for batch in self._open.values()), default=None)


def parts_of(sizes: Sequence[float], most: float) -> list[tuple[int, int]]:
    """
    Where each part of documents of these ``sizes`` begins and ends: as many as count for ``most`` together.

    A document that counts for more is a part of its own.
    """
    parts: list[tuple[int, int]] = []
    begin, held = 0, 0.0
    for position, size in enumerate(sizes):
        if position > begin and held + size > most:
            parts.append((begin, position))
            begin, held = position, 0.0
        held += size
    if sizes:
        parts.append((begin, len(sizes)))
    return parts
