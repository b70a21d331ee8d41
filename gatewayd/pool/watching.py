"""
Where the replicas of Deployments that run elsewhere are: what watches it, and tells a pool.

A pool knows no engine. It is given a ``Watch``, which makes the watchers of each Deployment; every watcher
adds addresses to a ``ReplicaSet``, and retires those that have gone. Fixed addresses never change, host names
are looked up again and again (``dns.py``). What this gateway starts itself is not watched but placed
(``supervisor/placement.py``), and comes to the pool through ``replica_up`` and ``replica_down``.
Reactor thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from twisted.internet.defer import Deferred

from gatewayd.clocks import Clock
from gatewayd.config import DeploymentConfig
from gatewayd.pool.dns import Choose, HostName, NamedReplicas, Resolve


class Watched(Protocol):
    """
    The replicas of one Deployment, as a watcher sees them (``ReplicaSet``).

    ``why_empty`` is what clients are told while there is none.
    """

    deployment: str
    why_empty: str

    @property
    def connected(self) -> bool:
        """Whether at least one replica is connected."""
        ...

    def add(self, address: str, host: str | None = None) -> None:
        """A replica listens at ``address``, ``host:port``; ``host`` is the name that it was resolved from."""
        ...

    def retire(self, address: str) -> Deferred[None]:
        """Send nothing more there; what is under way may finish. Fires when it has."""
        ...

    def not_found(self, why: str) -> None:
        """The engine could not be asked; what is known stays. ``why`` is for clients while there is none."""
        ...


class Watcher(Protocol):
    """Watches where some replicas of one Deployment are."""

    def start(self) -> None:
        """Tell what is known, and whatever changes from now on."""
        ...

    def refresh_soon(self) -> None:
        """No replica can be reached: they may be elsewhere by now."""
        ...

    def close(self) -> None:
        """Tell nothing more."""
        ...


Watch = Callable[[DeploymentConfig, Watched], Sequence[Watcher]]


class FixedAddress:
    """An address of a Flow file that needs no lookup."""

    def __init__(self, address: str, replicas: Watched) -> None:
        self._address = address
        self._replicas = replicas

    def start(self) -> None:
        """Tell the address."""
        self._replicas.add(self._address)

    def refresh_soon(self) -> None:
        """It stays as it is."""

    def close(self) -> None:
        """Nothing is under way."""


def addresses_and_names(
    resolve: Resolve, clock: Clock, refresh_s: float, choose: Choose = frozenset
) -> Watch:
    """
    What watches the addresses of Flow files; names are looked up with ``resolve`` each ``refresh_s``.

    ``choose`` says which of the addresses of a Deployment, or of a name, are called.
    """

    def watch(deployment: DeploymentConfig, replicas: Watched) -> Sequence[Watcher]:
        fixed = choose([each for each in deployment.addresses if HostName.of(each) is None])
        return [
            one(address, replicas)
            for address in deployment.addresses
            if address in fixed or HostName.of(address) is not None
        ]

    def one(address: str, replicas: Watched) -> Watcher:
        name = HostName.of(address)
        if name is None:
            return FixedAddress(address, replicas)
        return NamedReplicas(name, replicas, resolve, clock, refresh_s, choose)

    return watch
