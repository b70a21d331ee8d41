"""Which replica a process is of, and which one of those that it has had."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from gatewayd.config.heads import head_executors
from gatewayd.config.model import DeploymentConfig


@attrs.frozen
class ReplicaId:
    """
    A replica as it is kept running with one set of settings; ``shard`` and ``replica`` count from 0.

    A reload that changes its settings or its code makes another one, with a higher ``incarnation``, beside
    it. A process that is started again after it ended is of the same. ``deployment`` may also be an executor
    before or after shards (``config.heads``).
    """

    deployment: str
    shard: int
    replica: int
    incarnation: int = 0


def started_of(deployments: Iterable[DeploymentConfig]) -> tuple[DeploymentConfig, ...]:
    """The Deployments whose processes are started here, with the executors around their shards."""
    return tuple(
        each
        for deployment in deployments
        for each in (deployment, *head_executors(deployment))
        if not each.external
    )


def replicas_of(deployment: DeploymentConfig, incarnation: int = 0) -> tuple[ReplicaId, ...]:
    """Every replica of a Deployment that is not external."""
    return tuple(
        ReplicaId(deployment.name, shard, replica, incarnation)
        for shard in range(deployment.shards)
        for replica in range(deployment.replicas)
    )


def all_replicas_of(deployments: Iterable[DeploymentConfig]) -> frozenset[ReplicaId]:
    """Every replica that is started here, as it is before the first reload."""
    return frozenset(replica for each in started_of(deployments) for replica in replicas_of(each))


def is_private(deployment: DeploymentConfig) -> bool:
    """Whether some of its replicas listen at sockets of this gateway's own."""
    return deployment.host is None and not all(deployment.ports or (0,))
