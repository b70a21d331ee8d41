"""
Where the replicas of Deployments that run elsewhere are: what watches it, and tells a pool.

A pool knows no engine. It is given a ``Watch``, which makes the watchers of each Deployment; every watcher
adds addresses to a ``ReplicaSet``, and retires those that have gone. Fixed addresses never change, host names
are looked up again and again (``dns.py``), and the pods of a Service of Kubernetes are told by its API server
(``kubernetes.py``). What this gateway starts itself is not watched but placed
(``supervisor/placement.py``), and comes to the pool through ``replica_up`` and ``replica_down``.
Reactor thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from twisted.internet.defer import Deferred

from gatewayd.clocks import Clock
from gatewayd.config import DeploymentConfig
from gatewayd.pool.dns import Choose, HostName, NamedReplicas, Resolve
from gatewayd.schemes import ServiceName


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
    """
    Watches where some replicas of one Deployment are.

    ``how`` tells operators how they are found, where the Flow file leaves that open; else it is empty.
    """

    @property
    def how(self) -> str: ...

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
# What looks a name up for some replicas; the addresses are those that the name is known to have had.
ByName = Callable[[HostName, Watched, frozenset[str]], Watcher]
# What follows a Service of Kubernetes, or looks its name up.
Follow = Callable[[ServiceName, Watched, ByName], Watcher]


class FixedAddresses:
    """Those of a Flow file that need no lookup."""

    how = ""

    def __init__(self, addresses: Iterable[str], replicas: Watched) -> None:
        self._addresses = tuple(addresses)
        self._replicas = replicas

    def start(self) -> None:
        """Tell the addresses."""
        for address in self._addresses:
            self._replicas.add(address)

    def refresh_soon(self) -> None:
        """They stay as they are."""

    def close(self) -> None:
        """Nothing is under way."""


def addresses_and_names(
    resolve: Resolve,
    clock: Clock,
    refresh_s: float,
    choose: Choose = frozenset,
    follow: Follow | None = None,
) -> Watch:
    """
    What watches the addresses of Flow files; names are looked up with ``resolve`` each ``refresh_s``.

    ``choose`` says which of the addresses of a Deployment, or of a name, are called. ``follow`` is for
    Services of Kubernetes; without it their names are looked up.
    """

    def watch(deployment: DeploymentConfig, replicas: Watched) -> Sequence[Watcher]:
        fixed = choose([each for each in deployment.addresses if _is_fixed(each)])
        watchers: list[Watcher] = [
            one(address, replicas) for address in deployment.addresses if not _is_fixed(address)
        ]
        if fixed:
            in_order = [address for address in deployment.addresses if address in fixed]
            watchers.append(FixedAddresses(in_order, replicas))
        return watchers

    def one(address: str, replicas: Watched) -> Watcher:
        service, name = ServiceName.of(address), HostName.of(address)
        if service is not None:
            return (
                _looked_up(service, replicas, by_name)
                if follow is None
                else follow(service, replicas, by_name)
            )
        assert name is not None
        return by_name(name, replicas, frozenset())

    def by_name(name: HostName, replicas: Watched, known: frozenset[str]) -> Watcher:
        return NamedReplicas(name, replicas, resolve, clock, refresh_s, choose, known)

    return watch


def _is_fixed(address: str) -> bool:
    return ServiceName.of(address) is None and HostName.of(address) is None


def _looked_up(service: ServiceName, replicas: Watched, by_name: ByName) -> Watcher:
    return by_name(HostName(service.host, str(service.port)), replicas, frozenset())
