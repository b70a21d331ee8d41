"""How many connections of clients are open, and how many may be; grpcio's server counts none here."""

from __future__ import annotations

import resource
from collections import Counter
from collections.abc import Callable
from typing import Final

from twisted.logger import Logger

from gatewayd.access.proxies import Proxies
from gatewayd.clocks import Clock
from gatewayd.config.model import GatewayConfig
from gatewayd.crowd import Place
from gatewayd.networks import network_of

log = Logger()

# Descriptors for connections to executors, for starting them, for clients of gRPC, for files and look-ups.
_LEAST_RESERVE: Final = 128
_MOST_RESERVE: Final = 1024

_WARN_EVERY_S: Final = 60.0


# Which part of all connections is for ports that have fewer than that open, where there are several ports.
_KEPT_PART: Final = 8


def connections_for(descriptors: int) -> int:
    """How many connections a process may accept that may have so many descriptors open."""
    reserve = min(max(_LEAST_RESERVE, descriptors // 8), _MOST_RESERVE, descriptors // 2)
    return descriptors - reserve


class Admission:
    """
    Counts connections, in total and by address, and says whether one more may be accepted.

    All ports of a gateway share one. An IPv6 address counts as its network of 64 bits, and one that stands
    for an IPv4 address as that. Reactor thread only.
    """

    def __init__(
        self,
        most: int,
        most_per_address: int,
        clock: Clock,
        is_proxy: Callable[[str], bool] | None = None,
        place: Place | None = None,
    ) -> None:
        """
        ``most_per_address`` 0 is for no limit. Connections of a proxy count in total alone. One of several
        workers has a ``place`` among them.
        """
        self.open = 0
        self.most = most
        self._most_per_address = most_per_address
        self._clock = clock
        self._is_proxy = is_proxy or (lambda host: False)
        self._place = place
        self._by_address: Counter[str] = Counter()
        self._entrances = 0
        self._warn_from_s = float("-inf")

    @classmethod
    def of(cls, gateway: GatewayConfig, clock: Clock, place: Place | None = None) -> Admission:
        """That of a gateway's settings, and of the descriptors that the process may have."""
        most = gateway.max_connections
        if not most:
            descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            most = connections_for(1 << 20 if descriptors == resource.RLIM_INFINITY else descriptors)
        return cls(most, gateway.max_connections_per_address, clock, Proxies.of(gateway).trusts, place)

    @property
    def should_yield(self) -> bool:
        """Whether a connection is better left to another worker, for a moment. On any thread."""
        return self._place is not None and self._place.is_ahead

    def entrance(self) -> Entrance:
        """
        That of one more port, until it is closed. What is flooded at one leaves some connections to the
        others.
        """
        self._entrances += 1
        return Entrance(self)

    def entrance_closed(self) -> None:
        """A port accepts no more."""
        self._entrances -= 1

    def admit(self, host: str, open_there: int = 0) -> bool:
        """
        Count a connection from ``host``; False, and nothing changes, if there are too many.

        ``open_there`` are those of the same port.
        """
        kept = self.most // _KEPT_PART if self._entrances > 1 else 0
        if self.open >= (self.most - kept if open_there >= kept else self.most):
            self._warn(f"{self.open} are open (gateway.max_connections)")
            return False
        if self._most_per_address and not self._is_proxy(host):
            network = network_of(host)
            if self._by_address[network] >= self._most_per_address:
                each = self._most_per_address
                self._warn(f"{each} of {network} are open (gateway.max_connections_per_address)")
                return False
            self._by_address[network] += 1
        self.open += 1
        if self._place is not None:
            self._place.set(self.open)
        return True

    def give_back(self, host: str) -> None:
        """A connection from ``host`` that was counted has ended."""
        self.open -= 1
        if self._place is not None:
            self._place.set(self.open)
        if self._most_per_address and not self._is_proxy(host):
            network = network_of(host)
            self._by_address[network] -= 1
            if not self._by_address[network]:
                del self._by_address[network]

    def _warn(self, why: str) -> None:
        # A client can cause this line at will.
        now_s = self._clock.seconds()
        if now_s >= self._warn_from_s:
            self._warn_from_s = now_s + _WARN_EVERY_S
            log.warn("connections are refused: {why}", why=why)


class Entrance:
    """One port's way to the admission of all."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._open = 0
        self._is_closed = False

    @property
    def should_yield(self) -> bool:
        """As the admission's."""
        return self._admission.should_yield

    def admit(self, host: str) -> bool:
        """Count a connection of this port; False, and nothing changes, if there are too many."""
        if not self._admission.admit(host, self._open):
            return False
        self._open += 1
        return True

    def give_back(self, host: str) -> None:
        """A connection of this port that was counted has ended; also after ``close``."""
        self._open -= 1
        self._admission.give_back(host)

    def close(self) -> None:
        """The port accepts no more; closing it again changes nothing."""
        if not self._is_closed:
            self._is_closed = True
            self._admission.entrance_closed()
