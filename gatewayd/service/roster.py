"""
Which replicas are to run now: one value, which reloads, replacements and scaling change in turn.

A replica that is given up is on the roster no more, though its process may work on until its last answer.
Reactor thread only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from gatewayd.config.model import DeploymentConfig, FlowConfig
from gatewayd.supervisor.replica_id import ReplicaId, all_replicas_of
from gatewayd.supervisor.supervisor import Supervisor

log = Logger()


class Callers(Protocol):
    """Who calls replicas, and lets them go: ``Serving``, or ``Workers``."""

    def give_up(self, replica: ReplicaId) -> Deferred[None]:
        """Call ``replica`` no more. Fires when what it has is answered."""
        ...


class Roster:
    """
    The replicas of a ``flow`` as it starts, whose processes are ``supervisor``'s, and of what it becomes.

    ``busy`` says that a reload or a replacement is under way, which knows what it began with.
    """

    def __init__(self, flow: FlowConfig, supervisor: Supervisor) -> None:
        self.replicas = all_replicas_of(flow.deployments)
        self.busy = False
        self._supervisor = supervisor
        self._incarnation = 0
        self._ending: set[ReplicaId] = set()
        self._stopping = False

    def next_incarnation(self) -> int:
        """A number that no replica has had."""
        self._incarnation += 1
        return self._incarnation

    def of(self, deployment: str, shard: int) -> frozenset[ReplicaId]:
        """Those of one Deployment's shard."""
        return _those(self.replicas, deployment, shard)

    def ending(self, deployment: str, shard: int) -> frozenset[ReplicaId]:
        """Those that were given up, and whose processes have not ended yet."""
        return _those(self._ending, deployment, shard)

    def add(self, deployment: DeploymentConfig, replicas: Collection[ReplicaId], base_dir: str) -> None:
        """Start ``replicas``; whoever calls them has admitted them."""
        self._supervisor.add(deployment, replicas, base_dir)
        self._supervisor.start(replicas)
        self.replicas = self.replicas.union(replicas)

    def give_up(self, callers: Callers, replicas: Collection[ReplicaId], grace_s: float) -> None:
        """Have ``replicas`` called no more, and end each after its last answer."""
        self.replicas = self.replicas.difference(replicas)
        for each in replicas:
            self.end_after(callers.give_up(each), [each], grace_s)

    def end_after(self, left: Deferred[None], replicas: Collection[ReplicaId], grace_s: float) -> None:
        """End ``replicas`` when they have nothing ``left`` to do."""
        self._ending.update(replicas)
        left.addCallback(lambda _: self.end(replicas, grace_s))

    def end(self, replicas: Collection[ReplicaId], grace_s: float) -> None:
        """End ``replicas`` now; when the gateway stops, all end, and together."""
        if self._stopping:
            return
        self._ending.update(replicas)
        ended = self._supervisor.end(replicas, grace_s)
        ended.addCallback(lambda _: self._ending.difference_update(replicas))
        ended.addErrback(lambda failure: log.failure("executors could not be ended", failure=failure))

    def stop(self) -> None:
        """The gateway is being stopped."""
        self._stopping = True


def _those(replicas: Iterable[ReplicaId], deployment: str, shard: int) -> frozenset[ReplicaId]:
    return frozenset(each for each in replicas if each.deployment == deployment and each.shard == shard)
