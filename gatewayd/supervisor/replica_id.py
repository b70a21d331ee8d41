"""Which replica a process is of, and which one of those that it has had."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

import attrs

from gatewayd.config.heads import head_executors
from gatewayd.config.model import LOCAL, DeploymentConfig


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


def replicas_of(
    deployment: DeploymentConfig,
    incarnation: int = 0,
    running: Iterable[ReplicaId] = (),
    *,
    stays: bool = False,
) -> tuple[ReplicaId, ...]:
    """
    Every replica of a Deployment that is not external.

    One that is scaled goes on with as many as are ``running`` of it, within its limits, and with none only
    if it ``stays`` as it is: another one has to show that it can start.
    """
    scaling = deployment.scaling
    there: dict[int, list[int]] = {shard: [] for shard in range(deployment.shards)}
    if scaling is not None:
        for each in running:
            if each.deployment == deployment.name and each.shard in there:
                there[each.shard].append(each.replica)
    found = []
    for shard, numbers in there.items():
        count = deployment.replicas
        if scaling is not None and (numbers or stays):
            count = min(scaling.most, max(scaling.least if stays else scaling.first, len(numbers)))
        found += [
            ReplicaId(deployment.name, shard, number, incarnation)
            for number in numbers_of(count, sorted(numbers), deployment.most_replicas)
        ]
    return tuple(found)


def numbers_of(count: int, taken: Sequence[int], most: int) -> list[int]:
    """The numbers of ``count`` replicas: those ``taken`` by the first of them, and the lowest others."""
    kept = [number for number in taken if number < most][:count]
    free = (number for number in range(most) if number not in kept)
    return sorted([*kept, *islice(free, count - len(kept))])


def all_replicas_of(deployments: Iterable[DeploymentConfig]) -> frozenset[ReplicaId]:
    """Every replica that is started here, as it is before the first reload."""
    return frozenset(replica for each in started_of(deployments) for replica in replicas_of(each))


def is_private(deployment: DeploymentConfig) -> bool:
    """Whether some of its replicas listen at sockets of this gateway's own."""
    return deployment.placement == LOCAL and deployment.host is None and not all(deployment.ports or (0,))
