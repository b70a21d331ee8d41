"""
Which of very many replicas one gateway calls (pure).

Each gateway ranks the replicas by a hash of both names (rendezvous hashing) and takes the first of them. It
needs to know nothing of other gateways, all replicas are about as often taken, and a replica that comes or
goes changes one place in the subset of a gateway, at most.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache, partial
from hashlib import blake2b
from heapq import nsmallest


def subset(addresses: Iterable[str], size: int, gateway: str) -> frozenset[str]:
    """``size`` of the ``addresses``, 0 for all, or all if they are fewer; others for another ``gateway``."""
    every = frozenset(addresses)
    if not 0 < size < len(every):
        return every
    key = blake2b(gateway.encode(), digest_size=32).digest()
    return frozenset(nsmallest(size, every, key=partial(_rank, key)))


@lru_cache(maxsize=1 << 14)
def _rank(key: bytes, address: str) -> bytes:
    """Kept, because most of the addresses are the same at each change of one of them."""
    return blake2b(address.encode(), digest_size=16, key=key).digest()
