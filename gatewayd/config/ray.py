"""How Ray runs an executor's replicas, and which cluster does, as a Flow file says it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import attrs

from gatewayd.config.kinds import (
    BOOLEAN,
    TEXT,
    Refused,
    ValueKind,
    choice,
    integer,
    map_from,
    map_of,
    number_of,
    read_map,
)

Strategy = Literal["SPREAD", "DEFAULT"]


@attrs.frozen
class RayOptions:
    """
    What Ray is asked for each replica of one executor.

    ``memory`` is in bytes. ``node_affinity`` is a node's id, as Ray shows it: the replica runs there or
    nowhere. ``runtime_env`` goes to Ray as it is. A ``detached`` replica outlives the gateway, and is found
    again by the next one.
    """

    num_cpus: float = 1.0
    num_gpus: float = 0.0
    memory: int | None = None
    resources: Mapping[str, float] = attrs.field(factory=dict)
    node_affinity: str | None = None
    scheduling_strategy: Strategy = "SPREAD"
    runtime_env: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    detached: bool = False


@attrs.frozen
class RayCluster:
    """
    The cluster that runs the replicas of a Flow.

    ``address`` is ``host:port`` of its head, ``ray://host:port``, ``auto`` for the one of this machine, or
    ``local`` for one that is started, and ends, with the gateway; ``num_cpus`` and ``object_store_memory``,
    in bytes, are of that one. ``runtime_env`` is that of all replicas, whose own override it key by key.
    """

    address: str = "auto"
    namespace: str | None = None
    num_cpus: int | None = None
    object_store_memory: int | None = None
    runtime_env: Mapping[str, Any] = attrs.field(factory=dict, repr=False)


def _amount(value: Any) -> float:
    number = number_of(value)
    if number < 0:
        raise Refused
    return number


_AMOUNT: Final = ValueKind("a number, 0 or more", _amount)
_LOCAL_FILES: Final = ("working_dir", "py_modules")


def _environment(value: Any) -> dict[str, Any]:
    """A runtime environment. Raises Refused."""
    found = map_from(value)
    variables = found.get("env_vars")
    if variables is not None and not (
        isinstance(variables, Mapping)
        and all(isinstance(each, str) for pair in variables.items() for each in pair)
    ):
        # Its values may be secrets: they are not shown.
        raise Refused(inside=("env_vars",), message="accepted: a map of texts to texts (quote numbers)")
    return found


def _own_environment(value: Any) -> dict[str, Any]:
    """That of one executor: Ray uploads folders of the gateway's machine for all of them, or not at all."""
    found = _environment(value)
    for key in _LOCAL_FILES:
        each = found.get(key)
        places = each if isinstance(each, list | tuple) else [each]
        if any(isinstance(place, str) and "://" not in place for place in places):
            raise Refused(
                inside=(key,),
                message="Ray uploads folders of this machine for all replicas together: give them in the "
                "Flow's ray: {runtime_env: ...}, or give addresses such as s3://bucket/code.zip here",
            )
    return found


_OPTIONS: Final = {
    "num_cpus": _AMOUNT,
    "num_gpus": _AMOUNT,
    "memory": integer(1),
    "resources": map_of(_AMOUNT, "resources and amounts"),
    "node_affinity": TEXT,
    "scheduling_strategy": choice("SPREAD", "DEFAULT"),
    "runtime_env": ValueKind("a map, as Ray's runtime_env", _own_environment),
    "detached": BOOLEAN,
}
_CLUSTER: Final = {
    "address": TEXT,
    "namespace": TEXT,
    "num_cpus": integer(1),
    "object_store_memory": integer(80_000_000),
    "runtime_env": ValueKind("a map, as Ray's runtime_env", _environment),
}


def _options(value: Any) -> RayOptions:
    return RayOptions(**read_map(value, _OPTIONS))


def _cluster(value: Any) -> RayCluster:
    found = RayCluster(**read_map({"address": value} if isinstance(value, str) else value, _CLUSTER))
    for name in ("num_cpus", "object_store_memory"):
        if getattr(found, name) is not None and found.address != "local":
            raise Refused(
                inside=(name,),
                message="only a cluster that is started here can have this: give address: local, "
                "or leave it out",
            )
    return found


RAY_OPTIONS: Final = ValueKind(
    "a map such as {num_cpus: 1, resources: {disk: 1}, detached: true}",
    _options,
    annotation="Mapping[str, Any]",
)
RAY_CLUSTER: Final = ValueKind(
    "auto, local, an address, or a map such as {address: 'ray://head:10001', namespace: search}",
    _cluster,
    annotation="str | Mapping[str, Any]",
)
