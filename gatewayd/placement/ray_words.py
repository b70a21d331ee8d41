"""What operators are told of Ray's failures (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

# Of what is shown: nodes of a cluster, and lines of a log.
_MOST_NODES: Final = 10
_MOST_LINES: Final = 15
# Ray's words for what its options are called in Flow files.
_KEYS = {"CPU": "num_cpus", "GPU": "num_gpus"}


def not_installed(error: ImportError) -> str:
    """Ray cannot be imported."""
    return f"placement: ray needs Ray, which cannot be imported here ({error}): pip install 'gatewayd[ray]'"


def unreachable(address: str, error: object) -> str:
    """The cluster cannot be connected to."""
    last = _last_line(error)
    what = f"no Ray cluster answers at {address}"
    if address == "auto":
        what = "no Ray cluster runs on this machine"
    return (
        f"{what}: {last or 'it did not answer in time'}. Start one with `ray start --head`, give another "
        "ray: {address: ...} in the Flow's with, or address: local for one that is started with the gateway"
    )


def refused(error: object) -> str:
    """Ray does not accept what it is to connect with."""
    return f"Ray refuses the cluster of this Flow (ray: in its with): {_last_line(error)}"


def not_started(error: object) -> str:
    """The cluster that is to start with the gateway does not."""
    return (
        f"Ray could not start a cluster on this machine (ray: {{address: local}}): {_last_line(error)}. "
        "It takes some 200 MB of memory, and object_store_memory of /dev/shm"
    )


def demand_of(options: Mapping[str, float]) -> dict[str, float]:
    """What is asked for, by Ray's names, without what is 0."""
    return {name: amount for name, amount in options.items() if amount}


def lacking(
    demand: Mapping[str, float],
    nodes: Iterable[tuple[str, Mapping[str, float]]],
    free: Mapping[str, float] = {},
) -> str:
    """
    Why a replica is not placed: no node is large enough, or those that are have no room.

    ``nodes`` are the addresses of those that live, each with all that it has; ``free`` is what is not
    taken on all of them together. Where that is enough, it is the start that takes long.
    """
    there = list(nodes)
    if not there:
        return "the cluster has no node"
    asked = _amounts(demand)
    have = "; ".join(
        f"{address}: {_amounts({name: has.get(name, 0) for name in demand})}"
        for address, has in there[:_MOST_NODES]
    )
    if len(there) > _MOST_NODES:
        have += f"; and {len(there) - _MOST_NODES} more"
    if any(all(has.get(name, 0) >= amount for name, amount in demand.items()) for _, has in there):
        if all(free.get(name, 0) >= amount for name, amount in demand.items()):
            return (
                f"there is room for {asked}, and Ray is still starting its process: building a runtime "
                "environment takes its time, and so does a busy node"
            )
        left = _amounts({name: free.get(name, 0) for name in demand})
        return (
            f"it waits for a node with {asked} free: all that have as much are busy (nodes: {have}; free on "
            f"all together: {left}). End other work, add a node, or ask for less (ray: in the executor)"
        )
    return (
        f"no node of the cluster has {asked} ({have}). Add one that has, or ask for less "
        "(ray: in the executor)"
    )


def no_environment(error: object) -> str:
    """The runtime environment could not be built; the last lines of what was tried are in it."""
    lines = [line.rstrip() for line in str(error).splitlines() if line.strip()]
    last = "\n".join(lines[-_MOST_LINES:]) or repr(error)
    return (
        f"Ray could not build its runtime environment (runtime_env), and starts no process without:\n{last}"
    )


def died(error: object) -> str:
    """The actor has ended without having been asked to."""
    text = " ".join(str(error).split())
    reason = text.partition("The actor is dead because ")[2] or text
    return f"its actor has died: {reason[:300]}"


def owned(namespace: str) -> str:
    """Another gateway has the detached replicas."""
    return (
        f"another gateway keeps the detached replicas of the namespace {namespace}: stop it, or give this "
        "Flow a namespace of its own, ray: {namespace: ...} in its with"
    )


def _last_line(error: object) -> str:
    return str(error).strip().rpartition("\n")[2]


def _amounts(amounts: Mapping[str, float]) -> str:
    return ", ".join(f"{_KEYS.get(name, name)} {amount:g}" for name, amount in amounts.items()) or "nothing"
