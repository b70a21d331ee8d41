"""What executor processes need of this installation, looked at before any of them is started."""

from __future__ import annotations

from gatewayd.config.heads import head_executors
from gatewayd.config.model import FlowConfig
from gatewayd.errors import ConfigError
from gatewayd.extras import docarray_problem


def check_installed(flow: FlowConfig) -> None:
    """Raises ConfigError if executors of the Flow are to be started and cannot be."""
    for deployment in flow.deployments:
        for each in (deployment, *head_executors(deployment)):
            if each.external:
                continue
            if problem := docarray_problem("an executor that is started here needs", "executor"):
                raise ConfigError(
                    f"executors.{each.name}: {problem}; one that runs elsewhere is external: true"
                )
