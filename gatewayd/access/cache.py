"""A bounded cache of what was decided, by digests of what it was decided about."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final, Generic, TypeVar

T = TypeVar("T")

_MOST: Final = 4096


class Decisions(Generic[T]):
    """Each is known until it ends; where there are too many, the oldest is forgotten. For any thread."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        # Of gRPC's thread and the reactor's; held for a look-up only.
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, tuple[T, float]] = OrderedDict()

    def get(self, digest: bytes, now_s: float) -> T | None:
        with self._lock:
            decision, until_s = self._known.get(digest, (None, now_s))
            if until_s <= now_s:
                self._known.pop(digest, None)
                return None
            return decision

    def put(self, digest: bytes, decision: T, until_s: float) -> None:
        with self._lock:
            self._known[digest] = decision, until_s
            self._known.move_to_end(digest)
            if len(self._known) > self._most:
                self._known.popitem(last=False)

    def __len__(self) -> int:
        return len(self._known)
