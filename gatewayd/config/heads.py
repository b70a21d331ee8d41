"""The executors that stand around the shards of a Deployment, as Deployments of their own."""

from __future__ import annotations

from typing import Final

import attrs

from gatewayd.config.model import LOCAL, DeploymentConfig, ExecutorConfig, ExternalHead

BEFORE: Final = "uses_before-0"
AFTER: Final = "uses_after-0"


def head_executors(deployment: DeploymentConfig) -> tuple[DeploymentConfig, ...]:
    """
    The executors that a Deployment has besides its shards: none, one or both; some may run elsewhere.

    Their names are those of the reference's results: ``a/uses_before-0``.
    """
    if deployment.external or deployment.shards < 2:
        # Without shards the reference has no head, and starts neither of the two.
        return ()
    return tuple(
        _head(deployment, part, executor)
        for part, executor in ((BEFORE, deployment.uses_before), (AFTER, deployment.uses_after))
        if executor is not None
    )


def _head(
    deployment: DeploymentConfig, part: str, executor: ExecutorConfig | ExternalHead
) -> DeploymentConfig:
    head = attrs.evolve(
        deployment,
        name=f"{deployment.name}/{part}",
        shards=1,
        replicas=1,
        scaling=None,
        ports=(),
        monitoring_ports=(),
        uses_before=None,
        uses_after=None,
    )
    if isinstance(executor, ExecutorConfig):
        return attrs.evolve(head, executor=executor)
    return attrs.evolve(
        head,
        external=True,
        executor=ExecutorConfig(),
        addresses=executor.addresses,
        replicas=len(executor.addresses),
        tls=executor.tls,
        placement=LOCAL,
        secret=None,
        # What may be a secret between the gateway and the shards is not for another server.
        grpc_metadata={},
    )
