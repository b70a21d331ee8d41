"""What a LocalFlow has to create: a Flow's replicas, with the objects that its Python description holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from gatewayd.config.heads import AFTER, BEFORE, head_executors
from gatewayd.config.model import DeploymentConfig, ExecutorConfig, ExternalHead, FlowConfig
from gatewayd.executor.by_value import ByValue
from gatewayd.executor.executor import Executor
from gatewayd.executor.spec import ExecutorSpec
from gatewayd.flow.description import FlowError
from gatewayd.flow.served import Served, description_of

StandIns = Mapping[str, type[Executor]]


@attrs.frozen
class PlannedReplica:
    """One executor that is to be created, and what of it is an object of this process."""

    deployment: str
    spec: ExecutorSpec
    objects: ByValue


@attrs.frozen
class Plan:
    """A Flow without external executors, its replicas, and the environment that they want."""

    config: FlowConfig
    replicas: tuple[PlannedReplica, ...]
    env: Mapping[str, str]


def planned(flow: Served[Any], stand_ins: StandIns) -> Plan:
    """Raises FlowError."""
    config = flow.config
    _, objects = description_of(flow).separated()
    names = [
        each.name
        for deployment in config.deployments
        for each in (deployment, *head_executors(deployment))
        if each is deployment or each.external
    ]
    if unknown := [name for name in stand_ins if name not in names]:
        raise FlowError(
            f"stand_ins: {unknown[0]!r} is not one of {', '.join(names) or 'the Flow (it has none)'}"
        )
    deployments: list[DeploymentConfig] = []
    replicas: list[PlannedReplica] = []
    env: dict[str, str] = dict(config.gateway.env)
    for index, deployment in enumerate(config.deployments):
        own = objects.get(str(index), ByValue())
        if stand_in := stand_ins.get(deployment.name):
            deployment, own = _stood_in_for(deployment), ByValue(stand_in)
        elif deployment.external:
            raise _unconnected(deployment.name, deployment.addresses)
        heads = {
            f"{deployment.name}/{BEFORE}": objects.get(f"{index}.uses_before", ByValue()),
            f"{deployment.name}/{AFTER}": objects.get(f"{index}.uses_after", ByValue()),
        }
        for head in head_executors(deployment):
            if head.external:
                if head.name not in stand_ins:
                    raise _unconnected(head.name, head.addresses)
                heads[head.name] = ByValue(stand_ins[head.name])
        deployment = attrs.evolve(
            deployment, uses_before=_local(deployment.uses_before), uses_after=_local(deployment.uses_after)
        )
        deployments.append(deployment)
        for each in (deployment, *head_executors(deployment)):
            _merge(env, each)
            replicas += [
                PlannedReplica(
                    each.name,
                    ExecutorSpec.of(each, shard, replica, config.base_dir),
                    heads.get(each.name, own),
                )
                for shard in range(each.shards)
                for replica in range(each.replicas)
            ]
    return Plan(attrs.evolve(config, deployments=tuple(deployments)), tuple(replicas), env)


def _unconnected(name: str, addresses: tuple[str, ...]) -> FlowError:
    return FlowError(
        f"executors.{name}: it is external, at {', '.join(addresses)}, and a LocalFlow connects to nothing; "
        f"give a class that takes its place: stand_ins={{{name!r}: AnExecutor}}"
    )


def _local(head: ExecutorConfig | ExternalHead | None) -> ExecutorConfig | None:
    return ExecutorConfig() if isinstance(head, ExternalHead) else head


def _stood_in_for(deployment: DeploymentConfig) -> DeploymentConfig:
    if deployment.external:  # whose replicas and shards are those of another machine
        deployment = attrs.evolve(deployment, external=False, addresses=(), tls=False, replicas=1, shards=1)
    return attrs.evolve(deployment, executor=ExecutorConfig())


def _merge(env: dict[str, str], deployment: DeploymentConfig) -> None:
    """One process has one environment."""
    for name, value in deployment.executor.env.items():
        if env.setdefault(name, value) != value:
            raise FlowError(
                f"executors.{deployment.name}.env: {name} has another value elsewhere in the Flow, but a "
                "LocalFlow has one environment for all: give it the same value"
            )
