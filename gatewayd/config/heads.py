"""The executors that stand around the shards of a Deployment, as Deployments of one replica."""

from __future__ import annotations

from typing import Final

import attrs

from gatewayd.config.model import DeploymentConfig

BEFORE: Final = "uses_before-0"
AFTER: Final = "uses_after-0"


def head_executors(deployment: DeploymentConfig) -> tuple[DeploymentConfig, ...]:
    """
    What a Deployment needs besides its shards: none, one or both.

    They are named as the reference names them in results: ``a/uses_before-0``.
    """
    if deployment.external or deployment.shards < 2:
        # Where there are no shards the reference has no head, and starts neither.
        return ()
    return tuple(
        attrs.evolve(
            deployment,
            name=f"{deployment.name}/{part}",
            executor=executor,
            shards=1,
            replicas=1,
            ports=(),
            uses_before=None,
            uses_after=None,
        )
        for part, executor in ((BEFORE, deployment.uses_before), (AFTER, deployment.uses_after))
        if executor is not None
    )
