"""How much memory the requests of all clients may hold together."""

from __future__ import annotations


class Buffers:
    """
    A count of held bytes, bounded.

    Code that keeps a client's bytes takes them first, and gives them back when it drops them. All ports of a
    gateway share one, which is the reactor thread's; a gRPC server of our own has another one on the loop.
    """

    __slots__ = ("held_bytes", "limit_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0

    @property
    def is_half_full(self) -> bool:
        """Whether it is time to refuse those who hold the most."""
        return 2 * self.held_bytes > self.limit_bytes

    def has_room(self, count: int) -> bool:
        """Whether ``take(count)`` would succeed now."""
        return self.held_bytes + count <= self.limit_bytes

    def take(self, count: int) -> bool:
        """Hold ``count`` bytes more; False, and nothing changes, if there is no room."""
        if self.held_bytes + count > self.limit_bytes:
            return False
        self.held_bytes += count
        return True

    def give_back(self, count: int) -> None:
        """Hold ``count`` bytes less."""
        self.held_bytes -= count

    def full(self) -> str:
        """The text of the refusal when there is no room."""
        return (
            f"the gateway holds as many bytes of requests as it may ({self.limit_bytes}, "
            "gateway.max_buffered_bytes); try again later"
        )
