"""The executors that stand around the shards of a Deployment, as Deployments of one replica."""

from __future__ import annotations

from typing import Final

import attrs

from gatewayd.config.model import DeploymentConfig

BEFORE: Final = "uses_before-0"
AFTER: Final = "uses_after-0"


def head_executors(deployment: DeploymentConfig) -> tuple[DeploymentConfig, ...]:
    """
    The executors that a Deployment runs besides its shards: none, one or both.

    Their names are those of the reference's results: ``a/uses_before-0``.
    """
    if deployment.external or deployment.shards < 2:
        # Without shards the reference has no head, and starts neither of the two.
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
