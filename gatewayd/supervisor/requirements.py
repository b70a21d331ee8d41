"""What a Flow's processes need of this installation, looked at before any of them is started."""

from __future__ import annotations

from gatewayd.config.heads import head_executors
from gatewayd.config.model import FlowConfig
from gatewayd.errors import ConfigError
from gatewayd.extras import executor_problem, metrics_problem, ray_problem, redis_problem, tracing_problem


def check_installed(flow: FlowConfig) -> None:
    """Raises ConfigError if executors of the Flow cannot be started, or what else it names cannot be used."""
    traces = flow.gateway.traces
    if traces is not None and (problem := tracing_problem(traces.protocol)):
        raise ConfigError(f"gateway.tracing: {problem}")
    metrics = flow.gateway.metric_collector
    if metrics is not None and (problem := metrics_problem(metrics.protocol)):
        raise ConfigError(f"gateway.metrics: {problem}")
    if flow.gateway.rates_store is not None and (problem := redis_problem()):
        raise ConfigError(f"gateway.rates_store: {problem}")
    for deployment in flow.deployments:
        for each in (deployment, *head_executors(deployment)):
            if each.external:
                continue
            if each.placement == "ray" and (problem := ray_problem()):
                raise ConfigError(f"executors.{each.name}.placement: {problem}")
            if problem := executor_problem("an executor that is started here needs"):
                raise ConfigError(
                    f"executors.{each.name}: {problem}; one that runs elsewhere is external: true"
                )
            traces = each.executor.traces
            if traces is not None and (problem := tracing_problem(traces.protocol)):
                raise ConfigError(f"executors.{each.name}.tracing: {problem}")
